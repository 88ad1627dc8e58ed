"""What is read block by block: files by their names, and arrays of other libraries that give slices."""

import os
from pathlib import Path

import numpy as np

from normfast.stream.errors import FileError

SUFFIXES = (".npy", ".npz", ".zarr", ".parquet", ".pq")


class Source:
    """An array that is read in blocks.

    Attributes
    ----------
    name : str
        For messages.
    shape, dtype
        Of the array; blocks come in native byte order.
    order : tuple of int
        Its axes, the one along which values lie next to each other last.
    unit : tuple of int
        The shape of what is stored, and so read, as one.
    sequential : bool
        Whether blocks are to be asked for in their order, since going back costs a new beginning.
    lent : bool
        Whether blocks may be views of memory that belongs to somebody else.
    columns : list of str or None
        Names of the columns of a table.
    """

    sequential = False
    lent = False
    columns: list[str] | None = None

    def __init__(self, name, shape, dtype, fortran=False, unit=None):
        self.name, self.shape, self.dtype = name, tuple(map(int, shape)), checked_dtype(dtype, name)
        axes = tuple(range(len(self.shape)))
        self.order = axes[::-1] if fortran else axes
        self.unit = unit or (1,) * len(axes)

    @property
    def nbytes(self):
        """Bytes of all values."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def read(self, block, space):
        """The values of a block, which may lie in the memory of `space`, in native byte order."""
        raise ValueError(f"{self.name} cannot be read")  # each kind of source has its own

    def fingerprint(self):
        """What tells whether the source is still what it was: numbers and texts."""
        return {}

    def paths(self):
        """The files that must not be written to."""
        return []

    def close(self):
        """Give files back."""


class Space:
    """Memory for a block, which the next blocks use again."""

    def __init__(self):
        self._bytes = np.empty(0, np.uint8)

    def of(self, shape, dtype, fortran):
        """An array over it, which begins with a cache line."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if self._bytes.size < size + 64:
            self._bytes = np.empty(size + 64, np.uint8)
        start = -self._bytes.ctypes.data % 64
        return self._bytes[start : start + size].view(dtype).reshape(shape, order="F" if fortran else "C")


class Slices(Source):
    """An array of another library that has a shape, a dtype and slices: memory maps, Zarr, HDF5."""

    lent = True

    def __init__(self, array, name=None, files=None):
        chunks = getattr(array, "shards", None) or getattr(array, "chunks", None)
        chunks = chunks if isinstance(chunks, tuple) and all(isinstance(n, int) for n in chunks) else None  # Dask's are lists of lengths
        fortran = isinstance(array, np.ndarray) and array.flags.f_contiguous and not array.flags.c_contiguous
        super().__init__(name or f"a {type(array).__name__}", array.shape, array.dtype, fortran, chunks)
        self.array, self._files = array, files

    def read(self, block, space):
        try:
            values = np.asarray(self.array[block])
        except (RuntimeError, ValueError, OSError) as error:
            raise FileError(f"{self.name} cannot be read: {line_of(error)}") from None
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def fingerprint(self):
        return {"shape": list(self.shape), "dtype": self.dtype.str} | (_files(self._files) if self._files else {})

    def paths(self):
        return [self._files] if self._files else []


def _files(folder):
    """How many files there are in a folder, their bytes and when the newest was written."""
    count = size = newest = 0
    for path, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(path, name))
            count, size, newest = count + 1, size + status.st_size, max(newest, status.st_mtime_ns)
    return {"path": os.path.realpath(folder), "files": count, "bytes": size, "newest": newest}


def checked_dtype(dtype, name):
    """The dtype, if its values are real numbers that can be computed with."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "iubf" or (dtype.kind == "f" and dtype.itemsize > 8) or dtype.hasobject:
        what = f"a structure of {len(dtype)} fields" if dtype.names else str(dtype)
        raise TypeError(f"{name} holds {what}: it must hold real numbers, integers or float16, float32 or float64")
    return dtype


def line_of(error):
    """What an error of another library says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def there(path):
    """Raise if there is no such file, or none that may be seen."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: there is no such file") from None


def open_source(source, *, member=None, columns=None):
    """The source of that name, or over an array that gives slices."""
    if isinstance(source, Source):
        return source
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "shape") or not hasattr(source, "dtype") or not hasattr(source, "__getitem__"):
            raise TypeError(f"the source must be a file name or an array with shape, dtype and slices, got {type(source).__name__}")
        return Slices(source)
    path = os.fspath(source)
    if not os.path.exists(path) and member is None:
        head, colon, tail = path.rpartition(":")
        if colon and os.path.exists(head):
            path, member = head, tail
    suffix = Path(path).suffix.lower()
    there(path)
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: what is in it is known by the endings {' '.join(SUFFIXES)}; a raw file needs a shape and a dtype")
    if columns is not None and suffix not in (".parquet", ".pq"):
        raise ValueError(f"{path} has no named columns: columns are for Parquet")
    if member is not None and suffix not in (".npz", ".zarr"):
        raise ValueError(f"{path} has no members: they are for .npz and .zarr")
    if suffix == ".npy":
        from normfast.stream.npy import open_npy

        return open_npy(path)
    if suffix == ".npz":
        from normfast.stream.npz import open_npz

        return open_npz(path, member)
    if suffix == ".zarr":
        from normfast.stream.zarr import open_zarr

        return open_zarr(path, member)
    from normfast.stream.parquet import open_parquet

    return open_parquet(path, columns)

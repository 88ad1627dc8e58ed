"""Values that lie one after the other in a file: .npy, raw, stored members of .npz. Read and written by position into memory used again.

Not memory-mapped: a mapped file that becomes shorter ends the process by SIGBUS, and mapped pages count as resident until they are
given back.
"""

import math
import os
import stat

import numpy as np

from normfast.stream.errors import FileError
from normfast.stream.sources import Source


class Flat(Source):
    """An array in a file, from a position on.

    Parameters
    ----------
    path : str
    offset : int
        Position of the first value, in bytes.
    shape, dtype, fortran
        Of the array, and whether its first axis is the one along which values lie next to each other.
    name : str, optional
        For messages.
    """

    def __init__(self, path, offset, shape, dtype, fortran=False, name=None):
        super().__init__(name or path, shape, dtype, fortran)
        self.path, self.offset, self.fortran = path, offset, fortran
        self._file = opened(path)
        self._status = marks(os.fstat(self._file))
        end, size = offset + self.nbytes, self._status["size"]
        if size < end:
            os.close(self._file)
            raise FileError(f"{self.name} ends too early: {self.shape} values of {self.dtype} need {end} bytes, the file has {size}")

    def read(self, block, space):
        values = space.of([cut.stop - cut.start for cut in block], self.dtype, self.fortran)
        for position, run in runs(self, block, values):
            _fill(self._file, run, self.offset + position, self.name)
        self._check(os.fstat(self._file))
        return native(values)

    def fingerprint(self):
        self._check(os.stat(self.path))  # also where another file has been put in its place
        layout = {"shape": list(self.shape), "dtype": self.dtype.str, "offset": self.offset, "fortran": self.fortran}
        return {"path": os.path.realpath(self.path)} | self._status | layout

    def _check(self, status):
        if marks(status) != self._status:
            raise FileError(f"{self.name} has changed while it was read: start again when nobody writes to it")

    def paths(self):
        return [self.path]

    def close(self):
        os.close(self._file)


def opened(path):
    """A file to be read, by number."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FileError(f"{path} is no regular file")
    number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return number


def marks(status):
    """By what a file is known to be the same."""
    return {"size": status.st_size, "mtime": status.st_mtime_ns, "inode": status.st_ino}


def native(values):
    """Values in native byte order, swapped where they are."""
    if values.dtype.isnative:
        return values
    return values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))


def runs(array, block, values):
    """Position in the file, in bytes from the first value, and bytes of each run of a block that lies in one piece."""
    order = array.order
    shape, cuts = [array.shape[axis] for axis in order], [block[axis] for axis in order]
    stored = values.transpose(order)  # C-contiguous
    lengths = [cut.stop - cut.start for cut in cuts]
    head = len(shape)
    while head and lengths[head:] == shape[head:]:  # the axis before makes one run of what is whole behind it
        head -= 1
    size = math.prod(lengths[head:])
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    start = sum(cut.start * stride for cut, stride in zip(cuts, strides, strict=True))
    pieces = stored.reshape(-1, size).view(np.uint8) if size else []
    for piece, index in zip(pieces, np.ndindex(*stored.shape[:head]), strict=bool(size)):
        position = start + sum(i * stride for i, stride in zip(index, strides[:head], strict=True))
        yield position * values.itemsize, memoryview(piece)


def _read_at(file, run, position):
    """Fill a run from a position on, as far as there is something; returns how far."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [run], position)
    os.lseek(file, position, os.SEEK_SET)  # Windows; each descriptor is one thread's
    values = os.read(file, len(run))
    run[: len(values)] = values
    return len(values)


def _write_at(file, run, position):
    if hasattr(os, "pwrite"):
        return os.pwrite(file, run, position)
    os.lseek(file, position, os.SEEK_SET)
    return os.write(file, run)


def _fill(file, run, position, name):
    while len(run):
        count = _read_at(file, run, position)
        if count == 0:
            raise FileError(f"{name} ends too early: it has become shorter")
        run, position = run[count:], position + count


class FlatTarget:
    """A file that takes the values of an array block by block, in any order."""

    continues = True  # a half-written one can be gone on with

    def __init__(self, path, shape, dtype, fortran=False, header=b"", new=True):
        self.path, self.shape, self.dtype = path, shape, dtype
        axes = tuple(range(len(shape)))
        self.fortran, self.order = fortran, axes[::-1] if fortran else axes
        self.offset = len(header)
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if new else 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        self._file = os.open(path, flags, 0o666)
        self._write(memoryview(header), 0)

    def write(self, block, values):
        """Take the values of a block."""
        values = np.asarray(values, self.dtype, order="F" if self.fortran else "C")
        for position, run in runs(self, block, values):
            self._write(run, self.offset + position)

    def _write(self, run, position):
        while len(run):
            count = _write_at(self._file, run, position)
            run, position = run[count:], position + count

    def sync(self):
        """Wait until what was written is on the disk."""
        getattr(os, "fdatasync", os.fsync)(self._file)

    def finish(self):
        """The same, with the length of the file."""
        os.ftruncate(self._file, self.offset + math.prod(self.shape) * self.dtype.itemsize)
        os.fsync(self._file)

    def reread(self):
        """The same as a source, from the disk where the system can forget what it knows."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
        return Flat(self.path, self.offset, self.shape, self.dtype, self.fortran)

    def close(self):
        """Give the file back."""
        os.close(self._file)

"""Where a result grows, under a name that is not its own, and how it gets its name."""

import errno
import math
import os
import shutil
from pathlib import Path

from normfast.stream.flat import FlatTarget
from normfast.stream.state import sync_folder

RAW = (".raw", ".bin", ".dat")
TABLES = (".parquet", ".pq")
ENDINGS = (".npy", *RAW, ".zarr", *TABLES)


def ending_of(path):
    """The ending that tells the format of a result."""
    ending = Path(path).suffix.lower()
    if ending == ".npz":
        raise ValueError(f"{path}: a .npz is one zip file, which cannot be written in blocks and gone on with: write .npy")
    if ending not in ENDINGS:
        raise ValueError(f"{path}: a result is written as {' '.join(ENDINGS)}, which its ending chooses")
    return ending


def refuse(path, beside, sources, force):
    """Raise where a result must not be written."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path}: there is no such folder")
    for name in (path, *beside):
        if os.path.exists(name) and any(os.path.samefile(name, source) for source in sources):
            raise ValueError(f"{name} is the input: give the result another name")
    if os.path.lexists(path) and not force:
        raise FileExistsError(f"{path} is there already: give another name, or force it to be replaced")
    if os.path.isdir(path) != path.lower().endswith(".zarr") and os.path.exists(path):
        raise ValueError(f"{path} is {'a folder' if os.path.isdir(path) else 'a file'}, which this result cannot replace")


class Claim:
    """The name under which a result grows, which no other process may use meanwhile."""

    def __init__(self, path, folder):
        self.path, self._folder = path, folder
        self.new = not os.path.exists(path)
        if folder:
            os.makedirs(path, exist_ok=True)
        try:
            import fcntl
        except ModuleNotFoundError:  # a system without: then nobody is kept off
            self._file = None
            return
        self._file = os.open(path, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise OSError(errno.EBUSY, f"another process is writing {path}") from None
        except OSError:  # a file system without locks
            pass

    def clear(self):
        """Begin anew."""
        if self._folder:
            for name in os.listdir(self.path):
                inner = os.path.join(self.path, name)
                shutil.rmtree(inner) if os.path.isdir(inner) else os.remove(inner)

    def remove(self):
        """Delete what has grown."""
        if self._folder:
            shutil.rmtree(self.path, ignore_errors=True)
        elif os.path.exists(self.path):
            os.remove(self.path)

    def close(self):
        """Let others have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def open_target(path, ending, shape, dtype, fortran, grid, source, new):
    """What takes the blocks of a result of that format."""
    if ending == ".zarr":
        from normfast.stream.zarr import ZarrTarget

        return ZarrTarget(path, shape, dtype, grid, source, new)
    if ending in TABLES:
        from normfast.stream.parquet import TableTarget

        return TableTarget(path, shape, dtype, source.columns)
    if new:
        _room(path, math.prod(shape) * dtype.itemsize)
    if ending in RAW:
        return FlatTarget(path, shape, dtype, fortran, new=new)
    from normfast.stream.npy import npy_target

    return npy_target(path, shape, dtype, fortran, new)


def _room(path, size):
    """Raise before hours of work where the disk is too small."""
    if hasattr(os, "statvfs"):
        disk = os.statvfs(path)
        free = disk.f_bavail * disk.f_frsize
        if free < size:
            raise OSError(errno.ENOSPC, f"the result needs {size / 1e9:.3g} GB and {free / 1e9:.3g} GB are free for {path}")


def put_in_place(grown, path):
    """Give a result that is whole its name."""
    old = None
    if os.path.isdir(grown) and os.path.exists(path):
        old = f"{path}.old"
        os.rename(path, old)
    os.replace(grown, path)
    sync_folder(path)
    if old:
        shutil.rmtree(old)

"""Arrays of Zarr, formats 2 and 3, in a folder; through the library of that name."""

import os
from contextlib import suppress
from typing import Any

from normfast.extras import needed
from normfast.stream.errors import FileError
from normfast.stream.sources import Slices, line_of

zarr = needed("zarr", "zarr", "reading and writing .zarr")


def open_zarr(path, member):
    """An array, or one of the arrays of a group, as a source."""
    try:
        found = zarr.open(path, mode="r", path=member) if member else zarr.open(path, mode="r")
    except (FileNotFoundError, KeyError):
        raise FileError(f"{path} holds no Zarr array{f' {member!r}' if member else ''}") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise FileError(f"{path} cannot be read by zarr: {line_of(error)}") from None
    if not isinstance(found, zarr.Array):
        names = ", ".join(name for name, _ in found.arrays()) or "none"
        raise ValueError(f"{path} is a group of arrays ({names}): choose one, as in {os.path.basename(path)}:NAME")
    return Slices(found, f"{path}:{member}" if member else path, path)


class ZarrTarget:
    """A folder that takes an array block by block; a block covers whole chunks."""

    continues = True

    def __init__(self, path, shape, dtype, grid, source, new):
        self.path = path
        if new:
            like: Any = getattr(source, "array", None)
            same = isinstance(like, zarr.Array) and tuple(shape) == like.shape
            chunks, shards = (like.chunks, like.shards) if same else (grid.block, None)
            version = like.metadata.zarr_format if same else 3
            zarr.create_array(path, shape=shape, dtype=dtype, chunks=chunks, shards=shards, zarr_format=version, overwrite=True)
        self._array = zarr.open_array(path, mode="r+")

    def write(self, block, values):
        """Take the values of a block."""
        self._array[block] = values

    def sync(self):
        """Wait until what was written is on the disk."""
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(FileNotFoundError):  # the chunk that is being written meanwhile has another name by now
                    _sync(os.path.join(folder, name))
            _sync(folder)

    finish = sync

    def reread(self):
        """The same as a source."""
        return Slices(zarr.open_array(self.path, mode="r"), self.path)

    def close(self):
        """Nothing is held."""


def _sync(path):
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

"""Members of .npz files: those that are stored as values in a file, those that are compressed as a stream."""

import os
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

from normfast.stream.errors import FileError
from normfast.stream.flat import Flat, marks, native
from normfast.stream.npy import header_of
from normfast.stream.sources import Source, line_of

# OSError: positions before the file; the last three: encrypted, unknown compression, numbers that fit nowhere
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, struct.error, RuntimeError, NotImplementedError, OverflowError)


def open_npz(path, member):
    """A member of a file as a source."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = _member(archive, path, member)
            name = f"{path}:{info.filename.removesuffix('.npy')}"
            with archive.open(info) as file:
                shape, fortran, dtype = header_of(file, name)
                length = file.tell()
    except PermissionError:
        raise
    except BROKEN as error:
        raise FileError(f"{path} is no .npz file, or damaged: {line_of(error)}") from None
    if info.compress_type != zipfile.ZIP_STORED:
        return Compressed(path, info.filename, name, shape, dtype, fortran, length)
    with open(path, "rb") as file:  # the names in front of the member may differ from those in the list of members
        file.seek(info.header_offset)
        names = struct.unpack("<26x2H", file.read(30))
    return Flat(path, info.header_offset + 30 + sum(names) + length, shape, dtype, fortran, name)


def _member(archive, path, member):
    names = [info.filename for info in archive.infolist()]
    if member is None:
        if len(names) != 1:
            there = ", ".join(name.removesuffix(".npy") for name in names) or "nothing"
            raise ValueError(f"{path} holds {there}: choose one, as in {os.path.basename(path)}:{(names or ['x'])[0].removesuffix('.npy')}")
        return archive.infolist()[0]
    for name in (member, f"{member}.npy"):
        if name in names:
            return archive.getinfo(name)
    raise ValueError(f"{path} has no member {member!r}: it holds {', '.join(name.removesuffix('.npy') for name in names)}")


class Compressed(Source):
    """A compressed member, read as a stream."""

    sequential = True

    def __init__(self, path, filename, name, shape, dtype, fortran, length):
        super().__init__(name, shape, dtype, fortran)
        self.path, self._filename, self._length, self.fortran = path, filename, length, fortran
        self._status = marks(os.stat(path))
        self._archive = zipfile.ZipFile(path)
        self._file: Any = None
        self._position = 0

    def read(self, block, space):
        cuts, shape = [block[axis] for axis in self.order], [self.shape[axis] for axis in self.order]
        values = space.of([cut.stop - cut.start for cut in block], self.dtype, self.fortran)
        start = int(np.ravel_multi_index([cut.start for cut in cuts], shape)) if shape else 0
        self._go(self._length + start * self.dtype.itemsize)
        rest = memoryview(values.transpose(self.order).reshape(-1).view(np.uint8))
        try:
            while len(rest):
                count = self._file.readinto(rest)
                if not count:
                    raise FileError(f"{self.name} ends too early")
                rest, self._position = rest[count:], self._position + count
            if start + values.size == int(np.prod(shape, dtype=object)):
                self._file.read(1)  # past the end: what was read is compared with its checksum
        except BROKEN as error:
            raise FileError(f"{self.name} is damaged: {line_of(error)}") from None
        self.fingerprint()
        return native(values)

    def _go(self, position):
        if self._file is None or position < self._position:
            self._leave()
            self._file, self._position = self._archive.open(self._filename), 0
        while self._position < position:
            part = self._file.read(min(1 << 20, position - self._position))
            if not part:
                raise FileError(f"{self.name} ends too early")
            self._position += len(part)

    def fingerprint(self):
        if marks(os.stat(self.path)) != self._status:
            raise FileError(f"{self.name} has changed while it was read: start again when nobody writes to it")
        layout = {"shape": list(self.shape), "dtype": self.dtype.str, "member": self._filename}
        return {"path": os.path.realpath(self.path)} | self._status | layout

    def paths(self):
        return [self.path]

    def _leave(self):
        """Close the stream, which would hold the archive open."""
        if self._file is not None:
            self._file.close()

    def close(self):
        self._leave()
        self._archive.close()

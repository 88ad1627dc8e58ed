"""Files of one array in NumPy's format .npy, versions 1 to 3."""

import io
import os

import numpy as np
from numpy.lib import format

from normfast.stream.errors import FileError
from normfast.stream.flat import Flat, FlatTarget
from normfast.stream.sources import line_of

AXES = 64  # the most that NumPy has


def open_npy(path):
    """The array of a file as a source."""
    with open(path, "rb") as file:
        shape, fortran, dtype = header_of(file, path)
        offset = file.tell()
    return Flat(path, offset, shape, dtype, fortran)


def header_of(file, name):
    """Shape, Fortran order and dtype that the file promises; it then stands at the first value."""
    try:
        version = format.read_magic(file)
        # version 3 is 2 with names of fields in UTF-8, and what has fields is refused
        read = format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version} of the format is unknown")
        shape, fortran, dtype = read(file)
        if min(shape, default=0) < 0 or len(shape) > AXES:
            raise ValueError(f"its shape is {shape}" if len(shape) <= AXES else f"it has {len(shape)} axes")
        return shape, fortran, dtype
    except Exception as error:  # NumPy's parser, and those below it, have errors of their own
        size = os.fstat(file.fileno()).st_size if isinstance(file, io.BufferedReader) else None
        why = "it is empty" if size == 0 else line_of(error)
        raise FileError(f"{name} is no .npy file, or damaged: {why}") from None


def npy_target(path, shape, dtype, fortran, new):
    """A file .npy that takes an array block by block."""
    header = io.BytesIO()
    layout = {"descr": format.dtype_to_descr(np.dtype(dtype)), "fortran_order": fortran, "shape": tuple(shape)}
    format.write_array_header_1_0(header, layout)
    return FlatTarget(path, shape, dtype, fortran, header.getvalue(), new)

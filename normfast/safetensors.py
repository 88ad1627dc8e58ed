"""Files of arrays by name in the safetensors format, through the library of that name."""

import os
import threading

import numpy as np

from normfast.extras import needed

__all__ = ["read", "write"]

CODES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
         "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1"}  # fmt: skip


def _library(path):
    return needed("safetensors", "safetensors", os.fspath(path))


def read(path):
    """The arrays of a file by their names, bfloat16 as float32, and its metadata.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    arrays : dict of str to ndarray
    metadata : dict of str to str

    Raises
    ------
    ValueError
        In one line, for a file that is damaged or of another format, or holds values of a dtype that NumPy has not.
    ModuleNotFoundError
        Without the library safetensors.

    Examples
    --------
    >>> import os, tempfile, numpy as np
    >>> from normfast.safetensors import read, write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "x.safetensors")
    ...     write(path, {"weight": np.ones(2, np.float32)}, {"by": "me"})
    ...     read(path)
    ({'weight': array([1., 1.], dtype=float32)}, {'by': 'me'})
    """
    library = _library(path)
    with open(path, "rb") as file:
        content = file.read()
    try:
        arrays = {name: _array(name, **entry) for name, entry in library.deserialize(content)}
        with library.safe_open(path, framework="numpy") as file:
            return arrays, file.metadata() or {}
    except (library.SafetensorError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is no safetensors file, or damaged: {' '.join(str(error).split())}") from None


def _array(name, dtype, shape, data):
    """One array from its bytes; NumPy has no bfloat16 of its own, whose words are the upper halves of float32."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(shape)
    if dtype not in CODES:
        raise ValueError(f"{name} has dtype {dtype}, and NumPy has none of that kind")
    array = np.frombuffer(data, CODES[dtype]).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def write(path, arrays, metadata=None):
    """Write arrays, and metadata of strings, to a file; what has the name keeps its content until the new one is whole.

    Parameters
    ----------
    path : str or path-like
    arrays : dict of str to ndarray
    metadata : dict of str to str, optional

    Examples
    --------
    >>> import os, tempfile, numpy as np
    >>> from normfast.safetensors import read, write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "x.safetensors")
    ...     write(path, {"count": np.array(3)})
    ...     read(path)[0]
    {'count': array(3)}
    """
    _library(path)
    from safetensors.numpy import save

    content = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata)
    replace(path, lambda file: file.write(content))


def replace(path, write_to):
    """Let a function write to a file beside the path, and put it in the place of the path when it is whole."""
    beside = f"{os.fspath(path)}.{os.getpid()}.{threading.get_ident()}.part"
    try:
        with open(beside, "wb") as file:
            write_to(file)
        os.replace(beside, path)
    except BaseException:
        if os.path.exists(beside):
            os.remove(beside)
        raise

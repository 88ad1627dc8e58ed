"""Files of arrays in the safetensors format: the length of a JSON header, the header, the bytes of all arrays in a row.

The format is simple enough to need no library, and reading it runs no code of the file's: https://huggingface.co/docs/safetensors
"""

import json
import math
import os
import threading

import numpy as np

# bfloat16 has no NumPy dtype of its own: its bits are read as float32
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1"}  # fmt: skip
LONGEST = 100_000_000  # bytes of a header, as the format has it


def read(path):
    """The arrays of a file by their names, bfloat16 as float32, and its metadata.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    arrays : dict of str to ndarray
        Read-only views of one buffer that holds the file; bfloat16 is copied.
    metadata : dict of str to str

    Raises
    ------
    ValueError
        In one line, for a file that is damaged or of another format, or holds values of a dtype that NumPy has not.

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
    with open(path, "rb") as file:
        content = file.read()
    try:
        return _parse(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is no safetensors file, or damaged: {' '.join(str(error).split())}") from None


def _parse(content):
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(LONGEST, len(content) - 8):
        raise ValueError(f"it has {len(content)} bytes, too few for its header")
    header = json.loads(content[8 : 8 + size].decode("utf-8"), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not strings")
    arrays, spans = {}, []
    for name, entry in header.items():
        arrays[name], span = _array(name, entry, memoryview(content)[8 + size :])
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise ValueError(f"its arrays overlap or leave a gap at byte {min(start, end)}")
        end = stop
    if end != len(content) - 8 - size:
        raise ValueError(f"its arrays take {end} bytes and it holds {len(content) - 8 - size}")
    return arrays, metadata


def _unique(pairs):
    """A JSON object; a name that comes twice raises."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in its header")
    return found


def _array(name, entry, data):
    """One array and the bytes that it takes, (start, stop)."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{name} lacks dtype, shape or data_offsets")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name} has dtype {dtype}, and NumPy has none of that kind")
    for numbers in (shape, span):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"{name} has shape {shape} and data_offsets {span}, which must be lists of integers of 0 or more")
    values = math.prod(shape)
    if len(span) != 2 or span[1] > len(data) or span[1] - span[0] != values * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"{name} has shape {shape} and dtype {dtype}, which do not fit data_offsets {span} of {len(data)} bytes")
    array = np.frombuffer(data, DTYPES[dtype], values, span[0]).reshape(shape)
    if dtype == "BF16":
        array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=not array.flags.aligned), (span[0], span[1])


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
    names = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}
    header, parts, end = {} if metadata is None else {"__metadata__": metadata}, [], 0
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):  # so that each is aligned
        stored = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        header[name] = {"dtype": names[stored.dtype], "shape": list(stored.shape), "data_offsets": [end, end + stored.nbytes]}
        end += stored.nbytes
        parts.append(stored.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    replace(path, lambda file: file.writelines((len(text).to_bytes(8, "little"), text, *parts)))


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

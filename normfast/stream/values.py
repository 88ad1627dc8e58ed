"""Files of values alone, whose shape and dtype their user knows."""

import os
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from normfast.stream.flat import Flat
from normfast.stream.sources import Source, there


def raw(
    path: str | os.PathLike[str], shape: int | tuple[int, ...], dtype: DTypeLike, *, offset: int = 0, order: Literal["C", "F"] = "C"
) -> Source:
    """A file of values alone as a source for `moments`, `covariance` and `transform`.

    Parameters
    ----------
    path : str or path-like
    shape : int or tuple of int
        One length may be -1: what the file has.
    dtype : dtype
        Of the values in the file, such as ">f4".
    offset : int
        Bytes before the first value.
    order : {"C", "F"}
        Whether the last or the first axis is the one along which values lie next to each other.

    Returns
    -------
    Source

    Raises
    ------
    ValueError, TypeError
        For a shape, dtype or offset that no file has; a `FileError` for a file that is too short.

    Examples
    --------
    >>> import os, tempfile, numpy as np, normfast as nf
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "x.raw")
    ...     np.array([1, 2, 3, 6], ">i2").tofile(path)
    ...     nf.stream.moments(nf.stream.raw(path, (-1, 2), ">i2"), axis=0).mean
    array([2., 4.])
    """
    path = os.fspath(path)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    dtype = np.dtype(dtype)
    there(path)
    if offset < 0 or min(shape, default=0) < -1 or shape.count(-1) > 1 or order not in ("C", "F"):
        raise ValueError(
            f"{path}: lengths must be 0 or more (one may be -1), offset 0 or more, order C or F; got {shape}, {offset}, {order}"
        )
    if -1 in shape:
        one = -int(np.prod(shape, dtype=object)) * dtype.itemsize
        room = max(0, os.path.getsize(path) - offset)
        if one == 0 or room % one:
            raise ValueError(f"{path} has {room} bytes of values, which {shape} of {dtype} do not divide")
        shape = tuple(room // one if n == -1 else n for n in shape)
    return Flat(path, offset, shape, dtype, order == "F")

"""Masks of padded sequences, for the `where` of the norms."""

import operator
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from normfast.ops._arrays import axes_of
from normfast.ops._foreign import borrowed
from normfast.typing import ArrayLike


def sequence_mask(shape: Iterable[int], *, lengths: ArrayLike, axis: int = 1) -> NDArray[np.bool_]:
    """The mask of padded sequences: True at the first lengths[i] positions of sample i.

    Parameters
    ----------
    shape : tuple of int
        Shape of the padded array; its samples lie along axis 0.
    lengths : array_like of int
        Length of each sample, from 0 to shape[axis].
    axis : int
        The axis of the positions.

    Returns
    -------
    ndarray of bool
        It broadcasts to `shape`: (samples, 1, ..., positions, 1, ...).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[[1.0], [3.0], [99.0]], [[5.0], [7.0], [9.0]]])
    >>> mask = nf.sequence_mask(x.shape, lengths=[2, 3])
    >>> mask[:, :, 0]
    array([[ True,  True, False],
           [ True,  True,  True]])
    >>> nf.batch_norm_forward(x, axis=-1, where=mask)[1].mean
    array([5.])
    """
    shape, lengths = tuple(shape), borrowed(lengths, "lengths")
    (axis,) = axes_of(operator.index(axis), len(shape))
    if axis == 0:
        raise ValueError("axis is 0, that of the samples: give the axis of the positions")
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, got {lengths.dtype}")
    if lengths.shape != shape[:1]:
        raise ValueError(f"lengths has shape {lengths.shape}: {shape[0]} samples need ({shape[0]},)")
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= shape[axis]:
        raise ValueError(f"lengths must lie between 0 and {shape[axis]}, got {lengths.min()} to {lengths.max()}")
    mask = np.arange(shape[axis]) < lengths[:, None]
    return mask.reshape([shape[0], *(shape[axis] if i == axis else 1 for i in range(1, len(shape)))])

"""Standardizing and min-max scaling of Dask arrays along axes, by statistics merged over their blocks."""

import dask.array as da
import numpy as np

from normfast.dask.blocks import again, along, checked, mapped, on_blocks, reduced_axes, sample, tree
from normfast.dask.statistics import moment_records, unpacked
from normfast.ops.scaling import checked_range, real, rescaled, scale_in_units
from normfast.ops.scaling import standardized as standardized_block
from normfast.typing import Axis

RANGE = np.dtype([("count", "f8"), ("smallest", "f8"), ("largest", "f8")])  # float64 holds the extremes of every dtype


def standardize(x: da.Array, *, axis: Axis | None = 0, ddof: float = 0, reread: bool = True) -> da.Array:
    """Bring a Dask array to mean 0 and standard deviation 1 along an axis, as `nf.preprocessing.standardize`, lazily.

    Parameters
    ----------
    x : dask.array.Array
        Real numbers of any shape and chunks, also of unknown size; integers count as float64. NaN take no part in the statistics and stay.
    axis, ddof
        As in `nf.preprocessing.standardize`.
    reread : bool
        Whether x is computed a second time for the result, so that no block waits in memory until all are measured. False computes it
        once and keeps its blocks: for an x that fits into memory and takes long to make, or that is not the same each time.

    Returns
    -------
    dask.array.Array
        Of x's shape, chunks and dtype.

    Raises
    ------
    TypeError, ValueError
        For complex and object arrays, and an axis out of range, before anything is computed.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> nfd.standardize(da.from_array(np.array([[1.0, 5.0], [3.0, 5.0]]), chunks=1)).compute()
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    dtype = real(sample(checked(x))).dtype
    axes = reduced_axes(x, axis)
    records = moment_records(x, axes, nan_policy="omit", units=True)
    return mapped(_standardized, again(x, reread), records, dtype=dtype, axes=axes, ddof=ddof)


@on_blocks
def _standardized(x, records, axes, ddof):
    m, unit = unpacked(records.reshape([n for axis, n in enumerate(records.shape) if axis not in axes]))
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    return standardized_block(real(x), m.mean, scale_in_units(m, unit, ddof), unit, kept)


def minmax_scale(x: da.Array, *, axis: Axis | None = 0, feature_range: tuple[float, float] = (0, 1), reread: bool = True) -> da.Array:
    """Bring the extremes of a Dask array along an axis to the ends of a range, as `nf.preprocessing.minmax_scale`, lazily.

    Parameters
    ----------
    x : dask.array.Array
        As in `standardize`.
    axis, feature_range
        As in `nf.preprocessing.minmax_scale`.
    reread : bool
        As in `standardize`.

    Returns
    -------
    dask.array.Array
        Of x's shape, chunks and dtype: the bits of `nf.preprocessing.minmax_scale`, whatever the chunks.

    Raises
    ------
    TypeError, ValueError
        As `standardize`, and for ends that are not in ascending order.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> nfd.minmax_scale(da.from_array(np.array([1.0, 2.0, 5.0]), chunks=2)).compute()
    array([0.  , 0.25, 1.  ])
    """
    dtype = real(sample(checked(x))).dtype
    ends = checked_range(feature_range)
    records = range_records(x, reduced_axes(x, axis))
    return mapped(_rescaled, again(x, reread), records, dtype=dtype, ends=ends)


def range_records(x, axes):
    """Records of the count and the extremes of x over axes, which stay, 1 long."""
    return tree(merged_range, mapped(block_range, x, dtype=RANGE, chunks=along(x, axes), axes=axes), axes)


@on_blocks
def block_range(x, axes):
    """The record of each column of a block; NaN without values."""
    x = real(x)
    records = np.empty([1 if axis in axes else n for axis, n in enumerate(x.shape)], RANGE)
    records["count"] = x.size // max(records.size, 1)
    for name, extreme in (("smallest", np.fmin), ("largest", np.fmax)):
        records[name] = extreme.reduce(x, axis=axes, keepdims=True, initial=np.nan)
    return records


def merged_range(records, axis, keepdims):
    """Records merged along an axis, in any order."""
    merged = np.empty([1 if i in axis else n for i, n in enumerate(records.shape)], RANGE)
    for name, merge in (("count", np.add), ("smallest", np.fmin), ("largest", np.fmax)):
        merged[name] = merge.reduce(records[name], axis=axis, keepdims=True)
    return merged


@on_blocks
def _rescaled(x, records, ends):
    x = real(x)
    old = records["smallest"], records["largest"]
    return rescaled(np.atleast_1d(x), old, ends).reshape(x.shape) if x.size else x

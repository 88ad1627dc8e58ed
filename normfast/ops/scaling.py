"""Standardizing and min-max scaling along axes. NaN take no part in the statistics and stay."""

import numpy as np

from normfast.ops._arrays import apart, checked_out, floating, layout_of, plain
from normfast.ops._pieces import split
from normfast.ops.batch_norm import batch_norm
from normfast.ops.moments import Moments, moments
from normfast.typing import Array, ArrayLike, Axis, Writeable

EPS = float(np.finfo(np.float64).eps)
FAR = 2.0**600  # brings all float64 values whose squares overflow or vanish within reach


def standardize(x: ArrayLike, *, axis: Axis | None = 0, ddof: float = 0, out: Writeable | None = None) -> Array:
    """Bring x to mean 0 and standard deviation 1 along an axis: y = (x - mean) / std.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape; integers count as float64. NaN take no part in the statistics and stay.
    axis : None, int or tuple of int
        Axes over which mean and standard deviation are taken, by default that of the samples; None takes all.
    ddof : int or float
        The variance is m2 / (count - ddof).
    out : ndarray, optional
        Of x's shape and dtype; takes y. It may be x itself.

    Returns
    -------
    ndarray
        y, of x's shape and dtype. Constants, which have var <= n * eps * var + (n * eps * mean)**2, are centred only.

    Raises
    ------
    TypeError, ValueError
        For sparse, complex, masked and object arrays, an axis out of range and an `out` that does not fit; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.preprocessing import standardize
    >>> standardize(np.array([[1.0, 5.0], [3.0, 5.0]]))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    x = real(x)
    out = checked_out(out, x)
    reduced, kept = _axes(x, axis)
    m, unit = moments_in_units(x, reduced)
    return standardized(x, m.mean, scale_in_units(m, unit, ddof), unit, kept, out)


def minmax_scale(
    x: ArrayLike, *, axis: Axis | None = 0, feature_range: tuple[float, float] = (0, 1), out: Writeable | None = None
) -> Array:
    """Bring the smallest value along an axis to the one end of a range and the largest to the other, both exactly.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape; integers count as float64. NaN take no part and stay.
    axis : None, int or tuple of int
        Axes over which the smallest and the largest value are taken, by default that of the samples; None takes all.
    feature_range : (float, float)
        The ends, in ascending order.
    out : ndarray, optional
        Of x's shape and dtype; takes y. It may be x itself.

    Returns
    -------
    ndarray
        y = low + (x - min) / (max - min) * (high - low), of x's shape and dtype; constants become low.

    Raises
    ------
    TypeError, ValueError
        As `standardize`, and for ends that are not in ascending order.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.preprocessing import minmax_scale
    >>> minmax_scale(np.array([[1.0, 10.0], [2.0, 30.0], [5.0, 20.0]]), feature_range=(-1, 1))
    array([[-1. , -1. ],
           [-0.5,  1. ],
           [ 1. ,  0. ]])
    """
    x = real(x)
    out = checked_out(out, x)
    ends = checked_range(feature_range)
    reduced, _ = _axes(x, axis)
    if x.size == 0:
        return np.empty_like(x) if out is None else out
    with np.errstate(invalid="ignore"):  # of NaN of bfloat16
        old = [extreme.reduce(x, axis=reduced, keepdims=True) for extreme in (np.fmin, np.fmax)]
    return rescaled(x, old, ends, out)


def real(x: ArrayLike) -> Array:
    """x as a floating-point array; integers as float64."""
    if hasattr(x, "toarray"):
        raise TypeError(f"x is a sparse {type(x).__name__}, which would fill up: give x.toarray()")
    x = plain(x, "x")
    return floating(x.astype(np.float64) if x.dtype.kind in "iub" else x)


def _axes(x, axis):
    """The reduced and the kept axes."""
    layout = layout_of(x, tuple(range(x.ndim)) if axis is None else axis)
    return layout.reduced, layout.kept


def moments_in_units(x, axis, weights=None, nan_policy="omit"):
    """Moments of x * unit, and unit: 1 for each column, or a power of two where squares, also of differences of means, leave the range."""
    m = moments(x, axis, weights=weights, nan_policy=nan_policy)
    tiny = (m.m2 < 1e-250) & (np.abs(m.mean) < 1e-100)
    huge = ~(m.m2 <= 1e250) | (np.abs(m.mean) > 1e125)
    unit = np.where(huge, 1 / FAR, np.where(tiny, FAR, 1.0))
    if x.dtype != np.float64 or not ((unit < 1) | (tiny & x.any(axis=axis))).any():
        return m, np.ones_like(unit)
    return moments(x * np.expand_dims(unit, axis), axis, weights=weights, nan_policy=nan_policy), unit


def merged_in_units(a, unit_a, b, unit_b):
    """Two sets of moments together, in the unit that keeps squares within reach."""
    unit = np.where(_zero(a), unit_b, np.where(_zero(b), unit_a, np.minimum(unit_a, unit_b)))
    return _times(a, unit / unit_a) + _times(b, unit / unit_b), unit


def _zero(m):
    return (m.m2 == 0) & ~(np.abs(m.mean) > 0)  # or no values at all


def _times(m, factor):
    return m if (factor == 1).all() else Moments(m.count, m.mean * factor, m.m2 * factor * factor)


def is_constant(m):
    """Whether what varies in each column is but rounding: of n values, the mean and the sum of squares."""
    with np.errstate(over="ignore"):
        return m.var() <= m.count * EPS * m.var() + (m.count * EPS * m.mean) ** 2


def scale_in_units(m, unit, ddof):
    """The standard deviation in units of the moments; 1 for constants and where there is none."""
    return np.where(is_constant(m) | np.isinf(m.var(ddof)), unit, m.std(ddof))


def standardized(x, mean, scale, unit, kept, out=None):
    """(x * unit - mean) / scale along the kept axes."""
    if (unit == 1).all():
        return batch_norm(x, mean, scale * scale, axis=kept, eps=0, out=out)
    reduced = tuple(axis for axis in range(x.ndim) if axis not in kept)
    mean, scale, unit = (np.expand_dims(values, reduced) for values in (mean, scale, unit))
    out = np.empty_like(x) if out is None else out
    with np.errstate(invalid="ignore"):  # of infinite values
        out[...] = (np.multiply(x, unit, dtype=np.float64) - mean) / scale
    return out


def checked_range(feature_range):
    """The ends of a range, in ascending order."""
    low, high = feature_range
    if not low < high:
        raise ValueError(f"feature_range must be two numbers in ascending order, got {feature_range}")
    return float(low), float(high)


def rescaled(x, old, new, out=None):
    """x with the range `old`, (smallest, largest), brought to the range `new`; both may differ from column to column."""
    x = apart(x, out)
    y = np.empty_like(x) if out is None else out
    unit = np.ndim(new[0]) == 0 and new == (0.0, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        half = np.where(np.isfinite(np.subtract(old[1], old[0], dtype=np.float64)), 1.0, 0.5)  # a range above 1.8e308 overflows
        start = old[0] * half
        width = old[1] * half - start
        parts = half, start, np.where(width == 0, 1.0, width), *new
        half, start, width, low, high = (np.broadcast_to(part, x.shape) for part in parts)
        for block in split(x.shape, 2**17):  # 1 MB of float64
            t = np.multiply(x[block], half[block], dtype=np.float64)
            t -= start[block]
            t /= width[block]
            y[block] = t if unit else low[block] * (1 - t) + high[block] * t
    return y

"""Moments: count, mean and sum of squared deviations of an array, in one pass over memory; two sets of them merge exactly."""

import math
import operator
import struct
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from normfast import engines
from normfast.kernels.moments import merge, unmerge
from normfast.ops._arrays import DOUBLE, checked_where, direct, grouped, layout_of, plain
from normfast.ops._device import device, on_device
from normfast.ops._foreign import borrowed
from normfast.ops._pickles import SealedSlots
from normfast.ops._pieces import Staged, part, shape_of, split
from normfast.ops._statistics import Accumulator, block_moments, merged_in_a_tree, weighted_moments
from normfast.typing import ArrayLike, Axis, Float64Array, NanPolicy

MAGIC = b"nf-mom\0\1"  # the last byte is the version of the format
NUMBERS = (int, float, np.number)  # known without np.ndim, which takes 0.7 us
POLICIES = ("propagate", "omit", "raise")


class Moments(SealedSlots):
    """Count, mean and sum of squared deviations (m2) of a set of values; float64.

    Parameters
    ----------
    count : int, float or ndarray
        Number of values behind each mean, or the sum of their weights, 0 or more: one number, or an array of mean's shape.
    mean, m2 : float or ndarray
        Mean and sum of squared deviations from it, of the same shape.

    Notes
    -----
    `a + b` are the moments of both sets together, by the formula of Chan, Golub and LeVeque (1979), and `a - b` those of a without b.
    Merging costs no precision to speak of, so the parts of an array may be taken in any order and on any machine.

    Examples
    --------
    >>> import normfast as nf
    >>> first, second = nf.moments([1.0, 2.0]), nf.moments([3.0, 6.0])
    >>> both = first + second
    >>> both.count, float(both.mean), float(both.var())
    (4, 3.0, 3.5)
    >>> float((both - second).mean)
    1.5
    """

    __slots__ = ("count", "m2", "mean")
    __array_ufunc__ = None  # so that ndarray + Moments raises instead of making an array of objects

    def __init__(self, count: Any, mean: ArrayLike, m2: ArrayLike) -> None:
        scalar = isinstance(count, NUMBERS) or np.ndim(count) == 0
        self.count: Any = count if scalar else np.asarray(count)  # int, float or ndarray
        self.mean = np.asarray(mean, np.float64)
        self.m2 = np.asarray(m2, np.float64)
        if self.mean.shape != self.m2.shape:
            raise ValueError(f"mean has shape {self.mean.shape} and m2 has {self.m2.shape}: they must be the same")
        if not scalar and self.count.shape != self.mean.shape:
            raise ValueError(f"count has shape {self.count.shape} and mean has {self.mean.shape}: it must be one number or of that shape")

    def var(self, ddof: float = 0) -> Float64Array | np.float64:
        """Variance m2 / (count - ddof), for any real ddof; infinite where count <= ddof, nan where there are no values."""
        count = np.asarray(self.count)
        with np.errstate(all="ignore"):
            var = np.where(count <= ddof, np.inf, self.m2 / (count - ddof))
        return np.where(count == 0, np.nan, var)[()]

    def std(self, ddof: float = 0) -> Float64Array | np.float64:
        """Square root of `var(ddof)`."""
        return np.sqrt(self.var(ddof))

    def __add__(self, other: "Moments") -> "Moments":
        if not isinstance(other, Moments):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of shape {self.mean.shape} and {other.mean.shape} do not merge: their columns must be the same")
        with np.errstate(all="ignore"):
            _, mean, m2 = merge(np.float64(self.count), self.mean, self.m2, np.float64(other.count), other.mean, other.m2)
            first, second = np.equal(other.count, 0), np.equal(self.count, 0)
            mean = np.where(first, self.mean, np.where(second, other.mean, mean))
            return Moments(self.count + other.count, mean, np.where(first, self.m2, np.where(second, other.m2, m2)))

    def __sub__(self, other: "Moments") -> "Moments":
        if not isinstance(other, Moments):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of shape {other.mean.shape} are no part of moments of shape {self.mean.shape}")
        if np.any(np.less(self.count, other.count)):
            raise ValueError(f"cannot take {other.count} values out of {self.count}")
        with np.errstate(all="ignore"):
            count = self.count - other.count
            _, mean, m2 = unmerge(np.float64(self.count), self.mean, self.m2, np.float64(other.count), other.mean, other.m2)
            left, same = np.equal(count, 0), np.equal(other.count, 0)
            mean = np.where(same, self.mean, np.where(left, np.nan, mean))
            return Moments(count, mean, np.where(same, self.m2, np.where(left, 0.0, np.maximum(m2, 0.0))))

    @classmethod
    def merge(cls, parts: Iterable["Moments"]) -> "Moments":
        """Merge many moments in a fixed tree (neighbours, then neighbours of these), so that equal parts give equal bits."""
        parts = list(parts)
        if not parts:
            raise ValueError("there are no moments to merge: give one or more")
        return merged_in_a_tree(parts, operator.add)

    def to_bytes(self) -> bytes:
        """The moments as bytes, the same on every machine.

        `MAGIC` with the version; as unsigned 64-bit integers the number of axes, whether the count is an array, whether it is an integer,
        and the lengths of the axes; float64 values: count, mean, m2; all little-endian.
        """
        count = np.asarray(self.count)
        numbers = [self.mean.ndim, count.ndim > 0, count.dtype.kind in "iu", *self.mean.shape]
        values = np.concatenate([count.ravel(), self.mean.ravel(), self.m2.ravel()])
        return MAGIC + struct.pack(f"<{len(numbers)}Q", *numbers) + values.astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The moments of which `to_bytes` made these bytes; ValueError if it did not."""
        if bytes(data[:8]) != MAGIC:
            raise ValueError(f"these {len(data)} bytes are no moments of this version: they must begin with {MAGIC!r}")
        try:
            ndim, per_column, whole = struct.unpack_from("<3Q", data, 8)
            shape = struct.unpack_from(f"<{min(ndim, 64)}Q", data, 32)
        except struct.error:
            raise ValueError(f"these {len(data)} bytes are no moments: they end too early") from None
        size, counts = math.prod(shape), math.prod(shape) if per_column else 1
        start = 32 + 8 * len(shape)
        if len(data) != start + 8 * (counts + 2 * size):
            raise ValueError(f"moments of shape {shape} have {start + 8 * (counts + 2 * size)} bytes, got {len(data)}")
        count, mean, m2 = np.split(np.frombuffer(data, "<f8", offset=start).astype(np.float64), [counts, counts + size])
        if not ((count >= 0) & (count < 2.0**63)).all() or (m2 < 0).any():
            raise ValueError(f"these {len(data)} bytes are no moments: counts and squares must be 0 or more")
        count = count.astype(np.int64) if whole else count
        return cls(count.reshape(shape) if per_column else count[0].item(), mean.reshape(shape), m2.reshape(shape))

    def __repr__(self) -> str:
        return f"Moments(count={self.count}, mean={self.mean!r}, m2={self.m2!r})"


def empty(shape):
    """Moments of no values."""
    return Moments(0, np.full(shape, np.nan), np.zeros(shape))


def moments(
    x: ArrayLike,
    axis: Axis | None = None,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    nan_policy: NanPolicy = "propagate",
) -> Moments:
    """Count, mean and sum of squared deviations of x, in one pass over memory.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape, strides and dtype; integers count as float64.
    axis : None, int or tuple of int
        Axes over which to take the moments; None takes all.
    where : array_like of bool, optional
        Broadcasts to x; values where it is False take no part, and count is then an array.
    weights : array_like, optional
        1-D along the one axis: the weight of each value, finite and 0 or more; the count is then their sum, a float.
    nan_policy : {"propagate", "omit", "raise"}
        A NaN makes the results of its column nan; or takes no part, as if masked; or raises.

    Returns
    -------
    Moments
        With mean and m2 of the shape of x without `axis`, float64 and summed in float64. Without values the mean is nan.

    Raises
    ------
    TypeError
        For arrays of complex numbers or objects, masked arrays, and a `where` that is not boolean.
    ValueError
        For an axis out of range, weights of a wrong length or below 0, and a NaN under nan_policy="raise".

    References
    ----------
    B. P. Welford, Technometrics 4 (1962); T. F. Chan, G. H. Golub, R. J. LeVeque, Stanford STAN-CS-79-773 (1979).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> m = nf.moments(np.array([[1.0, 2.0], [3.0, 6.0]]), axis=0)
    >>> m.count, m.mean, m.std()
    (2, array([2., 4.]), array([1., 2.]))
    >>> m = nf.moments(np.array([[1.0, 2.0], [3.0, np.nan]]), axis=0, nan_policy="omit")
    >>> m.count, m.mean
    (array([2, 1]), array([2., 2.]))
    """
    if where is None and weights is None and nan_policy == "propagate" and on_device(x):
        return device("moments")(x, axis)
    x = plain(x, "x")
    if x.dtype.kind == "c":
        raise TypeError(f"x must be real, got {x.dtype}: take the moments of x.real and x.imag")
    if nan_policy not in POLICIES:
        raise ValueError(f"nan_policy must be one of {', '.join(POLICIES)}, got {nan_policy!r}")
    layout = layout_of(x, tuple(range(x.ndim)) if axis is None else axis)
    where, weights = checked_where(where, x), _weights(weights, layout)
    if where is None and weights is None and x.size and (blocks := direct(layout, x)):
        a, r, c, s = layout.block
        mean, m2 = np.empty((a, c)), np.empty((a, c))
        engines.current().moments(*blocks, mean, m2)
        # a mean is nan also for infinite values of both signs: only then is x searched for what the policy speaks of
        if nan_policy == "propagate" or not (np.isnan(mean).any() and _has_nan(x)):
            count = r * s if nan_policy != "omit" or not layout.kept else np.full(layout.kept_shape, r * s)
            return Moments(count, layout.unpack(mean, layout.kept), layout.unpack(m2, layout.kept))
    return _in_pieces(x, layout, where, weights, nan_policy)


def _weights(weights, layout):
    """The weights as float64, checked, in the shape that broadcasts to x."""
    if weights is None:
        return None
    weights = borrowed(weights, "weights")
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"weights must be real numbers, got {weights.dtype}")
    if len(layout.reduced) != 1:
        raise ValueError(f"weights belong to one axis, and axis names {len(layout.reduced)}: choose one")
    (axis,) = layout.reduced
    if weights.shape != (layout.shape[axis],):
        raise ValueError(f"weights has shape {weights.shape}: axis {axis} of x needs ({layout.shape[axis]},)")
    weights = weights.astype(np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("weights must be finite and 0 or more")
    return weights.reshape([-1 if i == axis else 1 for i in range(len(layout.shape))])


def _has_nan(x):
    return any(np.isnan(x[piece]).any() for piece in split(x.shape))


def _in_pieces(x, layout, where, weights, nan_policy):
    """The same in pieces that stay in the cache: with masks and weights, of any dtype and strides."""
    order = layout.order
    kept = [axis in layout.kept for axis in order]
    shape = [x.shape[axis] for axis in order]
    narrow = x.dtype.kind in "fV" and x.dtype.itemsize <= 4 and weights is None
    pieces = split(shape) if x.size else []
    staged = Staged(x, order, np.dtype(np.float32) if narrow else DOUBLE, pieces)
    mask, weights = (None if values is None else values.transpose(order) for values in (where, weights))
    total = Accumulator([n if keep else 1 for n, keep in zip(shape, kept, strict=True)])
    for piece in pieces:
        block = grouped(shape_of(piece), range(len(shape)), [axis for axis, keep in enumerate(kept) if not keep])
        run = staged.load(piece, own=mask is not None or nan_policy == "omit").reshape(block)
        taken = None if mask is None else mask[piece].reshape(block)
        if nan_policy != "propagate":
            lost = np.isnan(run) if taken is None else np.isnan(run) & taken
            if nan_policy == "raise" and lost.any():
                raise ValueError('x holds a NaN: fill it, or nan_policy="omit" leaves it out')
            taken = ~lost if taken is None else taken & ~lost
        if weights is None:
            total.add(piece, block_moments(run, taken, DOUBLE))
        else:
            beside = np.broadcast_to(part(weights, piece), shape_of(piece)).reshape(block)
            total.add(piece, weighted_moments(run, beside if taken is None else beside * taken))
    with np.errstate(all="ignore"):
        mean, m2 = np.where(total.count == 0, np.nan, total.mean / total.scale), total.m2 / total.scale / total.scale
    count, mean, m2 = (layout.unpack(values.reshape(-1), layout.kept) for values in (total.count, mean, m2))
    if weights is None:
        count = count.astype(np.int64)
    if where is None and nan_policy != "omit":  # the same for all
        count = math.prod(layout.reduced_shape) if weights is None else weights.sum().item()
    elif not count.shape:
        count = count.item()
    return Moments(count, mean, m2)

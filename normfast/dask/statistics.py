"""Moments of Dask arrays: of each block in one pass, then merged up a tree."""

import math

import dask.array as da
import numpy as np

import normfast.ops.moments as whole
from normfast.dask.blocks import Lazy, along, beside, checked, fits, lazily, mapped, on_blocks, reduced_axes, sample, tree
from normfast.ops._statistics import merged_in_a_tree
from normfast.ops.moments import Moments
from normfast.ops.scaling import merged_in_units, moments_in_units, real
from normfast.typing import ArrayLike, Axis, NanPolicy

# count, mean * unit and m2 * unit**2 (see `moments_in_units`) of a column
FIELDS = ("count", "mean", "m2", "unit")
RECORD = np.dtype([(name, "f8") for name in FIELDS])


class LazyMoments(Lazy):
    """Moments of a Dask array: `compute()` gives the `nf.Moments`, and the parts are Dask arrays for further graphs.

    Attributes
    ----------
    count, mean, m2 : dask.array.Array
        As in `nf.Moments`, of one shape, float64.

    Notes
    -----
    A Dask collection: `dask.compute(m, y)` computes what both need once, `m.persist()` and `m.visualize()` work, and `a + b` are the
    moments of both sets together.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> x = da.from_array(np.arange(12.0).reshape(6, 2), chunks=(2, 1))
    >>> m = nfd.moments(x, axis=0)
    >>> (m + m).compute().count, float((x - m.mean).sum().compute())
    (12, 0.0)
    """

    __slots__ = ("_kind",)

    def __init__(self, records: da.Array, kind: tuple[bool, bool, int]) -> None:
        super().__init__(records)
        self._kind = kind  # of count: whether it is one for all columns, whether of weights, and what it is where there are no columns

    def _arguments(self):
        return (self._kind,)

    def _result(self, records):
        one, weighted, known = self._kind
        count = records["count"] if weighted else records["count"].astype(np.int64)
        if one:
            count = count.flat[0].item() if count.size else known
        return Moments(count if np.ndim(count) else np.asarray(count).item(), records["mean"], records["m2"])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the mean."""
        return self._records.shape

    @property
    def count(self) -> da.Array:
        """Number of values behind each mean, or the sum of their weights."""
        return self._records["count"]

    @property
    def mean(self) -> da.Array:
        """Means."""
        return self._records["mean"]

    @property
    def m2(self) -> da.Array:
        """Sums of squared deviations from the mean."""
        return self._records["m2"]

    def var(self, ddof: float = 0) -> da.Array:
        """Variance, as `nf.Moments.var`."""
        return mapped(_variance, self._records, dtype=np.dtype(float), ddof=ddof)

    def std(self, ddof: float = 0) -> da.Array:
        """Square root of `var(ddof)`."""
        return da.sqrt(self.var(ddof))

    def __add__(self, other: "LazyMoments") -> "LazyMoments":
        if not isinstance(other, LazyMoments):
            return NotImplemented
        if self.shape != other.shape:
            raise ValueError(f"moments of shape {self.shape} and {other.shape} do not merge: their columns must be the same")
        (one, weighted, known), (one_too, weighted_too, known_too) = self._kind, other._kind
        kind = one and one_too, weighted or weighted_too, known + known_too
        right = other._records.rechunk(self._records.chunks)
        return LazyMoments(mapped(_sum, self._records, right, dtype=RECORD), kind)

    def __repr__(self) -> str:
        return f"LazyMoments(shape={self.shape})"


def moments(
    x: da.Array,
    axis: Axis | None = None,
    *,
    where: ArrayLike | da.Array | None = None,
    weights: ArrayLike | da.Array | None = None,
    nan_policy: NanPolicy = "propagate",
) -> LazyMoments:
    """Count, mean and sum of squared deviations of a Dask array, as `nf.moments`, lazily.

    Parameters
    ----------
    x : dask.array.Array
        Real numbers of any shape, chunks and dtype; sizes of chunks may be unknown, and 0.
    axis, nan_policy
        As in `nf.moments`. Under "raise" a NaN raises when its block is computed.
    where, weights : dask.array.Array or array_like, optional
        As in `nf.moments`.

    Returns
    -------
    LazyMoments
        `compute()` gives `nf.Moments`. Its bits depend on x and its chunks alone: they are those of `nf.Moments.merge` over `nf.moments` of
        the blocks in their order; of blocks in several reduced axes along the last axis first, then its results along the axis before.

    Raises
    ------
    TypeError, ValueError
        As `nf.moments`, before anything is computed; weights below 0 when they are.

    Examples
    --------
    >>> import dask.array as da, numpy as np, normfast as nf
    >>> import normfast.dask as nfd
    >>> values = np.random.default_rng(0).normal(1e8, 1, (1000, 3))
    >>> m = nfd.moments(da.from_array(values, chunks=(300, 3)), axis=0).compute()
    >>> merged = nf.Moments.merge([nf.moments(values[i : i + 300], axis=0) for i in range(0, 1000, 300)])
    >>> bool((m.mean == merged.mean).all() and (m.m2 == merged.m2).all())
    True
    """
    axes = reduced_axes(checked(x), axis)
    one = where is None and nan_policy != "omit"
    number = math.prod(x.shape[i] for i in axes)
    records = moment_records(x, axes, where=where, weights=weights, nan_policy=nan_policy)
    squeezed = records[tuple(0 if i in axes else slice(None) for i in range(x.ndim))]
    return LazyMoments(squeezed, (one, weights is not None, 0 if math.isnan(number) else number))


def moment_records(x, axes, *, where=None, weights=None, nan_policy="propagate", units=False, centred=True):
    """Records of the moments of x over axes, which stay, 1 long; in the units of `moments_in_units` or in 1, about the mean or
    about 0."""
    check = sample(x)
    if where is not None:
        where = lazily(where)
        if where.ndim > x.ndim or not all(n == 1 or fits(n, size) for n, size in zip(where.shape[::-1], x.shape[::-1], strict=False)):
            raise ValueError(f"where has shape {where.shape}, which does not broadcast to {x.shape}, that of x")
    if weights is not None:
        weights = lazily(weights)
    # what nf.moments refuses it refuses here too
    whole.moments(
        check, axes, where=None if where is None else np.zeros(check.shape, where.dtype),
        weights=None if weights is None else np.zeros(0, weights.dtype), nan_policy=nan_policy,
    )  # fmt: skip
    others = []
    if where is not None:
        where = where[(None,) * (x.ndim - where.ndim)]
        others.append(beside(where, x, range(x.ndim), "where"))
    if weights is not None:
        (axis,) = axes
        if weights.ndim != 1 or not fits(weights.shape[0], x.shape[axis]):
            raise ValueError(f"weights has shape {weights.shape}: axis {axis} of x needs ({x.shape[axis]},)")
        weights = beside(weights, x, (axis,), "weights")
        others.append(weights[tuple(slice(None) if i == axis else None for i in range(x.ndim))])
    options = {
        "axes": axes,
        "masked": where is not None,
        "weighted": weights is not None,
        "nan_policy": nan_policy,
        "units": units,
        "centred": centred,
    }
    return tree(merged, mapped(block_records, x, *others, dtype=RECORD, chunks=along(x, axes), **options), axes)


@on_blocks
def block_records(x, *others, axes, masked, weighted, nan_policy, units, centred):
    """The record of each column of a block."""
    where = others[0] if masked else None
    weights = others[-1].ravel() if weighted else None
    if units:
        m, unit = moments_in_units(real(x), axes, weights, nan_policy)
    else:
        m, unit = whole.moments(x, axes, where=where, weights=weights, nan_policy=nan_policy), 1.0
    if not centred:
        m = _about_zero(m, x, axes)
    return packed(m, unit, tuple(1 if axis in axes else size for axis, size in enumerate(x.shape)))


def _about_zero(m, x, axes):
    """Moments with 0 in place of the mean; the sum of squares of infinite values is infinite."""
    with np.errstate(all="ignore"):
        squares = np.where(np.equal(m.count, 0), 0.0, m.m2 + m.count * m.mean * m.mean)
        if np.isnan(squares).any():
            squares = np.where(np.isnan(squares) & ~np.isnan(x).any(axis=axes), np.inf, squares)
    return Moments(m.count, np.zeros_like(m.mean), squares)


def packed(m, unit, shape):
    """Moments and their unit as records."""
    records = np.empty(shape, RECORD)
    for name, values in zip(FIELDS, (m.count, m.mean, m.m2, unit), strict=True):
        records[name] = values if np.ndim(values) == 0 else np.reshape(values, shape)
    return records


def unpacked(records):
    """The moments and the unit of records."""
    return Moments(records["count"], records["mean"], records["m2"]), records["unit"]


def merged(records, axis, keepdims):
    """Records merged along one axis, pair by pair."""
    (axis,) = axis
    parts = [unpacked(part) for part in np.split(records, records.shape[axis], axis)]
    with np.errstate(all="ignore"):
        m, unit = merged_in_a_tree(parts, lambda a, b: merged_in_units(*a, *b))
    return packed(m, unit, m.mean.shape)


def _sum(a, b):
    return packed(unpacked(a)[0] + unpacked(b)[0], 1.0, a.shape)


def _variance(records, ddof):
    return unpacked(records)[0].var(ddof)

"""Covariance of Dask arrays, and whitening by it."""

from functools import cache
from typing import Literal, NamedTuple

import dask.array as da
import numpy as np

import normfast.ops.covariance as whole
from normfast.dask.blocks import Lazy, again, beside, checked, fits, lazily, mapped, on_blocks, sample, tree
from normfast.ops.covariance import Covariance
from normfast.ops.scaling import real
from normfast.ops.whitening import METHODS, whitened, whitening_matrices
from normfast.typing import ArrayLike, Float64Array, NanPolicy, Whitening


@cache
def record(d):
    """The dtype of a covariance of d features."""
    return np.dtype([("count", "f8"), ("mean", "f8", (d,)), ("m2", "f8", (d, d)), ("rest", "f8", (d,))])


class LazyCovariance(Lazy):
    """Covariance of a Dask array: `compute()` gives the `nf.Covariance`, and the parts are Dask arrays for further graphs.

    Attributes
    ----------
    count, mean, m2 : dask.array.Array, shapes (), (d,) and (d, d)
        As in `nf.Covariance`, float64.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> c = nfd.covariance(da.from_array(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 6.0], [4.0, 5.0]]), chunks=(2, 1)))
    >>> c.cov().compute()
    array([[1.25, 1.75],
           [1.75, 4.25]])
    """

    __slots__ = ("_weighted",)

    def __init__(self, records: da.Array, weighted: bool) -> None:
        super().__init__(records)
        self._weighted = weighted

    def _arguments(self):
        return (self._weighted,)

    def _result(self, records):
        c = unpacked(records)
        return c if self._weighted else Covariance(int(c.count), c.mean, c.m2, c.rest)

    @property
    def count(self) -> da.Array:
        """Number of samples, or the sum of their weights."""
        return self._records["count"][0]

    @property
    def mean(self) -> da.Array:
        """Mean of each feature."""
        return self._records["mean"][0]

    @property
    def m2(self) -> da.Array:
        """Sum of the products of deviations from the mean."""
        return self._records["m2"][0]

    def cov(self, ddof: float = 0) -> da.Array:
        """Covariance matrix, as `nf.Covariance.cov`."""
        d = self._records.dtype["mean"].shape[0]
        return mapped(_cov, self._records, dtype=np.dtype(float), chunks=((d,), (d,)), new_axis=[1], ddof=ddof)

    def __repr__(self) -> str:
        return f"LazyCovariance(features={self._records.dtype['mean'].shape[0]})"


def covariance(
    x: da.Array,
    *,
    where: ArrayLike | da.Array | None = None,
    weights: ArrayLike | da.Array | None = None,
    nan_policy: NanPolicy = "propagate",
) -> LazyCovariance:
    """Count, mean and co-moment matrix of the rows of a Dask array, as `nf.covariance`, lazily.

    Parameters
    ----------
    x : dask.array.Array, shape (n, d)
        Samples in rows; n may be unknown. Chunks along the features are brought together.
    where, weights, nan_policy
        As in `nf.covariance`; arrays of Dask or others.

    Returns
    -------
    LazyCovariance
        `compute()` gives `nf.Covariance`, with the bits of `nf.Covariance.merge` over `nf.covariance` of the blocks of rows in their order.

    Raises
    ------
    TypeError, ValueError
        As `nf.covariance`, before anything is computed, and for an unknown number of features.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> x = da.from_array(np.array([[1.0, 2.0], [3.0, 4.0], [2.0, np.nan]]), chunks=(1, 2))
    >>> c = nfd.covariance(x, nan_policy="omit").compute()
    >>> c.count, c.mean
    (2, array([2., 3.]))
    """
    return LazyCovariance(covariance_records(x, where, weights, nan_policy), weights is not None)


def rows_of(x):
    """x with all columns in each block."""
    if x.ndim == 2 and np.isnan(x.shape[1]):
        raise ValueError("x has an unknown number of features: call x.compute_chunk_sizes() first")
    return x.rechunk({1: -1}) if x.ndim == 2 and x.numblocks[1] > 1 else x


def covariance_records(x, where=None, weights=None, nan_policy="propagate"):
    """The record of the covariance, shape (1,)."""
    x = rows_of(checked(x))
    d = x.shape[1] if x.ndim == 2 else 0
    others = {name: lazily(values) for name, values in (("where", where), ("weights", weights)) if values is not None}
    # what nf.covariance refuses it refuses here too
    refused = {name: np.zeros(0, values.dtype) for name, values in others.items()}
    whole.covariance(np.zeros((0, d), x.dtype) if x.ndim == 2 else sample(x), nan_policy=nan_policy, **refused)
    for name, values in others.items():
        if values.ndim != 1 or not fits(values.shape[0], x.shape[0]):
            raise ValueError(f"{name} has shape {values.shape}: x with {x.shape[0]} rows needs ({x.shape[0]},)")
        others[name] = beside(values, x, (0,), name)[:, None]
    records = mapped(
        block_covariance, x, *others.values(), dtype=record(d), chunks=((1,) * x.numblocks[0],), drop_axis=1, names=tuple(others),
        nan_policy=nan_policy,
    )  # fmt: skip
    return tree(merged_covariance, records, (0,))


@on_blocks
def block_covariance(x, *others, names, nan_policy):
    """The record of a block of rows."""
    return packed(whole.covariance(x, nan_policy=nan_policy, **{name: values.ravel() for name, values in zip(names, others, strict=True)}))


def packed(c):
    """A covariance as an array of one record."""
    records = np.empty(1, record(c.mean.size))
    for name in records.dtype.names:
        records[name] = getattr(c, name)
    return records


def unpacked(records):
    """The covariance of an array of one record."""
    return Covariance(records["count"][0].item(), *(records[name][0] for name in ("mean", "m2", "rest")))


def merged_covariance(records, axis, keepdims):
    """Records merged pair by pair."""
    return packed(Covariance.merge([unpacked(records[i : i + 1]) for i in range(len(records))]))


def _cov(records, ddof):
    return unpacked(records).cov(ddof)


def whiten(
    x: da.Array,
    *,
    method: Whitening = "zca",
    n_components: int | None = None,
    shrinkage: float | Literal["oas"] = 0.0,
    eps: float = 1e-12,
    ddof: float = 0,
    reread: bool = True,
) -> da.Array:
    """Bring samples in rows to mean 0 and the identity as covariance, as `nf.preprocessing.whiten`, lazily.

    Parameters
    ----------
    x : dask.array.Array, shape (n, d)
        Samples in rows, finite; n may be unknown. Chunks along the features are brought together.
    method, n_components, shrinkage, eps, ddof
        As in `nf.preprocessing.whiten`.
    reread : bool
        As in `standardize`.

    Returns
    -------
    dask.array.Array, shape (n, k)
        Of x's dtype. k is d for "zca"; else the number of directions kept, which the data decide: it is unknown until computed.

    Raises
    ------
    TypeError, ValueError
        As `nf.preprocessing.whiten`: for dtypes, shapes, method and n_components at once, for NaN, infinities, shrinkage, eps and ddof when
        the covariance is computed.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> y = nfd.whiten(da.from_array(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 6.0], [4.0, 5.0]]), chunks=(2, 2)))
    >>> (y.T @ y / 4).compute().round(12) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    x = rows_of(checked(x))
    records = covariance_records(x, nan_policy="raise")
    d = x.shape[1]
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if n_components is not None and not 1 <= n_components <= d:
        raise ValueError(f"n_components must be a number from 1 to {d}, that of the features, or None, got {n_components!r}")
    width = d if method == "zca" else np.nan
    matrix = mapped(
        _matrix, records, dtype=np.dtype(float), chunks=((width,), (d,)), new_axis=[1], method=method, n_components=n_components,
        shrinkage=shrinkage, eps=eps, ddof=ddof,
    )  # fmt: skip
    return by_rows(_whitened, again(x, reread), width, records["mean"], records["rest"], matrix)


def by_rows(function, x, width, *others, **options):
    """The function of each block of rows, of another width, beside arrays that belong to all of them."""
    return mapped(function, x, *others, dtype=real(sample(x)).dtype, chunks=(x.chunks[0], (width,)), **options)


class Centre(NamedTuple):
    """What of a covariance centring takes."""

    mean: Float64Array
    rest: Float64Array


@on_blocks
def _whitened(x, mean, rest, matrix):
    return whitened(real(x), Centre(mean.ravel(), rest.ravel()), matrix)


def _matrix(records, **options):
    return whitening_matrices(unpacked(records), **options)[0]

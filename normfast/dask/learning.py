"""What the estimators do with Dask arrays: they learn by one computation over the blocks, and transform lazily."""

import dask.array as da
import numpy as np

from normfast.dask.blocks import fits, mapped, on_blocks, sample
from normfast.dask.covariances import Centre, LazyCovariance, covariance_records, rows_of
from normfast.dask.covariances import by_rows as blocks_by_rows
from normfast.dask.scaling import range_records
from normfast.dask.statistics import moment_records, unpacked
from normfast.ops.moments import Moments
from normfast.ops.scaling import real


def checked_samples(x, learned=None):
    """The number of features of x, samples in rows, which must be `learned` where that is given."""
    real(sample(x))  # raises for dtypes that cannot be scaled
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}: it must be (n_samples, n_features) with one or more of each")
    if np.isnan(x.shape[1]):
        raise ValueError("x has an unknown number of features: call x.compute_chunk_sizes() first")
    if learned is not None and not fits(x.shape[1], learned):
        raise ValueError(f"x has {x.shape[1]} features, and {learned} were learned")
    return x.shape[1]


def moments_in_units(x, axis, weights=None):
    """As `normfast.ops.scaling.moments_in_units`, of a Dask array."""
    x = x if weights is None else rows_of(x)  # so that the weights of all columns are summed in one order
    m, unit = unpacked(moment_records(x, axis, weights=weights, nan_policy="omit", units=True).compute()[0])
    if not m.count.any():
        _no_samples(weights)
    if not np.isfinite(m.mean[m.count > 0]).all():
        raise ValueError("x has infinity: take it out first")
    return (Moments(m.count.astype(np.int64), m.mean, m.m2) if weights is None else m), unit


def covariance(x, weights=None):
    """As `normfast.covariance`, of a Dask array without NaN."""
    c = LazyCovariance(covariance_records(x, None, weights, "raise"), weights is not None).compute()
    return c if c.count else _no_samples(weights)


def _no_samples(weights):
    if weights is not None:
        raise ValueError("sample_weight is zero everywhere: one sample at least must take part")


def extremes(x):
    """The number of rows, and the smallest and largest value of each column."""
    records = range_records(x, (0,)).compute()[0]
    if not records["count"].any():
        raise ValueError("x has no samples: give one or more")
    if np.isinf(records["smallest"]).any() or np.isinf(records["largest"]).any():
        raise ValueError("x has infinity: take it out first")
    return int(records["count"][0]), records["smallest"], records["largest"]


def by_columns(function, x, *columns, **options):
    """The function of each block of x and of the parts of the columns that belong to it; numbers and None belong to all."""
    beside = [values if np.ndim(values) == 0 else da.from_array(values[None], chunks=(1, x.chunks[1])) for values in columns]
    return mapped(_columns, x, *beside, dtype=real(sample(x)).dtype, name=_name(function), of=function, **options)


@on_blocks
def _columns(x, *columns, of, **options):
    x = real(x)
    return of(x, *(values if np.ndim(values) == 0 else values[0] for values in columns), **options) if x.size else x


def by_rows(function, x, c, matrix):
    """The function of each block of rows, centred by a covariance and multiplied by a matrix."""
    return blocks_by_rows(_rows, rows_of(x), len(matrix), c.mean, c.rest, matrix, name=_name(function), of=function)


@on_blocks
def _rows(x, mean, rest, matrix, of):
    return of(real(x), Centre(mean, rest), matrix)


def _name(function):
    return f"normfast-{function.__name__.strip('_')}"

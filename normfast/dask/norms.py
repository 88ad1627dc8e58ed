"""Batch, layer and RMS norm of Dask arrays. Rows that lie in one block are normalized in one pass; else the statistics merge first."""

import math
from typing import TypeAlias

import dask.array as da
import numpy as np

from normfast.dask.blocks import again, beside, checked, fits, lazily, mapped, on_blocks, reduced_axes, sample
from normfast.dask.statistics import moment_records, unpacked
from normfast.engines.numpy import inverse_deviation
from normfast.ops import batch_norm as batch
from normfast.ops import layer_norm as layer
from normfast.ops import rms_norm as rms
from normfast.ops._arrays import checked_eps, floating, layout_of
from normfast.ops._norm import Course
from normfast.ops._stats import NormStats
from normfast.ops.activation import checked_activation
from normfast.typing import Activation, ArrayLike, Axis

Parameter: TypeAlias = ArrayLike | da.Array | None


def batch_norm(
    x: da.Array,
    mean: ArrayLike | da.Array,
    var: ArrayLike | da.Array,
    weight: Parameter = None,
    bias: Parameter = None,
    *,
    axis: Axis = 1,
    eps: float = 1e-5,
    activation: Activation = None,
) -> da.Array:
    """Normalize each channel of a Dask array by given statistics, as `nf.batch_norm`, lazily.

    Parameters
    ----------
    x : dask.array.Array
        Floating-point numbers of any shape and chunks.
    mean, var, weight, bias : array_like or dask.array.Array
        As in `nf.batch_norm`.
    axis, eps, activation
        As in `nf.batch_norm`.

    Returns
    -------
    dask.array.Array
        Of x's shape, chunks and dtype: the bits of `nf.batch_norm`, whatever the chunks.

    Raises
    ------
    TypeError, ValueError
        As `nf.batch_norm`, before anything is computed; for a negative variance when it is.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> x = da.from_array(np.array([[1.0, 10.0], [3.0, 30.0]]), chunks=1)
    >>> nfd.batch_norm(x, mean=[2.0, 20.0], var=[1.0, 100.0], eps=0).compute()
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    given = {"mean": mean, "var": var, "weight": weight, "bias": bias}
    options = {"axis": _kept(checked(x), axis), "eps": eps, "activation": activation}
    parameters = _parameters(x, options["axis"], **given)
    batch.batch_norm(sample(x), **_samples(parameters, options["axis"]), **options)  # what it refuses it refuses here too
    return mapped(_batch_norm, x, *parameters.values(), dtype=_dtype(x), names=tuple(parameters), **options)


@on_blocks
def _batch_norm(x, *parameters, names, axis, **options):
    return batch.batch_norm(x, **_shaped(x, names, parameters, axis), axis=axis, **options)


def batch_norm_forward(
    x: da.Array,
    weight: Parameter = None,
    bias: Parameter = None,
    *,
    axis: Axis = 1,
    eps: float = 1e-5,
    activation: Activation = None,
    reread: bool = True,
) -> tuple[da.Array, NormStats]:
    """Normalize each channel of a Dask array by its own statistics, as `nf.batch_norm_forward`, lazily.

    Parameters
    ----------
    x : dask.array.Array
        Floating-point numbers of any shape and chunks, also of unknown size.
    weight, bias : array_like or dask.array.Array, optional
        Of the shape of x along `axis`.
    axis, eps, activation
        As in `nf.batch_norm_forward`.
    reread : bool
        As in `standardize`.

    Returns
    -------
    y : dask.array.Array
        Of x's shape, chunks and dtype.
    stats : NormStats
        (mean, rstd, var, count) as Dask arrays; count is a number where the sizes of x are known. `dask.compute(y, stats)` gives both.

    Raises
    ------
    TypeError, ValueError
        As `nf.batch_norm_forward`, before anything is computed.

    Examples
    --------
    >>> import dask, dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> y, stats = dask.compute(nfd.batch_norm_forward(da.from_array(np.array([[1.0, 10.0], [3.0, 30.0]]), chunks=1), eps=0))[0]
    >>> y
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> stats.mean, stats.var, stats.count
    (array([ 2., 20.]), array([  1., 100.]), 2)
    """
    kept = _kept(checked(x), axis)
    axes = tuple(i for i in range(x.ndim) if i not in kept)
    parameters = _parameters(x, kept, weight=weight, bias=bias)
    batch.batch_norm_forward(sample(x), **_samples(parameters, kept), axis=kept, eps=eps, activation=activation)
    records = _records(x, axes)
    y = _by_statistics(again(x, reread), records, parameters, axes, kept, eps, activation)
    column = records[tuple(0 if i in axes else slice(None) for i in range(x.ndim))]
    mean, rstd, var = (mapped(_factor, column, dtype=np.dtype(float), which=i, eps=eps) for i in range(3))
    count = math.prod(x.shape[i] for i in axes)
    return y, NormStats(mean, rstd, var, column["count"].astype(np.int64) if math.isnan(count) else count)


def layer_norm(
    x: da.Array, weight: Parameter = None, bias: Parameter = None, *, axis: Axis = -1, eps: float = 1e-5, reread: bool = True
) -> da.Array:
    """Normalize a Dask array over the axes, as `nf.layer_norm`, lazily.

    Parameters
    ----------
    x : dask.array.Array
        Floating-point numbers of any shape and chunks. Where `axis` lies in one chunk each block is normalized in one pass.
    weight, bias : array_like or dask.array.Array, optional
        Of the shape of x along `axis`.
    axis, eps
        As in `nf.layer_norm`.
    reread : bool
        As in `standardize`, where `axis` is cut into chunks.

    Returns
    -------
    dask.array.Array
        Of x's shape, chunks and dtype.

    Raises
    ------
    TypeError, ValueError
        As `nf.layer_norm`, before anything is computed.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> x = da.from_array(np.array([[1.0, 2.0, 3.0], [1e8, 1e8, 1e8 + 3]]), chunks=(1, 2))
    >>> nfd.layer_norm(x, eps=0).compute().round(4)
    array([[-1.2247,  0.    ,  1.2247],
           [-0.7071, -0.7071,  1.4142]])
    """
    return _row_norm(layer.layer_norm, _layer_norm, x, axis, eps, reread, True, weight=weight, bias=bias)


def rms_norm(x: da.Array, weight: Parameter = None, *, axis: Axis = -1, eps: float = 1e-5, reread: bool = True) -> da.Array:
    """Divide a Dask array by its root mean square over the axes, as `nf.rms_norm`, lazily.

    Parameters
    ----------
    x, weight, axis, eps, reread
        As in `layer_norm`.

    Returns
    -------
    dask.array.Array
        Of x's shape, chunks and dtype.

    Raises
    ------
    TypeError, ValueError
        As `nf.rms_norm`, before anything is computed.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import normfast.dask as nfd
    >>> nfd.rms_norm(da.from_array(np.array([3.0, 4.0]), chunks=1), eps=0).compute().round(4)
    array([0.8485, 1.1314])
    """
    return _row_norm(rms.rms_norm, _rms_norm, x, axis, eps, reread, False, weight=weight)


def _row_norm(whole, on_block, x, axis, eps, reread, centred, **given):
    axes = reduced_axes(checked(x), axis)
    parameters = _parameters(x, axes, **given)
    whole(sample(x), **_samples(parameters, axes), axis=axes, eps=eps)  # what it refuses it refuses here too
    if all(x.numblocks[i] == 1 for i in axes):
        return mapped(on_block, x, *parameters.values(), dtype=_dtype(x), names=tuple(parameters), axis=axes, eps=eps)
    return _by_statistics(again(x, reread), _records(x, axes, centred), parameters, axes, axes, eps, None)


@on_blocks
def _layer_norm(x, *parameters, names, axis, eps):
    return layer.layer_norm(x, **_shaped(x, names, parameters, axis), axis=axis, eps=eps)


@on_blocks
def _rms_norm(x, *parameters, names, axis, eps):
    return rms.rms_norm(x, **_shaped(x, names, parameters, axis), axis=axis, eps=eps)


def _dtype(x):
    return floating(sample(x)).dtype


def _kept(x, axis):
    return layout_of(sample(x), axis, kept=True).kept


def _parameters(x, axes, **given):
    """Weights, biases and statistics over some axes of x as Dask arrays beside its blocks; those of None are left out."""
    parameters = {}
    for name, values in given.items():
        if values is None:
            continue
        values, shape = lazily(values), tuple(x.shape[i] for i in axes)
        if values.ndim != len(axes) or not all(map(fits, values.shape, shape)):
            raise ValueError(f"{name} has shape {values.shape}: an x of shape {x.shape} needs {shape}, its shape along the axes {axes}")
        parameters[name] = beside(values, x, axes, name)[tuple(slice(None) if i in axes else None for i in range(x.ndim))]
    return parameters


def _samples(parameters, axes):
    """Parameters without values, for the checks."""
    return {name: np.zeros((0,) * len(axes), values.dtype) for name, values in parameters.items()}


def _shaped(x, names, parameters, axes):
    """The parts of the parameters that lie beside a block, of its shape along the axes."""
    return {name: values.reshape([x.shape[i] for i in axes]) for name, values in zip(names, parameters, strict=True)}


def _records(x, axes, centred=True):
    return moment_records(x, axes, units=True, centred=centred)


def _by_statistics(x, records, parameters, axes, affine, eps, activation):
    options = {"axes": axes, "affine": affine, "eps": checked_eps(eps), "activation": activation}
    return mapped(_normalized, x, records, *parameters.values(), dtype=_dtype(x), names=tuple(parameters), **options)


@on_blocks
def _normalized(x, records, *parameters, names, axes, affine, eps, activation):
    """A block by the records of its statistics."""
    x = floating(x)
    layout, y = layout_of(x, axes), np.empty(x.shape, x.dtype)
    if x.size:
        course = Course(x, layout, affine, activation=checked_activation(activation), **dict(zip(names, parameters, strict=True)))
        course.apply([values.transpose(layout.order) for values in _factors(records, eps)], y)
    return y


def _factors(records, eps):
    """mean, rstd and var of records; of those about 0 the mean square is the var."""
    m, unit = unpacked(records)
    with np.errstate(all="ignore"):
        return m.mean / unit, *inverse_deviation(m.m2 / m.count, unit, eps)[::-1]


def _factor(records, which, eps):
    return _factors(records, eps)[which]

"""Group normalization (Wu, He 2018) and, as groups of one channel, instance normalization (Ulyanov et al. 2016)."""

import math
from functools import lru_cache
from typing import NamedTuple, SupportsIndex

import numpy as np

from normfast import engines
from normfast.engines.policy import takes_groups, takes_halves
from normfast.ops._arrays import (
    DOUBLE,
    apart,
    checked_eps,
    checked_out,
    checked_where,
    floating,
    gradient_dtype,
    grouped,
    layout_of,
    parameter,
    same_shape,
    statistics,
    unset_statistics,
)
from normfast.ops._device import device, on_device
from normfast.ops._norm import gradients, normalize
from normfast.ops._pieces import parts_along
from normfast.ops._rows import without_dependence
from normfast.ops._stats import NormGradients, NormStats
from normfast.typing import Array, ArrayLike, Writeable


def group_norm(
    x: ArrayLike,
    num_groups: SupportsIndex,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
    out: Writeable | None = None,
) -> Array:
    """Normalize each group of channels of each sample: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : array_like, float16, bfloat16, float32 or float64
        Samples along axis 0, channels along `axis`, of any shape and strides: NCHW, NHWC with axis=-1, (N, C), ...
    num_groups : int
        How many groups of neighbouring channels; it divides the number of channels.
    weight, bias : array_like, optional
        Of shape (channels,); float32 where x has 16 bits, or as x.
    axis : int
        The axis of the channels.
    eps : float
        Added to the population variance, 0 or more.
    where : array_like of bool, optional
        Broadcasts to x; values where it is False take no part in the statistics, and their y is 0.
    out : ndarray, optional
        Of x's shape and dtype; takes y. It may be x itself or overlap it.

    Returns
    -------
    ndarray
        y, of x's shape and dtype: `out` if that was given.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong type, shape or range; nothing is written then.

    References
    ----------
    Y. Wu, K. He, Group Normalization, arXiv:1803.08494 (2018).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0)
    array([[-1.,  1., -1.,  1.]])
    """
    return group_norm_forward(x, num_groups, weight, bias, axis=axis, eps=eps, where=where, out=out)[0]


def group_norm_forward(
    x: ArrayLike,
    num_groups: SupportsIndex,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
    out: Writeable | None = None,
) -> tuple[Array, NormStats]:
    """As `group_norm`, and the statistics that `group_norm_backward` needs.

    Returns
    -------
    y : ndarray
    stats : NormStats
        (mean, rstd, var, count) of shape (samples, num_groups), float64.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, stats = nf.group_norm_forward(np.array([[1.0, 3.0, 10.0, 30.0]]), 2)
    >>> stats.mean, stats.count
    (array([[ 2., 20.]]), 2)
    """
    engine = engines.current()
    if where is None and (simple := engine.group_norm_at_once(x, num_groups, weight, bias, axis, eps, out)) is not None:
        y, statistics_, count = simple
        return y, NormStats(*statistics_, count)
    if where is None and on_device(x):
        return device("group_norm_forward")(x, num_groups, weight, bias, axis=axis, eps=eps, out=out)
    x = floating(x)
    layout, groups = _grouped(x, num_groups, axis)
    out = checked_out(out, x)
    weight = parameter(weight, layout, layout.kept, DOUBLE, "weight", 1, out)
    bias = parameter(bias, layout, layout.kept, DOUBLE, "bias", 0, out)
    eps, where = checked_eps(eps), checked_where(where, x)
    x = apart(x, out)
    y, shape = np.empty_like(x) if out is None else out, groups.shape
    if where is None and (parts := _rows(layout, groups, x, y)):
        mean, rstd, var = unset_statistics(x, *shape[:2])
        parameters = weight.reshape(shape[1:3]), bias.reshape(shape[1:3])
        for own, rows, result in parts:
            runs = mean[own].ravel(), rstd[own].ravel(), var[own].ravel()
            engine.group_norm_forward(rows, *parameters, groups.run, eps, result, *runs)
        return y, NormStats(mean, rstd, var, groups.rows[1])
    where = None if where is None else where.reshape(shape)
    _, stats = normalize(x.reshape(shape), *_course(x.reshape(shape), groups.axis), weight, bias, eps, y.reshape(shape), where)
    return y, stats


def group_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    stats: NormStats,
    weight: ArrayLike | None = None,
    *,
    num_groups: SupportsIndex,
    axis: int = 1,
    where: ArrayLike | None = None,
    out: Writeable | None = None,
) -> NormGradients:
    """Gradients of `group_norm`, from the gradient dy of y.

    Parameters
    ----------
    dy, x : array_like
        Gradient of the loss with respect to y, and the input of the forward call; of the same shape.
    stats : NormStats
        What `group_norm_forward` returned for x.
    weight : array_like, optional
        The weight of the forward call.
    num_groups, axis, where
        As in the forward call.
    out : ndarray, optional
        Of x's shape and dtype; takes dx. It may be dy or x themselves or overlap them.

    Returns
    -------
    NormGradients
        dx of x's shape and dtype, dweight = sum(dy * xhat) and dbias = sum(dy) of shape (channels,) (also where there is no weight).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, 2.0, 4.0]])
    >>> y, stats = nf.group_norm_forward(x, 1)
    >>> nf.group_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, stats, num_groups=1).dx.round(4)
    array([[ 0.2291, -0.3436,  0.1145]])
    """
    if where is None and isinstance(stats, NormStats):
        simple = engines.current().group_norm_gradients_at_once(dy, x, stats.mean, stats.rstd, num_groups, weight, axis, out)
        if simple is not None:
            return NormGradients(*simple)
    if where is None and on_device(x):
        return device("group_norm_backward")(dy, x, stats, weight, num_groups=num_groups, axis=axis, out=out)
    x = floating(x)
    dy = same_shape(dy, x, "dy")
    dtype = gradient_dtype(x, weight)
    layout, groups = _grouped(x, num_groups, axis)
    out = checked_out(out, x)
    weight = parameter(weight, layout, layout.kept, DOUBLE, "weight", 1, out)
    where, shape = checked_where(where, x), groups.shape
    dy, x = apart(dy, out), apart(x, out)
    dx = np.empty_like(x) if out is None else out
    if where is None and (parts := _rows(layout, groups, dy, x, dx)):
        mean, rstd = (run.reshape(shape[:2]) for run in statistics(stats, layout_of(x.reshape(shape), (0, 1), kept=True), out=out))
        sums = np.empty((2, *x.shape[:2]))
        for own, *rows, result in parts:
            of_rows = mean[own].ravel(), rstd[own].ravel(), weight.reshape(shape[1:3])
            more = engines.current().group_norm_backward(*rows, *of_rows, groups.run, result)
            sums[0, own], sums[1, own] = (total.reshape(-1, x.shape[1]) for total in more)
        dweight, dbias = (total.sum(axis=0).astype(dtype) for total in sums)
        return NormGradients(without_dependence(dx, groups.rows[1], True), dweight, dbias)
    options = {} if where is None else {"where": where.reshape(shape)}
    course = _course(x.reshape(shape), groups.axis)
    _, *parameters = gradients(dy.reshape(shape), x.reshape(shape), stats, *course, weight, dtype, dx.reshape(shape), **options)
    return NormGradients(dx, *(values.reshape(-1) for values in parameters))


class Groups(NamedTuple):
    """The channels of x in groups: what follows from the shape of x."""

    shape: tuple[int, ...]  # of x, with its channels as (groups, channels of a group)
    axis: int  # of the groups in that shape
    rows: tuple[int, int]  # groups of all samples, values of each
    run: int  # values of a channel, which lie together where the axis is 1


@lru_cache(maxsize=1024)
def _groups(shape, axis, groups):
    shape = (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    return Groups(shape, axis, (math.prod(shape[:2]), math.prod(shape[2:])), math.prod(shape[3:]))


def _grouped(x, num_groups, axis):
    """The layout of x that keeps the channels, and the channels in groups."""
    if isinstance(num_groups, bool) or not hasattr(num_groups, "__index__"):
        raise TypeError(f"num_groups must be an integer, got {type(num_groups).__name__}")
    layout = layout_of(x, axis, kept=True)  # checks the axis
    if len(layout.kept) != 1:
        raise ValueError(f"axis must be one axis, that of the channels, got {axis}")
    (axis,) = layout.kept
    if axis == 0:
        raise ValueError("axis is 0, that of the samples: give the axis of the channels")
    channels, groups = x.shape[axis], num_groups.__index__()
    if groups < 1 or channels % groups:
        raise ValueError(f"num_groups must divide the {channels} channels, got {groups}")
    return layout, _groups(x.shape, axis, groups)


def _rows(layout, groups, *arrays):
    """Parts of the samples that a kernel takes in one call (`parts_along`), as rows, one for each group; None for many short runs."""
    size, n = math.prod(groups.rows), groups.rows[1]
    if not size or groups.axis != 1 or not layout.natural or not takes_groups(size // groups.run, groups.run):
        return None
    parts = parts_along(layout, 0, *arrays, halves=takes_halves(groups.run))
    return None if parts is None else ((own, *(run.reshape(-1, n) for run in runs)) for own, *runs in parts)


def _course(x, axis):
    """The layout that keeps samples and groups, and the axes of the parameters; both must be blocks in one order of the axes."""
    affine = (axis, axis + 1)
    layout = layout_of(x, (0, axis), kept=True)
    if grouped(x.shape, layout.order, set(layout.reduced) - set(affine)) is None:
        layout = layout_of(x, (0, axis), kept=True, rows=True)
    return layout, affine


def instance_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    out: Writeable | None = None,
) -> Array:
    """Normalize each channel of each sample: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x, weight, bias, axis, eps, out
        As in `group_norm`.

    Returns
    -------
    ndarray
        y, of x's shape and dtype: `out` if that was given.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, Instance Normalization, arXiv:1607.08022 (2016).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.instance_norm(np.array([[[1.0, 3.0], [10.0, 30.0]]]), eps=0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    return instance_norm_forward(x, weight, bias, axis=axis, eps=eps, out=out)[0]


def instance_norm_forward(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    out: Writeable | None = None,
) -> tuple[Array, NormStats]:
    """As `instance_norm`, and the statistics that `instance_norm_backward` needs.

    Returns
    -------
    y : ndarray
    stats : NormStats
        (mean, rstd, var, count) of shape (samples, channels), float64.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, stats = nf.instance_norm_forward(np.array([[[1.0, 3.0], [10.0, 30.0]]]))
    >>> stats.mean
    array([[ 2., 20.]])
    """
    if on_device(x):
        return device("instance_norm_forward")(x, weight, bias, axis=axis, eps=eps, out=out)
    x = floating(x)
    return group_norm_forward(x, _channels(x, axis), weight, bias, axis=axis, eps=eps, out=out)


def instance_norm_backward(
    dy: ArrayLike, x: ArrayLike, stats: NormStats, weight: ArrayLike | None = None, *, axis: int = 1, out: Writeable | None = None
) -> NormGradients:
    """Gradients of `instance_norm`, from the gradient dy of y.

    Parameters
    ----------
    dy, x, stats, weight, axis, out
        As in `group_norm_backward`.

    Returns
    -------
    NormGradients
        dx of x's shape and dtype, dweight and dbias of shape (channels,).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[[1.0, 2.0, 4.0]]])
    >>> y, stats = nf.instance_norm_forward(x)
    >>> nf.instance_norm_backward(np.array([[[1.0, 0.0, 0.0]]]), x, stats).dx.round(4)
    array([[[ 0.2291, -0.3436,  0.1145]]])
    """
    if on_device(x):
        return device("instance_norm_backward")(dy, x, stats, weight, axis=axis, out=out)
    x = floating(x)
    return group_norm_backward(dy, x, stats, weight, num_groups=_channels(x, axis), axis=axis, out=out)


def _channels(x, axis):
    """How many channels there are; without any, one group holds them all."""
    layout = layout_of(x, axis, kept=True)
    return max(1, layout.kept_shape[0])

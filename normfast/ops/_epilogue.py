"""Gradients of the norms of `nf.fuse`: those of the norm, from dz = dy * f'(z) in place of dy, which the engine makes on the way.

z is the normalized value, computed again from x, the statistics, weight and bias.
"""

import numpy as np

from normfast import engines
from normfast.ops._arrays import (
    DOUBLE,
    checked_out,
    checked_where,
    computing,
    direct,
    floating,
    gradient_dtype,
    layout_of,
    parameter,
    same_shape,
    statistics,
)
from normfast.ops._norm import gradients
from normfast.ops._rows import rows_backward, without_dependence
from normfast.ops._stats import NormGradients
from normfast.ops.batch_norm import checked_ord
from normfast.ops.group_norm import _channels, _course, _grouped
from normfast.ops.rms_norm import RMSNormGradients, zero_centered_weight


def _rows_backward(engine, dy, x, stats, weight, bias, *, centred, axis=-1, where=None, out=None):
    x = floating(x)
    dy = same_shape(dy, x, "dy")
    layout, dtype = layout_of(x, axis, rows=True), gradient_dtype(x, weight)
    checked_out(out, x)
    weight, bias = _parameters(weight, bias, layout, layout.reduced, computing(x.dtype), out)
    if where is not None:
        weight, bias = (layout.unpack(run, layout.reduced) for run in (weight, bias))
        return _in_pieces(engine, dy, x, stats, layout, layout.reduced, weight, bias, dtype, out, where=checked_where(where, x))
    fields = ("mean", "rstd") if centred else ("rstd",)
    *mean, rstd = statistics(stats, layout, fields, out)
    with engines.using(engine):
        dx, dweight, dbias = rows_backward(  # type: ignore[misc]  # statistics are three
            dy, x, layout, *(mean or [np.zeros(rstd.size)]), rstd, (weight, bias), centred, out, halves=False
        )
    return NormGradients(dx, layout.unpack(dweight.astype(dtype), layout.reduced), layout.unpack(dbias.astype(dtype), layout.reduced))


def layer_norm_backward(engine, dy, x, stats, weight, bias, **options):
    """As `nf.layer_norm_backward`; the engine has the derivative."""
    return _rows_backward(engine, dy, x, stats, weight, bias, centred=True, **options)


def rms_norm_backward(engine, dy, x, stats, weight, bias, *, zero_centered=False, axis=-1, out=None):
    """As `nf.rms_norm_backward`; the engine has the derivative."""
    if bias is not None:
        raise TypeError("rms_norm has no bias: leave it out")
    dtype = gradient_dtype(floating(x), weight)
    weight = zero_centered_weight(weight, x) if zero_centered else weight
    dx, dweight, _ = _rows_backward(engine, dy, x, stats, weight, None, centred=False, axis=axis, out=out)
    return RMSNormGradients(dx, dweight.astype(dtype, copy=False))


def group_norm_backward(engine, dy, x, stats, weight, bias, *, num_groups, axis=1, where=None, out=None):
    """As `nf.group_norm_backward`; the engine has the derivative."""
    x = floating(x)
    dy, dtype = same_shape(dy, x, "dy"), gradient_dtype(x, weight)
    layout, groups = _grouped(x, num_groups, axis)
    checked_out(out, x)
    weight, bias = _parameters(weight, bias, layout, layout.kept, DOUBLE, out)
    where = checked_where(where, x)
    dx, shape = np.empty_like(x) if out is None else out, groups.shape
    fit = where is None and groups.axis == 1 and layout.natural and x.size
    rows = direct(layout, dy, x, dx, shape=groups.rows) if fit else None
    if rows is None:
        course = _course(x.reshape(shape), groups.axis)
        where = None if where is None else where.reshape(shape)
        _, *parameters = _in_pieces(
            engine, dy.reshape(shape), x.reshape(shape), stats, *course, weight, bias, dtype, dx.reshape(shape), where=where
        )
        return NormGradients(dx, *(values.reshape(-1) for values in parameters))
    mean, rstd = statistics(stats, layout_of(x.reshape(shape), (0, 1), kept=True), out=out)
    factors = mean, rstd, weight.reshape(shape[1:3]), bias.reshape(shape[1:3])
    sums = engine.group_norm_backward(*(_outside(row, rows[2]) for row in rows[:2]), *factors, groups.run, rows[2])
    dweight, dbias = (total.reshape(x.shape[:2]).sum(axis=0).astype(dtype) for total in sums)
    return NormGradients(without_dependence(dx, groups.rows[1], True), dweight, dbias)


def instance_norm_backward(engine, dy, x, stats, weight, bias, *, axis=1, out=None):
    """As `nf.instance_norm_backward`; the engine has the derivative."""
    x = floating(x)
    return group_norm_backward(engine, dy, x, stats, weight, bias, num_groups=_channels(x, axis), axis=axis, out=out)


def batch_norm_backward(engine, dy, x, stats, weight, bias, *, axis=1, ord=2, where=None, out=None):
    """As `nf.batch_norm_backward`; the engine has the derivative."""
    x = floating(x)
    dy, dtype = same_shape(dy, x, "dy"), gradient_dtype(x, weight)
    layout, where = layout_of(x, axis, kept=True, rows=checked_ord(ord) != 2), checked_where(where, x)
    checked_out(out, x)
    weight, bias = _parameters(weight, bias, layout, layout.kept, DOUBLE, out)
    dx = np.empty_like(x) if out is None else out
    blocks = direct(layout, dy, x, dx) if ord == 2 and where is None and x.size else None
    if blocks is None:
        weight, bias = (layout.unpack(run, layout.kept) for run in (weight, bias))
        return _in_pieces(engine, dy, x, stats, layout, layout.kept, weight, bias, dtype, dx, ord=ord, where=where)
    mean, rstd, weight, bias = (run.reshape(layout.block[::2]) for run in (*statistics(stats, layout, out=out), weight, bias))
    dweight, dbias = engine.batch_norm_backward(*(_outside(block, blocks[2]) for block in blocks[:2]), mean, rstd, weight, bias, blocks[2])
    dx = without_dependence(dx, layout.block[1] * layout.block[3], True)
    return NormGradients(dx, *(layout.unpack(values.ravel().astype(dtype), layout.kept) for values in (dweight, dbias)))


def _parameters(weight, bias, layout, axes, dtype, out):
    return parameter(weight, layout, axes, dtype, "weight", 1, out), parameter(bias, layout, axes, dtype, "bias", 0, out)


def _outside(array, dx):
    """The array, copied where dx, in which dz comes to stand, shares its memory."""
    return array.copy() if np.may_share_memory(array, dx) else array


def _in_pieces(engine, dy, x, stats, layout, affine, weight, bias, dtype, out, **options):
    """The gradients of what no loop takes as it lies: other strides, 16 bits, masks, deviations of other orders."""
    with engines.using(engines.load("numba")):
        return gradients(dy, x, stats, layout, affine, weight, dtype, out, bias=bias, activation=(None, engine.pull), **options)

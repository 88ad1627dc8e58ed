"""Batch, group and instance norm of arrays on a device: named, called and answering as the public functions, but for masks and the like."""

import numpy as np

from normfast.engines.cuda import channels
from normfast.engines.cuda.callers import Caller
from normfast.engines.cuda.cells import Cells
from normfast.engines.cuda.parameters import converted, parameter, same_shape, statistics
from normfast.engines.cuda.places import Results, beside, filled, gradient_dtype, source_of
from normfast.engines.cuda.primitives import KINDS
from normfast.ops._arrays import checked_eps, grouped, layout_of
from normfast.ops._stats import NormGradients, NormStats
from normfast.ops.activation import checked_activation
from normfast.ops.group_norm import _grouped


def channels_of(caller, values, layout, name, target):
    """A parameter or statistic of the channels as a float64 run that writing the target leaves alone; None for None."""
    return parameter(caller, values, layout, layout.kept, "float64", name, (target,))


def _groups(x, num_groups, axis):
    """The layout that keeps the channels, the order and block of x that keep samples and channels, and the channels of a group."""
    layout, groups = _grouped(x, num_groups, axis)
    (axis,) = layout.kept
    both = layout_of(x, (0, axis), kept=True)
    if both.order.index(0) > both.order.index(axis):  # cells must be numbered sample by sample
        order = tuple(range(x.ndim))
        both = both._replace(order=order, block=grouped(x.shape, order, both.reduced))
    return layout, both, groups.shape[groups.axis + 1]


def group_norm(x, num_groups, weight=None, bias=None, *, axis=1, eps=1e-5, out=None):
    return group_norm_forward(x, num_groups, weight, bias, axis=axis, eps=eps, out=out)[0]


def group_norm_forward(x, num_groups, weight=None, bias=None, *, axis=1, eps=1e-5, out=None):
    with Caller(x) as caller:
        x = caller.floating(x)
        layout, both, together = _groups(x, num_groups, axis)
        eps = checked_eps(eps)
        y, shape = caller.target(out, x), (x.shape[0], num_groups.__index__())
        weight, bias = (channels_of(caller, p, layout, name, y) for p, name in ((weight, "weight"), (bias, "bias")))
        if x.size:
            stats = [caller.empty(shape, "float64") for _ in range(3)]
            cells = Cells(caller, x, both.order, both.block, together, layout.kept_shape[0], y)
            cells.forward(weight, bias, eps, 0, *(values.flat() for values in stats))
        else:
            stats = [filled(caller, shape, "float64", np.nan) for _ in range(3)]
        count = together * x.size // max(1, x.shape[0] * layout.kept_shape[0])
        return caller.leave(y), NormStats(*(caller.leave(values) for values in stats), count)


def group_norm_backward(dy, x, stats, weight=None, *, num_groups, axis=1, out=None):
    with Caller(x, dy) as caller:
        x = caller.floating(x)
        dy = same_shape(caller, dy, x, "dy")
        dtype = gradient_dtype(caller, x, weight)
        layout, both, together = _groups(x, num_groups, axis)
        dx = caller.target(out, x)
        weight = channels_of(caller, weight, layout, "weight", dx)
        mean, rstd = (beside(caller, run, dx, "float64") for run in group_statistics(caller, stats, (x.shape[0], num_groups.__index__())))
        if x.size == 0:
            parameters = [filled(caller, layout.kept_shape, dtype, 0.0) for _ in range(2)]
        else:
            parameters = [caller.empty(layout.kept_shape, dtype) for _ in range(2)]
            source = source_of(caller, dy, both.order, dx)
            cells = Cells(caller, x, both.order, both.block, together, layout.kept_shape[0], dx)
            cells.backward(source, mean, rstd, weight, None, 0, *(values.flat() for values in parameters), dtype)
        return NormGradients(caller.leave(dx), *(caller.leave(values) for values in parameters))


def group_statistics(caller, stats, shape):
    """mean and rstd of the groups as runs."""
    for field in ("mean", "rstd"):
        if getattr(stats, field, None) is None:
            raise TypeError(f"stats must be what the forward call returned, with fields mean and rstd, got {type(stats).__name__}")
        values = caller.floating(getattr(stats, field), f"stats.{field}")
        if values.shape != shape:
            raise ValueError(f"stats.{field} has shape {values.shape}: {shape[0]} samples of {shape[1]} groups need {shape}")
        yield caller.dense(converted(caller, values, "float64")).flat()


def instance_norm(x, weight=None, bias=None, *, axis=1, eps=1e-5, out=None):
    return instance_norm_forward(x, weight, bias, axis=axis, eps=eps, out=out)[0]


def instance_norm_forward(x, weight=None, bias=None, *, axis=1, eps=1e-5, out=None):
    return group_norm_forward(x, _channels(x, axis), weight, bias, axis=axis, eps=eps, out=out)


def instance_norm_backward(dy, x, stats, weight=None, *, axis=1, out=None):
    return group_norm_backward(dy, x, stats, weight, num_groups=_channels(x, axis), axis=axis, out=out)


def _channels(x, axis):
    with Caller(x) as caller:
        return max(1, layout_of(caller.floating(x), axis, kept=True).kept_shape[0])


def batch_norm(x, mean, var, weight=None, bias=None, *, axis=1, eps=1e-5, activation=None, out=None):
    """A var below 0 gives NaN: to look at it the CPU would have to wait for the GPU."""
    code = checked_activation(activation)
    with Caller(x) as caller:
        x = caller.floating(x)
        layout, y = layout_of(x, axis, kept=True), caller.target(out, x)
        if mean is None or var is None:
            raise TypeError(f"{'mean' if mean is None else 'var'} is needed, got None")
        runs = [
            channels_of(caller, values, layout, name, y)
            for values, name in ((mean, "mean"), (var, "var"), (weight, "weight"), (bias, "bias"))
        ]
        eps = checked_eps(eps)
        if x.size:
            cells = _batch(caller, x, layout, y)
            cells.normalize(cells.factors(*runs, given=True, eps=eps), code)
        return caller.leave(y)


def _batch(caller, x, layout, target):
    a, _, c, _ = layout.block
    return Cells(caller, x, layout.order, layout.block, 1, a * c, target)


def batch_norm_forward(x, weight=None, bias=None, *, axis=1, eps=1e-5, activation=None, out=None):
    with Caller(x) as caller:
        x = caller.floating(x)
        layout = layout_of(x, axis, kept=True)
        eps, code = checked_eps(eps), checked_activation(activation)
        y = caller.target(out, x)
        weight, bias = (channels_of(caller, p, layout, name, y) for p, name in ((weight, "weight"), (bias, "bias")))
        if x.size:
            stats = [Results(caller, layout, layout.kept, "float64") for _ in range(3)]
            _batch(caller, x, layout, y).forward(weight, bias, eps, code, *(values.run for values in stats))
            stats = [values.done() for values in stats]
        else:
            stats = [filled(caller, layout.kept_shape, "float64", np.nan) for _ in range(3)]
        return caller.leave(y), NormStats(*(caller.leave(values) for values in stats), layout.block[1] * layout.block[3])


def batch_norm_backward(dy, x, stats, weight=None, *, bias=None, axis=1, activation=None, out=None):
    with Caller(x, dy) as caller:
        x = caller.floating(x)
        dy = same_shape(caller, dy, x, "dy")
        layout, code = layout_of(x, axis, kept=True), checked_activation(activation)
        dtype, dx = gradient_dtype(caller, x, weight), caller.target(out, x)
        weight, bias = (channels_of(caller, p, layout, name, dx) for p, name in ((weight, "weight"), (bias, "bias")))
        runs = [*statistics(caller, stats, layout, targets=(dx,)), weight, bias]
        if x.size:
            results = [Results(caller, layout, layout.kept, dtype) for _ in range(2)]
            source = source_of(caller, dy, layout.order, dx)
            _batch(caller, x, layout, dx).backward(source, *runs, code, *(values.run for values in results), dtype)
            results = [values.done() for values in results]
        else:
            results = [filled(caller, layout.kept_shape, dtype, 0.0) for _ in range(2)]
        return NormGradients(caller.leave(dx), *(caller.leave(values) for values in results))


def update_running(running_mean, running_var, stats, *, momentum, factor):
    """running += momentum * (batch - running), in place; the arguments have been checked."""
    with Caller(running_mean) as caller:
        shape = tuple(stats.mean.shape)
        for running, name in ((running_mean, "running_mean"), (running_var, "running_var")):
            if (own := caller.floating(running, name)).shape != shape:
                raise ValueError(f"{name} has shape {own.shape} and the statistics have {shape}: they must be the same")
        for running, batch, scale, name in (
            (running_mean, stats.mean, 1.0, "running_mean"),
            (running_var, stats.var, factor, "running_var"),
        ):
            target = caller.floating(running, name)
            own, values = caller.dense(target), caller.dense(converted(caller, caller.floating(batch, "stats"), "float64"))
            if own.size:
                channels.update_running(
                    KINDS[target.dtype], own.flat(), values.flat(), own.size, float(momentum), float(scale), caller.stream
                )
            caller.copy(own, target)


OPERATIONS = {
    f.__name__: f
    for f in (
        group_norm, group_norm_forward, group_norm_backward, instance_norm, instance_norm_forward, instance_norm_backward, batch_norm,
        batch_norm_forward, batch_norm_backward, update_running,
    )
}  # fmt: skip

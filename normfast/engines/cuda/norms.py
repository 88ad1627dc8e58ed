"""Layer and RMS norm of arrays on a device: named, called and answering as the public functions, but for masks."""

import numpy as np

from normfast.engines.cuda import channel_norms, long_rows, row_gradients, rows
from normfast.engines.cuda.callers import Caller
from normfast.engines.cuda.cells import measure
from normfast.engines.cuda.moments import moments
from normfast.engines.cuda.parameters import parameter, same_shape, statistics, zero_centered
from normfast.engines.cuda.places import Results, aligned, filled, gradient_dtype, ordered, source_of
from normfast.engines.cuda.primitives import KINDS, wide_kind
from normfast.engines.cuda.tiles import sum_tiles
from normfast.ops._arrays import checked_eps, layout_of
from normfast.ops._stats import NormGradients, NormStats
from normfast.ops.rms_norm import RMSNormGradients


def rows_forward(caller, x, layout, weight, bias, eps, centred, y):
    """mean, rstd and var of the rows, and y; weight and bias are runs of the type that is computed in, or None."""
    if x.size == 0:
        return tuple(filled(caller, layout.kept_shape, "float64", np.nan) for _ in range(3))
    kind, (count, n) = KINDS[x.dtype], layout.block[2:]
    stats = [Results(caller, layout, layout.kept, "float64") for _ in range(3)]
    mean, rstd, var = (values.run for values in stats)
    source, place = source_of(caller, x, layout.order, y), ordered(y, layout.order)
    target = caller.dense_target(place)
    wide, run, result = aligned(source, target, weight, bias), source.flat(), target.flat()
    if not rows.forward(kind, run, weight, bias, count, n, eps, centred, result, mean, rstd, var, wide, caller.stream):
        block = (1, 1, count, n)
        measure(caller, kind, block, 1, centred, run, eps, mean, rstd, var, wide)
        long_rows.write(kind, run, weight, bias, count, n, mean, rstd, result, wide, caller.stream)
    caller.copy(target, place)
    return tuple(values.done() for values in stats)


def rows_backward(caller, dy, x, layout, mean, rstd, weight, centred, dx, dtype):
    """dweight and, centred, dbias of that dtype, and dx; mean (None if not centred) and rstd are runs."""
    if x.size == 0:
        return [filled(caller, layout.reduced_shape, dtype, 0.0) for _ in range(1 + centred)]
    kind, (count, n) = KINDS[x.dtype], layout.block[2:]
    mean = rstd if mean is None else mean
    place = ordered(dx, layout.order)
    source_dy, source = (source_of(caller, array, layout.order, dx) for array in (dy, x))
    target = caller.dense_target(place)
    wide = aligned(source_dy, source, target, weight)
    tiles = row_gradients.tiles_of(kind, count, n, wide)
    short, tiles = tiles > 0, tiles or long_rows.tiles_of(count)
    shares = [caller.scratch(tiles * n, kind.wide) for _ in range(1 + centred)]
    partial = (shares[0], shares[-1], tiles, wide, caller.stream)
    arrays = (source_dy.flat(), source.flat(), mean, rstd, weight, count, n, centred)
    if short:
        row_gradients.backward(kind, *arrays, target.flat(), *partial)
    else:
        sums = [caller.scratch(count * long_rows.parts_of(n), np.float64) for _ in range(2)]
        long_rows.backward(kind, *arrays, sums, target.flat(), *partial)
    totals = [Results(caller, layout, layout.reduced, dtype) for _ in shares]
    for share, total in zip(shares, totals, strict=True):
        sum_tiles(wide_kind(kind), share, tiles, n, KINDS[dtype], total.run, caller.stream)
    caller.copy(target, place)
    return [total.done() for total in totals]


def _rows_forward(x, weight, bias, axis, eps, centred, out, centre_is_one=False):
    with Caller(x) as caller:
        x = caller.floating(x)
        layout = layout_of(x, axis, rows=True)
        wide = wide_kind(KINDS[x.dtype]).name
        eps, y = checked_eps(eps), caller.target(out, x)
        weight = zero_centered(caller, weight, x) if centre_is_one else weight
        weight = parameter(caller, weight, layout, layout.reduced, wide, "weight", (y,))
        bias = parameter(caller, bias, layout, layout.reduced, wide, "bias", (y,))
        mean, rstd, var = rows_forward(caller, x, layout, weight, bias, eps, centred, y)
        stats = NormStats(caller.leave(mean) if centred else None, caller.leave(rstd), caller.leave(var), layout.block[3])
        return caller.leave(y), stats


def _rows_backward(dy, x, stats, weight, axis, centred, out, centre_is_one=False):
    with Caller(x, dy) as caller:
        x = caller.floating(x)
        dy = same_shape(caller, dy, x, "dy")
        layout = layout_of(x, axis, rows=True)
        dtype, wide = gradient_dtype(caller, x, weight), wide_kind(KINDS[x.dtype]).name
        dx = caller.target(out, x)
        weight = zero_centered(caller, weight, x) if centre_is_one else weight
        weight = parameter(caller, weight, layout, layout.reduced, wide, "weight", (dx,))
        runs = statistics(caller, stats, layout, ("mean", "rstd") if centred else ("rstd",), (dx,))
        results = rows_backward(caller, dy, x, layout, runs[0] if centred else None, runs[-1], weight, centred, dx, dtype)
        return caller.leave(dx), *(caller.leave(values) for values in results)


def layer_norm(x, weight=None, bias=None, *, axis=-1, eps=1e-5, out=None):
    return layer_norm_forward(x, weight, bias, axis=axis, eps=eps, out=out)[0]


def layer_norm_forward(x, weight=None, bias=None, *, axis=-1, eps=1e-5, out=None):
    return _rows_forward(x, weight, bias, axis, eps, True, out)


def layer_norm_backward(dy, x, stats, weight=None, *, axis=-1, out=None):
    return NormGradients(*_rows_backward(dy, x, stats, weight, axis, True, out))


def rms_norm(x, weight=None, *, axis=-1, eps=1e-5, zero_centered=False, out=None):
    return rms_norm_forward(x, weight, axis=axis, eps=eps, zero_centered=zero_centered, out=out)[0]


def rms_norm_forward(x, weight=None, *, axis=-1, eps=1e-5, zero_centered=False, out=None):
    return _rows_forward(x, weight, None, axis, eps, False, out, zero_centered)


def rms_norm_backward(dy, x, stats, weight=None, *, axis=-1, zero_centered=False, out=None):
    return RMSNormGradients(*_rows_backward(dy, x, stats, weight, axis, False, out, zero_centered))


OWN = (moments, layer_norm, layer_norm_forward, layer_norm_backward, rms_norm, rms_norm_forward, rms_norm_backward)
OPERATIONS = {f.__name__: f for f in OWN} | channel_norms.OPERATIONS

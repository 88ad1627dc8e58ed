"""Dropout, the sum with the residual stream and the norm of the sum, on a device: `_forward` and `_backward` of `ops/fused.py`."""

import math
from functools import partial

import numpy as np

from normfast.engines.cuda import norms, residual, row_gradients, rows
from normfast.engines.cuda.arrays import dtype_name, overlap, same_place
from normfast.engines.cuda.callers import Caller
from normfast.engines.cuda.dropouts import drawn_in_order, flags_of
from normfast.engines.cuda.parameters import converted, parameter, same_shape, statistics, zero_centered
from normfast.engines.cuda.places import aligned, gradient_dtype
from normfast.engines.cuda.primitives import KINDS, wide_kind
from normfast.engines.cuda.tiles import sum_tiles
from normfast.ops._arrays import checked_eps, layout_of
from normfast.ops._stats import NormStats
from normfast.ops.dropout import given_mask, mask_for


def forward(x, stream, weight, bias, p, rng, mask, offset, axis, eps, centred, out, h_out):
    """y, h, stats and mask; p is None where nothing is dropped."""
    with Caller(x) as caller:
        x = caller.dense(caller.floating(x))
        stream = same_shape(caller, stream, x, "residual")
        layout, kind = layout_of(x, axis, rows=True), KINDS[x.dtype]
        y, h = caller.target(out, x), caller.target(h_out, x, "h_out")
        runs = [
            parameter(caller, values, layout, layout.reduced, wide_kind(kind).name, name, (y, h))
            for values, name in ((weight, "weight"), (bias, "bias"))
        ]
        eps = checked_eps(eps)
        if overlap(y, h):
            raise ValueError("out and h_out overlap: y and h need memory of their own")
        mask = None if p is None else mask_for(x, p, rng, caller.on_host(mask, "mask"), None, offset)
        arrays = [apart(caller, caller.dense(values), y, h) for values in (x, stream)]
        total, result = caller.dense_target(h), caller.dense_target(y)
        stats = x.size and one_sweep(caller, kind, layout, arrays, mask, runs, eps, centred, total, result)
        if not stats:
            stats = norms.rows_forward(caller, total, layout, *runs, eps, centred, result)
        caller.copy(total, h)
        caller.copy(result, y)
        mean, rstd, var = (caller.leave(values) for values in stats)
        return caller.leave(y), caller.leave(h), NormStats(mean if centred else None, rstd, var, layout.block[3]), mask


def one_sweep(caller, kind, layout, arrays, mask, runs, eps, centred, h, y):
    """Fill h, and y where rows fit and lie so: then returns mean, rstd and var."""
    drawn, flags = draw(caller, mask)
    source = (*(array.flat() for array in arrays), *flags, h.flat())
    wide = aligned(*arrays, h, y)
    if layout.natural:
        stats = [caller.empty(layout.kept_shape, "float64") for _ in range(3)]
        places = [y.flat(), *(values.flat() for values in stats)]
        take, sizes = partial(residual.taker, drawn), layout.block[2:]
        if rows.forward(kind, source, *runs, *sizes, eps, centred, *places, wide and aligned(*runs), caller.stream, take=take):
            return stats
    residual.take_all(kind, source, drawn, h.size, wide, caller.stream)
    return None


def backward(dy, h, stats, mask, weight, dh, axis, centred, out, dresidual_out, own=None):
    """dx, dresidual, dweight and dbias; dx is None without a mask. `own` is the dtype of the weight that was given."""
    with Caller(h, dy) as caller:
        h = caller.dense(caller.floating(h, "h"))
        dy = same_shape(caller, dy, h, "dy")
        dh = None if dh is None else same_shape(caller, dh, h, "dh")
        if mask is not None and mask.shape != h.shape:
            raise ValueError(f"h has shape {h.shape} and the mask has {mask.shape}: they must be the same")
        layout, kind = layout_of(h, axis, rows=True), KINDS[h.dtype]
        dresidual = caller.target(dresidual_out, h, "dresidual_out" if mask is not None else "out")
        dx = None if mask is None else caller.target(out, h)
        if dx is not None and overlap(dx, dresidual):
            raise ValueError("out and dresidual_out overlap: dx and dresidual need memory of their own")
        targets = (dresidual,) if dx is None else (dresidual, dx)
        dtype = gradient_dtype(caller, h, weight) if own is None or h.itemsize > 2 else dtype_name(own)
        weight = parameter(caller, weight, layout, layout.reduced, wide_kind(kind).name, "weight", targets)
        given = statistics(caller, stats, layout, ("mean", "rstd") if centred else ("rstd",), targets)
        arrays = [None if values is None else apart(caller, caller.dense(values), *targets) for values in (dy, h, dh)]
        results = [caller.dense_target(target) for target in targets]
        gradients = gradients_of(caller, kind, layout, arrays, given, mask, weight, centred, results, dtype)
        if mask is not None and mask.p == 0.0 and mask.given is None:
            caller.copy(results[0], results[1])
        for result, target in zip(results, targets, strict=True):
            caller.copy(result, target)
        dweight, dbias, *_ = *(caller.leave(values) for values in gradients), None
        return caller.leave(dx), caller.leave(dresidual), dweight, dbias


def gradients_of(caller, kind, layout, arrays, given, mask, weight, centred, results, dtype):
    """dweight and, centred, dbias; fills dresidual and dx, in one sweep where rows fit and lie so."""
    dy, h, dh = arrays
    (count, n), mean, rstd = layout.block[2:], given[0], given[-1]
    drawn, flags = draw(caller, mask)
    wide = aligned(*arrays, *results)
    target = ((dh or results[0]).flat(), *flags, results[0].flat(), results[-1].flat())
    short = wide and aligned(weight)
    tiles = row_gradients.tiles_of(kind, count, n, short) if layout.natural and h.size else 0
    if not tiles:
        dy, h = (converted(caller, array, wide_kind(kind).name) for array in (dy, h))
        total = caller.new(h.shape, h.dtype)
        shares = norms.rows_backward(caller, dy, h, layout, mean if centred else None, rstd, weight, centred, total, dtype)
        if h.size:
            residual.give_all(kind, total.flat(), target, drawn, dh is not None, h.size, wide, caller.stream)
        return shares
    shares = [caller.scratch(tiles * n, kind.wide) for _ in range(1 + centred)]
    row_gradients.backward(
        kind, dy.flat(), h.flat(), mean, rstd, weight, count, n, centred, target, shares[0], shares[-1], tiles, short, caller.stream,
        give=partial(residual.giver, drawn, dh is not None),
    )  # fmt: skip
    totals = [caller.empty(layout.reduced_shape, dtype) for _ in shares]
    for share, total in zip(shares, totals, strict=True):
        sum_tiles(wide_kind(kind), share, tiles, n, KINDS[dtype], total.flat(), caller.stream)
    return totals


def apart(caller, array, *targets):
    """The array, copied where writing a target would change values of it that other threads still read."""
    if any(overlap(array, target) and not same_place(array, target) for target in targets):
        return caller.copy(array, caller.new(array.shape, array.dtype))
    return array


def draw(caller, mask):
    """Whether something is dropped; the flags of all elements as words, the bit of the first, and the factor of what is kept."""
    if mask is None or (mask.p == 0.0 and mask.given is None):
        return False, (caller.scratch(1, np.uint32), 0, 1.0)
    if mask.p == 1.0:
        return True, (caller.upload(np.zeros(-(-math.prod(mask.shape) // 32), np.uint32)), 0, 0.0)
    if mask.given is None and not drawn_in_order(mask):
        mask = given_mask(mask._kept(), mask.p, mask.shape)
    return True, (*flags_of(caller, mask), mask.scale)


def zero_centered_weight(weight, x):
    """As `ops.rms_norm.zero_centered_weight`: weight + 1, a DeviceArray."""
    with Caller(x) as caller:
        return zero_centered(caller, weight, caller.floating(x))


OPERATIONS = {"add_norm_forward": forward, "add_norm_backward": backward, "zero_centered_weight": zero_centered_weight}

"""Norms whose statistics and parameters run over the same axes: rows, each normalized while it is in the first cache."""

import numpy as np

from normfast import engines
from normfast.ops._arrays import apart, computing, direct
from normfast.ops._pieces import Staged, size_of, split


def rows_forward(x, layout, weight, bias, eps, centred, out):
    """y and mean, rstd, var of the rows, in the order of the block; weight and bias are runs of the type that is computed in."""
    engine = engines.current()
    rows, n = layout.block[2:]
    mean, rstd, var = np.full((3, rows), np.nan) if x.size == 0 else np.empty((3, rows))
    x, weight, bias = (apart(array, out) for array in (x, weight, bias))
    if direct(layout, x, out):
        block = layout.target(out, x.dtype)
        if x.size:
            engine.layer_norm_forward(layout.load(x).reshape(rows, n), weight, bias, eps, centred, block.reshape(rows, n), mean, rstd, var)
        return layout.deliver(block, out), mean, rstd, var
    y = np.empty_like(x, subok=False) if out is None else out
    for piece, own, (source, target) in pieces_of_rows(layout, x, y):
        result = target.place(piece)
        statistics = mean[own], rstd[own], var[own]
        engine.layer_norm_forward(source.load(piece).reshape(-1, n), weight, bias, eps, centred, result.reshape(-1, n), *statistics)
        target.keep(piece, result)
    return y, mean, rstd, var


def rows_backward(dy, x, layout, mean, rstd, weight, centred):
    """dx, and dweight and dbias in float64 in the order of the block."""
    engine = engines.current()
    rows, n = layout.block[2:]
    if direct(layout, dy, x):
        dx = np.empty(layout.block, x.dtype)
        dweight = dbias = np.zeros(n)
        if x.size:
            blocks = [block.reshape(rows, n) for block in (layout.load(dy), layout.load(x), dx)]
            dweight, dbias = engine.layer_norm_backward(*blocks[:2], mean, rstd, weight, centred, blocks[2])
        return layout.unload(without_dependence(dx, n, centred)), dweight, dbias
    dx = np.empty_like(x, subok=False)
    dweight, dbias = np.zeros((2, n))
    for piece, own, (gradient, source, target) in pieces_of_rows(layout, dy, x, dx):
        result = target.place(piece)
        inputs = gradient.load(piece).reshape(-1, n), source.load(piece).reshape(-1, n)
        more = engine.layer_norm_backward(*inputs, mean[own], rstd[own], weight, centred, result.reshape(-1, n))
        target.keep(piece, result)
        dweight += more[0]
        dbias += more[1]
    return without_dependence(dx, n, centred), dweight, dbias


def without_dependence(dx, n, centred):
    """dx, exactly 0 where a statistic has one value (NaN stays): y is then the bias whatever x."""
    if n == 1 and centred:
        dx *= 0
    return dx


def pieces_of_rows(layout, *arrays):
    """Whole rows, piece by piece: the piece, which rows it holds, and the arrays to load it from or keep it in."""
    n = layout.block[3]
    shape = [layout.shape[axis] for axis in layout.order]
    first = next((i for i, axis in enumerate(layout.order) if axis in layout.reduced and shape[i] != 1), len(shape))
    pieces = split(shape, whole=len(shape) - first)  # kept axes of length 1 may stand among the reduced ones
    staged = [Staged(array, layout.order, computing(array.dtype), pieces) for array in arrays]
    lo = 0
    for piece in pieces if arrays[0].size else ():
        hi = lo + size_of(piece) // n
        yield piece, slice(lo, hi), staged
        lo = hi

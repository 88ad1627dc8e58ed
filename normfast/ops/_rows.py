"""Norms whose statistics and parameters run over the same axes: rows, each normalized while it is in the first cache."""

import numpy as np

from normfast import engines
from normfast.ops._arrays import apart, computing, direct, unset_statistics
from normfast.ops._pieces import Staged, size_of, split


def rows_forward(x, layout, weight, bias, eps, centred, out):
    """y and mean, rstd, var of the rows, in the order of the block; weight and bias are runs of the type that is computed in."""
    mean, rstd, var = unset_statistics(x, layout.block[2])
    x, weight, bias = apart(x, out), apart(weight, out), apart(bias, out)
    y = np.empty_like(x) if out is None else out
    for own, run, result in pieces_of_rows(layout, x, y, halves=True):
        engines.current().layer_norm_forward(run, weight, bias, eps, centred, result, mean[own], rstd[own], var[own])
    return y, mean, rstd, var


def rows_backward(dy, x, layout, mean, rstd, weight, centred, out, halves=True):
    """dx, and dweight and dbias in float64 in the order of the block; mean, rstd and weight lie apart from `out`."""
    dy, x, n = apart(dy, out), apart(x, out), layout.block[3]
    dx = np.empty_like(x) if out is None else out
    dweight, dbias = np.zeros(n), np.zeros(n)
    for own, gradient, run, result in pieces_of_rows(layout, dy, x, dx, halves=halves):
        more = engines.current().layer_norm_backward(gradient, run, mean[own], rstd[own], weight, centred, result)
        dweight += more[0]
        dbias += more[1]
    return without_dependence(dx, n, centred), dweight, dbias


def without_dependence(dx, n, centred):
    """dx, exactly 0 where a statistic has one value (NaN stays): y is then the bias whatever x."""
    if n == 1 and centred:
        with np.errstate(invalid="ignore"):  # an infinite dx, which NumPy multiplies aloud where it has 16 bits
            dx *= 0
    return dx


def pieces_of_rows(layout, *arrays, halves=False, targets=1):
    """Whole rows, piece by piece: which they are, and their values (rows, n) in each of the arrays, of which the last are to be written.

    Arrays that a kernel takes as they lie, `halves` too if so, are one piece.
    """
    if arrays[0].size == 0:
        return
    rows, n = layout.block[2:]
    whole = direct(layout, *arrays, shape=(rows, n), halves=halves)
    if whole is not None:
        yield slice(0, rows), *whole
        return
    shape = [layout.shape[axis] for axis in layout.order]
    first = next((i for i, axis in enumerate(layout.order) if axis in layout.reduced and shape[i] != 1), len(shape))
    pieces = split(shape, whole=len(shape) - first)  # kept axes of length 1 may stand among the reduced ones
    staged = [Staged(array, layout.order, computing(array.dtype), pieces) for array in arrays]
    sources, results = staged[:-targets], staged[-targets:]
    lo = 0
    for piece in pieces:
        hi = lo + size_of(piece) // n
        written = [target.place(piece) for target in results]
        yield slice(lo, hi), *[run.reshape(-1, n) for run in [*(source.load(piece) for source in sources), *written]]
        for target, run in zip(results, written, strict=True):
            target.keep(piece, run)
        lo = hi

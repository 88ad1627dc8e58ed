"""The formulas as people write them, on one core; 16-bit values are widened to float32 and rounded at the end."""

import numpy as np

from normfast.benchmarks import formulas
from normfast.benchmarks.rivals import Contender


def contender(problem, threads):
    case = problem.case
    half = problem.dtype.itemsize == 2
    names = ("x", "dy", "weight", "bias", "mean", "var")
    x, dy, weight, bias, mean, var = (getattr(problem, name) for name in names)
    if case.op == "dropout":
        return dropout(case, x, dy, np.random.default_rng(0))
    if half:
        weight, bias, mean, var = (values.astype(np.float32) for values in (weight, bias, mean, var))

    def wide(values):
        return values.astype(np.float32) if half and values is not None else values

    def rounded(results):
        return tuple(values.astype(problem.dtype) for values in results) if half else results

    if case.fused:
        return fused(problem, weight, bias, wide, rounded)
    if case.direction == "forward":
        return Contender(lambda: rounded(formulas.forward(case, wide(x), weight, bias, mean, var)), tuple)
    if case.direction == "both":
        return Contender(lambda: rounded(formulas.evaluate(case, wide(x), wide(dy), weight, bias, mean, var)), tuple)
    saved = formulas.saved(case, wide(x), weight, bias)
    return Contender(lambda: rounded(formulas.backward(case, wide(dy), weight, *saved)), tuple)


def dropout(case, x, dy, rng):
    factor = x.dtype.type(1 / (1 - formulas.P))

    def forward():
        mask = rng.random(x.shape, np.float32) >= formulas.P
        return x * mask * factor, mask

    def both():
        y, mask = forward()
        return y, dy * mask * factor

    if case.direction == "backward":
        _, mask = forward()
        return Contender(lambda: dy * mask * factor, lambda dx: (dx,))
    return Contender(both, tuple) if case.direction == "both" else Contender(forward, lambda pair: pair[:1])


def fused(problem, weight, bias, wide, rounded):
    """Dropout, sum and norm, one after the other."""
    case, norm, rng = problem.case, problem.case.inner, np.random.default_rng(0)

    def summed():
        kept = rng.random(case.shape, np.float32) >= formulas.P if case.op.startswith("dropout") else None
        return formulas.summed(wide(problem.x), wide(problem.residual), kept), kept

    def forward():
        h, _ = summed()
        return rounded((*formulas.forward(norm, h, weight, bias, None, None), h))

    def backward(kept, xhat, rstd):
        return formulas.fused_backward(case, wide(problem.dy), wide(problem.dh), weight, kept, xhat, rstd)

    def both():
        h, kept = summed()
        return rounded(formulas.forward(norm, h, weight, bias, None, None) + backward(kept, *formulas.saved(norm, h, weight, bias)))

    if case.direction != "backward":
        return Contender(forward if case.direction == "forward" else both, tuple)
    h, kept = summed()
    saved = formulas.saved(norm, h, weight, bias)
    return Contender(lambda: rounded(backward(kept, *saved)), tuple)

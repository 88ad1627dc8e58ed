"""A case's inputs, and what its results are held against."""

import numpy as np

from normfast.benchmarks import formulas

BOUNDS = {"float32": 1e-6, "float64": 1e-13, "bfloat16": 4e-3}  # of the largest exact value; bfloat16 is rounded once: 2**-8
BLOCK = 1 << 22  # values drawn at random, and values verified at most


def numpy_dtype(name):
    """The dtype of that name; bfloat16 comes from ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def drawn(rng, shape, dtype, mean=0.0):
    """Normal values around the mean; large arrays repeat their first BLOCK values."""
    result = np.empty(shape, dtype)
    run = result.reshape(-1)
    block = (mean + rng.standard_normal(min(run.size, BLOCK), np.float32)).astype(dtype)
    for start in range(0, run.size, BLOCK):
        run[start : start + BLOCK] = block[: run.size - start]
    return result


class Problem:
    """The arrays of a case: x, dy, weight, bias, mean, var and `out`, which every contender may overwrite.

    With a residual stream there are `residual`, dh where h has a gradient, and `h`, the second result, which may be overwritten too.
    """

    def __init__(self, case):
        self.case = case
        self.dtype = dtype = numpy_dtype(case.dtype)
        rng = np.random.default_rng(0)
        self.x = drawn(rng, case.shape, dtype, mean=3.0)
        self.dy = None if case.direction == "forward" else drawn(rng, case.shape, dtype)
        self.out = np.zeros(case.shape, dtype)
        self.residual, self.h = (drawn(rng, case.shape, dtype), np.zeros(case.shape, dtype)) if case.fused else (None, None)
        self.dh = drawn(rng, case.shape, dtype) if case.dh else None
        n = case.shape[case.axis] if isinstance(case.axis, int) else 1
        self.weight, self.bias = ((1 + rng.random(n)).astype(dtype), rng.standard_normal(n).astype(dtype))
        self.mean, self.var = (3 + rng.standard_normal(n)).astype(dtype), (1 + rng.random(n)).astype(dtype)

    def free_axis(self):
        """An axis whose parts do not depend on each other, or None."""
        axis, ndim = self.case.axis, len(self.case.shape)
        if self.case.op == "moments":
            kept = set() if axis is None else set(range(ndim)) - {a % ndim for a in np.atleast_1d(axis)}
            return min(kept, default=None)
        if self.case.op == "standardize":
            return ndim - 1
        return axis % ndim if self.case.op.startswith("batch_norm") else 0

    def sample(self):
        """Indices along the free axis that are verified: all of them, or the first and the last."""
        axis = self.free_axis()
        n = 1 if axis is None else self.case.shape[axis]
        half = max(1, BLOCK * n // (2 * self.x.size)) if self.x.size > BLOCK else n
        return np.arange(n) if axis is None or 2 * half >= n else np.r_[:half, n - half : n]

    def error(self, results):
        """The largest error of the results, each relative to its largest exact value; infinite for NaN."""
        picked, axis = self.sample(), self.free_axis()
        whole = axis is None or len(picked) == self.case.shape[axis]

        def share(values):
            """What belongs to the sample; None where the values depend on more than that."""
            if whole or values is None:
                return values
            if values.ndim == self.x.ndim:
                return values.take(picked, axis)
            own = self.case.op == "moments" or self.case.op.startswith("batch_norm")  # parameters along the free axis
            return values[picked] if own and len(values) == self.case.shape[axis] else None

        wide = np.longdouble if self.case.dtype == "float64" else np.float64
        results = tuple(None if (part := share(np.asarray(values))) is None else part.astype(wide) for values in results)
        inputs = [getattr(self, name) for name in ("x", "dy", "weight", "bias", "mean", "var", "residual", "dh")]
        inputs = [values if (part := share(values)) is None else part for values in inputs]
        inputs = [None if values is None else values.astype(wide) for values in inputs]
        if self.case.op == "dropout":
            exact = self.dropped(results, *inputs[:2])
        elif self.case.fused:
            exact = self.fused(results, *inputs)
        else:
            exact = formulas.evaluate(self.case, *inputs[:6])
        if len(results) != len(exact):
            raise AssertionError(f"{len(results)} results instead of {len(exact)}")
        worst = [_difference(a, b) for a, b in zip(results, exact, strict=True) if a is not None]
        return max(float(value) if np.isfinite(value) else np.inf for value in worst)

    def dropped(self, results, x, dy):
        """What dropout must give for the values that were kept, whose share must be right by five standard deviations."""
        given = {"forward": (x,), "backward": (dy,), "both": (x, dy)}[self.case.direction]
        kept = results[0] != 0
        _check_share(kept)
        return tuple(values * kept / (1 - formulas.P) for values in given)

    def fused(self, results, x, dy, weight, bias, mean, var, residual, dh):
        """What dropout, sum and norm must give for the values that were kept: where h is not the residual, or dx is not 0.

        y must be the norm of the h that was returned, which may be rounded to 16 bits.
        """
        case, kept = self.case, None
        if case.op.startswith("dropout"):
            kept = results[1] != residual if case.direction == "forward" else results[case.direction == "both"] != 0
            _check_share(kept)
        h = formulas.summed(x, residual, kept)
        if case.direction == "forward":
            return *formulas.forward(case.inner, results[1], weight, bias, mean, var), h
        h = h.astype(self.dtype).astype(h.dtype)
        y = formulas.forward(case.inner, h, weight, bias, mean, var) if case.direction == "both" else ()
        return y + formulas.fused_backward(case, dy, dh, weight, kept, *formulas.saved(case.inner, h, weight, bias))


def _check_share(kept):
    n, p = kept.size, formulas.P
    if abs(kept.sum() - n * (1 - p)) > 1 + 5 * np.sqrt(n * p * (1 - p)):
        raise AssertionError(f"{kept.mean():.4f} of the values were kept instead of {1 - p}")


def _difference(a, b):
    if a.shape != b.shape:
        raise AssertionError(f"shape {a.shape} instead of {b.shape}")
    return np.abs(a - b).max() / np.abs(b).max()

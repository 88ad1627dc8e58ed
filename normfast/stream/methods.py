"""What brings a block to its result, given the statistics of all blocks: the arithmetic of `normfast.preprocessing`, block by block."""

from typing import Any

import numpy as np

from normfast.ops.moments import Moments
from normfast.ops.scaling import checked_range, is_constant, real, rescaled, scale_in_units, standardized
from normfast.ops.whitening import whitened, whitening_matrices
from normfast.stream.statistics import CovarianceOf, Extremes, MomentsInUnits

EPS = float(np.finfo(np.float64).eps)


class Method:
    """A way to transform an array along some axes.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    reduced : tuple of int
        The axes over which statistics are taken.
    computing, dtype : dtype
        In which values are computed, and what results are rounded to.
    """

    kind: Any  # of the statistics that it needs
    statistics: Any  # as arrays, of which a block takes its part
    found: Any  # what the caller is told of them

    def __init__(self, shape, reduced, computing, dtype):
        self.shape, self.reduced, self.computing, self.dtype = shape, reduced, computing, dtype
        self.kept = tuple(axis for axis in range(len(shape)) if axis not in reduced)

    def apply(self, block, values, own):
        """The result of a block, by the statistics; in place of the values where they are the caller's own."""
        x = real(values).astype(self.computing, copy=False)
        y = self.transformed(x, x if own or not np.may_share_memory(x, values) else None, self.part(block))
        with np.errstate(over="ignore"):
            return y.astype(self.dtype, copy=False)

    def part(self, block):
        """The statistics that belong to a block, or all."""
        own = (...,) if block is None else tuple(block[axis] for axis in self.kept)
        return [values[own] if np.ndim(values) else values for values in self.statistics]

    def same(self, y, again):
        """Whether a result is what the transform of its source gives once more."""
        return np.array_equal(y, again, equal_nan=True)

    def allowed(self, offset):
        """How far statistics of the result may be off where |mean| / std is `offset`: each value is rounded, and so is the mean."""
        return 16 * max(float(np.finfo(kind).eps) for kind in (self.computing, self.dtype)) + 32 * EPS * offset


class Standardize(Method):
    """(x - mean) / std, as `standardize`."""

    def __init__(self, *layout, ddof=0):
        super().__init__(*layout)
        self.ddof = ddof
        self.kind = MomentsInUnits(self.reduced)

    def learn(self, m, unit):
        """Take the statistics of all values."""
        self.moments = m
        with np.errstate(all="ignore"):
            self.found = Moments(m.count, m.mean / unit, m.m2 / unit / unit)
            constant = is_constant(m) | np.isinf(m.var(self.ddof))
        self.statistics = m.mean, scale_in_units(m, unit, self.ddof), unit, constant

    def transformed(self, x, out, statistics):
        """y of x, perhaps in `out`."""
        return standardized(x, *statistics[:3], self.kept, out)

    def deviation(self, m, unit):
        """How far the statistics of a result are from 0 and 1, in what is allowed."""
        mean, scale, _, constant = self.statistics
        with np.errstate(all="ignore"):
            spread = np.where(constant, 0.0, np.abs(m.std(self.ddof) / unit - 1))
            off = np.maximum(np.abs(m.mean / unit), spread) / self.allowed(np.abs(mean) / scale)
        return worst(off[()], np.isfinite(mean) & np.isfinite(scale))


class MinMax(Method):
    """The smallest value to the one end of a range, the largest to the other, as `minmax_scale`."""

    def __init__(self, *layout, feature_range=(0, 1)):
        super().__init__(*layout)
        self.ends = checked_range(feature_range)
        self.kind = Extremes(self.reduced)

    def learn(self, smallest, largest):
        self.statistics = self.found = smallest, largest

    def transformed(self, x, out, statistics):
        return rescaled(x, [np.expand_dims(values, self.reduced) for values in statistics], self.ends, out)

    def deviation(self, smallest, largest):
        low, high = self.dtype.type(self.ends)
        first, last = self.statistics
        with np.errstate(all="ignore"):
            off = np.maximum(np.abs(smallest - low), np.where(first < last, np.abs(largest - high), 0.0))
        return worst(off / self.allowed(0.0), np.isfinite(first) & np.isfinite(last))


class Whiten(Method):
    """Mean 0 and the identity as covariance, as `whiten`."""

    def __init__(self, *layout, ddof=0):
        super().__init__(*layout)
        self.ddof = ddof
        self.kind = CovarianceOf()

    def learn(self, c):
        self.covariance = self.found = c
        self.matrix, self.inverse = whitening_matrices(c, "zca", None, 0.0, 1e-12, self.ddof)
        self.statistics = ()

    def transformed(self, x, out, statistics):
        return whitened(x, self.covariance, self.matrix)

    def same(self, y, again):
        """BLAS does not promise the same bits twice."""
        allowed = self.allowed(0.0) * float(np.abs(again).max(initial=0.0))
        return bool((np.abs(y.astype(np.float64) - again) <= allowed).all())

    def deviation(self, c):
        expected = self.matrix @ self.inverse  # the identity, but for directions that were dropped
        with np.errstate(all="ignore"):
            root = np.sqrt(self.covariance.var())
            reach = np.abs(self.matrix) @ root  # how far rounding is enlarged
            offset = np.abs(self.matrix) @ np.abs(self.covariance.mean)
        off = max(np.abs(c.mean).max(initial=0.0), np.abs(c.cov(self.ddof) - expected).max(initial=0.0))
        return float(off / (self.allowed(float(offset.max(initial=0.0))) * max(1.0, float(reach.max(initial=0.0))) ** 2))


METHODS = {"standardize": Standardize, "minmax": MinMax, "whiten": Whiten}


def worst(off, known):
    """The largest of what is known; what then is no number is beyond all bounds."""
    return float(np.max(np.where(known, np.where(np.isnan(off), np.inf, off), 0.0), initial=0.0))

"""Batch norm of a batch that lies in several processes: what each does alone, before and after they bring their numbers together.

Forward: the `moments` of the own values, then `normalize` by those of all. Backward: the `sums` of the own gradients, then the `gradient`
by those of all.
"""

import numpy as np

from normfast.engines.numpy import inverse_deviation
from normfast.kernels.activations import IDENTITY
from normfast.kernels.moments import merge
from normfast.ops._arrays import apart, checked_out, checked_where, direct, floating, gradient_dtype, layout_of, same_shape
from normfast.ops._norm import Course
from normfast.ops._statistics import Accumulator, block_moments, merge_scaled
from normfast.ops._stats import NormGradients, NormStats
from normfast.ops.activation import checked_activation
from normfast.ops.batch_norm import _channels


def merge_moments(a, b):
    """Moments (c, 4) of two shares together: for each channel count, mean * scale, m2 * scale**2 and scale, as `Accumulator` has them."""
    if (a[:, 3] == b[:, 3]).all() and a[:, 0].all() and b[:, 0].all():  # nearly always, and to the same bits in half the time
        with np.errstate(all="ignore"):
            return np.stack([*merge(*a.T[:3], *b.T[:3]), a[:, 3]], axis=1)
    return np.stack(merge_scaled(a.T, b.T), axis=1)


class Share:
    """A process's own part of a batch, which may be empty."""

    def __init__(self, x, weight, bias, *, channels, axis, activation, where, out=None, dy=None):
        x = floating(x)
        self.layout = layout_of(x, axis, kept=True)
        if self.layout.kept_shape != (channels,):
            raise ValueError(f"x has shape {x.shape}: its axis {axis} must have {channels} channels")
        self.dtype = gradient_dtype(x, weight)
        activation, where, out = checked_activation(activation), checked_where(where, x), checked_out(out, x)
        dy = None if dy is None else same_shape(dy, x, "dy")
        weight, bias = _channels(weight, self.layout, "weight", 1, out), _channels(bias, self.layout, "bias", 0, out)
        self.x = apart(x, out)
        self.result = np.empty_like(x, subok=False) if out is None else out
        arrays = [x, self.result] if dy is None else [x, self.result, dy]
        # arrays that kernels take as they lie are one piece, but the argument of an activation, found again, needs a buffer of its size
        whole = where is None and direct(self.layout, *arrays) is not None and (dy is None or activation == IDENTITY)
        parameters = (self.layout.unpack(values, self.layout.kept) for values in (weight, bias))
        self.course = Course(self.x, self.layout, self.layout.kept, *parameters, where=where, activation=activation, whole=whole)
        self.target = self.course.staged(self.result)
        self.dy = None if dy is None else self.course.staged(dy)

    def moments(self):
        """Moments (c, 4) of the own values."""
        course = self.course
        found = Accumulator(course.statistic_shape)
        total = found.count, found.mean, found.m2, found.scale
        for piece in course.pieces:
            block = course.block(piece, course.kept)
            mask = None if course.mask is None else course.mask[piece].reshape(block)
            more = block_moments(course.x.load(piece, own=course.own).reshape(block), mask, course.dtype)
            if len(course.pieces) > 1:
                found.add(piece, more)
            else:
                total = more
        return np.stack([values.ravel() for values in total], axis=1)

    def normalize(self, moments, eps):
        """y and the `NormStats` of the whole batch, from the moments of all shares."""
        count, mean, m2, scale = np.ascontiguousarray(moments.T)
        with np.errstate(all="ignore"):
            mean = np.where(count == 0, np.nan, mean / scale)
            var, rstd = inverse_deviation(m2 / count, scale, eps)
        stats = NormStats(mean, rstd, var, count.astype(np.int64))
        self._take(stats)
        for piece in self.course.pieces:
            self.course.normalize(piece, self.target)
        return self.result, stats

    def _take(self, stats):
        self.course.take((stats.mean, stats.rstd, stats.var), stats.count, self.layout)
        self.course.values = float(stats.count.max(initial=0))

    def sums(self, stats):
        """Sums (2, c) of dy and of dy * xhat over the own values."""
        self._take(stats)
        dbias, dweight, *others = np.zeros((4, *self.course.statistic_shape))
        for piece in self.course.pieces:
            self.course._sum_gradients(self.course._inputs(self.dy, piece), piece, dweight, dbias, *others)
        return np.stack([dbias.ravel(), dweight.ravel()])

    def gradient(self, sums, own=None):
        """The `NormGradients`: dx from the sums of all shares, dweight and dbias those sums, or the own ones where they are given."""
        course = self.course
        with np.errstate(all="ignore"):
            c1, c2 = (course.weight * total.reshape(course.statistic_shape) / course.count for total in sums)
        for piece in course.pieces:
            course._gradient(course._inputs(self.dy, piece), piece, c1, c2, None, None, self.target)
        dbias, dweight = (sums if own is None else own).astype(self.dtype)
        return NormGradients(self.result, dweight, dbias)

"""Batch norm of a batch that lies in several processes: what each does alone, before and after they bring their numbers together.

Forward: the `moments` of the own values, then `normalize` by those of all. Backward: the `sums` of the own gradients, then the `gradient`
by those of all.
"""

from functools import cached_property

import numpy as np

from normfast import engines
from normfast.engines.numpy import inverse_deviation
from normfast.engines.policy import takes_halves
from normfast.kernels.activations import IDENTITY
from normfast.kernels.moments import merge
from normfast.ops._arrays import FLOATS, apart, checked_out, checked_where, direct, floating, gradient_dtype, layout_of, same_shape
from normfast.ops._norm import Course
from normfast.ops._rows import without_dependence
from normfast.ops._statistics import Accumulator, block_moments, merge_scaled
from normfast.ops._stats import NormGradients, NormStats
from normfast.ops.activation import checked_activation, code_of, run_activation_backward, run_own
from normfast.ops.batch_norm import _channels


def merge_moments(a, b):
    """Moments (c, 4) of two shares together: for each channel count, mean * scale, m2 * scale**2 and scale, as `Accumulator` has them."""
    if (a[:, 3] == b[:, 3]).all() and a[:, 0].all() and b[:, 0].all():  # nearly always, and to the same bits in a third of the time
        with np.errstate(all="ignore"):
            return np.stack([*merge(*a.T[:3], *b.T[:3]), a[:, 3]], axis=1)
    return np.stack(merge_scaled(a.T, b.T), axis=1)


class Share:
    """A process's own part of a batch, which may be empty; `out` takes y, or dx where dy is given, and then overlaps neither x nor dy.

    Blocks go to the kernels as they lie; what kernels do not take so takes the course in pieces.
    """

    def __init__(self, x, weight, bias, *, channels, axis, activation, where, out=None, dy=None):
        x = floating(x)
        self.layout = layout_of(x, axis, kept=True)
        if self.layout.kept_shape != (channels,):
            raise ValueError(f"x has shape {x.shape}: its axis {axis} must have {channels} channels")
        self.dtype, self.activation = gradient_dtype(x, weight), checked_activation(activation)
        self.where, out = checked_where(where, x), checked_out(out, x)
        self.dy = None if dy is None else same_shape(dy, x, "dy")
        self.weight, self.bias = _channels(weight, self.layout, "weight", 1, out), _channels(bias, self.layout, "bias", 0, out)
        self.x = apart(x, out)
        self.result = np.empty_like(x, subok=False) if out is None else out
        arrays = [self.x, self.result] if dy is None else [self.x, self.result, self.dy]
        halves = dy is None and takes_halves(self.layout.block[3]) and not isinstance(activation, tuple)
        self.blocks = direct(self.layout, *arrays, halves=halves) if where is None and x.size else None

    @cached_property
    def course(self):
        parameters = (self.layout.unpack(values, self.layout.kept) for values in (self.weight, self.bias))
        return Course(self.x, self.layout, self.layout.kept, *parameters, where=self.where, activation=self.activation)

    def beside(self, *values):
        """Numbers of the channels in the shape that kernels want."""
        return [value.reshape(self.weight.shape) for value in values]

    def moments(self):
        """Moments (c, 4) of the own values."""
        if self.blocks is not None and self.x.dtype in FLOATS:
            total = block_moments(self.blocks[0], None, self.x.dtype)
        else:
            course = self.course
            found = Accumulator(course.statistic_shape)
            for piece in course.pieces:
                block = course.block(piece, course.kept)
                mask = None if course.mask is None else course.mask[piece].reshape(block)
                found.add(piece, block_moments(course.x.load(piece, own=course.own).reshape(block), mask, course.dtype))
            total = found.count, found.mean, found.m2, found.scale
        return np.stack([values.ravel() for values in total], axis=1)

    def normalize(self, moments, eps):
        """y and the `NormStats` of the whole batch, from the moments of all shares."""
        count, mean, m2, scale = np.ascontiguousarray(moments.T)
        with np.errstate(all="ignore"):
            mean = np.where(count == 0, np.nan, mean / scale)
            var, rstd = inverse_deviation(m2 / count, scale, eps)
        stats = NormStats(mean, rstd, var, count.astype(np.int64))
        if self.blocks is None:
            target = self._take(stats)
            for piece in self.course.pieces:
                self.course.normalize(piece, target)
        else:
            x, y = self.blocks
            engines.current().batch_norm(x, *self.beside(mean, rstd), self.weight, self.bias, code_of(self.activation), y)
            run_own(self.activation, y.reshape(-1))
        return self.result, stats

    def sums(self, stats):
        """Sums (2, c) of dy and of dy * xhat over the own values."""
        self.stats = stats
        if self.blocks is None:
            self._take(stats)
            self.gradients = self.course.staged(self.dy)
            dbias, dweight, *others = np.zeros((4, *self.course.statistic_shape))
            for piece in self.course.pieces:
                self.course._sum_gradients(self.course._inputs(self.gradients, piece), piece, dweight, dbias, *others)
            return np.stack([dbias.ravel(), dweight.ravel()])
        x, dx, self.gradients = self.blocks
        statistics = self.beside(stats.mean, stats.rstd)
        if self.activation != IDENTITY:  # its gradient stands where dx will be
            engines.current().batch_norm(x, *statistics, self.weight, self.bias, IDENTITY, dx)
            run_activation_backward(self.gradients.reshape(-1), dx.reshape(-1), self.activation, dx.reshape(-1))
            self.gradients = dx
        sums = np.empty((2, *self.weight.shape))
        engines.current().gradient_sums(self.gradients, x, *statistics, *sums)
        return sums.reshape(2, -1)

    def gradient(self, sums, own=None):
        """The `NormGradients`: dx from the sums of all shares, dweight and dbias those sums, or the own ones where they are given."""
        count = self.stats.count
        with np.errstate(all="ignore"):
            c1, c2 = (self.weight.ravel() * total / count for total in sums)
        if self.blocks is None:
            target, shape = self.course.staged(self.result), self.course.statistic_shape
            for piece in self.course.pieces:
                inputs = self.course._inputs(self.gradients, piece)
                self.course._gradient(inputs, piece, c1.reshape(shape), c2.reshape(shape), None, None, target)
        else:
            x, dx, _ = self.blocks
            mean, rstd, c1, c2 = self.beside(self.stats.mean, self.stats.rstd, c1, c2)
            engines.current().gradient(self.gradients, x, mean, rstd, self.weight, c1, c2, dx)
            without_dependence(dx, count.max(), True)
        dbias, dweight = (sums if own is None else own).astype(self.dtype)
        return NormGradients(self.result, dweight, dbias)

    def _take(self, stats):
        """Let the course go by the statistics of all shares; returns where it writes."""
        self.course.take((stats.mean, stats.rstd, stats.var), stats.count, self.layout)
        self.course.values = stats.count.max(initial=0)
        return self.course.staged(self.result)

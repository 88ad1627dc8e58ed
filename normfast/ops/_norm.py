"""The course of every norm in pieces: measure, normalize, and the way back.

Each norm keeps some axes of x (one mean and one deviation each) and has weight and bias along some axes, which may be kept (batch norm),
reduced (layer norm) or both (group norm). A sweep needs statistics and parameters side by side: it runs over the block that keeps the axes
of both, the `fine` one. If every piece holds whole statistics, it is measured and normalized while it is in the cache.
"""

import math

import numpy as np

from normfast import engines
from normfast.engines.numpy import inverse_deviation
from normfast.kernels.activations import IDENTITY
from normfast.ops._arrays import DOUBLE, apart, computing, grouped, statistics
from normfast.ops._pieces import Staged, part, shape_of, split
from normfast.ops._rows import without_dependence
from normfast.ops._statistics import Accumulator, block_moments
from normfast.ops._stats import NormGradients, NormStats
from normfast.ops.activation import code_of, run_activation_backward, run_own

NONZERO = 5e-324  # every deviation but 0 is at least this


class Course:
    """A norm over the reduced axes of a layout, with parameters along the axes `affine`.

    mean, rstd, var and count (of the statistics), weight and bias (of the parameters) are arrays over all axes in the order of the block,
    of length 1 along those that they do not tell apart.
    """

    def __init__(self, x, layout, affine, weight=None, bias=None, *, ord=2, where=None, activation=IDENTITY):
        self.order, self.ord, self.activation = layout.order, ord, activation
        shape = tuple([x.shape[axis] for axis in self.order])
        self.kept = [axis in layout.kept for axis in self.order]
        self.affine = [axis in affine for axis in self.order]
        self.fine = [kept or own for kept, own in zip(self.kept, self.affine, strict=True)]
        self.weight, self.bias = self._parameter(weight, x, affine, 1.0), self._parameter(bias, x, affine, 0.0)
        self.mask = None if where is None else where.transpose(self.order)
        self.own = where is not None  # whether a piece of x is a copy, since values are replaced in it or dx is written before its last use
        # absolute deviations of masked values vanish where the mean, in float64, stands in for them
        self.dtype = DOUBLE if ord != 2 and where is not None else computing(x.dtype)
        self.pieces = split(shape) if x.size else []
        self.complete = all(
            cut.stop - cut.start == n for piece in self.pieces for cut, n, kept in zip(piece, shape, self.kept, strict=True) if not kept
        )
        self.x, self.z = self.staged(x), self.staged(x)  # z has a buffer alone, for what the affine sweep returns
        self.statistic_shape = [n if kept else 1 for n, kept in zip(shape, self.kept, strict=True)]
        self.values = float(math.prod(n for n, kept in zip(shape, self.kept, strict=True) if not kept))

    def _parameter(self, values, x, affine, default):
        if values is None:
            return np.full([1] * x.ndim, default)
        along = [x.shape[axis] if axis in affine else 1 for axis in range(x.ndim)]
        return np.asarray(values, np.float64).reshape(along).transpose(self.order)

    def staged(self, array):
        """An array of x's shape, to be taken in the same pieces."""
        return Staged(array, self.order, self.dtype, self.pieces)

    def statistic(self, values, layout):
        """A statistic as a user sees it, of the shape of x along the kept axes, as an array of this course."""
        kept = [axis for axis in self.order if axis in layout.kept]
        return np.asarray(values, np.float64).transpose([layout.kept.index(axis) for axis in kept]).reshape(self.statistic_shape)

    def seen(self, values, layout, flags=None):
        """Inverse of `statistic`; with flags=self.affine for parameters."""
        own = [axis for axis, flag in zip(self.order, flags or self.kept, strict=True) if flag]
        return np.asarray(values).reshape(layout.along(own)).transpose([own.index(axis) for axis in sorted(own)])

    def take(self, runs, count, layout):
        """Take mean, rstd and var of a forward call, in the order of the block, and the count as its caller sees it."""
        self.mean, self.rstd, self.var = (run.reshape(self.statistic_shape) for run in runs)
        self.count = np.broadcast_to(self.statistic(np.broadcast_to(count, layout.along(layout.kept)), layout), self.statistic_shape)

    def groups(self):
        """Pieces that must all be measured before one can be normalized: each alone where it holds whole statistics, else all of them."""
        return [[piece] for piece in self.pieces] if self.complete else [self.pieces]

    def of(self, group, *values):
        """The parts of statistics that a group of pieces decides."""
        return [part(v, group[0]) if self.complete else v for v in values]

    def block(self, piece, flags):
        """Sizes (a, r, c, s) of a piece that is kept along the flagged axes."""
        shape = shape_of(piece)
        return grouped(shape, range(len(shape)), [axis for axis, kept in enumerate(flags) if not kept])

    def beside(self, values, piece, flags):
        """Statistics or parameters of a piece as (a, c) of the block that is kept along the flagged axes."""
        shape = [n if kept else 1 for n, kept in zip(shape_of(piece), flags, strict=True)]
        a, _, c, _ = self.block(piece, flags)
        return np.ascontiguousarray(np.broadcast_to(part(values, piece), shape), np.float64).reshape(a, c)

    def rows(self, run, piece):
        """A run as rows of one statistic each; the layout of norms that need it keeps its axes first."""
        _, _, c, s = self.block(piece, self.kept)
        return run.reshape(c, s)

    # Forward

    def forward(self, y, eps):
        """Fill y, and set the statistics."""
        self.found = Accumulator(self.statistic_shape)
        self.count, self.mean = self.found.count, self.found.mean
        self.var, self.rstd = (np.full(self.statistic_shape, np.nan) for _ in range(2))
        if not self.pieces:
            self.mean[...] = np.nan
        target = self.staged(y)
        for group in self.groups():
            self.measure(group, eps)
            for piece in group:
                self.normalize(piece, target)

    def apply(self, statistics, y):
        """Fill y by given mean, rstd and var."""
        self.mean, self.rstd, self.var = (values.reshape(self.statistic_shape) for values in statistics)
        target = self.staged(y)
        for piece in self.pieces:
            self.normalize(piece, target)

    def measure(self, group, eps):
        """Statistics of a group of pieces."""
        for piece in group:
            block = self.block(piece, self.kept)
            run = self.x.load(piece, own=self.own).reshape(block)
            mask = None if self.mask is None else self.mask[piece].reshape(block)
            self.found.add(piece, block_moments(run, mask, self.dtype))
        count, mean, m2, scale, var, rstd = self.of(group, self.count, self.mean, self.found.m2, self.found.scale, self.var, self.rstd)
        with np.errstate(all="ignore"):
            mean /= scale
            mean[count == 0] = np.nan
            scaled = m2 / count
            if self.ord != 2:
                deviation = self._deviation(group)
                scale = np.ldexp(1.0, np.minimum(-np.frexp(deviation)[1], 1000))  # its square may be beyond float64, its inverse is not
                scaled = (deviation * scale) ** 2
            var[...], rstd[...] = inverse_deviation(scaled, scale, eps)

    def _deviation(self, group):
        """Mean or largest absolute deviation of a group."""
        (count,) = self.of(group, self.count)
        deviation = np.zeros(count.shape)
        for piece in group:
            rows, mean = self.rows(self._filled(piece), piece), self.beside(self.mean, piece, self.kept).reshape(-1)
            total, most = np.empty((2, len(mean)))
            engines.current().absolute_deviations(rows, mean, total, most)
            so_far = deviation if self.complete else part(deviation, piece)
            if self.ord == 1:
                so_far += total.reshape(so_far.shape)
            else:
                np.maximum(so_far, most.reshape(so_far.shape), out=so_far)
        return deviation / count if self.ord == 1 else deviation

    def _filled(self, piece):
        """The run of a piece in which the mean stands in for masked values."""
        run = self.x.load(piece, own=self.own)
        if self.mask is not None:
            values = run.reshape(shape_of(piece))
            np.copyto(values, np.broadcast_to(part(self.mean, piece), values.shape), where=~self.mask[piece], casting="same_kind")
        return run

    def normalize(self, piece, target):
        """y of a piece by the statistics: affine sweep, activation, 0 where masked."""
        run, y = self.x.load(piece), target.place(piece)
        self._affine(run, piece, code_of(self.activation), y)
        run_own(self.activation, y)
        if self.mask is not None:
            np.copyto(y.reshape(shape_of(piece)), 0, where=~self.mask[piece])
        target.keep(piece, y)

    def _affine(self, run, piece, code, y):
        block = self.block(piece, self.fine)
        factors = [self.beside(values, piece, self.fine) for values in (self.mean, self.rstd, self.weight, self.bias)]
        engines.current().batch_norm(run.reshape(block), *factors, code, y.reshape(block))

    # Backward

    def backward(self, dy, dx):
        """Fill dx and return dweight and dbias, over the axes of the parameters, in float64."""
        self.own |= self.ord != 2 and np.may_share_memory(dx, self.x.view)
        dy, dx = self.staged(dy), self.staged(dx)
        shape = [dim if own else 1 for dim, own in zip(self.x.view.shape, self.affine, strict=True)]
        dweight, dbias = np.zeros(shape), np.zeros(shape)
        c1, c2 = np.zeros(self.statistic_shape), np.zeros(self.statistic_shape)
        for group in self.groups():
            for piece in group:
                inputs = self._inputs(dy, piece)
                self._sum_gradients(inputs, piece, dweight, dbias, c1, c2)
            with np.errstate(all="ignore"):
                for values in self.of(group, c1, c2):
                    values /= self.of(group, self.count)[0]
                limit, factor = self._signs(group, c1, c2) if self.ord != 2 else (None, None)
            for piece in group:
                inputs = self._inputs(dy, piece) if len(group) > 1 else inputs
                self._gradient(inputs, piece, c1, c2, limit, factor, dx)
        return dweight, dbias

    def differentiate(self, statistics, dy):
        """Replace dy, which takes part in nothing else, by the gradient of what the affine sweep returned."""
        self.mean, self.rstd = (values.reshape(self.statistic_shape) for values in statistics)
        dy = self.staged(dy)
        for piece in self.pieces:
            dy.place(piece)[...] = self._inputs(dy, piece)[1]

    def _inputs(self, dy, piece):
        """x, and the gradient of what the affine sweep returned; masked values are the mean and 0, so that they add nothing."""
        run = self._filled(piece)
        if self.activation == IDENTITY and self.mask is None:
            return run, dy.load(piece)
        g = dy.load(piece, own=self.activation == IDENTITY)
        if self.activation != IDENTITY:
            z = self.z.buffer(piece)
            self._affine(run, piece, IDENTITY, z)
            run_activation_backward(g, z, self.activation, z)
            g = z
        if self.mask is not None:
            np.copyto(g.reshape(shape_of(piece)), 0, where=~self.mask[piece])
        return run, g

    def _sum_gradients(self, inputs, piece, dweight, dbias, c1, c2):
        """Add a piece's sums of dy and of dy * xhat, to those of the parameters and, times the weight, to those of the statistics."""
        run, g = (values.reshape(self.block(piece, self.fine)) for values in inputs)
        mean, rstd = (self.beside(values, piece, self.fine) for values in (self.mean, self.rstd))
        sums = np.empty((2, *mean.shape))
        engines.current().gradient_sums(g, run, mean, rstd, *sums)
        shape = [n if fine else 1 for n, fine in zip(shape_of(piece), self.fine, strict=True)]
        others = tuple(axis for axis, own in enumerate(self.affine) if not own)
        reduced = tuple(axis for axis, kept in enumerate(self.kept) if not kept)
        with np.errstate(all="ignore"):
            for total, parameter, statistic in ((sums[0], dbias, c1), (sums[1], dweight, c2)):
                total = total.reshape(shape)
                into = part(parameter, piece)
                into += total.sum(axis=others, keepdims=True)
                into = part(statistic, piece)
                into += (total * part(self.weight, piece)).sum(axis=reduced, keepdims=True)

    def _signs(self, group, c1, c2):
        """For norms by the absolute deviation: from which deviation on signs count, and the factor of a sign in dx; changes c1 and c2.

        sigma = mean|x - mean| has the derivative (sign_i - mean(sign)) / count; the largest deviation has it at the values that attain it,
        shared between them. So dx = rstd * (dy * weight - c1) + factor * sign_i with the mean of the second term moved into c1.
        """
        limit = np.full(self.statistic_shape, NONZERO) if self.ord == 1 else np.sqrt(self.var)
        far, signs = np.zeros(self.statistic_shape), np.zeros(self.statistic_shape)
        for piece in group:
            rows = self.rows(self._filled(piece), piece)
            mean, least = (self.beside(values, piece, self.kept).reshape(-1) for values in (self.mean, limit))
            more = np.empty((2, len(mean)))
            engines.current().count_signs(rows, mean, least, *more)
            for total, counted in zip((far, signs), more, strict=True):
                into = part(total, piece)
                into += counted.reshape(into.shape)
        share = np.ones(far.shape) if self.ord == 1 else self.count / np.maximum(far, 1.0)
        factor = np.zeros(far.shape)
        own_c1, own_c2, own_factor, rstd, var, share, signs, count = self.of(
            group, c1, c2, factor, self.rstd, self.var, share, signs, self.count
        )
        slope = -np.sqrt(var) * rstd * share * own_c2
        own_factor[...] = slope * rstd
        own_c1 += slope * signs / count
        own_c2[...] = 0.0
        return limit, factor

    def _gradient(self, inputs, piece, c1, c2, limit, factor, target):
        """dx of a piece, 0 where masked."""
        block = self.block(piece, self.fine)
        run, g = (values.reshape(block) for values in inputs)
        factors = [self.beside(values, piece, self.fine) for values in (self.mean, self.rstd, self.weight, c1, c2)]
        dx = target.place(piece)
        engines.current().gradient(g, run, *factors, dx.reshape(block))
        if limit is not None:
            mean, least, slope = (self.beside(values, piece, self.kept).reshape(-1) for values in (self.mean, limit, factor))
            engines.current().add_signs(self.rows(run, piece), mean, least, slope, self.rows(dx, piece))
        without_dependence(dx, self.values, True)
        if self.mask is not None:
            np.copyto(dx.reshape(shape_of(piece)), 0, where=~self.mask[piece])
        target.keep(piece, dx)


def normalize(x, layout, affine, weight, bias, eps, out, where=None, **options):
    """y and the `NormStats` of a forward call that takes the course in pieces; weight and bias have the shape of x along `affine`."""
    x = apart(x, out)
    y = np.empty_like(x, subok=False) if out is None else out
    course = Course(x, layout, affine, *(apart(values, out) for values in (weight, bias)), where=where, **options)
    course.forward(y, eps)
    count = int(course.values) if where is None else course.seen(course.count, layout).astype(np.int64)
    return y, NormStats(*(course.seen(values, layout) for values in (course.mean, course.rstd, course.var)), count)


def gradients(dy, x, stats, layout, affine, weight, dtype, out, bias=None, **options):
    """The `NormGradients` of such a call, from the statistics that it returned."""
    dy, x = apart(dy, out), apart(x, out)
    course = Course(x, layout, affine, weight, bias, **options)
    course.take(statistics(stats, layout, ("mean", "rstd", "var"), out), stats.count, layout)
    dx = np.empty_like(x, subok=False) if out is None else out
    parameters = course.backward(dy, dx)
    return NormGradients(dx, *(course.seen(values, layout, course.affine).astype(dtype) for values in parameters))

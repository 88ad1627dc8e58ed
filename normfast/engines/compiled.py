"""What the compiled engines share: which loop takes a block, cut as `policy.py` says, and the working space of each piece.

A block is C-contiguous, (a, r, c, s), kept along a and c and reduced along r and s; `drivers` are the loops of one engine.
"""

import math
from functools import lru_cache

import numpy as np

from normfast.engines.policy import (
    SERIAL,
    STREAMED,
    WIDTH,
    column_splits,
    cut_groups,
    fused_tiles,
    row_tiles,
    rows_beside,
    run_splits,
    short_runs,
    slab_splits,
    workers,
)
from normfast.engines.rounds import by_channels, in_rounds
from normfast.kernels.activations import IDENTITY
from normfast.kernels.dropout import DRAWS, FLAGS
from normfast.kernels.half_slabs import CHUNK
from normfast.kernels.moments import HEAD
from normfast.kernels.normalize import PART
from normfast.kernels.philox import BLOCK_WORDS
from normfast.kernels.rows import ASIDE, TOGETHER

HALF, SINGLE, DOUBLE = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
LONGEST = 1 << 16  # values of a row that passes the caches through a buffer of its own size
BYTE, WORD = np.dtype(np.uint8), np.dtype(np.uint32)


@lru_cache(maxsize=64)
def constant(size, dtype, value):
    """A run of equal values, for a weight or bias that is not given."""
    return np.full(size, value, dtype)  # nobody writes it; a read-only array would be another type to Numba


def aligned(shape, dtype):
    """An empty array that begins with a cache line: NumPy's own lie across them, and so does each vector that is loaded from them."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    return np.ndarray(shape, dtype, memory, -memory.ctypes.data % 64)


def spaces(threads, size, dtype, *sets):
    """A row of `size` values or more for each thread, none of which shares a cache line with another's; so many sets of them."""
    lines = -(-size * dtype.itemsize // 128)  # processors fetch them in pairs
    return aligned((*sets, threads, lines * 128 // dtype.itemsize), dtype)


def bits_of(words, n):
    """The first n bits of words of 32, the lowest of the first word first, as an array of bool."""
    return np.unpackbits(words.astype("<u4", copy=False).view(np.uint8), count=n, bitorder="little").view(bool)


def of_channels(rows, channels, *values):
    """Numbers of each row, (rows,), or of each channel of each group, (groups, c), as (1, channels) for the channels of all rows."""
    each = channels // rows
    return [
        np.repeat(value, each)[None] if value.ndim == 1 else np.broadcast_to(value, (channels // value.size, *value.shape)).reshape(1, -1)
        for value in values
    ]


def tile_spaces(sets, tiles, n, threads, dtype):
    """For the gradients of parameters: for each of them short sums of each thread, 0, and (sets, tiles, n) float64 sums of each tile."""
    short = spaces(threads, n, dtype, sets)
    short.fill(0)
    return short, np.empty((sets, tiles, n))


class CompiledEngine:
    """The operations on checked, C-contiguous blocks; statistics are float64."""

    def __init__(self, name, drivers, shortcuts=None, streams_alone=True):
        """drivers: the loops for each pair (type of the values, type of the sums); shortcuts: the way of most calls, where there is one;
        streams_alone: whether its loops for one thread are good at stores past the caches.
        """
        self.name = name
        self._streams_alone = streams_alone
        self._shortcuts = shortcuts
        self._drivers = drivers
        self._untyped = drivers[SINGLE, SINGLE]

    def _buffers(self, y, threads, *sources, sooner=1):
        """Whether y goes past the caches, from STREAMED bytes on or so many times sooner, and a buffer for each thread to do so through.

        What stands where its sources do is in the cache when it is written: group norm's gradient of 26 MB in place of dy takes 5.7 ms past
        the caches and 3.3 ms through them.
        """
        alone = workers(y.size) == 1 and not self._streams_alone
        if y.nbytes < STREAMED // sooner or alone or any(np.may_share_memory(y, source) for source in sources):
            return False, np.empty((threads, 0), y.dtype)
        return True, aligned((threads, PART), y.dtype)

    def _half_buffers(self, size, y, threads, *sources):
        """As `_buffers` for words, and between the two for each thread two runs of float32, as uint32 and as float32."""
        streamed, buffers = self._buffers(y, threads, *sources)
        work = aligned((threads, 2, size), SINGLE)
        return streamed, work.view(np.uint32), work, buffers

    def _draw_buffers(self, threads):
        """Space for each thread for the words of a block, a bit for each of its elements, and 64 bytes: as words and as bytes."""
        space = aligned((threads, DRAWS + DRAWS // 8 + 64), BYTE)
        return space.view(WORD), space

    @in_rounds("x", "mean", "m2")
    def moments(self, x, mean, m2):
        """Mean and sum of squared deviations (a, c) of a block, summed in float64."""
        scale = np.empty_like(mean)
        a, r, _, s = x.shape
        if a == r == 1 < s <= ASIDE:  # short rows: 65536 of 64 values 2.9 ms as slabs, 1.7 ms four at a time
            head = HEAD if x.dtype == DOUBLE else 1
            rows = by_channels(self._drivers[x.dtype, DOUBLE].row_moments, x)
            rows(x.reshape(-1, s), head, mean.ravel(), m2.ravel(), scale.ravel(), workers(x.size))
        else:
            self.scaled_moments(x, DOUBLE, mean, m2, scale)
        with np.errstate(all="ignore"):  # float64 values above 1e154 have infinite m2
            mean /= scale
            m2 /= scale
            m2 /= scale

    @in_rounds("x", "mean", "m2", "scale")
    def scaled_moments(self, x, sums, mean, m2, scale):
        """Moments (a, c) of x * scale, summed in the dtype `sums`, and the powers of two `scale`, which are 1 but for extreme values."""
        a, r, c, s = x.shape
        threads = workers(x.size)
        drivers = self._drivers[x.dtype, sums]
        if short_runs(x):
            column_mean, column_m2, column_scale = np.empty((3, a, c * s))
            self.scaled_moments(x.reshape(a, r, c * s, 1), sums, column_mean, column_m2, column_scale)
            columns = (values.reshape(-1, s) for values in (column_mean, column_m2, column_scale))
            self._untyped.merge_neighbours(float(r), *columns, mean.ravel(), m2.ravel(), threads)
            scale[...] = 1.0
        elif s > 1 or c == 1:
            splits_r, splits_s = slab_splits(r, s)
            piece_mean, piece_m2 = np.empty((2, a * c * splits_r * splits_s))
            by_channels(drivers.slab_moments, x)(
                x.reshape(-1, s), r, c, splits_r, splits_s, piece_mean, piece_m2, mean.ravel(), m2.ravel(),
                scale.ravel(), threads,
            )  # fmt: skip
        else:
            splits = column_splits(r, c)
            piece_mean, piece_m2 = np.empty((2, a * splits, c))
            work = np.empty((threads, 6 * WIDTH), sums)
            drivers.column_moments(x.reshape(-1, c), r, splits, WIDTH, work, piece_mean, piece_m2, mean, m2, scale, threads)

    def layer_norm_at_once(self, x, weight, bias, axis, eps, centred, out, keep):
        """y, and if `keep` (3, ...) mean, rstd and var, for arguments that nobody has checked; None where they are not the simplest."""
        if self._shortcuts is None:
            return None
        return self._shortcuts.layer_norm_rows(x, weight, bias, axis, eps, centred, out, keep, SERIAL, self.layer_norm_forward)

    def layer_norm_gradients_at_once(self, dy, x, mean, rstd, weight, axis, centred, out):
        """dx, dweight and dbias; as `layer_norm_at_once`."""
        if self._shortcuts is None:
            return None
        return self._shortcuts.layer_norm_gradients(dy, x, mean, rstd, weight, axis, centred, out, SERIAL, self.layer_norm_backward)

    def add_norm_at_once(self, x, residual, weight, bias, axis, eps, centred, out, h_out, draw):
        """y, h, (3, ...) mean, rstd and var, and the mask that `draw` gives, if there is one; as `layer_norm_at_once`."""
        if self._shortcuts is None:
            return None
        return self._shortcuts.add_norm_rows(x, residual, weight, bias, axis, eps, centred, out, h_out, draw, SERIAL, self.add_norm_forward)

    def add_norm_gradients_at_once(self, dy, h, dh, mean, rstd, drawn, weight, axis, centred, out, dresidual_out):
        """dx, dresidual, dweight and dbias; as `layer_norm_at_once`."""
        if self._shortcuts is None:
            return None
        return self._shortcuts.add_norm_gradients(
            dy, h, dh, mean, rstd, drawn, weight, axis, centred, out, dresidual_out, self.add_norm_backward
        )

    def dropout_at_once(self, x, draw, out):
        """y and the mask that `draw` gives; as `layer_norm_at_once`."""
        if self._shortcuts is None:
            return None
        return self._shortcuts.dropout(x, draw, out, SERIAL, self.dropout)

    def batch_norm_at_once(self, x, mean, var, weight, bias, axis, eps, code, out):
        """y by given statistics; as `layer_norm_at_once`."""
        if self._shortcuts is None:
            return None
        return self._shortcuts.batch_norm(x, mean, var, weight, bias, axis, eps, code, out, self.batch_norm)

    def group_norm_at_once(self, x, groups, weight, bias, axis, eps, out):
        """y, (3, samples, groups) mean, rstd and var, and the number of values behind each; as `layer_norm_at_once`."""
        if self._shortcuts is None:
            return None
        return self._shortcuts.group_norm(x, groups, weight, bias, axis, eps, out, self.group_norm_forward)

    def group_norm_gradients_at_once(self, dy, x, mean, rstd, groups, weight, axis, out):
        """dx, dweight and dbias; as `layer_norm_at_once`."""
        if self._shortcuts is None:
            return None
        return self._shortcuts.group_norm_gradients(dy, x, mean, rstd, groups, weight, axis, out, self.group_norm_backward)

    @in_rounds("x", "y", "mean", "rstd", "var")
    def layer_norm_forward(self, x, weight, bias, eps, centred, y, mean, rstd, var):
        """Rows of (rows, n); weight and bias (n,) of x's type, float32 for one of 16 bits. Without centring it is RMS norm: mean is 0 and
        var the mean square."""
        threads = workers(x.size)
        if x.itemsize == 2:
            words, result = x.view(np.uint16), y.view(np.uint16)
            self._untyped.half_layer_norm_forward(
                words, x.dtype != HALF, weight, bias, eps, centred, result, mean, rstd, var,
                *self._half_buffers(max(x.shape[1], TOGETHER), result, threads, words), threads,
            )  # fmt: skip
            return
        self._drivers[x.dtype, x.dtype].layer_norm_forward(
            x, weight, bias, eps, centred, y, mean, rstd, var, *self._buffers(y, threads, x), threads
        )

    @in_rounds("x", "dy", "mean", "rstd", "dx", result="sum")
    def layer_norm_backward(self, dy, x, mean, rstd, weight, centred, dx):
        """Writes dx and returns dweight and dbias (n,), float64."""
        rows, n = x.shape
        tiles, threads = row_tiles(rows, n), workers(x.size)
        short, partial = tile_spaces(2, tiles, n, threads, weight.dtype)
        if x.itemsize == 2:
            sources, result = (dy.view(np.uint16), x.view(np.uint16)), dx.view(np.uint16)
            self._untyped.half_layer_norm_backward(
                *sources, x.dtype != HALF, mean, rstd, weight, centred, result, *short, *partial,
                *self._half_buffers(max(n, TOGETHER // 2), result, threads, *sources), threads,
            )  # fmt: skip
        else:
            self._drivers[x.dtype, x.dtype].layer_norm_backward(
                dy, x, mean, rstd, weight, centred, dx, *short, *partial, *self._buffers(dx, threads, dy, x), threads
            )
        return self._sum_of_tiles(partial)

    def _sum_of_tiles(self, partial):
        """For each set (tiles, n) of rows their sum (n,): 393 KB of which another core wrote half take 26 us, by NumPy 130."""
        sets, tiles, n = partial.shape
        if tiles == 1:
            return partial[:, 0]
        total = np.empty((sets, n))
        self._untyped.add_tiles(partial, total)
        return total

    def _statistics(self, x, eps, mean, rstd, var):
        """mean, rstd and var (a, c) of a block."""
        m2, scale = np.empty_like(mean), np.empty_like(mean)
        self.scaled_moments(x, x.dtype, mean, m2, scale)
        runs = (values.ravel() for values in (mean, m2, scale, rstd, var))
        self._untyped.finish_statistics(float(x.shape[1] * x.shape[3]), eps, *runs)

    @in_rounds("x", "y", "mean", "rstd", "var", unit="weight")
    def group_norm_forward(self, x, weight, bias, s, eps, y, mean, rstd, var):
        """Rows (rows, n) that hold the channels of one group, s values each; weight and bias (groups, channels of a group), float64."""
        if x.itemsize == 2:
            channels = weight.shape[1]
            self._half_slabs(x, channels, 1, s, weight, bias, channels, eps, False, IDENTITY, y, mean, rstd, var)
            return
        if cut_groups(*x.shape):
            self._statistics(x[None, None], eps, mean[None], rstd[None], var[None])
            factors = of_channels(len(x), x.size // s, mean, rstd, weight, bias)
            self.batch_norm(x.reshape(1, 1, -1, s), *factors, IDENTITY, y.reshape(1, 1, -1, s))
            return
        threads = workers(x.size)
        self._drivers[x.dtype, x.dtype].group_norm_forward(
            x, weight, bias, s, eps, y, mean, rstd, var, *self._buffers(y, threads, x), threads
        )

    @in_rounds("x", "dy", "mean", "rstd", "dx", unit="weight", result="join")
    def group_norm_backward(self, dy, x, mean, rstd, weight, s, dx):
        """Writes dx and returns the sums of dy * xhat and of dy of each channel of each row, float64."""
        if x.itemsize == 2:
            channels = weight.shape[1]
            return self._half_slab_gradients(dy, x, channels, 1, s, mean, rstd, weight, channels, dx)
        threads = workers(x.size)
        sum_dy, sum_dy_xhat = np.empty((2, x.size // s))
        if cut_groups(*x.shape):
            dy_runs, runs, dx_runs = (values.reshape(1, 1, -1, s) for values in (dy, x, dx))
            mean, rstd, weight = of_channels(len(x), sum_dy.size, mean, rstd, weight)
            self.gradient_sums(dy_runs, runs, mean, rstd, sum_dy[None], sum_dy_xhat[None])
            c1, c2 = ((sums * weight).reshape(len(x), -1).sum(axis=1) / x.shape[1] for sums in (sum_dy, sum_dy_xhat))
            self.gradient(dy_runs, runs, mean, rstd, weight, *of_channels(len(x), sum_dy.size, c1, c2), dx_runs)
            return sum_dy_xhat, sum_dy
        self._drivers[x.dtype, x.dtype].group_norm_backward(
            dy, x, mean, rstd, weight, s, sum_dy, sum_dy_xhat, dx, *self._buffers(dx, threads, dy, x), threads
        )
        return sum_dy_xhat, sum_dy

    @in_rounds("x", "weight", "bias", "y", "mean", "rstd", "var")
    def batch_norm_forward(self, x, weight, bias, eps, code, y, mean, rstd, var):
        """weight, bias, mean, rstd and var (a, c), float64; the code is that of an activation, applied to y while it is in the cache."""
        a, r, c, s = x.shape
        if x.itemsize == 2:
            self._half_slabs(x, r, c, s, weight, bias, 1, eps, False, code, y, mean, rstd, var)
            return
        threads = workers(x.size)
        if (s > 1 or c == 1) and a * c >= 4 * threads and not short_runs(x):
            splits_r, splits_s = slab_splits(r, s)
            piece_mean, piece_m2 = np.empty((2, a * c * splits_r * splits_s))
            m2, scale = np.empty((2, a * c))
            by_channels(self._drivers[x.dtype, x.dtype].slab_forward, x)(
                x.reshape(-1, s), r, c, splits_r, splits_s, piece_mean, piece_m2,
                weight.ravel(), bias.ravel(), eps, code, y.reshape(-1, s),
                mean.ravel(), m2, scale, rstd.ravel(), var.ravel(), *self._buffers(y, threads, x), threads,
            )  # fmt: skip
        else:
            self._statistics(x, eps, mean, rstd, var)
            self.batch_norm(x, mean, rstd, weight, bias, code, y)

    @in_rounds("x", "mean", "rstd", "weight", "bias", "y", within=("x", "y"))
    def batch_norm(self, x, mean, rstd, weight, bias, code, y):
        """y = f((x - mean) * rstd * weight + bias), all of them (a, c), for the activation f of that code."""
        a, r, c, s = x.shape
        if x.itemsize == 2:
            self._half_slabs(x, r, c, s, weight, bias, 1, 0.0, True, code, y, mean, rstd, mean)
            return
        threads = workers(x.size)
        drivers = self._drivers[x.dtype, x.dtype]
        if s > 1 or c == 1:
            factors = (mean.ravel(), rstd.ravel(), weight.ravel(), bias.ravel())
            drivers.slab_affine(
                x.reshape(-1, s), r, c, run_splits(s), *factors, np.empty((5, a * c), x.dtype), code, y.reshape(-1, s),
                *self._buffers(y, threads, x), threads,
            )  # fmt: skip
        else:
            beside = rows_beside(c)
            work = np.empty((5, a, beside * c), x.dtype)
            drivers.column_affine(
                x.reshape(-1, c), r, mean, rstd, weight, bias, beside, work, code, y.reshape(-1, c), *self._buffers(y, threads, x), threads
            )

    @in_rounds("x", "dy", "mean", "rstd", "weight", "bias", "dx", result="join")
    def batch_norm_backward(self, dy, x, mean, rstd, weight, bias, code, dx):
        """Writes dx and returns dweight and dbias (a, c), float64; the code is that of y's activation, which 16-bit values cannot have and
        without which nobody looks at the bias and dx may be dy."""
        a, r, c, s = x.shape
        if x.itemsize == 2:
            return [values.reshape(a, c) for values in self._half_slab_gradients(dy, x, r, c, s, mean, rstd, weight, 1, dx)]
        threads = workers(x.size)
        dbias, dweight, c1, c2 = np.empty((4, a, c))
        if (s > 1 or c == 1) and a * c >= 4 * threads and not short_runs(x):
            splits = slab_splits(r, s)
            piece_dy, piece_dy_xhat = np.empty((2, a * c * splits[0] * splits[1]))
            by_channels(self._drivers[x.dtype, x.dtype].slab_backward, x)(
                dy.reshape(-1, s), x.reshape(-1, s), r, c, *splits, mean.ravel(), rstd.ravel(), weight.ravel(), bias.ravel(), code,
                piece_dy, piece_dy_xhat, dbias.ravel(), dweight.ravel(), c1.ravel(), c2.ravel(), dx.reshape(-1, s),
                *self._buffers(dx, threads, dy if code == IDENTITY else dx, x), threads,
            )  # fmt: skip
        else:
            if code != IDENTITY:
                self.batch_norm(x, mean, rstd, weight, bias, IDENTITY, dx)
                self.activate_gradient(dy.reshape(-1), dx.reshape(-1), code, dx.reshape(-1))
                dy = dx
            self.gradient_sums(dy, x, mean, rstd, dbias, dweight)
            self.gradient(dy, x, mean, rstd, weight, weight * dbias / (r * s), weight * dweight / (r * s), dx)
        return dweight, dbias

    def _half_slabs(self, x, r, c, s, weight, bias, own, eps, measured, code, y, mean, rstd, var):
        """Forward of 16-bit values that lie in slabs; each statistic has r runs of s values and `own` weights and biases."""
        threads, words, result = workers(x.size), x.view(np.uint16).reshape(-1), y.view(np.uint16).reshape(-1)
        self._untyped.half_slab_forward(
            words, x.dtype != HALF, r, c, s, weight.ravel(), bias.ravel(), own, eps, measured, code, result, mean.ravel(), rstd.ravel(),
            var.ravel(), *self._half_buffers(CHUNK, result, threads, words), threads,
        )  # fmt: skip

    def _half_slab_gradients(self, dy, x, r, c, s, mean, rstd, weight, own, dx):
        """Backward of such; returns dweight and dbias of each parameter of each statistic, float64."""
        threads, sources, result = workers(x.size), [array.view(np.uint16).reshape(-1) for array in (dy, x)], dx.view(np.uint16).reshape(-1)
        dbias, dweight = np.zeros((2, mean.size * own))
        self._untyped.half_slab_backward(
            *sources, x.dtype != HALF, r, c, s, mean.ravel(), rstd.ravel(), weight.ravel(), own, dbias, dweight, result,
            *self._half_buffers(CHUNK, result, threads, *sources), threads,
        )  # fmt: skip
        return dweight, dbias

    @in_rounds("x", "dy", "mean", "rstd", "sum_dy", "sum_dy_xhat")
    def gradient_sums(self, dy, x, mean, rstd, sum_dy, sum_dy_xhat):
        """Sums of dy and of dy * xhat, (a, c)."""
        a, r, c, s = x.shape
        threads = workers(x.size)
        drivers = self._drivers[x.dtype, x.dtype]
        if (s > 1 or c == 1) and not short_runs(x):
            splits = slab_splits(r, s)
            piece_dy, piece_dy_xhat = np.empty((2, a * c * splits[0] * splits[1]))
            by_channels(drivers.slab_gradient_sums, x)(
                dy.reshape(-1, s), x.reshape(-1, s), r, c, *splits, mean.ravel(), rstd.ravel(), piece_dy, piece_dy_xhat,
                sum_dy.ravel(), sum_dy_xhat.ravel(), threads,
            )  # fmt: skip
        else:
            columns = c * s
            splits = column_splits(r, columns)
            piece_dy, piece_dy_d = np.empty((2, a * splits, columns))
            work, factors = np.empty((threads, 3 * WIDTH), x.dtype), np.empty((2, a, columns), x.dtype)
            drivers.column_gradient_sums(
                dy.reshape(-1, columns), x.reshape(-1, columns), r, s, splits, WIDTH, mean, rstd, work, factors, piece_dy, piece_dy_d,
                sum_dy, sum_dy_xhat, threads,
            )  # fmt: skip

    @in_rounds("x", "dy", "mean", "rstd", "weight", "c1", "c2", "dx", within=("x", "dy", "dx"))
    def gradient(self, dy, x, mean, rstd, weight, c1, c2, dx):
        """dx = rstd * (dy * weight - c1 - xhat * c2), all of them (a, c); dx may be dy."""
        a, r, c, s = x.shape
        threads = workers(x.size)
        drivers = self._drivers[x.dtype, x.dtype]
        if s > 1 or c == 1:
            factors = (values.ravel() for values in (mean, rstd, weight, c1, c2))
            drivers.slab_gradient(
                dy.reshape(-1, s), x.reshape(-1, s), r, c, run_splits(s), *factors, np.empty((5, a * c), x.dtype), dx.reshape(-1, s),
                *self._buffers(dx, threads, dy, x), threads,
            )  # fmt: skip
        else:
            beside = rows_beside(c)
            work = np.empty((5, a, beside * c), x.dtype)
            drivers.column_gradient(
                dy.reshape(-1, c), x.reshape(-1, c), r, mean, rstd, weight, c1, c2, beside, work, dx.reshape(-1, c),
                *self._buffers(dx, threads, dy, x), threads,
            )  # fmt: skip

    @in_rounds("x", "mean", "total", "most")
    def absolute_deviations(self, x, mean, total, most):
        """Sum and maximum of |x - mean| for each row of (rows, n)."""
        self._drivers[x.dtype, x.dtype].absolute_deviations(x, mean, total, most, workers(x.size))

    @in_rounds("x", "mean", "limit", "count", "total")
    def count_signs(self, x, mean, limit, count, total):
        """For each row: how many deviations are at least `limit`, and the sum of their signs."""
        self._drivers[x.dtype, x.dtype].count_signs(x, mean, limit, count, total, workers(x.size))

    @in_rounds("x", "mean", "limit", "factor", "dx")
    def add_signs(self, x, mean, limit, factor, dx):
        """dx += factor * sign(x - mean) in each row where the deviation is at least `limit`."""
        self._drivers[x.dtype, x.dtype].add_signs(x, mean, limit, factor, dx, workers(x.size))

    @in_rounds("x", "y", "norm")
    def lp_norm_forward(self, x, p, eps, y, norm):
        """Rows of (rows, n) divided by their p-norms or eps, whichever is larger."""
        rows, threads = len(x), workers(x.size)
        self._drivers[x.dtype, x.dtype].lp_norm_forward(
            x, p, eps, y, norm, np.empty(rows), np.empty((5, rows), x.dtype), *self._buffers(y, threads, x), threads
        )

    @in_rounds("x", "dy", "norm", "dx")
    def lp_gradient(self, dy, x, p, norm, eps, dx):
        """The gradient of x / max(norm, eps) for each row."""
        threads = workers(x.size)
        length = min(x.size, PART)
        self._drivers[x.dtype, x.dtype].lp_gradient(
            dy, x, p, norm, eps, np.empty((threads, length)), np.empty((threads, 5, length), x.dtype), dx,
            *self._buffers(dx, threads, dy, x), threads,
        )  # fmt: skip

    @in_rounds("z", "a")
    def activate(self, z, code, a):
        """a = f(z) on one run; the codes are those of `kernels/activations.py`."""
        self._drivers[z.dtype, z.dtype].activate(z, code, a, workers(z.size))

    @in_rounds("z", "da", "dz")
    def activate_gradient(self, da, z, code, dz):
        """dz = da * f'(z) on one run."""
        self._drivers[z.dtype, z.dtype].activate_gradient(da, z, code, dz, workers(z.size))

    @in_rounds("source", "target")
    def widen(self, source, target):
        """A run of 16-bit floats as float32."""
        words, bits, threads = source.view(np.uint16), target.view(np.uint32), workers(source.size)
        if source.dtype == HALF:
            self._untyped.widen_float16(words, bits, target, threads)
        else:
            self._untyped.widen_bfloat16(words, bits, threads)

    @in_rounds("source", "target")
    def narrow(self, source, target):
        """A run of float32 rounded to 16-bit floats."""
        words, bits, threads = target.view(np.uint16), source.view(np.uint32), workers(source.size)
        if target.dtype == HALF:
            work = np.empty((threads, 1024), np.float32)
            self._untyped.narrow_float16(bits, source, work.view(np.uint32), work, words, threads)
        else:
            self._untyped.narrow_bfloat16(bits, words, threads)

    @in_rounds("x", "y")
    def dropout(self, x, key, position, threshold, scale, y):
        """y = x * scale where element `position + k` of the key's stream is kept, else 0; x and y are one run, also of 16 bits."""
        threads = workers(x.size)
        draws, work = (key, position, np.uint32(threshold)), self._draw_buffers(threads)
        if x.itemsize == 2:
            words, result = x.view(np.uint16), y.view(np.uint16)
            self._untyped.half_drop(
                words, x.dtype != HALF, *draws, SINGLE.type(scale), *work, result, *self._half_buffers(DRAWS, result, threads, words),
                threads,
            )  # fmt: skip
        else:
            space = self._buffers(y, threads, x, sooner=2)  # 12 MB: 1.1 ms through the caches, 0.62 ms past them
            self._drivers[x.dtype, x.dtype].drop(x, *draws, x.dtype.type(scale), *work, y, *space, threads)

    @in_rounds("x", "y", words=("kept",))
    def drop_given(self, x, kept, scale, y):
        """y = x * scale where a mask has a bit, the lowest of kept[0] first, else 0; x and y are one run, kept uint32."""
        threads = workers(x.size)
        self._drivers[x.dtype, x.dtype].drop_given(x, kept, x.dtype.type(scale), y, *self._buffers(y, threads, x), threads)

    @in_rounds("kept")
    def keep(self, key, position, threshold, kept):
        """Whether each element of the key's stream from `position` on is kept, in an array of bool."""
        threads, first = workers(kept.size), position % FLAGS
        words = np.empty((first + kept.size + FLAGS - 1) // FLAGS, WORD)
        self._untyped.keep(key, position // FLAGS, np.uint32(threshold), *self._draw_buffers(threads), words, threads)
        kept[...] = bits_of(words, first + kept.size)[first:]

    @in_rounds("x", "residual", "h", "y", "mean", "rstd", "var")
    def add_norm_forward(self, x, residual, drawn, weight, bias, eps, centred, h, y, mean, rstd, var):
        """h = dropout(x) + residual and its norm y, of rows (rows, n), weight and bias as `layer_norm_forward`; `drawn` is key, position,
        threshold and scale of the dropout, or None."""
        threads, n = workers(x.size), x.shape[1]
        options = self._drawn(drawn, x.dtype, max(n, TOGETHER), threads)
        if x.itemsize == 2:
            sources, results = (x.view(np.uint16), residual.view(np.uint16)), (h.view(np.uint16), y.view(np.uint16))
            self._untyped.half_add_norm_forward(
                *sources, x.dtype != HALF, *options, weight, bias, eps, centred, *results, mean, rstd, var,
                *self._half_buffers(max(n, TOGETHER), results[1], threads, *sources), threads,
            )  # fmt: skip
            return
        space = self._row_buffers(n, (h, y), threads, x, residual)
        self._drivers[x.dtype, x.dtype].add_norm_forward(
            x, residual, *options, weight, bias, eps, centred, h, y, mean, rstd, var, *space, threads
        )

    @in_rounds("h", "dy", "dh", "mean", "rstd", "dresidual", "dx", result="sum")
    def add_norm_backward(self, dy, h, dh, mean, rstd, drawn, weight, centred, dresidual, dx):
        """Writes dresidual, the gradient of the norm plus dh if there is one, and dx, its dropout, if it is drawn; returns dweight and
        dbias (n,), float64."""
        rows, n = h.shape
        tiles, threads = fused_tiles(rows, n), workers(h.size)
        options = self._drawn(drawn, h.dtype, max(n, TOGETHER), threads)
        short, partial = tile_spaces(2, tiles, n, threads, weight.dtype)
        added, more, dropped = dh is not None, h if dh is None else dh, dresidual if drawn is None else dx
        if h.itemsize == 2:
            sources, results = ([values.view(np.uint16) for values in group] for group in ((dy, h, more), (dresidual, dropped)))
            space = self._half_buffers(max(n, TOGETHER), results[0], threads, *sources, *results[1:] if drawn else ())
            self._untyped.half_add_norm_backward(
                *sources[:2], h.dtype != HALF, added, sources[2], mean, rstd, *options, weight, centred, *results, *short, *partial, *space,
                threads,
            )  # fmt: skip
        else:
            space = self._row_buffers(n, (dresidual, dropped), threads, dy, h, more, needed=added)
            self._drivers[h.dtype, h.dtype].add_norm_backward(
                dy, h, added, more, mean, rstd, *options, weight, centred, dresidual, dropped, *short, *partial, *space, threads
            )
        return self._sum_of_tiles(partial)

    @in_rounds("x", "y")
    def bias_activation(self, x, bias, code, drawn, y):
        """y = dropout(f(x + bias)) for the activation f of that code, of rows (rows, n); `drawn` as in `add_norm_forward`."""
        threads = workers(x.size)
        options = self._drawn(drawn, x.dtype, x.shape[1], threads)
        self._drivers[x.dtype, x.dtype].bias_activation_forward(x, bias, code, *options, y, *self._buffers(y, threads, x), threads)

    @in_rounds("x", "dy", "dx", result="sum")
    def bias_activation_backward(self, dy, x, bias, code, drawn, dx):
        """Writes dx, which may be dy or x, and returns dbias (n,), float64."""
        rows, n = x.shape
        tiles, threads = fused_tiles(rows, n), workers(x.size)
        short, partial = tile_spaces(1, tiles, n, threads, x.dtype)
        streamed, buffers = self._buffers(dx, threads, dy, x)[0], aligned((threads, 2, PART), x.dtype)
        self._drivers[x.dtype, x.dtype].bias_activation_backward(
            dy, x, bias, code, *self._drawn(drawn, x.dtype, n, threads), dx, *short, *partial, streamed, buffers, threads
        )
        return self._sum_of_tiles(partial)[0]

    def _drawn(self, drawn, dtype, size, threads):
        """Whether something is dropped, key, position, threshold, scale, and the working space for that and for flags of so many values."""
        dtype = SINGLE if dtype.itemsize == 2 else dtype
        if drawn is None:
            nobody = np.empty((threads, 0), BYTE)
            return False, np.empty(0, np.uint64), 0, np.uint32(0), dtype.type(0), nobody.view(WORD), nobody, nobody.view(WORD)
        key, position, threshold, scale = drawn
        space = self._draw_buffers(threads)
        return True, key, position, np.uint32(threshold), dtype.type(scale), *space, spaces(threads, size // FLAGS + 2, WORD)

    def _row_buffers(self, n, results, threads, *sources, needed=False):
        """As `_buffers` for two results, and before them for each thread space for the rows that are taken at once.

        Two leave the caches sooner: of 6.6 MB each they take 1.3 times a loop that only copies so, and 1.7 times it through the caches.
        """
        streamed, buffers = self._buffers(results[0], threads, *sources, sooner=2)
        streamed = streamed and n <= LONGEST and not any(np.may_share_memory(results[1], source) for source in sources)
        return streamed, aligned((threads, max(n, TOGETHER)), results[0].dtype) if streamed or needed else buffers, buffers

    @in_rounds("words")
    def random_words(self, key, position, words):
        """The words of the key's stream from `position` on."""
        threads = workers(words.size)
        self._untyped.random_words(key, position, np.empty((threads, BLOCK_WORDS), np.uint32), words, threads)

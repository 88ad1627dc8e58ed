"""The engine of `nf.fuse`: a user's own function is compiled into the sweeps, and its derivative into those of the gradient.

Forward, the three loops that write normalized values are replaced by ones that apply the function to what they wrote, and the kernels and
drivers that lead to them are built again upon these: so each way through a norm has it, at the cost of one pass over memory. Backward,
values are normalized again, and dy times the derivative takes their place in the first or second cache, where the norm's gradient finds it.
"""

import types

import numpy as np
from numba import njit, prange

from normfast.engines import load
from normfast.engines.compiled import CompiledEngine, spaces, tile_spaces
from normfast.engines.numba import STREAMS_ALONE, Driver, drivers, kernels, loops_of, variants
from normfast.engines.numba.primitives import chunk, row
from normfast.engines.numba.rows import normalize_row
from normfast.engines.numba.runs import equal
from normfast.engines.policy import row_tiles, rows_beside, short_runs, slab_splits, workers
from normfast.kernels import columns, group_norm, half_rows, half_slabs, layer_norm, normalize, slabs
from normfast.kernels.activations import IDENTITY
from normfast.kernels.layer_norm import TILE
from normfast.kernels.normalize import PART, SHORT

REBUILT = (normalize, layer_norm, group_norm, slabs, columns, half_rows, half_slabs)  # in the order in which they call each other

_compile = njit(nogil=True, error_model="numpy")
_gradients, _groups, _slabs, _columns = kernels.layer_norm, kernels.group_norm, kernels.slabs, kernels.columns
_factors, _plain = kernels.factors, kernels.normalize


def sweeps(function):
    """The loops of `normalize.py` that write y, with the function applied to each part while it is in the first cache."""

    @_compile
    def apply(y, n):
        for j in range(n):
            y[j] = function(y[j])

    @_compile
    def affine_run(x, n, scale, high, a, a_low, b, y):
        _plain.affine_run(x, n, scale, high, a, a_low, b, y)
        apply(y, n)

    @_compile
    def affine_columns(x, n, high, a, a_low, b, y):
        _plain.affine_columns(x, n, high, a, a_low, b, y)
        apply(y, n)

    @_compile
    def weighted_run(x, n, scale, high, r, r_low, low, weight, bias, y):
        left = 0
        while left < n:
            right = min(left + PART, n)
            part = chunk(y, left, right)
            _plain.weighted_run(
                chunk(x, left, right), right - left, scale, high, r, r_low, low, chunk(weight, left, right), chunk(bias, left, right), part
            )
            apply(part, right - left)
            left = right

    return {normalize.affine_run: affine_run, normalize.affine_columns: affine_columns, normalize.weighted_run: weighted_run}


def fused_drivers(function):
    """The drivers, upon kernels that apply the function."""
    names = {source.__name__ for source in REBUILT}
    known = {f: own for f, own in kernels.known.items() if f.__module__ not in names} | sweeps(function)
    scope = vars(drivers) | {source.__name__.rsplit(".", 1)[-1]: kernels.compiled(source, known) for source in REBUILT}
    return variants({name: types.FunctionType(f.__code__, scope, name) for name, f in loops_of(drivers).items()})


def gradient_drivers(derivative):
    """The loops of the way back, which begin with dz = dy * f'(z) for the derivative f' and the normalized values z."""

    @_compile
    def pull(dy, z, n):
        for j in range(n):
            z[j] = dy[j] * derivative(z[j])

    def values(dy, z, threads):
        n = z.size
        for t in prange(threads):
            lo, hi = n * t // threads, n * (t + 1) // threads
            pull(dy[lo:hi], z[lo:hi], hi - lo)

    def rows(dy, x, mean, rstd, weight, bias, centred, dx, tile_dweight, tile_dbias, dweight, dbias, work, streamed, buffers, threads):
        length, n = x.shape
        tiles = dweight.shape[0]
        for t in prange(threads):
            for k in range(tiles * t // threads, tiles * (t + 1) // threads):
                lo, hi = length * k // tiles, length * (k + 1) // tiles
                dweight[k] = dbias[k] = 0.0
                for i in range(lo, hi):
                    normalize_row(row(x, i, n), n, mean[i], rstd[i], weight, bias, work[t])
                    pull(row(dy, i, n), work[t], n)
                    _gradients.gradient_row(
                        work[t], row(x, i, n), mean[i], rstd[i], weight, n, centred, row(dx, i, n), tile_dweight[t], tile_dbias[t],
                        streamed, buffers[t],
                    )  # fmt: skip
                    if (i + 1 - lo) % TILE == 0 or i + 1 == hi:
                        _gradients.drain(tile_dweight[t], n, dweight[k])
                        _gradients.drain(tile_dbias[t], n, dbias[k])

    @_compile
    def pull_run(dy, x, i, s, mean, rstd, weight, bias, dz):
        target = row(dz, i, s)
        _slabs.affine_channel(
            row(x, i, s), equal(mean), equal(rstd), equal(weight), equal(bias), 0, 1, 1, s, IDENTITY, target, False, target
        )
        pull(row(dy, i, s), target, s)

    def groups(dy, x, mean, rstd, weight, bias, s, sum_dy, sum_dy_xhat, dx, threads):
        length = x.shape[0]
        count, k = weight.shape
        w, b, buffer = weight.reshape(-1), bias.reshape(-1), row(dx, 0, s)
        for t in prange(threads):
            for i in range(length * t // threads, length * (t + 1) // threads):
                for j in range(k):
                    q = i % count * k + j
                    pull_run(dy, x, i * k + j, s, mean[i], rstd[i], w[q], b[q], dx)
                _groups.group_norm_gradient_rows(dx, x, mean, rstd, w, k, s, count, sum_dy, sum_dy_xhat, dx, i, i + 1, False, buffer)

    def channels(
        dy, x, r, c, splits_r, splits_s, mean, rstd, weight, bias, piece_dy, piece_dy_xhat, sum_dy, sum_dy_xhat, c1, c2, dx, threads
    ):
        s = x.shape[1]
        pieces = splits_r * splits_s
        buffer = row(dx, 0, s)
        for t in prange(threads):
            for q in range(mean.size * t // threads, mean.size * (t + 1) // threads):
                for i in range(r):
                    pull_run(dy, x, _slabs.run_index(q, i, r, c), s, mean[q], rstd[q], weight[q], bias[q], dx)
                for p in range(pieces):
                    piece_dy[q * pieces + p], piece_dy_xhat[q * pieces + p] = _slabs.piece_gradient_sums(
                        dx, x, mean, rstd, q, p, r, c, s, splits_r, splits_s
                    )
                _slabs.add_pieces(piece_dy, piece_dy_xhat, q, pieces, sum_dy, sum_dy_xhat)
                c1[q] = weight[q] * sum_dy[q] / (r * s)
                c2[q] = weight[q] * sum_dy_xhat[q] / (r * s)
                _slabs.gradient_channel(dx, x, mean, rstd, weight, c1, c2, q, r, c, s, dx, False, buffer)

    def runs(dy, x, r, c, mean, rstd, weight, bias, dz, threads):
        length, s = x.shape
        for t in prange(threads):
            for i in range(length * t // threads, length * (t + 1) // threads):
                q = i // (r * c) * c + i % c
                pull_run(dy, x, i, s, mean[q], rstd[q], weight[q], bias[q], dz)

    def columns(dy, x, r, mean, rstd, weight, bias, beside, work, dz, threads):
        a, c = mean.shape
        length, buffer = a * r, row(dz, 0, c)
        scale, high, factor, factor_low, b = work[0], work[1], work[2], work[3], work[4]
        scaled = False
        for i in range(a):
            scaled |= _factors.column_factors(
                c, mean[i], rstd[i], weight[i], bias[i], x[0, 0], scale[i], high[i], factor[i], factor_low[i], b[i]
            )
            for k in range(5):
                _columns.repeat(c, beside, work[k, i])
        for t in prange(threads):
            hi = length * (t + 1) // threads
            for lo in range(length * t // threads, hi, beside):
                stop = min(lo + beside, hi)
                _columns.affine_rows(x, r, c, lo, stop, beside, scaled, scale, high, factor, factor_low, b, IDENTITY, dz, False, buffer)
                pull(row(dy, lo, c), row(dz, lo, c), (stop - lo) * c)

    return types.SimpleNamespace(**{loop.__name__: Driver(loop) for loop in (values, rows, groups, channels, runs, columns)})


class FusedEngine(CompiledEngine):
    """The Numba engine, with a function in the sweeps that write y; its gradients take a bias, since they compute z again."""

    def __init__(self, function, derivative):
        super().__init__("numba", fused_drivers(function), streams_alone=STREAMS_ALONE)
        self._gradients = None if derivative is None else gradient_drivers(derivative)

    @property
    def differentiable(self):
        """Whether it was given a derivative."""
        return self._gradients is not None

    def pull(self, dy, z):
        """z, a run, replaced by dy * f'(z)."""
        self._gradients.values(dy, z, workers(z.size))
        return z

    def layer_norm_backward(self, dy, x, mean, rstd, parameters, centred, dx):
        """As without the function; the parameters are weight and bias."""
        rows, n = x.shape
        weight, bias = parameters
        threads = workers(x.size)
        short, partial = tile_spaces(2, row_tiles(rows, n), n, threads, weight.dtype)
        streamed, buffers = self._buffers(dx, threads, dy, x)
        self._gradients.rows(
            dy, x, mean, rstd, weight, bias, centred, dx, *short, *partial, spaces(threads, n, x.dtype), streamed and n > SHORT, buffers,
            threads,
        )  # fmt: skip
        return self._sum_of_tiles(partial)

    def group_norm_backward(self, dy, x, mean, rstd, weight, bias, s, dx):
        """As without the function; dx lies apart from dy and x."""
        sum_dy, sum_dy_xhat = np.empty((2, x.size // s))
        self._gradients.groups(dy, x, mean, rstd, weight, bias, s, sum_dy, sum_dy_xhat, dx, workers(x.size))
        return sum_dy_xhat, sum_dy

    def batch_norm_backward(self, dy, x, mean, rstd, weight, bias, dx):
        """As without the function; dx lies apart from dy and x."""
        a, r, c, s = x.shape
        threads = workers(x.size)
        if s == 1 and c > 1:
            beside = rows_beside(c)
            dy_rows, x_rows, dz = (array.reshape(-1, c) for array in (dy, x, dx))
            self._gradients.columns(
                dy_rows, x_rows, r, mean, rstd, weight, bias, beside, np.empty((5, a, beside * c), x.dtype), dz, threads
            )
            return load("numba").batch_norm_backward(dx, x, mean, rstd, weight, bias, IDENTITY, dx)
        dy_runs, x_runs, dz = (array.reshape(-1, s) for array in (dy, x, dx))
        factors = [values.ravel() for values in (mean, rstd, weight, bias)]
        if a * c < 4 * threads or short_runs(x):
            self._gradients.runs(dy_runs, x_runs, r, c, *factors, dz, threads)
            return load("numba").batch_norm_backward(dx, x, mean, rstd, weight, bias, IDENTITY, dx)
        splits = slab_splits(r, s)
        piece_dy, piece_dy_xhat = np.empty((2, a * c * splits[0] * splits[1]))
        dbias, dweight, c1, c2 = np.empty((4, a * c))
        self._gradients.channels(dy_runs, x_runs, r, c, *splits, *factors, piece_dy, piece_dy_xhat, dbias, dweight, c1, c2, dz, threads)
        return dweight.reshape(a, c), dbias.reshape(a, c)

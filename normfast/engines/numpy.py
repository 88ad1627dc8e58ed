"""Plain NumPy formulas: the engine of last resort and, with `longdouble` or `complex` input, the oracle of the tests.

The formulas take any dtype and compute in it; the engine below computes in float64. A block is (a, r, c, s), kept along a and c and
reduced along r and s, as in `compiled.py`; its methods are those of `compiled.CompiledEngine`.
"""

import math
from typing import Any

import numpy as np

from normfast.engines.compiled import bits_of
from normfast.engines.rounds import in_rounds
from normfast.kernels import activations as codes
from normfast.kernels.columns import FIRST

REDUCED = (1, 3)
ROOT_HALF = math.sqrt(0.5)


def average(x, axes):
    """Mean over the axes, which are kept: NumPy sums pairwise along contiguous rows, and one by one along other axes."""
    rows = np.moveaxis(x, axes, range(-len(axes), 0))
    shape = (*rows.shape[: -len(axes)], math.prod(rows.shape[-len(axes) :]))
    return np.expand_dims(np.ascontiguousarray(rows).reshape(shape).mean(axis=-1), axes)


def deviations(x, axes):
    """Mean and x - mean, of x times a power of two that keeps squares within reach, and that power; axes are kept."""
    largest = np.abs(x.real).max(axis=axes, keepdims=True, initial=0.0)
    exponent = np.frexp(np.where(np.isfinite(largest), largest, 0.0))[1]
    scale = np.ldexp(np.ones_like(largest), np.minimum(-exponent, 1000))
    x = x * scale
    one, few = (x[tuple(slice(0, n) if axis in axes else slice(None) for axis in range(x.ndim))] for n in (1, FIRST))
    start = one + (few - one).mean(axis=axes, keepdims=True)
    start = np.where(np.isfinite(start), start, one)
    d = x - start  # exact for neighbours, so that a constant has deviation 0 and its own mean
    mean = average(d, axes)
    centre = start + mean
    return centre, (x - centre) - ((start - centre) + mean), scale  # less what the centre's rounding took


def normalized(x, axes, eps):
    """xhat = (x - mean) * rstd, and mean, population variance and rstd = 1 / sqrt(variance + eps); axes are kept.

    Without variance and eps rstd is 0.
    """
    mean, d, scale = deviations(x, axes)
    var, rstd = inverse_deviation(average(d * d, axes), scale, eps)
    xhat = np.where(d == 0, d, d * (rstd / scale))  # of a constant near the type's maximum rstd / scale is infinite
    return xhat, mean / scale, var, rstd


def inverse_deviation(scaled, scale, eps):
    """Variance and 1 / sqrt(variance + eps) from the variance of x * scale."""
    var = scaled / scale / scale
    within = (var.real + eps > 1e-290) & (var.real + eps < 1e300)
    return var, np.where(within, 1.0 / np.sqrt(np.where(within, var + eps, 1.0)), np.where(scaled == 0, 0.0, scale / np.sqrt(scaled)))


def xhat_of(x, mean, rstd):
    """(x - mean) * rstd for given statistics."""
    scale = np.where(np.isfinite(rstd) & (rstd > 0), 2.0 ** np.floor(np.log2(np.where(rstd > 0, np.minimum(rstd, 1.0), 1.0))), 1.0)
    return (x * scale - mean * scale) * (rstd / scale)


def root_mean_square(x, axes, eps):
    """x * rstd, and mean (0), mean square and rstd = 1 / sqrt(mean square + eps); axes are kept."""
    largest = np.abs(x.real).max(axis=axes, keepdims=True, initial=0.0)
    exponent = np.frexp(np.where(np.isfinite(largest), largest, 0.0))[1]
    scale = np.ldexp(np.ones_like(largest), np.minimum(-exponent, 1000))
    d = x * scale
    var, rstd = inverse_deviation((d * d).mean(axis=axes, keepdims=True), scale, eps)
    return d * (rstd / scale), np.zeros_like(var), var, rstd


def gradient_of_normalized(dy, xhat, rstd, axes):
    """Gradient with respect to x of xhat, for the gradient dy of xhat."""
    c1 = dy.mean(axis=axes, keepdims=True)
    c2 = (dy * xhat).mean(axis=axes, keepdims=True)
    return rstd * (dy - c1 - xhat * c2)


def _signs(x, mean, limit):
    """Signs of the deviations that are at least `limit`, 0 elsewhere, and which these are; x is (rows, n)."""
    d = x - mean[:, None]
    far = np.abs(d) >= limit[:, None]
    return np.where(far, np.sign(d), 0.0), far


def row_norms(x, p):
    """sum(|x| ** p) ** (1 / p) along the last axis; p = 0 counts, +-inf is the largest or smallest."""
    a = np.abs(x)
    if p == 0:
        return (a != 0).sum(axis=-1).astype(a.dtype)
    most = a.max(axis=-1) if p > 0 else a.min(axis=-1)
    unit = np.where((most > 0) & np.isfinite(most), most, 1.0)
    norm = most if np.isinf(p) else unit * ((a / unit[..., None]) ** p).sum(axis=-1) ** (1.0 / p)
    return np.where((most > 0) & np.isfinite(most), norm, np.where(np.isnan(a).any(axis=-1), np.nan, most))


def lp_gradient(dy, x, p, norm, eps):
    """Gradient of x / max(norm, eps) for the norms (rows, 1)."""
    divisor = np.maximum(norm, eps)
    t = np.abs(x) / divisor
    inner = (dy * (x / divisor)).sum(axis=-1, keepdims=True)
    if np.isinf(p):
        ties = np.abs(x) == norm
        slope = ties / ties.sum(axis=-1, keepdims=True)
    else:
        slope = np.where(t == 0, 0.0, t ** (p - 1.0)) if p else 0.0
    dx = (dy - np.where(norm > eps, inner * np.sign(x) * slope, 0.0)) / divisor
    return np.where(divisor == 0, 0.0, dx)


def keep(values, target):
    """Round a result to its type; 16 bits from float32, as the other engines do."""
    target[...] = values.astype(np.result_type(target, np.float32))


def _wide(values):
    """Statistics (a, c) beside a block (a, r, c, s)."""
    return values[:, None, :, None]


def activated(z, code):
    """The activations of `kernels/activations.py`, by their codes."""
    if code == codes.IDENTITY:
        return z
    if code == codes.RELU:
        return np.where(z < 0, 0.0, z)
    if code == codes.LEAKY_RELU:
        return np.where(z < 0, codes.SLOPE * z, z)
    if code == codes.TANH:
        return np.tanh(z)
    if code == codes.GELU:
        return 0.5 * z * _erfc(-ROOT_HALF * z)
    if code == codes.SOFTPLUS:
        return np.logaddexp(z, 0.0)
    sigmoid = _sigmoid(z)
    return sigmoid if code == codes.SIGMOID else z * sigmoid


def activation_slope(z, code):
    """Their derivatives."""
    if code in (codes.RELU, codes.LEAKY_RELU):
        return np.where(z > 0, 1.0, codes.SLOPE if code == codes.LEAKY_RELU else 0.0)
    if code == codes.TANH:
        return 1.0 / np.cosh(z) ** 2
    if code == codes.GELU:
        return 0.5 * _erfc(-ROOT_HALF * z) + z / math.sqrt(2.0 * math.pi) * np.exp(-0.5 * z * z)
    sigmoid = _sigmoid(z)
    if code == codes.SOFTPLUS:
        return sigmoid
    bell = sigmoid * _sigmoid(-z)
    return bell if code == codes.SIGMOID else sigmoid + z * bell


def _sigmoid(z):
    return np.exp(-np.logaddexp(0.0, -z))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def philox4x32(counters, key, rounds=10):
    """The four words of each counter (4, n) under a key of two words, all uint64 below 2**32 (Salmon et al., SC 2011)."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = counters
    k0, k1 = key
    for _ in range(rounds):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & low, (p0 >> half) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3])


def words_of(key, position, n):
    """The n words from a position on: word w of a block of 64 is output w // 16 of counter 16 * block + w % 16."""
    blocks = np.arange(position // 64, (position + n + 63) // 64 + 1, dtype=np.uint64)
    counters: Any = (blocks[:, None] * np.uint64(16) + np.arange(16, dtype=np.uint64)).ravel()  # uint64, float64 to mypy
    high = np.broadcast_to(key[2:, None], (2, counters.size))
    words = philox4x32([counters & np.uint64(0xFFFFFFFF), counters >> np.uint64(32), *high], key[:2])
    words = words.reshape(4, -1, 16).transpose(1, 0, 2).ravel()
    return words[position % 64 :][:n].astype(np.uint32)


def kept_of(key, position, n, threshold):
    """Whether each of n elements is kept: its draw of 32 bits, whose upper eight are a byte of the words, reaches the threshold.

    Where that byte does not decide, the ties of a block of 4096 elements, in their order, have the upper 24 bits of words of their own.
    """
    first, last = position // 4096, (position + n + 4095) // 4096
    draws = words_of(key, first * 1024, (last - first) * 1024).astype("<u4").view(np.uint8)
    upper, lower = divmod(threshold, 2**24)
    kept = draws >= upper
    if lower:
        ties = np.flatnonzero(draws == upper)
        blocks = ties // 4096
        rank = np.arange(ties.size) - np.searchsorted(blocks, blocks)  # of a tie in its block
        counters = (np.uint64(first) + blocks.astype(np.uint64)) * np.uint64(1024) + (rank // 4).astype(np.uint64)
        counters = counters & np.uint64(0xFFFFFFFF), counters >> np.uint64(32) | np.uint64(0x80000000)
        high = np.broadcast_to(key[2:, None], (2, ties.size))
        words = philox4x32([*counters, *high], key[:2])[rank % 4, np.arange(ties.size)]
        kept[ties] = words >> np.uint64(8) >= lower
    return kept[position % 4096 :][:n]


def dropped(x, drawn):
    """Dropout of an array in place, by key, position, threshold and scale, or none."""
    if drawn:
        key, position, threshold, scale = drawn
        x *= scale
        x[~kept_of(key, position, x.size, threshold).reshape(x.shape)] = 0
    return x


class NumpyEngine:
    """The formulas on blocks, in float64."""

    name = "numpy"

    def layer_norm_at_once(self, x, weight, bias, axis, eps, centred, out, keep):
        return None

    def layer_norm_gradients_at_once(self, dy, x, mean, rstd, weight, axis, centred, out):
        return None

    def dropout_at_once(self, x, draw, out):
        return None

    def add_norm_at_once(self, x, residual, weight, bias, axis, eps, centred, out, h_out, draw):
        return None

    def add_norm_gradients_at_once(self, dy, h, dh, mean, rstd, drawn, weight, axis, centred, out, dresidual_out):
        return None

    def batch_norm_at_once(self, x, mean, var, weight, bias, axis, eps, code, out):
        return None

    def group_norm_at_once(self, x, groups, weight, bias, axis, eps, out):
        return None

    def group_norm_gradients_at_once(self, dy, x, mean, rstd, groups, weight, axis, out):
        return None

    @in_rounds("x", "mean", "m2")
    def moments(self, x, mean, m2):
        scale = np.empty_like(mean)
        self.scaled_moments(x, np.float64, mean, m2, scale)
        with np.errstate(all="ignore"):
            mean /= scale
            m2[...] = m2 / scale / scale

    @in_rounds("x", "mean", "m2", "scale")
    def scaled_moments(self, x, sums, mean, m2, scale):
        with np.errstate(all="ignore"):
            rows = x.transpose(0, 2, 1, 3).astype(np.float64, order="C").reshape(*mean.shape, -1)  # NumPy sums pairwise along rows alone
            row_mean, d, row_scale = deviations(rows, (2,))
            d_sum, dd_sum = d.sum(axis=2), (d * d).sum(axis=2)
            mean[...], scale[...] = row_mean[:, :, 0], row_scale[:, :, 0]
            m2[...] = dd_sum - d_sum * d_sum / d.shape[2]

    @in_rounds("x", "y", "mean", "rstd", "var")
    def layer_norm_forward(self, x, weight, bias, eps, centred, y, mean, rstd, var):
        with np.errstate(all="ignore"):
            xhat, *stats = (normalized if centred else root_mean_square)(x.astype(np.float64), (1,), eps)
            for target, value in zip((mean, var, rstd), stats, strict=True):
                target[...] = value[:, 0]
            keep(xhat * weight + bias, y)

    @in_rounds("x", "dy", "mean", "rstd", "dx", result="sum")
    def layer_norm_backward(self, dy, x, mean, rstd, weight, centred, dx):
        with np.errstate(all="ignore"):
            dy, rstd = dy.astype(np.float64), rstd[:, None]
            xhat = xhat_of(x.astype(np.float64), mean[:, None], rstd)
            g = dy * weight
            c1 = g.mean(axis=1, keepdims=True) if centred else 0.0
            keep(rstd * (g - c1 - xhat * (g * xhat).mean(axis=1, keepdims=True)), dx)
            return (dy * xhat).sum(axis=0), dy.sum(axis=0)

    @in_rounds("x", "y", "mean", "rstd", "var", unit="weight")
    def group_norm_forward(self, x, weight, bias, s, eps, y, mean, rstd, var):
        with np.errstate(all="ignore"):
            xhat, *stats = normalized(x.astype(np.float64), (1,), eps)
            for target, value in zip((mean, var, rstd), stats, strict=True):
                target[...] = value[:, 0]
            shape = (-1, *weight.shape, s)
            keep((xhat.reshape(shape) * weight[:, :, None] + bias[:, :, None]).reshape(y.shape), y)

    @in_rounds("x", "dy", "mean", "rstd", "dx", unit="weight", result="join")
    def group_norm_backward(self, dy, x, mean, rstd, weight, s, dx):
        with np.errstate(all="ignore"):
            dy, rstd, shape = dy.astype(np.float64), rstd[:, None], (-1, *weight.shape, s)
            xhat = xhat_of(x.astype(np.float64), mean[:, None], rstd)
            keep(gradient_of_normalized((dy.reshape(shape) * weight[:, :, None]).reshape(dy.shape), xhat, rstd, (1,)), dx)
            return tuple(terms.reshape(-1, s).sum(axis=1) for terms in (dy * xhat, dy))

    @in_rounds("x", "weight", "bias", "y", "mean", "rstd", "var")
    def batch_norm_forward(self, x, weight, bias, eps, code, y, mean, rstd, var):
        with np.errstate(all="ignore"):
            xhat, *stats = normalized(x.astype(np.float64), REDUCED, eps)
            for target, value in zip((mean, var, rstd), stats, strict=True):
                target[...] = value[:, 0, :, 0]
            keep(activated(xhat * _wide(weight) + _wide(bias), code), y)

    @in_rounds("x", "mean", "rstd", "weight", "bias", "y", within=("x", "y"))
    def batch_norm(self, x, mean, rstd, weight, bias, code, y):
        with np.errstate(all="ignore"):
            xhat = xhat_of(x.astype(np.float64), _wide(mean), _wide(rstd))
            keep(activated(xhat * _wide(weight) + _wide(bias), code), y)

    @in_rounds("x", "dy", "mean", "rstd", "weight", "bias", "dx", result="join")
    def batch_norm_backward(self, dy, x, mean, rstd, weight, bias, code, dx):
        if code != codes.IDENTITY:
            self.batch_norm(x, mean, rstd, weight, bias, codes.IDENTITY, dx)
            self.activate_gradient(dy.reshape(-1), dx.reshape(-1), code, dx.reshape(-1))
            dy = dx
        dbias, dweight = np.empty((2, *mean.shape))
        self.gradient_sums(dy, x, mean, rstd, dbias, dweight)
        count = x.shape[1] * x.shape[3]
        with np.errstate(all="ignore"):
            self.gradient(dy, x, mean, rstd, weight, weight * dbias / count, weight * dweight / count, dx)
        return dweight, dbias

    @in_rounds("x", "dy", "mean", "rstd", "sum_dy", "sum_dy_xhat")
    def gradient_sums(self, dy, x, mean, rstd, sum_dy, sum_dy_xhat):
        with np.errstate(all="ignore"):
            dy = dy.astype(np.float64)
            sum_dy[...] = dy.sum(axis=REDUCED)
            sum_dy_xhat[...] = (dy * xhat_of(x.astype(np.float64), _wide(mean), _wide(rstd))).sum(axis=REDUCED)

    @in_rounds("x", "dy", "mean", "rstd", "weight", "c1", "c2", "dx", within=("x", "dy", "dx"))
    def gradient(self, dy, x, mean, rstd, weight, c1, c2, dx):
        with np.errstate(all="ignore"):
            xhat = xhat_of(x.astype(np.float64), _wide(mean), _wide(rstd))
            keep(_wide(rstd) * (dy.astype(np.float64) * _wide(weight) - _wide(c1) - xhat * _wide(c2)), dx)

    @in_rounds("x", "mean", "total", "most")
    def absolute_deviations(self, x, mean, total, most):
        with np.errstate(all="ignore"):
            d = np.abs(x - mean[:, None])
            total[...], most[...] = d.sum(axis=1), d.max(axis=1)

    @in_rounds("x", "mean", "limit", "count", "total")
    def count_signs(self, x, mean, limit, count, total):
        with np.errstate(all="ignore"):
            signs, far = _signs(x, mean, limit)
            count[...], total[...] = far.sum(axis=1), signs.sum(axis=1)

    @in_rounds("x", "mean", "limit", "factor", "dx")
    def add_signs(self, x, mean, limit, factor, dx):
        with np.errstate(all="ignore"):
            dx += factor[:, None] * _signs(x, mean, limit)[0]

    @in_rounds("x", "y", "norm")
    def lp_norm_forward(self, x, p, eps, y, norm):
        with np.errstate(all="ignore"):
            norm[...] = row_norms(x.astype(np.float64), p)
            divisor = np.maximum(norm, eps)[:, None]
            y[...] = np.where(divisor == 0, 0.0, x) / np.where(divisor == 0, 1.0, divisor)

    @in_rounds("x", "dy", "norm", "dx")
    def lp_gradient(self, dy, x, p, norm, eps, dx):
        with np.errstate(all="ignore"):
            dx[...] = lp_gradient(dy.astype(np.float64), x.astype(np.float64), p, norm[:, None], eps)

    @in_rounds("z", "a")
    def activate(self, z, code, a):
        with np.errstate(all="ignore"):
            a[...] = activated(z.astype(np.float64), code)

    @in_rounds("z", "da", "dz")
    def activate_gradient(self, da, z, code, dz):
        with np.errstate(all="ignore"):
            dz[...] = da * activation_slope(z.astype(np.float64), code)

    @in_rounds("x", "residual", "h", "y", "mean", "rstd", "var")
    def add_norm_forward(self, x, residual, drawn, weight, bias, eps, centred, h, y, mean, rstd, var):
        with np.errstate(all="ignore"):
            keep(dropped(x.astype(np.float64), drawn) + residual, h)
        self.layer_norm_forward(h, weight, bias, eps, centred, y, mean, rstd, var)

    @in_rounds("h", "dy", "dh", "mean", "rstd", "dresidual", "dx", result="sum")
    def add_norm_backward(self, dy, h, dh, mean, rstd, drawn, weight, centred, dresidual, dx):
        with np.errstate(all="ignore"):
            total = np.empty(h.shape)
            shares = self.layer_norm_backward(dy, h, mean, rstd, weight, centred, total)
            if dh is not None:
                total += dh
            keep(total, dresidual)
            if drawn:  # of what dresidual holds, but for 16 bits, which are rounded once
                self.dropout((dresidual if dresidual.itemsize > 2 else total.astype(np.float32)).reshape(-1), *drawn, dx.reshape(-1))
        return shares

    @in_rounds("x", "y")
    def bias_activation(self, x, bias, code, drawn, y):
        with np.errstate(all="ignore"):
            y[...] = dropped(activated(x.astype(np.float64) + bias, code), drawn)

    @in_rounds("x", "dy", "dx", result="sum")
    def bias_activation_backward(self, dy, x, bias, code, drawn, dx):
        with np.errstate(all="ignore"):
            slope = 1.0 if code == codes.IDENTITY else activation_slope(x.astype(np.float64) + bias, code)
            dz = dropped(dy.astype(np.float64), drawn) * slope
            dx[...] = dz
            return dz.sum(axis=0)

    @in_rounds("source", "target")
    def widen(self, source, target):
        target[...] = source

    @in_rounds("source", "target")
    def narrow(self, source, target):
        with np.errstate(all="ignore"):
            target[...] = source

    @in_rounds("x", "y")
    def dropout(self, x, key, position, threshold, scale, y):
        wide = x if x.itemsize > 2 else x.astype(np.float32)
        with np.errstate(all="ignore"):
            y[...] = wide * wide.dtype.type(scale)
        y[~kept_of(key, position, x.size, threshold)] = 0

    @in_rounds("x", "y", words=("kept",))
    def drop_given(self, x, kept, scale, y):
        with np.errstate(all="ignore"):
            np.multiply(x, x.dtype.type(scale), out=y)
        y[~bits_of(kept, x.size)] = 0

    @in_rounds("kept")
    def keep(self, key, position, threshold, kept):
        kept[...] = kept_of(key, position, kept.size, threshold)

    @in_rounds("words")
    def random_words(self, key, position, words):
        words[...] = words_of(key, position, words.size)


def load():
    """The engine: always there."""
    return NumpyEngine()

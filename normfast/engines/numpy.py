"""Plain NumPy formulas: the engine of last resort and, with `longdouble` or `complex` input, the oracle of the tests.

The formulas take any dtype and compute in it; the engine below computes in float64. A block is (a, r, c, s), kept along a and c and
reduced along r and s, as in `compiled.py`; its methods are those of `compiled.CompiledEngine`.
"""

import numpy as np

REDUCED = (1, 3)


def deviations(x, axes):
    """Mean and x - mean, of x times a power of two that keeps squares within reach, and that power; axes are kept."""
    largest = np.abs(x.real).max(axis=axes, keepdims=True, initial=0.0)
    exponent = np.frexp(np.where(np.isfinite(largest), largest, 0.0))[1]
    scale = np.ldexp(np.ones_like(largest), np.minimum(-exponent, 1000))
    x = x * scale
    first = x[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))]
    d = x - first  # exact for neighbours, so that a constant has deviation 0 and its own mean
    mean = d.mean(axis=axes, keepdims=True)
    return first + mean, d - mean, scale


def normalized(x, axes, eps):
    """xhat = (x - mean) * rstd, and mean, population variance and rstd = 1 / sqrt(variance + eps); axes are kept.

    Without variance and eps rstd is 0.
    """
    mean, d, scale = deviations(x, axes)
    scaled = (d * d).mean(axis=axes, keepdims=True)
    var = scaled / scale / scale
    within = (var.real + eps > 1e-290) & (var.real + eps < 1e300)
    rstd = np.where(within, 1.0 / np.sqrt(np.where(within, var + eps, 1.0)), np.where(scaled == 0, 0.0, scale / np.sqrt(scaled)))
    return d * (rstd / scale), mean / scale, var, rstd


def xhat_of(x, mean, rstd):
    """(x - mean) * rstd for given statistics."""
    scale = np.where(np.isfinite(rstd) & (rstd > 0), 2.0 ** np.floor(np.log2(np.where(rstd > 0, rstd, 1.0))), 1.0)
    return (x * scale - mean * scale) * (rstd / scale)


def gradient_of_normalized(dy, xhat, rstd, axes):
    """Gradient with respect to x of xhat, for the gradient dy of xhat."""
    c1 = dy.mean(axis=axes, keepdims=True)
    c2 = (dy * xhat).mean(axis=axes, keepdims=True)
    return rstd * (dy - c1 - xhat * c2)


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
    """The n words from a position on: word w of a block of 1024 is output w // 256 of counter 256 * block + w % 256."""
    blocks = np.arange(position // 1024, (position + n + 1023) // 1024 + 1, dtype=np.uint64)
    counters = (blocks[:, None] * np.uint64(256) + np.arange(256, dtype=np.uint64)).ravel()
    high = np.broadcast_to(key[2:, None], (2, counters.size))
    words = philox4x32([counters & np.uint64(0xFFFFFFFF), counters >> np.uint64(32), *high], key[:2])
    words = words.reshape(4, -1, 256).transpose(1, 0, 2).ravel()
    return words[position % 1024 :][:n].astype(np.uint32)


class NumpyEngine:
    """The formulas on blocks, in float64."""

    name = "numpy"

    def moments(self, x, mean, m2):
        with np.errstate(all="ignore"):
            rows = x.transpose(0, 2, 1, 3).astype(np.float64, order="C").reshape(*mean.shape, -1)  # NumPy sums pairwise along rows alone
            row_mean, d, scale = deviations(rows, (2,))
            d_sum, dd_sum = d.sum(axis=2), (d * d).sum(axis=2)
            mean[...] = (row_mean / scale)[:, :, 0]
            m2[...] = (dd_sum - d_sum * d_sum / d.shape[2]) / scale[:, :, 0] / scale[:, :, 0]

    def layer_norm_forward(self, x, weight, bias, eps, y, mean, rstd, var):
        with np.errstate(all="ignore"):
            xhat, *stats = normalized(x.astype(np.float64), (1,), eps)
            for target, value in zip((mean, var, rstd), stats, strict=True):
                target[...] = value[:, 0]
            y[...] = xhat * weight + bias

    def layer_norm_backward(self, dy, x, mean, rstd, weight, dx):
        with np.errstate(all="ignore"):
            dy, rstd = dy.astype(np.float64), rstd[:, None]
            xhat = xhat_of(x.astype(np.float64), mean[:, None], rstd)
            dx[...] = gradient_of_normalized(dy * weight, xhat, rstd, (1,))
            return (dy * xhat).sum(axis=0), dy.sum(axis=0)

    def batch_norm_forward(self, x, weight, bias, eps, y, mean, rstd, var):
        with np.errstate(all="ignore"):
            xhat, *stats = normalized(x.astype(np.float64), REDUCED, eps)
            for target, value in zip((mean, var, rstd), stats, strict=True):
                target[...] = value[:, 0, :, 0]
            y[...] = xhat * weight[:, None, :, None] + bias[:, None, :, None]

    def batch_norm(self, x, mean, rstd, weight, bias, y):
        with np.errstate(all="ignore"):
            xhat = xhat_of(x.astype(np.float64), mean[:, None, :, None], rstd[:, None, :, None])
            y[...] = xhat * weight[:, None, :, None] + bias[:, None, :, None]

    def batch_norm_backward(self, dy, x, mean, rstd, weight, dx):
        with np.errstate(all="ignore"):
            dy, rstd = dy.astype(np.float64), rstd[:, None, :, None]
            xhat = xhat_of(x.astype(np.float64), mean[:, None, :, None], rstd)
            dx[...] = gradient_of_normalized(dy * weight[:, None, :, None], xhat, rstd, REDUCED)
            return (dy * xhat).sum(axis=REDUCED), dy.sum(axis=REDUCED)

    def dropout(self, x, key, position, threshold, scale, y):
        keep = words_of(key, position, x.size) >= threshold
        with np.errstate(all="ignore"):
            np.multiply(x, x.dtype.type(scale), out=y)
        y[~keep] = 0

    def random_words(self, key, position, words):
        words[...] = words_of(key, position, words.size)


def load():
    """The engine: always there."""
    return NumpyEngine()

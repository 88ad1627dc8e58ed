"""The error bounds of docs/numerics.md for norms, random and adversarial rows, and how much of a bound an error uses.

Exact statistics are those of longdouble, which must be wider than the type that is measured.
"""

import numpy as np

WIDE = np.finfo(np.longdouble).eps < 1e-18  # as it is not on Windows and on macOS for Arm
CHAINS = {"rows": (68, 260), "columns": (13, 18), "runs": (49, 134)}  # of the sums of the statistics and of the gradients, on any processor
UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
LENGTHS = (1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 96, 255, 256, 257, 768, 1023, 1024, 1025, 2047, 2048, 2049, 3073, 4097, 5000)


# The rows


def rows(rng, n, dtype):
    """Random and adversarial rows of n values, and their kinds."""
    count, top = 16, float(np.finfo(np.float32 if dtype == "bfloat16" else dtype).max)
    x = rng.standard_normal((count, n)) * 10.0 ** rng.uniform(-3, 3, (count, 1) if dtype != "float16" else (1, 1))
    scale = np.abs(x).max(axis=1) + 1e-30
    x[1:5] += scale[1:5, None] * 10.0 ** rng.uniform(0, 3 if dtype == "float16" else 5, (4, 1))  # far from 0, up to 1e5 deviations
    x[5, 0] += 1e3 * scale[5]  # the first value apart
    x[6, : min(32, -(-n // 2))] += 30 * scale[6]  # the first values apart from all others
    x[7, : min(1024, -(-n // 2))] -= 30 * scale[7]  # the first block
    x[8] *= np.where(np.arange(n) % 2, 1e3, 1e-3)  # magnitudes that alternate
    x[9] = rng.standard_t(1.5, n)  # heavy tails
    x[10] = np.linspace(-1, 1, n) if n > 1 else 1  # sorted
    x[11] = x[11, 0]  # constant
    x[12], x[12, rng.integers(n)] = 3.0, 3.0 + 2.0**-6  # constant but for one
    x[13] = rng.uniform(0.2, 1, n) * rng.choice([-1, 1], n) * top / 2  # near the largest
    x[14] = rng.integers(-9, 10, n) * float(np.nextafter(np.zeros(1, np.float32 if dtype == "bfloat16" else dtype), 1)[0])  # subnormal
    x[15] = x[15] / scale[15] * top**0.5  # whose squares overflow
    with np.errstate(over="ignore"):
        return np.clip(x, -top / 2, top / 2).astype(dtype)


# The exact results and their bounds


def relative(x):
    """The rows from their first value on, which is exact or nearly so, in longdouble."""
    wide = x.astype(np.longdouble)
    return wide - wide[:, :1]


def average(values):
    return values.mean(axis=1, keepdims=True)


class Norm:
    """The exact xhat of centred rows, y and dx, with the bounds of each; weight, bias and dy have the shape of x."""

    def __init__(self, x, dy, weight, bias, eps, unit, chains, spread):
        """`spread` is A, in the words of docs/numerics.md."""
        k, self.back = chains
        self.u, self.tiny = np.longdouble(unit), float(np.finfo(np.float32 if unit > 1e-10 else np.float64).smallest_subnormal)
        d = relative(x)
        d = d - average(d)
        d = d - average(d)
        self.var = average(d * d)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.r = np.where(self.var + eps > 0, 1 / np.sqrt(self.var + np.longdouble(eps)), 0)
        mean = average(x.astype(np.longdouble))
        self.xhat, self.w, self.b, self.dy = d * self.r, *(np.asarray(part, np.longdouble) for part in (weight, bias, dy))
        self.rho = 1.5 * spread * (k + 3) * self.u
        low = 4 * self.u**2 if unit > 1e-10 else 2 * self.u  # what is left of the mean: in two parts, or in one float64
        self.s = np.sqrt(spread) * (k + 1) * self.u + self.rho * abs(self.xhat) + low * abs(mean) * self.r
        self.more = 1 + 4 * self.rho  # terms in the square of u

    def y(self):
        y = self.xhat * self.w + self.b
        terms = 4 * abs(self.w * self.xhat) + abs(self.b) + abs(y)
        return y, self.more * (self.u * terms + abs(self.w) * self.s) + self.tiny * (2 + 2 * abs(self.w))

    def dx(self):
        g, xhat = self.dy * self.w, self.xhat
        size, c2 = abs(g), average(g * xhat)
        dx = self.r * (g - average(g) - xhat * c2)
        terms = 5 * size + (self.back + 5) * average(size) + (self.back + 12) * abs(xhat) * average(size * abs(xhat))
        forward = self.rho * abs(dx) + self.r * (abs(c2) * self.s + abs(xhat) * average(size * self.s))
        under = self.tiny * (8 + 4 * (size + average(size) + abs(xhat) * average(size * abs(xhat))))
        return dx, self.more * (self.r * self.u * terms + forward) + under

    def parameters(self, collect, chain):
        """dweight and dbias; `collect` adds up what belongs to one parameter, in chains of that length."""
        dw, db = collect(self.dy * self.xhat), collect(self.dy)
        of_dw = (chain + 5) * self.u * collect(abs(self.dy * self.xhat)) + collect(abs(self.dy) * self.s)
        under = 2 * self.tiny * collect(1 + abs(self.dy))
        return (dw, of_dw + self.u * abs(dw) + under), (db, (chain + 1) * self.u * collect(abs(self.dy)) + under)


def start(x, h):
    """A, for sums that start from the mean of the first h values: 2 or more, as in later blocks."""
    d = relative(x)
    mean, var = average(d), d.var(axis=1, keepdims=True)
    return np.maximum(2, 1 + (average(d[:, :h]) - mean) ** 2 / np.where(var == 0, 1, var))


def start_of_parts(x, parts):
    """A, for rows that are measured in so many interleaved parts, each from the mean of its first 8 values, and merged."""
    d = relative(x)
    m = ((d - average(d)) ** 2).sum(axis=1, keepdims=True)
    first = average(d.reshape(len(x), -1, parts)[:, :8])
    q = ((d.reshape(len(x), -1, parts) - first) ** 2).sum(axis=(1, 2))[:, None]
    return np.maximum(2, q / np.where(m == 0, 1, m))


def ratio(actual, exact, bound, unit16=0.0):
    """The largest error over its bound; a 16-bit result is rounded once more, by `unit16`. What is no float16 is left out."""
    top = 65504 if np.asarray(actual).dtype == np.float16 else np.inf
    actual, exact = np.asarray(actual).astype(np.longdouble), np.asarray(exact)
    if unit16:
        bound = bound * (1 + unit16) + unit16 * abs(exact) + 2.0**-25
    error = np.where(np.isfinite(actual), abs(actual - exact), np.where(abs(exact) > top, 0, np.inf))
    with np.errstate(invalid="ignore", divide="ignore"):
        used = np.where(error == 0, 0, error / (bound * (1 + 1e-6)))  # terms in the square of u
    assert not np.isnan(used).any()
    return float(used.max(initial=0))

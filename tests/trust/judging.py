"""The oracle as judge: exact results in longdouble, and how far a result of one precision may lie from them.

The bounds are those of docs/numerics.md, term by term, with the longest chains of any processor and for sums that start from any value of
their statistic: they hold for every order in memory. `tiny` is what underflow leaves of a product.
"""

import numpy as np
from formulas import ACTIVATIONS

WIDE = np.finfo(np.longdouble).nmant >= 63  # else longdouble is float64 (Windows, Apple), and no judge of float64
FORWARD, BACKWARD = 68, 260  # longest chains of sums, float32; float64 has half the lanes and up to twice these
SLOPE, BEND = 1.13, 1.2  # no activation is steeper or bends more, but for the kinks of relu


class Precision:
    """Unit roundoff, chains and smallest numbers of the type in which values of a dtype are computed, and of the dtype itself."""

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)
        double = self.dtype == np.float64
        self.u = np.longdouble(2.0) ** (-53 if double else -24)
        self.k, self.back = (2 * FORWARD, 2 * BACKWARD) if double else (FORWARD, BACKWARD)
        self.tiny = np.longdouble(2.0) ** (-1074 if double else -149)
        half = self.dtype.itemsize == 2
        name = self.dtype.name
        self.rounding = np.longdouble({"float16": 2.0**-11, "bfloat16": 2.0**-8}[name]) if half else np.longdouble(0)
        self.least = np.longdouble({"float16": 2.0**-24, "bfloat16": 2.0**-133}[name]) if half else self.tiny
        largest = {"float16": 65504.0, "bfloat16": 3.3895e38, "float32": 3.4028234e38, "float64": np.finfo(np.float64).max}[name]
        self.reach = np.longdouble(2.0) ** (1023 if double else 127)
        self.largest = np.longdouble(largest) * np.longdouble(0.999)

    def kept(self, expected, bound):
        """The bound with the rounding to the dtype, which 16 bits have besides."""
        return bound * (1 + self.rounding) + self.rounding * np.abs(expected) + 2 * self.least


def near(actual, expected, bound, what, precision=None, where=True):
    """Assert |actual - expected| <= bound, value by value, wherever the exact result is finite and within the reach of the dtype."""
    actual, expected, bound, where = np.broadcast_arrays(actual, expected, bound, where)
    judged = where & np.isfinite(expected) & np.isfinite(bound)
    if precision is not None:
        judged = judged & (np.abs(expected) + bound < precision.largest)
    with np.errstate(all="ignore"):
        wrong = judged & ~(np.abs(actual.astype(np.longdouble) - expected) <= bound)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}{list(at)} is {actual[at]!r}, exactly {expected[at]!r}, allowed {float(bound[at]):.3g}; "
            f"{wrong.sum()} of {wrong.size} are wrong"
        )


def wide(values, shape=None):
    """Values in longdouble, broadcast."""
    values = np.asarray(values).astype(np.longdouble)
    return values if shape is None else np.broadcast_to(values, shape)


class Normalized:
    """The exact course of a norm over some axes of a view of x, and its bounds.

    weight and bias broadcast to x; values where `mask` is False take no part. `ord` measures the deviation.
    """

    def __init__(self, x, axes, precision, *, eps=0.0, weight=1, bias=0, mask=True, centred=True, ord=2):
        self.x, self.axes, self.p = wide(x), axes, precision
        self.mask, self.centred, self.ord = np.broadcast_to(mask, self.x.shape), centred, ord
        self.weight, self.bias = wide(weight, self.x.shape), wide(bias, self.x.shape)
        with np.errstate(all="ignore"):
            self._measure(np.longdouble(eps), ord)

    def mean_of(self, values):
        """The mean of the values that take part."""
        return np.where(self.mask, values, 0).sum(axis=self.axes, keepdims=True) / self.count

    def _measure(self, eps, ord):
        u, k = self.p.u, self.p.k
        self.count = wide(self.mask.sum(axis=self.axes, keepdims=True))
        self.mean = self.mean_of(self.x) if self.centred else np.zeros_like(self.count)
        d = np.where(self.mask, self.x - self.mean, 0)
        size = np.abs(d)
        far = size.max(axis=self.axes, keepdims=True, initial=0)
        self.far = far
        if ord == 2:
            self.var = self.mean_of(d * d)
        else:
            self.var = (self.mean_of(size) if ord == 1 else far) ** 2
        sigma = np.sqrt(self.mean_of(d * d))
        total = self.var + eps
        self.r = np.where(total > 0, 1 / np.sqrt(np.where(total > 0, total, 1)), 0)
        self.xhat = d * self.r
        # what underflows beside the largest value of a statistic is multiplied by this
        self.top = np.abs(self.xhat).max(axis=self.axes, keepdims=True, initial=0)
        # |mean| carries one rounding of float64, and what `low` loses of the rounding to float32
        lost = np.abs(self.mean) * (np.longdouble(2.0) ** -52 + 4 * u * u) + np.longdouble(2.0) ** -1074
        self.of_mean = (k + 1) * u * (sigma + far) * self.centred + lost
        self.of_var = 3 * (k + 3) * u * (sigma * sigma + far * far) + (2 * sigma * self.of_mean if ord != 2 else 2 * far * lost)
        self.rho = self.of_var * self.r * self.r / 2
        self.s = self.of_mean * self.r + self.rho * np.abs(self.xhat)
        self.clean = np.isfinite(np.where(self.mask, self.x, 0)).all(axis=self.axes, keepdims=True)

    def forward(self, activation=None):
        """y and its bound."""
        with np.errstate(all="ignore"):
            w, u = np.abs(self.weight), self.p.u
            z = self.xhat * self.weight + self.bias
            bound = u * (5 * np.abs(self.weight * self.xhat) + 2 * np.abs(self.bias) + np.abs(z)) + w * self.s
            self.z, self.of_z = z, bound + 8 * self.p.tiny * (1 + w) * (1 + self.top)
            y, bound = (z, self.of_z) if activation is None else activated(z, activation, self.of_z, u)
            bound = np.where(self.within(np.longdouble(2.0) ** 1023), bound, np.inf)
            return np.where(self.mask, y, 0), np.where(self.mask, self.p.kept(y, bound), 0)

    def backward(self, dy, activation=None):
        """dx, the terms dy * xhat of dweight and dy of dbias, and the bounds of all."""
        with np.errstate(all="ignore"):
            s = self.s + self.p.tiny * self.r
            u, back, r, w, xhat = self.p.u, self.p.back, self.r, np.abs(self.weight), np.abs(self.xhat)
            dy, of_dy = np.where(self.mask, wide(dy), 0), 0
            if activation is not None:
                slope, of_slope = slopes(self.z, activation, self.of_z, u)
                dy, of_dy = dy * slope, np.abs(dy) * of_slope + 2 * u * np.abs(dy * slope)
                of_dy = np.where(self.within(np.longdouble(2.0) ** 1023), of_dy, np.inf)  # as that of y, which the slope is taken at
            g, of_g = dy * self.weight, of_dy * w
            c1, c2 = self.mean_of(g) * self.centred, self.mean_of(g * self.xhat)
            dx = r * (g - c1 - self.xhat * c2)
            size = np.abs(g)
            terms = 6 * size + (back + 6) * self.mean_of(size) + (back + 13) * xhat * self.mean_of(size * xhat)
            bound = r * u * terms + self.rho * np.abs(dx) + r * (np.abs(c2) * s + xhat * self.mean_of(size * s))
            bound += r * (of_g + self.mean_of(of_g) + xhat * self.mean_of(of_g * xhat))
            bound += 16 * self.p.tiny * (1 + r * (1 + w) * (1 + self.top) * (1 + size + self.mean_of(size)))
            most = (r * (size + 2 * self.mean_of(size) * (1 + xhat))).max(axis=self.axes, keepdims=True, initial=0)
            within = self.within(self.p.reach)
            bound = np.where((most < self.p.largest) & within, bound, np.inf)
            of_dw = (back + 8) * u * np.abs(dy * self.xhat) + np.abs(dy) * s + of_dy * xhat
            lost = 8 * self.p.tiny * (1 + np.abs(dy) * (1 + self.top) + r)  # r: products of dy and d underflow before it
            of_dw = np.where(within, of_dw + lost, np.inf)
            of_db = (back + 2) * u * np.abs(dy) + of_dy + 8 * self.p.tiny
            dx, bound = np.where(self.mask, dx, 0), np.where(self.mask, self.p.kept(dx, bound), 0)
            return dx, bound, (dy * self.xhat, of_dw), (dy, of_db)

    def within(self, reach):
        """Where neither 1 / std nor the mean in its unit overflows on the way."""
        size = np.abs(self.weight).max(axis=self.axes, keepdims=True, initial=1)
        summed = (self.count * np.sqrt(self.var) < 1e308) | (self.ord != 1)  # mean absolute deviations are sums
        return (self.r < reach) & (np.abs(self.mean) * self.r * size < self.p.reach) & summed

    def full(self, values):
        """Values of the size of x, not of a statistic."""
        return np.broadcast_to(values, self.x.shape)

    def given(self, mean, var, eps):
        """Normalize by these statistics, which are exact."""
        u = self.p.u
        with np.errstate(all="ignore"):
            self.mean, self.var, total = wide(mean), wide(var), wide(var) + np.longdouble(eps)
            self.r = np.where(total > 0, 1 / np.sqrt(np.where(total > 0, total, 1)), 0)
            self.xhat = (self.x - self.mean) * self.r
            self.top = np.abs(self.xhat).max(axis=self.axes, keepdims=True, initial=0)
            lost = np.abs(self.mean) * (np.longdouble(2.0) ** -53 + 4 * u * u) * self.r
            self.s = lost + 4 * np.longdouble(2.0) ** -53 * np.abs(self.xhat)


def activated(z, name, of_z, u):
    """An activation of z, which is off by at most of_z, and how far it then may be off."""
    if name in ("identity", "relu", "leaky_relu"):
        return ACTIVATIONS[name](z), of_z + u * np.abs(z)
    if not z.size:
        return z, of_z
    if name == "gelu":  # whose exact formula cancels below -6; there it is less than 1e-8
        inner = np.clip(z, -6, 6)
        a = np.where(np.abs(z) <= 6, ACTIVATIONS[name](np.where(np.isfinite(inner), inner, 0)), np.maximum(z, 0))
        return a, SLOPE * of_z + 4 * u * np.abs(a) + np.where(np.abs(z) <= 6, np.longdouble(1e-15) if u < 1e-15 else 1e-12, 1e-8)
    a = np.logaddexp(z, 0) if name == "softplus" else ACTIVATIONS[name](z)
    a = np.where((z < -11000) & (name == "silu"), 0, a)  # where exp is beyond reach even of longdouble
    return a, SLOPE * of_z + 4 * u * np.abs(a) + 8 * np.longdouble(2.0) ** -53 * np.abs(a) * (1 + np.minimum(np.abs(z), 800)) + 2 * u * u


def slopes(z, name, of_z, u):
    """The derivative of an activation, and how far it may be off."""
    if name == "identity" or not z.size:
        return np.ones_like(z), np.zeros_like(z)
    if name in ("relu", "leaky_relu"):
        low = np.longdouble(0.01) if name == "leaky_relu" else 0
        return np.where(z > 0, 1, low), np.where(np.abs(z) <= of_z, 1, u)
    inner = np.clip(z, -6, 6) if name == "gelu" else np.clip(z, -700, 700)
    inner = np.where(np.isfinite(inner), inner, 0)
    slope = ACTIVATIONS[name](inner + np.clongdouble(1e-30j)).imag / np.longdouble(1e-30)
    if name == "gelu":
        slope = np.where(np.abs(z) <= 6, slope, z > 0)
    return slope, BEND * np.minimum(of_z, 1) + 4 * u * np.abs(slope) + (1e-7 if name == "gelu" else 20 * np.longdouble(2.0) ** -53)

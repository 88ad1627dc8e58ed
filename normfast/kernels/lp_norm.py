"""The p-norm of a row, for any real p and +-infinity, and the gradient of a row divided by it.

p = 0 counts the values that are not zero. Values are multiplied by a power of two first, so that no power overflows or vanishes.
"""

from normfast.kernels.activations import *
from normfast.kernels.factors import *
from normfast.kernels.moments import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.rows import *

INFINITE = 1e300  # p beyond it is an infinity


def lp_norm_rows(x, rows, n, p, eps, y, norm, unit, scale, high, a, a_low, b, lo, hi, streamed, buffer):
    """y = x / max(norm, eps) for the rows lo..hi of all; `unit` and the factors of each row are working space."""
    like = row(x, 0, n)[0]
    step = max(TOGETHER // n // 4 * 4, 1)
    i = lo
    while i < hi:
        stop = min(i + step, hi)
        if p == 2.0:
            row_statistics(x, n, False, i, stop, like, unit, norm, unit)
        for k in range(i, stop):
            norm[k] = sqrt(norm[k]) / unit[k] if p == 2.0 else row_norm(row(x, k, n), n, p)
            divisor = norm[k] if norm[k] > eps or norm[k] != norm[k] else eps
            s, h, r, _ = centre(0.0, 1.0 / divisor if divisor != 0.0 else 0.0, like)
            scale[k] = s
            high[k] = h
            a[k] = r
            a_low[k] = r - a[k]
            b[k] = 0.0
        affine_runs(x, i, stop, 1, rows, n, 1, scale, high, a, a_low, b, IDENTITY, y, streamed, buffer)
        i = stop


def row_norm(x, n, p):
    """sum(|x| ** p) ** (1 / p)."""
    if p == 0.0:
        total = 0.0
        for j in range(n):
            total += 0.0 if x[j] == 0.0 else 1.0
        return total
    if p == 2.0:
        m2, scale = row_squares(x, n, x[0])
        return sqrt(m2) / scale
    most = largest(x, n)
    if p > INFINITE or not 0.0 < most <= LARGEST:
        return most if p > 0.0 or most == 0.0 or most != most else reciprocal_norm(x, n, p)
    if p < 0.0:
        return reciprocal_norm(x, n, p)
    scale = unit_scale(most, 1.0)
    total = 0.0
    if p == 1.0:
        for j in range(n):
            total += abs(x[j] * scale)
        return total / scale
    for j in range(n):
        total += pow(abs(x[j] * scale), p)
    return pow(total, 1.0 / p) / scale


def reciprocal_norm(x, n, p):
    """The norm for negative p, in which the smallest value counts most."""
    least = abs(1.0 * x[0])
    for j in range(n):
        a = abs(1.0 * x[j])
        least = a if a < least or a != a else least
    if p < -INFINITE or not 0.0 < least <= LARGEST:
        return least
    scale = unit_scale(least, 1.0)
    total = 0.0
    for j in range(n):
        total += pow(abs(x[j] * scale), p)
    return pow(total, 1.0 / p) / scale


def lp_gradient_row(dy, x, n, p, norm, eps, dx):
    """dx = (dy - sign(x) * |x / norm| ** (p - 1) * sum(dy * x / norm)) / norm; dy / eps where the norm is at most eps."""
    divisor = max(norm, eps)
    scale = unit_scale(divisor, 1.0)
    unit = divisor * scale
    inner = 0.0
    if norm > eps and p != 0.0:
        for j in range(n):
            inner += dy[j] * (x[j] * scale / unit)
    if p > INFINITE or p < -INFINITE:
        ties = 0.0
        for j in range(n):
            ties += 1.0 if abs(x[j]) == norm else 0.0
        inner = inner / ties if ties > 0.0 else 0.0
    for j in range(n):
        t = abs(x[j] * scale) / unit
        if inner == 0.0 or t == 0.0:
            slope = 0.0
        elif p > INFINITE or p < -INFINITE:
            slope = 1.0 if abs(x[j]) == norm else 0.0
        elif p == 2.0:
            slope = t
        elif p == 1.0:
            slope = 1.0
        else:
            slope = pow(t, p - 1.0)
        dx[j] = (dy[j] - (inner if x[j] > 0.0 else -inner) * slope) / unit * scale if unit > 0.0 else 0.0

"""The p-norm of a row, for any real p and +-infinity, and the gradient of a row divided by it.

p = 0 counts the values that are not zero. Values are multiplied by a power of two first, so that no power overflows or vanishes.
"""

from normfast.kernels.activations import *
from normfast.kernels.factors import *
from normfast.kernels.moments import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.rows import *
from normfast.kernels.sums import *

INFINITE = 1e300  # p beyond it is an infinity
REACH = 1e37  # factors between 1 / REACH and REACH keep their digits in every type


def lp_norm_rows(x, rows, n, p, eps, y, norm, unit, scale, high, a, a_low, b, lo, hi, streamed, buffer):
    """y = x / max(norm, eps) for the rows lo..hi of all; `unit` and the factors of each row are working space."""
    like = row(x, 0, n)[0]
    step = max(TOGETHER // n // 4 * 4, 1)
    i = lo
    while i < hi:
        stop = min(i + step, hi)
        if p == 2.0:
            row_statistics(x, n, False, HEAD, i, stop, like, unit, norm, unit)
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


def lp_gradient_rows(dy, x, n, p, norm, eps, dx, lo, hi, inner, a, b, one, zero, slope, streamed, buffer):
    """dx = (dy - slope * sum(dy * x / norm)) / norm, the slope being that of the norm; dy / eps where the norm is at most eps. Rows lo..hi.

    For the order 2 the slope is x / norm, for 1 and +-inf a sign: then dx = dy * a + slope * b in the type of x, where both factors are
    within its reach. `inner` to `slope` are working space for PART values; dx may be dy or x.
    """
    infinite = p > INFINITE or p < -INFINITE
    signed = infinite or p == 1.0 or p == 0.0
    step = max(PART // n, 1)
    i = lo
    while i < hi:
        rows = min(step, hi - i)
        xi = row(x, i, n)
        dyi = row(dy, i, n)
        dxi = row(dx, i, n)
        products(dyi, xi, n, rows, inner)
        for k in range(rows):
            size = max(norm[i + k], eps)
            r = 1.0 / size if size > 0.0 else 0.0
            factor = -inner[k] * r * (r if signed else r * r) if norm[i + k] > eps and p != 0.0 else 0.0
            if infinite:
                factor /= max(ties(row(xi, k, n), n, norm[i + k]), 1.0)
            fits = 1.0 / REACH < r < REACH and (factor == 0.0 or 1.0 / REACH < abs(factor) < REACH)
            a[k] = r if fits and (signed or p == 2.0) else 0.0  # 0: by `lp_gradient_row`
            b[k] = factor
            one[k] = 1.0
            zero[k] = 0.0
        if i + rows < hi:  # 65536 x 128: 1.2 times an addition of the same arrays, without it 1.35 times
            prefetch(row(dy, i + rows, n), min(rows * n, PART))
            prefetch(row(x, i + rows, n), min(rows * n, PART))
        left = 0
        while left < n:
            m = min(n - left, PART)  # n, unless there is one row
            slopes = chunk(xi, left, rows * n)
            if signed:
                for k in range(rows if infinite else 1):
                    least = norm[i + k] if infinite else 0.0
                    signs(
                        chunk(row(xi, k, n), left, rows * n), m if infinite else rows * m, cast(least, xi[0]),
                        cast(least if infinite else LARGEST, xi[0]), chunk(slope, k * m, PART),
                    )  # fmt: skip
                slopes = chunk(slope, 0, PART)
            first = 0
            for k in range(rows + 1):
                if k == rows or a[k] == 0.0:
                    gradient_runs(
                        chunk(dyi, left, rows * n), slopes, first, k, 1, 1, m, 1, one, zero, a, b, zero,
                        chunk(dxi, left, rows * n), streamed, buffer,
                    )  # fmt: skip
                    first = k + 1
            left += m
        for k in range(rows):
            if a[k] == 0.0:
                lp_gradient_row(row(dyi, k, n), row(xi, k, n), n, p, norm[i + k], eps, row(dxi, k, n))
        i += rows


def signs(x, n, least, most, y):
    """The sign of x where |x| lies between the two limits, else 0."""
    for j in range(n):
        above = cast(1.0, least) if least <= x[j] <= most else cast(0.0, least)
        below = cast(1.0, least) if least <= -x[j] <= most else cast(0.0, least)
        y[j] = above - below


def lp_gradient_row(dy, x, n, p, norm, eps, dx):
    """The same for one row of any order and size, value by value."""
    divisor = max(norm, eps)
    scale = unit_scale(divisor, 1.0)
    unit = divisor * scale
    inner = 0.0
    if norm > eps and p != 0.0:
        for j in range(n):
            inner += dy[j] * (x[j] * scale / unit)
    if p > INFINITE or p < -INFINITE:
        inner /= max(ties(x, n, norm), 1.0)
    for j in range(n):
        t = abs(x[j] * scale) / unit
        if inner == 0.0 or t == 0.0:
            slope = 0.0
        elif p > INFINITE or p < -INFINITE:
            slope = 1.0 if abs(x[j]) == norm else 0.0
        else:
            slope = pow(t, p - 1.0)
        dx[j] = (dy[j] - (inner if x[j] > 0.0 else -inner) * slope) / unit * scale if unit != 0.0 else 0.0

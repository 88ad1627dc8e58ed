"""From statistics to the factors of a sweep: what `normalize.py` multiplies and subtracts."""

from normfast.kernels.moments import *
from normfast.kernels.primitives import *


def centre(mean, rstd, like):
    """Factors of xhat = (x * scale - high) * r + low in the type of `like`.

    `high` is the mean rounded to that type and `low` carries what the rounding lost: without it |mean| / std = 1e5 costs 4e-3 in
    float32. scale is 1 unless rstd nears the ends of the type.
    """
    scale = 1.0
    if rstd != 0.0 and not 1e-12 < rstd < 1e12:
        scale = unit_scale(1.0 / rstd, like)
    high = cast(mean * scale, like)
    r = rstd / scale
    return scale, high, r, (high - mean * scale) * r


def column_factors(n, mean, rstd, weight, bias, like, scale, high, a, a_low, b):
    """Factors of y = (x * scale - high) * (a + a_low) + b for each column; returns whether a scale is not 1."""
    scaled = 0
    for j in range(n):
        s, h, r, low = centre(mean[j], rstd[j], like)
        scale[j] = s
        high[j] = h
        a[j] = r * weight[j]
        a_low[j] = r * weight[j] - a[j]
        b[j] = low * weight[j] + bias[j]
        if s != 1.0:
            scaled = 1
    return scaled


def column_centres(n, mean, rstd, like, scale, high):
    """Factors of d = x * scale - high for each column; returns whether a scale is not 1."""
    scaled = 0
    for j in range(n):
        s, h, _, _ = centre(mean[j], rstd[j], like)
        scale[j] = s
        high[j] = h
        if s != 1.0:
            scaled = 1
    return scaled


def column_gradient_factors(n, mean, rstd, weight, c1, c2, like, scale, high, a, p, q):
    """Factors of dx = rstd * (dy * weight - c1 - xhat * c2) = dy * a + (x * scale - high) * p + q; whether a scale is not 1."""
    scaled = 0
    for j in range(n):
        s, h, f, low = centre(mean[j], rstd[j], like)
        scale[j] = s
        high[j] = h
        a[j] = weight[j] * rstd[j]
        p[j] = -rstd[j] * c2[j] * f
        q[j] = -rstd[j] * (c1[j] + c2[j] * low)
        if s != 1.0:
            scaled = 1
    return scaled


def column_gradient_sums(i, c, splits, mean, rstd, piece_dy, piece_dy_d, like, sum_dy, sum_dy_xhat):
    """The sums of dy and of dy * xhat of block i, from those of dy and of dy * d in its pieces."""
    for j in range(c):
        total = total_d = 0.0
        for k in range(i * splits, (i + 1) * splits):
            total += row(piece_dy, k, c)[j]
            total_d += row(piece_dy_d, k, c)[j]
        _, _, f, low = centre(row(mean, i, c)[j], row(rstd, i, c)[j], like)
        row(sum_dy, i, c)[j] = total
        row(sum_dy_xhat, i, c)[j] = total_d * f + total * low

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


def column_gradient_factors(i, r, c, splits, mean, rstd, weight, piece_dy, piece_dy_d, sum_dy, sum_dy_xhat, like, a, p, q):
    """The sums of block i from its pieces, and the factors of dx = dy * a + (x * scale - high) * p + q for each column."""
    for j in range(c):
        total = total_d = 0.0
        for k in range(i * splits, (i + 1) * splits):
            total += row(piece_dy, k, c)[j]
            total_d += row(piece_dy_d, k, c)[j]
        _, _, f, low = centre(row(mean, i, c)[j], row(rstd, i, c)[j], like)
        total_xhat = total_d * f + total * low
        row(sum_dy, i, c)[j] = total
        row(sum_dy_xhat, i, c)[j] = total_xhat
        factor = row(weight, i, c)[j] * row(rstd, i, c)[j]
        row(a, i, c)[j] = factor
        row(p, i, c)[j] = -factor * (total_xhat / r) * f
        row(q, i, c)[j] = -factor * (total / r + total_xhat / r * low)

"""From statistics to the factors of a sweep: what `normalize.py` multiplies and subtracts."""

from normfast.kernels.moments import *
from normfast.kernels.primitives import *


def centre(mean, rstd, like):
    """Factors of xhat = (x * scale - high) * r + low in the type of `like`.

    `high` is the mean rounded to that type and `low` carries what the rounding lost: without it |mean| / std = 1e5 costs 4e-3 in
    float32. scale is 1 unless rstd nears the ends of the type.
    """
    scale = scale_of(mean, rstd, like)
    high, r, low = centre_scaled(mean, rstd, scale, like)
    return scale, high, r, low


def scale_of(mean, rstd, like):
    """The power of two by which values of that mean and deviation are multiplied, in the type of `like`."""
    if rstd == 0.0 or usual(rstd):
        return 1.0
    scale = unit_scale(1.0 / rstd, like)
    return scale if abs(cast(mean * scale, like)) <= LARGEST else 1.0  # beyond it all values are the mean


def usual(rstd):
    """Whether the squares of values of such a deviation are far from the ends of float32."""
    return 1e-12 < rstd < 1e12


def centre_scaled(mean, rstd, scale, like):
    """`centre` for a given scale."""
    high = cast(mean * scale, like)
    r = rstd / scale
    return high, r, (high - mean * scale) * r


def column_scales(n, mean, rstd, like, scale):
    """The scale of each column; returns whether one is not 1. Apart from the factors, whose loops vectorize without it."""
    counted = 0
    for j in range(n):
        counted += usual(rstd[j])
    if counted == n:  # nearly always, and by loops that vectorize
        for j in range(n):
            scale[j] = 1.0
        return 0
    scaled = 0
    for j in range(n):
        scale[j] = scale_of(mean[j], rstd[j], like)
        if scale[j] != 1.0:
            scaled = 1
    return scaled


def column_factors(n, mean, rstd, weight, bias, like, scale, high, a, a_low, b):
    """Factors of y = (x * scale - high) * (a + a_low) + b for each column; returns whether a scale is not 1."""
    scaled = column_scales(n, mean, rstd, like, scale)
    for j in range(n):
        h, r, low = centre_scaled(mean[j], rstd[j], scale[j], like)
        f = r * weight[j]
        high[j] = h
        a[j] = f
        a_low[j] = f - cast(f, like)
        b[j] = low * weight[j] + bias[j]
    return scaled


def column_centres(n, mean, rstd, like, scale, high):
    """Factors of d = x * scale - high for each column; returns whether a scale is not 1."""
    scaled = column_scales(n, mean, rstd, like, scale)
    for j in range(n):
        high[j] = mean[j] * scale[j]
    return scaled


def column_gradient_factors(n, mean, rstd, weight, c1, c2, like, scale, high, a, p, q):
    """Factors of dx = rstd * (dy * weight - c1 - xhat * c2) = dy * a + (x * scale - high) * p + q; whether a scale is not 1."""
    scaled = column_scales(n, mean, rstd, like, scale)
    for j in range(n):
        h, r, low = centre_scaled(mean[j], rstd[j], scale[j], like)
        high[j] = h
        a[j] = weight[j] * rstd[j]
        p[j] = -rstd[j] * c2[j] * r
        q[j] = -rstd[j] * (c1[j] + c2[j] * low)
    return scaled


def column_gradient_sums(i, c, s, splits, mean, rstd, piece_dy, piece_dy_d, like, sum_dy, sum_dy_xhat):
    """The sums of dy and of dy * xhat of block i, from those of dy and of dy * d in its pieces; s columns have one statistic."""
    for j in range(c):
        total = total_d = 0.0
        for k in range(i * splits, (i + 1) * splits):
            own = row(piece_dy, k, c * s)
            own_d = row(piece_dy_d, k, c * s)
            for m in range(j * s, (j + 1) * s):
                total += own[m]
                total_d += own_d[m]
        _, _, f, low = centre(row(mean, i, c)[j], row(rstd, i, c)[j], like)
        row(sum_dy, i, c)[j] = total
        row(sum_dy_xhat, i, c)[j] = total_d * f + total * low

"""Group norm over rows: a row holds the k channels of one group, runs of s values with a weight and a bias each."""

from normfast.kernels.factors import *
from normfast.kernels.moments import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.sums import *


def group_norm_rows(x, weight, bias, k, s, groups, eps, y, mean, rstd, var, lo, hi):
    """Forward, rows lo..hi; row i is of group i % groups."""
    for i in range(lo, hi):
        xi = row(x, i, k * s)
        yi = row(y, i, k * s)
        like = xi[0]
        m, m2, scale = row_moments(xi, k * s, like)
        v, r = inverse_deviation(m2, k * s, scale, eps)
        mean[i] = m / scale
        rstd[i] = r
        var[i] = v
        for j in range(k):
            q = i % groups * k + j
            normalize_run(chunk(xi, j * s, j * s + s), s, m / scale, r, weight[q], bias[q], chunk(yi, j * s, j * s + s))


def normalize_run(x, n, mean, rstd, weight, bias, y):
    """y = (x - mean) * rstd * weight + bias on the run of one channel."""
    like = x[0]
    scale, high, factor, low = centre(mean, rstd, like)
    factor *= weight
    a = cast(factor, like)
    b = cast(low * weight + bias, like)
    if scale == 1.0:
        affine_run(x, n, cast(high, like), a, cast(factor - a, like), b, y)
    else:
        multiply(x, n, cast(scale, like), y)
        affine_run(y, n, cast(high, like), a, cast(factor - a, like), b, y)


def group_norm_gradient_rows(dy, x, mean, rstd, weight, k, s, groups, sum_dy, sum_dy_xhat, dx, lo, hi):
    """Backward, rows lo..hi; sum_dy and sum_dy_xhat are the sums of dy and dy * xhat of each channel of each row."""
    for i in range(lo, hi):
        dyi = row(dy, i, k * s)
        xi = row(x, i, k * s)
        like = xi[0]
        scale, high, factor, low = centre(mean[i], rstd[i], like)
        # c1 = mean(dy * weight), c2 = mean(dy * weight * xhat)
        c1 = c2 = 0.0
        for j in range(k):
            total = total_xhat = 0.0
            left = j * s
            while left < j * s + s:
                right = min(left + BLOCK, j * s + s)
                d, dd = gradient_sums(
                    chunk(dyi, left, right), chunk(xi, left, right), right - left, cast(scale, like), cast(high, like)
                )  # fmt: skip
                total += d
                total_xhat += dd * factor + d * low
                left = right
            sum_dy[i * k + j] = total
            sum_dy_xhat[i * k + j] = total_xhat
            c1 += total * weight[i % groups * k + j]
            c2 += total_xhat * weight[i % groups * k + j]
        c1 /= k * s
        c2 /= k * s
        # dx = rstd * (dy * weight - c1 - xhat * c2)
        p = cast(-rstd[i] * c2 * factor, like)
        q = cast(-rstd[i] * (c1 + c2 * low), like)
        for j in range(k):
            a = cast(weight[i % groups * k + j] * rstd[i], like)
            left = j * s
            gradient_run(
                chunk(dyi, left, left + s), chunk(xi, left, left + s), s, cast(scale, like), cast(high, like), a, p, q,
                chunk(row(dx, i, k * s), left, left + s),
            )  # fmt: skip

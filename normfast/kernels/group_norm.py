"""Group norm over rows: a row holds the k channels of one group, runs of s values with a weight and a bias each."""

from normfast.kernels.factors import *
from normfast.kernels.moments import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.slabs import *


def group_norm_rows(x, weight, bias, k, s, groups, eps, y, mean, rstd, var, lo, hi, streamed, buffer):
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
        scale, high, factor, low = centre(m / scale, r, like)
        for j in range(k):
            q = i % groups * k + j
            a = cast(factor * weight[q], like)
            a_low = cast(factor * weight[q] - a, like)
            b = cast(low * weight[q] + bias[q], like)
            left = j * s
            own = chunk(xi, left, left + s)
            target = chunk(yi, left, left + s)
            if streamed:
                affine_sweep(own, s, cast(scale, like), cast(high, like), a, a_low, b, IDENTITY, k * s, target, True, buffer)
            else:  # runs may be short, and a sweep costs as much as 64 values
                affine_run(own, s, cast(scale, like), cast(high, like), a, a_low, b, target)


def group_norm_gradient_rows(dy, x, mean, rstd, weight, k, s, groups, sum_dy, sum_dy_xhat, dx, lo, hi, streamed, buffer):
    """Backward, rows lo..hi; sum_dy and sum_dy_xhat are the sums of dy and dy * xhat of each channel of each row."""
    for i in range(lo, hi):
        dyi = row(dy, i, k * s)
        xi = row(x, i, k * s)
        like = xi[0]
        scale, high, factor, low = centre(mean[i], rstd[i], like)
        # c1 = mean(dy * weight), c2 = mean(dy * weight * xhat)
        c1 = c2 = 0.0
        for j in range(k):
            left = j * s
            total, total_xhat = run_gradient_sums(chunk(dyi, left, left + s), chunk(xi, left, left + s), s, scale, high, factor, low)
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
            own_dy = chunk(dyi, left, left + s)
            own = chunk(xi, left, left + s)
            target = chunk(row(dx, i, k * s), left, left + s)
            if streamed:
                gradient_sweep(own_dy, own, s, cast(scale, like), cast(high, like), a, p, q, target, True, buffer)
            else:
                gradient_run(own_dy, own, s, cast(scale, like), cast(high, like), a, p, q, target)

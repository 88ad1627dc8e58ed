"""Batch and group norm of 16-bit arrays: the runs of a statistic are widened to float32 a chunk at a time, in the first cache.

Statistic q of a block (a, r, c, s) has r runs (`slabs.run_index`) and `own` weights and biases: one for batch norm, one for each run, a
channel of its group, for group norm; the parameters repeat after `sets` statistics. Words are widened twice, once for the sums and once for
the result: float32 values of a whole statistic would leave the second cache, its words seldom do.
"""

from normfast.kernels.factors import *
from normfast.kernels.halves import *
from normfast.kernels.moments import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.slabs import *

CHUNK = 2048  # values at once, no less than BLOCK


def half_slab(
    x, bfloat, q, r, c, s, weight, bias, sets, own, eps, measured, code, y, mean, rstd, var, streamed, bits, values, work_bits, work, words,
):  # fmt: skip
    """Forward of statistic q, which is measured first unless it was."""
    like = values[0]
    if not measured:
        m, m2, scale = slab_statistics(x, bfloat, q, r, c, s, bits, values)
        mean[q] = m / scale
        var[q], rstd[q] = inverse_deviation(m2, r * s, scale, eps)
    scale, high, factor, low = centre(mean[q], rstd[q], like)
    for j in range(r):
        k = q % sets * own + j % own
        a = cast(factor * weight[k], like)
        a_low = cast(factor * weight[k] - a, like)
        b = cast(low * weight[k] + bias[k], like)
        i = run_index(q, j, r, c)
        lo = 0
        while lo < s:
            n = min(s - lo, CHUNK)
            source = chunk(row(x, i, s), lo, lo + n)
            widen(source, n, bfloat, bits, values)
            affine_sweep(values, n, cast(scale, like), cast(high, like), a, a_low, b, code, 0, values, False, values)
            store(bits, values, n, bfloat, work_bits, work, source, chunk(row(y, i, s), lo, lo + n), streamed, words)
            lo += n


def slab_statistics(x, bfloat, q, r, c, s, bits, values):
    """Mean and m2 of statistic q times scale, and that scale, as `row_moments`."""
    like = values[0]
    scale = 1.0
    mean, m2 = words_moments(x, bfloat, q, r, c, s, scale, bits, values)
    if not within_reach(m2, r * s):
        a = 0.0
        for j in range(r):
            lo = 0
            while lo < s:
                m = min(s - lo, CHUNK)
                widen(chunk(row(x, run_index(q, j, r, c), s), lo, lo + m), m, bfloat, bits, values)
                a = larger(a, largest(values, m))
                lo += m
        scale = unit_scale(a, like)
        mean, m2 = words_moments(x, bfloat, q, r, c, s, scale, bits, values)
    return mean, m2, scale


def words_moments(x, bfloat, q, r, c, s, scale, bits, values):
    """Mean and m2 of statistic q times scale."""
    count = 0
    mean = rest = m2 = 0.0
    apart = s // BLOCK * QUARTER
    for j in range(r):
        words = row(x, run_index(q, j, r, c), s)
        lo = 0
        while lo < s:
            if lo < apart:  # as `extend` takes a whole run
                m = BLOCK
                widen_apart(chunk(words, lo, s), QUARTER, apart, 4, bfloat, bits, values)
                lo += QUARTER
                if lo == apart:
                    lo += 3 * apart
            else:
                m = s - lo
                widen(chunk(words, lo, s), m, bfloat, bits, values)
                lo = s
            mean, rest, m2 = extend(values, m, scale, count, mean, rest, m2, values[0])
            count += m
    return mean, m2


def widen_apart(source, n, apart, runs, bfloat, bits, values):
    """n words from each of several runs that start so far apart, one after the other."""
    for k in range(runs):
        widen(chunk(source, k * apart, k * apart + n), n, bfloat, chunk(bits, k * n, k * n + n), chunk(values, k * n, k * n + n))


def half_slab_gradient(
    dy, x, bfloat, q, r, c, s, mean, rstd, weight, sets, own, sum_dy, sum_dy_xhat, dx, streamed, dy_bits, dy_values, bits, values, words
):
    """Backward of statistic q; the sums of dy and dy * xhat for each of its parameters are added to sum_dy and sum_dy_xhat."""
    like = values[0]
    scale, high, factor, low = centre(mean[q], rstd[q], like)
    # c1 = mean(dy * weight), c2 = mean(dy * weight * xhat)
    c1 = c2 = 0.0
    apart = s // BLOCK * (BLOCK // 2)
    for j in range(r):
        total = total_xhat = 0.0
        i = run_index(q, j, r, c)
        lo = 0
        while lo < s:
            if lo < apart:  # as `run_gradient_sums` takes a whole run
                m = BLOCK
                widen_apart(chunk(row(dy, i, s), lo, s), BLOCK // 2, apart, 2, bfloat, dy_bits, dy_values)
                widen_apart(chunk(row(x, i, s), lo, s), BLOCK // 2, apart, 2, bfloat, bits, values)
                lo += BLOCK // 2
                if lo == apart:
                    lo += apart
            else:
                m = s - lo
                widen(chunk(row(dy, i, s), lo, s), m, bfloat, dy_bits, dy_values)
                widen(chunk(row(x, i, s), lo, s), m, bfloat, bits, values)
                lo = s
            d, dd = run_gradient_sums(dy_values, values, m, scale, high, factor, low)
            total += d
            total_xhat += dd
        k = q % sets * own + j % own
        sum_dy[q * own + j % own] += total
        sum_dy_xhat[q * own + j % own] += total_xhat
        c1 += total * weight[k]
        c2 += total_xhat * weight[k]
    c1 /= r * s
    c2 /= r * s
    # dx = rstd * (dy * weight - c1 - xhat * c2)
    p = cast(-rstd[q] * c2 * factor, like)
    shift = cast(-rstd[q] * (c1 + c2 * low), like)
    for j in range(r):
        a = cast(weight[q % sets * own + j % own] * rstd[q], like)
        i = run_index(q, j, r, c)
        lo = 0
        while lo < s:
            m = min(s - lo, CHUNK)
            source = chunk(row(x, i, s), lo, lo + m)
            widen(chunk(row(dy, i, s), lo, lo + m), m, bfloat, dy_bits, dy_values)
            widen(source, m, bfloat, bits, values)
            gradient_sweep(dy_values, values, m, cast(scale, like), cast(high, like), a, p, shift, dy_values, False, dy_values)
            store(dy_bits, dy_values, m, bfloat, bits, values, source, chunk(row(dx, i, s), lo, lo + m), streamed, words)
            lo += m

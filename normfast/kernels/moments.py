"""Mean and sum of squared deviations in one pass over memory: Welford's recurrence, a block of values at a time.

Welford (1962) updates mean and m2 with one value x: d = x - mean; mean += d / n; m2 += d * d - d * d / n. The same identity holds
for a block, with sum(d) and sum(d * d) in the place of d and d * d, and then costs no division per value (per value: 3x slower).
The deviations are taken from the running mean, so nothing cancels however large the mean is. At first that is the mean of HEAD values,
summed in float64 from the first of them. Partial results merge by Chan, Golub and LeVeque (1979).

float32 sums of squares overflow above 1e19 and vanish below 1e-19, float64 ones at 1e154 and 1e-154. Where that shows (m2 not
within reach, also for constant data) the values are multiplied by a power of two, which is exact, and summed again.
"""

from normfast.kernels.primitives import *
from normfast.kernels.sums import *

HEAD = 32
BLOCK = 1024
QUARTER = BLOCK // 4
SMALLEST = 1e-28  # a variance below this may have lost squares to underflow
LARGEST = 1.7976931348623157e308


def extend(x, n, scale, count, mean, rest, m2, like):
    """Continue the moments of `count` values with the n values of x * scale, summed in the type of `like`.

    `rest` is what rounding took from the mean: the recurrence holds for the true mean only, and without it float64 data with
    |mean| / std = 1e8 (NIST's NumAcc4) lose the last four digits of the deviation.
    """
    lo = 0
    if count == 0:
        m = min(n, HEAD)
        first = 1.0 * x[0] * scale
        d, dd = shifted_sums(x, m, scale, first)
        mean, rest = split_sum(first, d / m)
        if m == n:  # else the mean of these values is only where the sums start, so that whole blocks are left
            lo = m
            count = m
            m2 = dd - d * d / m
    apart = (n - lo) // BLOCK * QUARTER
    stop = lo + apart
    while lo < n:
        shift = cast(mean, like)
        # two halves: chains of 16 float32 terms (AVX2) in place of 32 halve the largest error of y, 8e-7 -> 4e-7 over 8 million values
        if lo < stop:
            m = BLOCK
            half = QUARTER // 2
            d, dd = sums_apart(chunk(x, lo, n), half, apart, cast(scale, like), shift)
            d1, dd1 = sums_apart(chunk(x, lo + half, n), half, apart, cast(scale, like), shift)
            lo += QUARTER
            if lo == stop:
                lo += 3 * apart
        else:
            m = n - lo
            half = m // 256 * 128  # whole vectors for each accumulator: LLVM adds what is left one by one
            d, dd = shifted_sums(chunk(x, lo, lo + half), half, cast(scale, like), shift)
            d1, dd1 = shifted_sums(chunk(x, lo + half, n), m - half, cast(scale, like), shift)
            lo = n
        d += d1
        dd += dd1
        error = (mean - shift) + rest
        dd += error * (m * error - 2.0 * d)
        d -= m * error
        count += m
        mean, rest = split_sum(mean, rest + d / count)
        m2 += dd - d * d / count
    if m2 < 0.0:
        m2 = 0.0
    return mean, rest, m2


def split_sum(a, b):
    """a + b rounded, and what the rounding took (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def merge(count_a, mean_a, m2_a, count_b, mean_b, m2_b):
    """Moments of two disjoint sets together (Chan's formula); works on numbers and on arrays."""
    count = count_a + count_b
    d = mean_b - mean_a
    share = count_b / count
    return count, mean_a + d * share, m2_a + m2_b + d * d * (count_a * share)


def unmerge(count, mean, m2, count_b, mean_b, m2_b):
    """Moments of a set without its part b: the inverse of `merge`; works on numbers and on arrays."""
    count_a = count - count_b
    mean_a = mean + (mean - mean_b) * (count_b / count_a)
    d = mean_a - mean_b
    return count_a, mean_a, m2 - m2_b - d * d * (count_a * (count_b / count))


def merge_equals(n, count, mean, m2, scale):
    """Mean and m2 of n disjoint sets of `count` values each together, from their own times scale, which are changed."""
    for j in range(n):
        mean[j] = mean[j] / scale[j]
        m2[j] = m2[j] / scale[j] / scale[j]
    shift = 1.0 * mean[0]
    d, dd = shifted_sums(mean, n, 1.0, shift)
    total, _ = shifted_sums(m2, n, 1.0, 0.0)
    return shift + d / n, total + count * (max(dd - d * d / n, 0.0) if dd == dd else dd)


def unit_scale(a, like):
    """Power of two that brings a > 0 into [0.5, 1), or as near as the type of `like` can; 1 for zero, infinity and NaN."""
    scale = 1.0
    if 0.0 < a <= LARGEST:
        while a * scale >= 1.0:
            scale *= 0.5
        while a * scale < 0.5 and cast(scale * 4.0, like) <= LARGEST:
            scale *= 2.0
    return scale


def within_reach(m2, count):
    """Whether no square was lost: then the unscaled sums stand."""
    return SMALLEST * count < m2 <= LARGEST


def larger(a, b):
    """The larger of two numbers, NaN if one is NaN."""
    return a if b <= a or a != a else b


def largest(x, n):
    """Largest magnitude in x, NaN if there is one."""
    a = 0.0
    for j in range(n):
        a = larger(a, abs(x[j]))
    return a


def row_moments(x, n, like):
    """Mean and m2 of x * scale, and that scale, which is 1 but for extreme values."""
    scale = 1.0
    mean, _, m2 = extend(x, n, scale, 0, 0.0, 0.0, 0.0, like)
    if not within_reach(m2, n):
        scale = unit_scale(largest(x, n), like)
        mean, _, m2 = extend(x, n, scale, 0, 0.0, 0.0, 0.0, like)
    return mean, m2, scale


def row_squares(x, n, like):
    """Sum of the squares of x * scale, and that scale, as `row_moments`."""
    scale = 1.0
    squares = sum_squares(x, n, scale, like)
    if not within_reach(squares, n):
        scale = unit_scale(largest(x, n), like)
        squares = sum_squares(x, n, scale, like)
    return squares, scale


def sum_squares(x, n, scale, like):
    """Sum of (x * scale)**2, half a block at a time in the type of `like`."""
    total = 0.0
    lo = 0
    while lo < n:
        m = min(n - lo, BLOCK // 2)
        _, dd = shifted_sums(chunk(x, lo, lo + m), m, cast(scale, like), cast(0.0, like))
        total += dd
        lo += m
    return total


def inverse_deviation(m2, count, scale, eps):
    """Variance and 1 / sqrt(variance + eps) from the scaled m2. Without eps a constant has rstd 0, so that y is the bias."""
    var = m2 / count / scale / scale
    if 1e-290 < var + eps < 1e300:
        return var, 1.0 / sqrt(var + eps)
    if m2 == 0.0:
        return var, 0.0
    return var, scale / sqrt(m2 / count)


def finish_statistics(n, count, eps, mean, m2, scale, rstd, var):
    """Turn n scaled moments into mean, variance and 1 / sqrt(variance + eps); var may be m2, and rstd the scale."""
    for j in range(n):
        mean[j] = mean[j] / scale[j]
        var[j], rstd[j] = inverse_deviation(m2[j], count, scale[j], eps)


# The same for columns side by side; the loops stand in one file with what they call, so that the compiler can vectorize them


def fold(n, m, count, shift, d, dd, mean, rest, m2):
    """Welford's recurrence with m rows whose sums are d and dd about `shift`; count includes them."""
    for j in range(n):
        error = (mean[j] - shift[j]) + rest[j]
        e = d[j] - m * error
        ee = dd[j] + error * (m * error - 2.0 * d[j])
        mean[j], rest[j] = split_sum(mean[j], rest[j] + e / count)
        m2[j] = max(m2[j] + (ee - e * e / count), 0.0) if ee == ee else ee


def merge_columns(n, count_a, mean_a, m2_a, count_b, mean_b, m2_b):
    """Merge the moments b of n columns into a."""
    for j in range(n):
        _, mean_a[j], m2_a[j] = merge(count_a, mean_a[j], m2_a[j], count_b, mean_b[j], m2_b[j])

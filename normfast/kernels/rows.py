"""Statistics of rows: long rows one after the other, short ones four side by side.

A short row costs more for what comes before and after its sums than for them: a first mean, the addition of the lanes, a square root.
Four rows at once share the lanes' latency. Sums start from the mean of the row's first values, which is a mean of the type of the values:
it is a shift only, and takes nothing from the result (`moments.py`).
"""

from normfast.kernels.moments import *
from normfast.kernels.primitives import *
from normfast.kernels.sums import *

ASIDE = 1024  # values of a row that is taken beside others, at most
TOGETHER = 4096  # values of short rows that are measured, then written, while they are in the first cache
CHAIN = 256  # values of it that are added in the type of the sums: 16 terms to a float32 lane with AVX-512


def row_statistics(x, n, centred, head, lo, hi, like, mean, m2, scale):
    """Mean and m2 of the rows lo..hi times scale, and that scale; not centred: 0 and the sum of squares.

    Sums of short rows start from the mean of `head` values. One will do where they are taken in a wider type than x's: it lies within
    sqrt(n) deviations of the mean, which costs n units of the wider type at most (65536 rows of 64 values: 1.9 -> 1.3 times a sum).
    """
    apart = (hi - lo) // 4
    rows_apart(x, n, centred, head, lo, lo + apart, apart, like, mean, m2, scale)
    left = lo + 4 * apart
    if left < hi:
        if n <= ASIDE:
            four_rows(x, n, centred, head, left, min(left + 1, hi - 1), hi - 1, hi - 1, like, mean, m2, scale)
        mend_rows(x, n, centred, left, hi, like, mean, m2, scale)


def rows_apart(x, n, centred, head, lo, hi, apart, like, mean, m2, scale):
    """The same of the rows lo..hi, and of those once, twice and three times `apart` rows further on."""
    if n <= ASIDE:
        for i in range(lo, hi):
            four_rows(x, n, centred, head, i, i + apart, i + 2 * apart, i + 3 * apart, like, mean, m2, scale)
    for k in range(4):
        mend_rows(x, n, centred, lo + k * apart, hi + k * apart, like, mean, m2, scale)


def mend_rows(x, n, centred, lo, hi, like, mean, m2, scale):
    """The same of the rows that are too long for `four_rows`, or lost squares there."""
    for i in range(lo, hi):
        if n > ASIDE or not within_reach(m2[i], n):
            if centred:
                mean[i], m2[i], scale[i] = row_moments(row(x, i, n), n, like)
            else:
                mean[i] = 0.0
                m2[i], scale[i] = row_squares(row(x, i, n), n, like)


def four_rows(x, n, centred, head, i, i1, i2, i3, like, mean, m2, scale):
    """The same of four rows without scale; a row may stand there twice, and its bits do not depend on the others."""
    x0 = row(x, i, n)
    x1 = row(x, i1, n)
    x2 = row(x, i2, n)
    x3 = row(x, i3, n)
    one = cast(1.0, like)
    k0 = k1 = k2 = k3 = cast(0.0, like)
    if centred:
        m = min(n, head)
        k0 = cast(x0[0], like)
        k1 = cast(x1[0], like)
        k2 = cast(x2[0], like)
        k3 = cast(x3[0], like)
        if m > 1:
            s0, q0, s1, q1, s2, q2, s3, q3 = sums_of_4(x0, x1, x2, x3, m, one, k0, k1, k2, k3)
            k0 = cast(k0 + s0 / m, like)
            k1 = cast(k1 + s1 / m, like)
            k2 = cast(k2 + s2 / m, like)
            k3 = cast(k3 + s3 / m, like)
    d0 = d1 = d2 = d3 = dd0 = dd1 = dd2 = dd3 = 0.0
    j = 0
    while j < n:
        m = min(n - j, CHAIN)
        s0, q0, s1, q1, s2, q2, s3, q3 = sums_of_4(
            chunk(x0, j, j + m), chunk(x1, j, j + m), chunk(x2, j, j + m), chunk(x3, j, j + m), m, one, k0, k1, k2, k3
        )
        d0 += s0
        d1 += s1
        d2 += s2
        d3 += s3
        dd0 += q0
        dd1 += q1
        dd2 += q2
        dd3 += q3
        j += m
    keep(i, n, centred, k0, d0, dd0, mean, m2, scale)
    keep(i1, n, centred, k1, d1, dd1, mean, m2, scale)
    keep(i2, n, centred, k2, d2, dd2, mean, m2, scale)
    keep(i3, n, centred, k3, d3, dd3, mean, m2, scale)


def keep(i, n, centred, shift, d, dd, mean, m2, scale):
    """The statistics of row i from its sums about the shift."""
    mean[i] = shift + d / n if centred else 0.0
    m2[i] = max(dd - d * d / n, 0.0) if centred and dd == dd else dd
    scale[i] = 1.0

"""Sums over a run whose terms may be added in any order: only this file is compiled with reassociation.

Four terms, or four rows, stand side by side because one chain of additions would wait for itself: a fused multiply-add takes four cycles
and two can start in each. Terms are added to each other before they reach the sum, so that only two sums are added up across the lanes at
the end. Runs are short where squares are summed (`moments.BLOCK`, `rows.CHAIN`), so that a float32 chain has few terms.
"""

from normfast.kernels.primitives import *


def shifted_sums(x, n, scale, shift):
    """Sum and sum of squares of d = x * scale - shift, added up in the type of `shift`."""
    quarter = n // 4
    s, q = sums_apart(x, quarter, quarter, scale, shift)
    for j in range(4 * quarter, n):
        d = x[j] * scale - shift
        s += d
        q += d * d
    return s, q


def sums_apart(x, n, apart, scale, shift):
    """The same of four runs of n values, each so far from the one before."""
    x1 = chunk(x, apart, apart + n)
    x2 = chunk(x, 2 * apart, 2 * apart + n)
    x3 = chunk(x, 3 * apart, 3 * apart + n)
    s = q = cast(0.0, shift)
    for j in range(n):
        d0 = x[j] * scale - shift
        d1 = x1[j] * scale - shift
        d2 = x2[j] * scale - shift
        d3 = x3[j] * scale - shift
        s += (d0 + d1) + (d2 + d3)
        q += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
    return 1.0 * s, 1.0 * q


def gradient_sums(dy, x, n, scale, high):
    """Sums of dy and of dy * d, with d = x * scale - high."""
    half = n // 2
    s, q = gradient_sums_apart(dy, x, half, half, scale, high)
    for j in range(2 * half, n):
        s += dy[j]
        q += dy[j] * (x[j] * scale - high)
    return s, q


def gradient_sums_apart(dy, x, n, apart, scale, high):
    """The same of two runs of n values, so far from each other."""
    dy1 = chunk(dy, apart, apart + n)
    x1 = chunk(x, apart, apart + n)
    s = q = cast(0.0, high)
    for j in range(n):
        s += dy[j] + dy1[j]
        q += dy[j] * (x[j] * scale - high) + dy1[j] * (x1[j] * scale - high)
    return 1.0 * s, 1.0 * q


def products(dy, x, n, rows, total):
    """The sum of dy * x for each row, in float64: no product of float32 values leaves its reach."""
    half = n // 2
    for i in range(rows):
        dy0 = row(dy, i, n)
        x0 = row(x, i, n)
        dy1 = chunk(dy0, half, n)
        x1 = chunk(x0, half, n)
        t = 0.0
        for j in range(half):
            t += 1.0 * dy0[j] * x0[j] + 1.0 * dy1[j] * x1[j]
        for j in range(2 * half, n):
            t += 1.0 * dy0[j] * x0[j]
        total[i] = t


def ties(x, n, norm):
    """How many values of the row have this magnitude."""
    count = 0.0
    for j in range(n):
        count += 1.0 if abs(x[j]) == norm else 0.0
    return count


def weighted_gradient_sums(dy, x, weight, n, scale, high, r, low, dweight, dbias):
    """Sums of g = dy * weight and of g * xhat; adds dy * xhat to dweight and dy to dbias on the way.

    One accumulator each: the stores set the pace, and gcc's test that the arrays lie apart fails when they are cut in halves.
    """
    s0 = q0 = cast(0.0, high)
    for j in range(n):
        g = dy[j]
        w = weight[j]
        t = g * ((x[j] * scale - high) * r + low)
        s0 += g * w
        q0 += t * w
        dweight[j] += t
        dbias[j] += g
    return s0, q0


def sums_of_4(x0, x1, x2, x3, n, scale, k0, k1, k2, k3):
    """`shifted_sums` of four runs side by side, each with a shift of its own: d and d * d of the first, of the second, ..."""
    s0 = s1 = s2 = s3 = q0 = q1 = q2 = q3 = cast(0.0, scale)
    for j in range(n):
        d0 = x0[j] * scale - k0
        d1 = x1[j] * scale - k1
        d2 = x2[j] * scale - k2
        d3 = x3[j] * scale - k3
        s0 += d0
        s1 += d1
        s2 += d2
        s3 += d3
        q0 += d0 * d0
        q1 += d1 * d1
        q2 += d2 * d2
        q3 += d3 * d3
    return 1.0 * s0, 1.0 * q0, 1.0 * s1, 1.0 * q1, 1.0 * s2, 1.0 * q2, 1.0 * s3, 1.0 * q3

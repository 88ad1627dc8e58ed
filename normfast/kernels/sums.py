"""Sums over a run whose terms may be added in any order: only this file is compiled with reassociation.

Four accumulators stand side by side because one would wait for itself: a fused multiply-add takes four cycles and two can start
in each. A run is at most half a `moments.BLOCK` long where squares are summed, so that a float32 chain has few terms (16 with AVX2).
"""

from normfast.kernels.primitives import *


def shifted_sums(x, n, scale, shift):
    """Sum and sum of squares of d = x * scale - shift, added up in the type of `shift`."""
    quarter = n // 4
    x1 = chunk(x, quarter, n)
    x2 = chunk(x, 2 * quarter, n)
    x3 = chunk(x, 3 * quarter, n)
    s0 = s1 = s2 = s3 = q0 = q1 = q2 = q3 = cast(0.0, shift)
    for j in range(quarter):
        d0 = x[j] * scale - shift
        d1 = x1[j] * scale - shift
        d2 = x2[j] * scale - shift
        d3 = x3[j] * scale - shift
        s0 += d0
        s1 += d1
        s2 += d2
        s3 += d3
        q0 += d0 * d0
        q1 += d1 * d1
        q2 += d2 * d2
        q3 += d3 * d3
    for j in range(4 * quarter, n):
        d0 = x[j] * scale - shift
        s0 += d0
        q0 += d0 * d0
    return (1.0 * s0 + s1) + (1.0 * s2 + s3), (1.0 * q0 + q1) + (1.0 * q2 + q3)  # in float64


def gradient_sums(dy, x, n, scale, high):
    """Sums of dy and of dy * d, with d = x * scale - high."""
    half = n // 2
    dy1 = chunk(dy, half, n)
    x1 = chunk(x, half, n)
    s0 = s1 = q0 = q1 = cast(0.0, high)
    for j in range(half):
        s0 += dy[j]
        s1 += dy1[j]
        q0 += dy[j] * (x[j] * scale - high)
        q1 += dy1[j] * (x1[j] * scale - high)
    for j in range(2 * half, n):
        s0 += dy[j]
        q0 += dy[j] * (x[j] * scale - high)
    return 1.0 * s0 + s1, 1.0 * q0 + q1


def weighted_gradient_sums(dy, x, weight, n, scale, high, r, low, dweight, dbias):
    """Sums of g = dy * weight and of g * xhat; adds dy * xhat to dweight and dy to dbias on the way.

    One accumulator each: the stores set the pace, and gcc's test that the arrays lie apart fails when they are cut in halves.
    """
    s0 = q0 = cast(0.0, high)
    for j in range(n):
        t = dy[j] * ((x[j] * scale - high) * r + low)
        s0 += dy[j] * weight[j]
        q0 += t * weight[j]
        dweight[j] += t
        dbias[j] += dy[j]
    return s0, q0

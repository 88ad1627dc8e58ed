"""Statistics over runs that lie apart, as the channels of NCHW do.

A block (a, r, c, s) is kept along a and c and reduced along r and s: statistic q = ia * c + ic has r runs of s values. A statistic is
taken in pieces, splits_r by splits_s of them, a number that depends on the shape alone, and the pieces are merged in their order: the
bits do not depend on who computes which piece.
"""

from normfast.kernels.activations import *
from normfast.kernels.factors import *
from normfast.kernels.moments import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.sums import *


def run_index(q, i, r, c):
    """Position of the i-th run of statistic q among all runs."""
    return ((q // c) * r + i) * c + q % c


def piece_moments(x, q, p, r, c, s, splits_r, splits_s, scale, like):
    """Mean and m2 of piece p of statistic q, of the values times scale."""
    k = p // splits_s
    lo = s * (p % splits_s) // splits_s
    hi = s * (p % splits_s + 1) // splits_s
    count = 0
    mean = rest = m2 = 0.0
    for i in range(r * k // splits_r, r * (k + 1) // splits_r):
        run = row(x, run_index(q, i, r, c), s)
        mean, rest, m2 = extend(chunk(run, lo, hi), hi - lo, scale, count, mean, rest, m2, like)
        count += hi - lo
    return mean, m2


def piece_count(p, r, s, splits_r, splits_s):
    """How many values piece p holds."""
    k = p // splits_s
    j = p % splits_s
    rows = r * (k + 1) // splits_r - r * k // splits_r
    return rows * (s * (j + 1) // splits_s - s * j // splits_s)


def merge_pieces(piece_mean, piece_m2, r, s, splits_r, splits_s):
    """Moments of the whole statistic from its pieces."""
    count = piece_count(0, r, s, splits_r, splits_s)
    mean = 1.0 * piece_mean[0]
    m2 = 1.0 * piece_m2[0]
    for p in range(1, splits_r * splits_s):
        more = piece_count(p, r, s, splits_r, splits_s)
        count, mean, m2 = merge(count, mean, m2, more, piece_mean[p], piece_m2[p])
    return mean, m2


def slab_moments(x, q, r, c, s, splits_r, splits_s, piece_mean, piece_m2, like):
    """Mean and m2 of statistic q from its pieces, and their scale: as `row_moments`, sums again where squares were lost."""
    scale = 1.0
    mean, m2 = merge_pieces(piece_mean, piece_m2, r, s, splits_r, splits_s)
    if not within_reach(m2, r * s):
        a = 0.0
        for i in range(r):
            a = larger(a, largest(row(x, run_index(q, i, r, c), s), s))
        scale = unit_scale(a, like)
        for p in range(splits_r * splits_s):
            piece_mean[p], piece_m2[p] = piece_moments(x, q, p, r, c, s, splits_r, splits_s, scale, like)
        mean, m2 = merge_pieces(piece_mean, piece_m2, r, s, splits_r, splits_s)
    return mean, m2, scale


def affine_channel(x, mean, rstd, weight, bias, q, r, c, s, code, y, streamed, buffer):
    """y = f((x - mean) * rstd * weight + bias) on the runs of channel q; the code is that of f."""
    like = row(x, 0, s)[0]
    scale, high, factor, low = centre(mean[q], rstd[q], like)
    factor *= weight[q]
    a = cast(factor, like)
    for i in range(r):
        run = run_index(q, i, r, c)
        affine_sweep(
            row(x, run, s), s, cast(scale, like), cast(high, like), a, cast(factor - a, like), cast(low * weight[q] + bias[q], like), code,
            s, row(y, run, s), streamed, buffer,
        )  # fmt: skip


def pull_channel(dy, x, mean, rstd, weight, bias, q, r, c, s, code, dz):
    """dz = dy * f'(z) on the runs of channel q, for z from `affine_channel` and the function f of the code."""
    affine_channel(x, mean, rstd, weight, bias, q, r, c, s, IDENTITY, dz, False, row(dz, 0, s))
    for i in range(r):
        run = run_index(q, i, r, c)
        activate_gradient(row(dy, run, s), row(dz, run, s), s, code, row(dz, run, s))


def piece_gradient_sums(dy, x, mean, rstd, q, p, r, c, s, splits_r, splits_s):
    """Sums of dy and dy * xhat over piece p of channel q."""
    k = p // splits_s
    lo = s * (p % splits_s) // splits_s
    hi = s * (p % splits_s + 1) // splits_s
    scale, high, factor, low = centre(mean[q], rstd[q], row(x, 0, s)[0])
    total = total_xhat = 0.0
    for i in range(r * k // splits_r, r * (k + 1) // splits_r):
        run = run_index(q, i, r, c)
        d, dd = run_gradient_sums(chunk(row(dy, run, s), lo, hi), chunk(row(x, run, s), lo, hi), hi - lo, scale, high, factor, low)
        total += d
        total_xhat += dd
    return total, total_xhat


def run_gradient_sums(dy, x, n, scale, high, factor, low):
    """Sums of dy and dy * xhat over a run, a block at a time in x's type."""
    like = x[0]
    total = total_xhat = 0.0
    apart = n // BLOCK * (BLOCK // 2)
    lo = 0
    while lo < n:
        if lo < apart:
            d, dd = gradient_sums_apart(chunk(dy, lo, n), chunk(x, lo, n), BLOCK // 2, apart, cast(scale, like), cast(high, like))
            lo += BLOCK // 2
            if lo == apart:
                lo += apart
        else:
            d, dd = gradient_sums(chunk(dy, lo, n), chunk(x, lo, n), n - lo, cast(scale, like), cast(high, like))
            lo = n
        total += d
        total_xhat += dd * factor + d * low
    return total, total_xhat


def gradient_channel(dy, x, mean, rstd, weight, c1, c2, q, r, c, s, dx, streamed, buffer):
    """dx = rstd * (dy * weight - c1 - xhat * c2) on the runs of channel q."""
    like = row(x, 0, s)[0]
    scale, high, factor, low = centre(mean[q], rstd[q], like)
    for i in range(r):
        run = run_index(q, i, r, c)
        gradient_sweep(
            row(dy, run, s), row(x, run, s), s, cast(scale, like), cast(high, like), cast(weight[q] * rstd[q], like),
            cast(-rstd[q] * c2[q] * factor, like), cast(-rstd[q] * (c1[q] + c2[q] * low), like), row(dx, run, s), streamed, buffer,
        )  # fmt: skip


def add_pieces(piece_dy, piece_dy_xhat, q, pieces, sum_dy, sum_dy_xhat):
    """Sums of channel q from those of its pieces, in their order."""
    total = total_xhat = 0.0
    for p in range(q * pieces, (q + 1) * pieces):
        total += piece_dy[p]
        total_xhat += piece_dy_xhat[p]
    sum_dy[q] = total
    sum_dy_xhat[q] = total_xhat

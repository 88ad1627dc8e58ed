"""Statistics down the columns of rows, as the channels of NHWC and of (N, C) lie.

Tiles of rows are added up side by side in x's type (or wider) and folded into the float64 moments of each column, by the recurrence
of `moments.py`: TILE terms are the longest chain. `left..right` are the columns one worker takes.
"""

from normfast.kernels.factors import *
from normfast.kernels.moments import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *

TILE = 32
FIRST = 8  # rows whose mean is where the sums start


def column_piece(x, i, r, c, splits, width, work, piece_mean, piece_m2):
    """Moments of task i: of block i // (splits * blocks), piece and columns as the rest says."""
    blocks = (c + width - 1) // width
    piece = i // blocks  # counted over all blocks of rows
    left = i % blocks * width
    right = min(left + width, c)
    scale = chunk(work, 0, width)
    fill(1.0, right - left, scale)
    lo = piece // splits * r + r * (piece % splits) // splits
    hi = piece // splits * r + r * (piece % splits + 1) // splits
    column_moments(
        x, c, lo, hi, left, right, 0, scale, chunk(work, width, 6 * width),
        chunk(row(piece_mean, piece, c), left, right), chunk(row(piece_m2, piece, c), left, right),
    )  # fmt: skip


def column_moments(x, c, lo, hi, left, right, scaled, scale, work, mean, m2):
    """Mean and m2 of the columns left..right of rows lo..hi, times scale if `scaled`; work is space for five runs."""
    n = right - left
    shift = chunk(work, 0, n)
    d = chunk(work, n, 2 * n)
    dd = chunk(work, 2 * n, 3 * n)
    buffer = chunk(work, 3 * n, 4 * n)
    rest = chunk(work, 4 * n, 5 * n)
    multiply_columns(chunk(row(x, lo, c), left, right), n, scale, shift)
    copy(shift, n, mean)
    stop = min(lo + FIRST, hi)
    add_rows(x, c, lo, stop, left, right, scaled, scale, shift, buffer, d, dd)
    start_from(n, stop - lo, d, mean)
    fill(0.0, n, rest)
    fill(0.0, n, m2)
    count = 0
    while lo < hi:
        stop = min(lo + TILE, hi)
        copy(mean, n, shift)
        add_rows(x, c, lo, stop, left, right, scaled, scale, shift, buffer, d, dd)
        count += stop - lo
        fold(n, stop - lo, count, shift, d, dd, mean, rest, m2)
        lo = stop


def add_rows(x, c, lo, hi, left, right, scaled, scale, shift, buffer, d, dd):
    """Sums of the deviations of the rows lo..hi from `shift`, and of their squares."""
    n = right - left
    fill(0.0, n, d)
    fill(0.0, n, dd)
    i = lo
    while i < hi:
        if scaled:
            multiply_columns(chunk(row(x, i, c), left, right), n, scale, buffer)
            add_deviations(buffer, n, shift, d, dd)
            i += 1
        elif i + 4 <= hi:
            add_deviations_of_4(
                chunk(row(x, i, c), left, right), chunk(row(x, i + 1, c), left, right), chunk(row(x, i + 2, c), left, right),
                chunk(row(x, i + 3, c), left, right), n, shift, d, dd,
            )  # fmt: skip
            i += 4
        else:
            add_deviations(chunk(row(x, i, c), left, right), n, shift, d, dd)
            i += 1


def start_from(n, m, d, mean):
    """Move the mean by that of m deviations d from it, so that the sums start near the middle of the values and not at the first of them.

    From the first row, batch norm over 5 to 32 rows was off by up to 2.3e-6 in float32 where that lies four deviations away.
    """
    for j in range(n):
        if abs(d[j]) <= LARGEST:
            mean[j] += d[j] / m


def column_statistics(x, i, r, c, splits, width, work, piece_mean, piece_m2, mean, m2, scale):
    """Moments of task i, block i // blocks and its columns, from the pieces; sums again where squares were lost."""
    blocks = (c + width - 1) // width
    block = i // blocks
    left = i % blocks * width
    right = min(left + width, c)
    n = right - left
    total_mean = chunk(row(mean, block, c), left, right)
    total_m2 = chunk(row(m2, block, c), left, right)
    total_scale = chunk(row(scale, block, c), left, right)
    lanes = chunk(work, 0, n)
    fill(1.0, n, total_scale)
    merge_pieces(block, r, c, splits, left, right, piece_mean, piece_m2, total_mean, total_m2)
    if rescale(x, block * r, block * r + r, left, c, n, total_m2, lanes[0], total_scale):
        copy(total_scale, n, lanes)
        for p in range(splits):
            column_moments(
                x, c, block * r + r * p // splits, block * r + r * (p + 1) // splits, left, right, 1, lanes,
                chunk(work, width, 6 * width),
                chunk(row(piece_mean, block * splits + p, c), left, right), chunk(row(piece_m2, block * splits + p, c), left, right),
            )  # fmt: skip
        merge_pieces(block, r, c, splits, left, right, piece_mean, piece_m2, total_mean, total_m2)


def merge_pieces(block, r, c, splits, left, right, piece_mean, piece_m2, mean, m2):
    """Merge the pieces of rows of a block, in their order, for the columns left..right."""
    n = right - left
    copy(chunk(row(piece_mean, block * splits, c), left, right), n, mean)
    copy(chunk(row(piece_m2, block * splits, c), left, right), n, m2)
    for p in range(1, splits):
        count = r * p // splits
        more = r * (p + 1) // splits - count
        next_mean = chunk(row(piece_mean, block * splits + p, c), left, right)
        next_m2 = chunk(row(piece_m2, block * splits + p, c), left, right)
        merge_columns(n, count, mean, m2, more, next_mean, next_m2)


def rescale(x, lo, hi, left, c, n, m2, like, scale):
    """Give the columns whose squares were lost a scale that saves them; returns whether there are any."""
    found = 0
    for j in range(n):
        if not within_reach(m2[j], hi - lo):
            a = 0.0
            for i in range(lo, hi):
                a = larger(a, abs(row(x, i, c)[left + j]))
            scale[j] = unit_scale(a, like)
            if scale[j] != 1.0:
                found = 1
    return found


def copy(source, n, target):
    """target = source, rounded to its type."""
    for j in range(n):
        target[j] = source[j]


def fill(value, n, target):
    """target = value."""
    for j in range(n):
        target[j] = value


def add_deviations(x, n, shift, d, dd):
    """Add the deviations of one row and their squares."""
    for j in range(n):
        t = x[j] - shift[j]
        d[j] += t
        dd[j] += t * t


def add_deviations_of_4(x0, x1, x2, x3, n, shift, d, dd):
    """The same for four rows: the sums are loaded and stored once for all."""
    for j in range(n):
        t0 = x0[j] - shift[j]
        t1 = x1[j] - shift[j]
        t2 = x2[j] - shift[j]
        t3 = x3[j] - shift[j]
        d[j] += (t0 + t1) + (t2 + t3)
        dd[j] += (t0 * t0 + t1 * t1) + (t2 * t2 + t3 * t3)


def affine_rows(x, r, c, lo, hi, beside, scaled, scale, high, a, a_low, b, code, y, streamed, buffer):
    """Normalize the rows lo..hi and apply the function of the code.

    The factors of row i stand in row i // r, `beside` times side by side: so many rows are taken at once, as one.
    """
    i = lo
    while i < hi:
        q = i // r
        rows = min(min(i + beside, hi), (q + 1) * r) - i
        wide = beside * c
        columns_sweep(
            row(x, i, c), rows * c, scaled, row(scale, q, wide), row(high, q, wide), row(a, q, wide), row(a_low, q, wide), row(b, q, wide),
            code, chunk(row(y, i, c), 0, rows * c), streamed, buffer,
        )  # fmt: skip
        i += rows


def column_gradient_piece(dy, x, i, r, c, splits, width, scaled, scale, high, work, piece_dy, piece_dy_d):
    """Sums of dy and dy * d of task i, numbered as in `column_piece`; work is space for three runs."""
    blocks = (c + width - 1) // width
    piece = i // blocks
    block = piece // splits
    left = i % blocks * width
    right = min(left + width, c)
    n = right - left
    d = chunk(work, 0, n)
    dd = chunk(work, n, 2 * n)
    buffer = chunk(work, 2 * n, 3 * n)
    centres = chunk(row(high, block, c), left, right)
    total = chunk(row(piece_dy, piece, c), left, right)
    total_d = chunk(row(piece_dy_d, piece, c), left, right)
    fill(0.0, n, total)
    fill(0.0, n, total_d)
    lo = block * r + r * (piece % splits) // splits
    hi = block * r + r * (piece % splits + 1) // splits
    while lo < hi:
        stop = min(lo + TILE, hi)
        fill(0.0, n, d)
        fill(0.0, n, dd)
        k = lo
        while k < stop:
            dyk = chunk(row(dy, k, c), left, right)
            if scaled:
                multiply_columns(chunk(row(x, k, c), left, right), n, chunk(row(scale, block, c), left, right), buffer)
                add_gradients(dyk, buffer, n, centres, d, dd)
                k += 1
            elif k + 2 <= stop:
                add_gradients_of_2(
                    dyk, chunk(row(dy, k + 1, c), left, right), chunk(row(x, k, c), left, right),
                    chunk(row(x, k + 1, c), left, right), n, centres, d, dd,
                )  # fmt: skip
                k += 2
            else:
                add_gradients(dyk, chunk(row(x, k, c), left, right), n, centres, d, dd)
                k += 1
        for j in range(n):
            total[j] += d[j]
            total_d[j] += dd[j]
        lo = stop


def add_gradients(dy, x, n, high, d, dd):
    """Add dy and dy * (x - high) of one row."""
    for j in range(n):
        d[j] += dy[j]
        dd[j] += dy[j] * (x[j] - high[j])


def add_gradients_of_2(dy0, dy1, x0, x1, n, high, d, dd):
    """The same for two rows."""
    for j in range(n):
        d[j] += dy0[j] + dy1[j]
        dd[j] += dy0[j] * (x0[j] - high[j]) + dy1[j] * (x1[j] - high[j])


def gradient_rows(dy, x, r, c, lo, hi, beside, scaled, scale, high, a, p, q, dx, streamed, buffer):
    """dx of the rows lo..hi; the factors as in `affine_rows`."""
    i = lo
    while i < hi:
        k = i // r
        rows = min(min(i + beside, hi), (k + 1) * r) - i
        wide = beside * c
        gradient_columns_sweep(
            row(dy, i, c), row(x, i, c), rows * c, scaled, row(scale, k, wide), row(high, k, wide), row(a, k, wide), row(p, k, wide),
            row(q, k, wide), chunk(row(dx, i, c), 0, rows * c), streamed, buffer,
        )  # fmt: skip
        i += rows


def spread(c, s, run):
    """Replace the c values at the start of a run by s copies of each, one after the other."""
    for j in range(c - 1, 0, -1):  # the first comes last: nothing is overwritten before it is read
        fill(run[j], s, chunk(run, j * s, j * s + s))
    fill(run[0], s, run)


def repeat(c, times, run):
    """Copy the c values at the start of a run side by side, so that they stand there `times` times."""
    for i in range(c, times * c):
        run[i] = run[i - c]

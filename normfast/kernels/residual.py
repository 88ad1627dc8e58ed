"""Dropout, the sum with the residual stream and the norm of the sum: rows are added, then normalized while they are in the first cache.

`words` and `space` are those of `dropout.py`, `kept` is space for the flags of the rows that are taken at once. Nothing is dropped where
`drawn` is false; then nobody looks at the key and what follows it.
"""

from normfast.kernels.dropout import *
from normfast.kernels.half_rows import *
from normfast.kernels.halves import *
from normfast.kernels.layer_norm import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.rows import *


def add_norm_rows(
    x, residual, drawn, key, position, threshold, scale, words, space, kept, weight, bias, n, eps, centred, h, y, mean, rstd, var, lo, hi,
    streamed, work, buffer,
):  # fmt: skip
    """Forward, rows lo..hi: h = dropout(x) + residual and y, its norm; if `streamed`, h goes past the caches through `work`, y as ever.

    h goes a few values at a time, and the next rows are asked for in the same steps (4096 x 768 without dropout, one core: 0.92 -> 0.79 ns
    a value).
    """
    step = max(TOGETHER // n // 4 * 4, 1)
    block = -1
    i = lo
    while i < hi:
        stop = min(i + step, hi)
        m = (stop - i) * n
        following = row(x, min(stop, hi - 1), n)
        next_other = row(residual, min(stop, hi - 1), n)
        target = work if streamed else row(h, i, n)
        done = drawn and add_lanes(
            row(x, i, n), m, key, position + i * n, threshold, scale, row(residual, i, n), words, i == lo, target, row(h, i, n), streamed
        )
        if drawn and not done:
            block = keep_run(key, position + i * n, m, threshold, following, next_other, block, words, space, kept)
            select_add(row(x, i, n), m, kept, (position + i * n) % 32, scale, row(residual, i, n), target)
        left = m if done else 0
        size = lead(row(h, i, n), m) if streamed else m
        while left < m:
            sums = chunk(target, left, left + size)
            if not drawn:
                add(chunk(row(x, i, n), left, left + size), size, chunk(row(residual, i, n), left, left + size), sums)
            if streamed:
                stream(sums, size, chunk(row(h, i, n), left, left + size))
                prefetch(chunk(following, left, left + size), size)
                prefetch(chunk(next_other, left, left + size), size)
            left += size
            size = min(m - left, LINES)
        layer_norm_rows(
            target, weight, bias, n, eps, centred, row(y, i, n), chunk(mean, i, stop), chunk(rstd, i, stop), chunk(var, i, stop),
            0, stop - i, streamed, buffer,
        )  # fmt: skip
        i = stop


def add_norm_gradient_rows(
    dy, h, added, dh, mean, rstd, drawn, key, position, threshold, scale, words, space, kept, weight, n, centred, dresidual, dx, lo, hi,
    tile_dweight, tile_dbias, dweight, dbias, streamed, work, buffer,
):  # fmt: skip
    """Backward, rows lo..hi: dresidual is the gradient of the norm, plus dh if `added`; dx is its dropout."""
    like = row(h, 0, n)[0]
    block = -1
    for i in range(lo, hi):
        unit, high, p, q = gradient_factors(row(dy, i, n), row(h, i, n), mean[i], rstd[i], weight, n, centred, tile_dweight, tile_dbias)
        if not drawn or not gradient_lanes(
            row(dy, i, n), row(h, i, n), weight, n, cast(unit, like), cast(high, like), cast(rstd[i], like), cast(p, like), cast(q, like),
            added, row(dh, i, n), key, position + i * n, threshold, scale, words, i == lo, row(dresidual, i, n), row(dx, i, n), streamed,
        ):  # fmt: skip
            target = work if streamed or added else row(dresidual, i, n)  # which may be dh
            weighted_gradient_sweep(
                row(dy, i, n), row(h, i, n), weight, n, cast(unit, like), cast(high, like), cast(rstd[i], like), cast(p, like),
                cast(q, like), target, False, buffer,
            )  # fmt: skip
            if added:
                total = work if streamed else row(dresidual, i, n)
                add(target, n, row(dh, i, n), total)
                target = total
            if drawn:
                following = min(i + 1, hi - 1)
                nearby = row(dy, following, n)
                block = keep_run(key, position + i * n, n, threshold, nearby, row(h, following, n), block, words, space, kept)
                select_sweep(target, n, kept, (position + i * n) % 32, scale, row(dx, i, n), streamed, buffer)
            if streamed:
                stream(work, n, row(dresidual, i, n))
        if (i + 1 - lo) % TILE == 0 or i + 1 == hi:
            drain(tile_dweight, n, dweight)
            drain(tile_dbias, n, dbias)


def half_add_norm_rows(
    x, residual, bfloat, drawn, key, position, threshold, scale, words, space, kept, weight, bias, n, eps, centred, h, y, mean, rstd, var,
    lo, hi, streamed, bits, values, other_bits, other, buffer,
):  # fmt: skip
    """`add_norm_rows` of 16-bit rows, the norm of h as it is rounded; bits and values are the same memory, and so are the other two."""
    step = max(TOGETHER // n // 4 * 4, 1)
    block = -1
    i = lo
    while i < hi:
        stop = min(i + step, hi)
        m = (stop - i) * n
        following = row(x, min(stop, hi - 1), n)
        next_other = row(residual, min(stop, hi - 1), n)
        widen(row(x, i, n), m, bfloat, bits, values)
        widen(row(residual, i, n), m, bfloat, other_bits, other)
        if drawn:
            block = keep_run(key, position + i * n, m, threshold, following, next_other, block, words, space, kept)
            select_add(values, m, kept, (position + i * n) % 32, scale, other, values)
        else:
            add(values, m, other, values)
        store(bits, values, m, bfloat, other_bits, other, row(x, i, n), row(h, i, n), False, buffer)
        half_rows(h, bfloat, weight, bias, n, eps, centred, y, mean, rstd, var, i, stop, streamed, bits, values, other_bits, other, buffer)
        i = stop


def half_add_norm_gradient_rows(
    dy, h, bfloat, added, dh, mean, rstd, drawn, key, position, threshold, scale, words, space, kept, weight, n, centred, dresidual, dx,
    lo, hi, tile_dweight, tile_dbias, dweight, dbias, streamed, bits, values, other_bits, other, buffer,
):  # fmt: skip
    """`add_norm_gradient_rows` of such rows; dx is the dropout of dresidual before that is rounded."""
    block = -1
    for i in range(lo, hi):
        following = min(i + 1, hi - 1)
        widen(row(dy, i, n), n, bfloat, bits, values)
        widen(row(h, i, n), n, bfloat, other_bits, other)
        gradient_row(values, other, mean[i], rstd[i], weight, n, centred, values, tile_dweight, tile_dbias, False, values)
        if added:
            widen(row(dh, i, n), n, bfloat, other_bits, other)
            add(values, n, other, values)
        store(bits, values, n, bfloat, other_bits, other, row(dy, following, n), row(dresidual, i, n), streamed, buffer)
        if drawn:
            block = keep_run(key, position + i * n, n, threshold, row(dy, following, n), row(h, following, n), block, words, space, kept)
            select(values, n, kept, (position + i * n) % 32, scale, values)
            store(bits, values, n, bfloat, other_bits, other, row(h, following, n), row(dx, i, n), streamed, buffer)
        if (i + 1 - lo) % TILE == 0 or i + 1 == hi:
            drain(tile_dweight, n, dweight)
            drain(tile_dbias, n, dbias)


def add(x, n, other, y):
    """y = x + other."""
    for j in range(n):
        y[j] = x[j] + other[j]


def select_add(x, n, kept, at, scale, other, y):
    """y = x * scale + other where the bit of the element is set, as in `select`, else other."""
    done = min((32 - at % 32) % 32, n)
    if done:
        select_add_word(x, done, kept[at // 32] >> uint32(at % 32), scale, other, y)
    flags = chunk(kept, (at + done) // 32, (at + n + 31) // 32)
    words = (n - done) // 32
    for i in range(words):
        select_add_word(chunk(x, done + 32 * i, n), 32, flags[i], scale, chunk(other, done + 32 * i, n), chunk(y, done + 32 * i, n))
    done += 32 * words
    if done < n:
        select_add_word(chunk(x, done, n), n - done, flags[words], scale, chunk(other, done, n), chunk(y, done, n))


def select_add_word(x, n, flags, scale, other, y):
    """The same for the bits of one word."""
    for j in range(n):
        y[j] = (x[j] if flags & (uint32(1) << uint32(j)) else cast(0.0, scale)) * scale + other[j]

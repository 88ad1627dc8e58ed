"""Who runs a kernel under Numba: the loops of `normfast/engines/cython/drivers.pyx`, argument for argument."""

from numba import prange

from normfast.engines.numba.kernels import (
    activations,
    bias_activation,
    columns,
    deviations,
    dropout,
    factors,
    group_norm,
    half_rows,
    half_slabs,
    halves,
    layer_norm,
    lp_norm,
    moments,
    normalize,
    philox,
    residual,
    rows,
    slabs,
)


def finish_statistics(count, eps, mean, m2, scale, rstd, var):
    moments.finish_statistics(mean.size, count, eps, mean, m2, scale, rstd, var)


def merge_neighbours(count, column_mean, column_m2, column_scale, mean, m2, threads):
    s = column_mean.shape[1]
    for i in prange(mean.size):
        mean[i], m2[i] = moments.merge_equals(s, count, column_mean[i], column_m2[i], column_scale[i])


# Rows: x is (rows, n)


def row_moments(like, wide, x, head, mean, m2, scale, threads):
    length, n = x.shape
    for t in prange(threads):
        rows.row_statistics(x, n, True, head, length * t // threads, length * (t + 1) // threads, wide, mean, m2, scale)


def layer_norm_forward(like, x, weight, bias, eps, centred, y, mean, rstd, var, streamed, buffers, threads):
    rows, n = x.shape
    for t in prange(threads):
        layer_norm.layer_norm_rows(
            x, weight, bias, n, eps, centred, y, mean, rstd, var, rows * t // threads, rows * (t + 1) // threads, streamed, buffers[t]
        )


def layer_norm_backward(like, dy, x, mean, rstd, weight, centred, dx, tile_dweight, tile_dbias, dweight, dbias, streamed, buffers, threads):
    rows, n = x.shape
    tiles = dweight.shape[0]
    for t in prange(threads):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            dweight[i] = dbias[i] = 0.0
            layer_norm.layer_norm_gradient_rows(
                dy, x, mean, rstd, weight, n, centred, dx, rows * i // tiles, rows * (i + 1) // tiles, tile_dweight[t], tile_dbias[t],
                dweight[i], dbias[i], streamed, buffers[t],
            )  # fmt: skip


def add_tiles(partial, total):
    sets, tiles, n = partial.shape
    for i in range(sets):
        layer_norm.add_tiles(partial[i], tiles, n, total[i])


def group_norm_forward(like, x, weight, bias, s, eps, y, mean, rstd, var, streamed, buffers, threads):
    rows = x.shape[0]
    groups, k = weight.shape
    w, b = weight.reshape(-1), bias.reshape(-1)
    for t in prange(threads):
        lo, hi = rows * t // threads, rows * (t + 1) // threads
        group_norm.group_norm_rows(x, w, b, k, s, groups, eps, y, mean, rstd, var, lo, hi, streamed, buffers[t])


def group_norm_backward(like, dy, x, mean, rstd, weight, s, sum_dy, sum_dy_xhat, dx, streamed, buffers, threads):
    rows = x.shape[0]
    groups, k = weight.shape
    w = weight.reshape(-1)
    for t in prange(threads):
        lo, hi = rows * t // threads, rows * (t + 1) // threads
        group_norm.group_norm_gradient_rows(dy, x, mean, rstd, w, k, s, groups, sum_dy, sum_dy_xhat, dx, lo, hi, streamed, buffers[t])


# Slabs: x is (runs, s); statistic q has r of the runs and is taken in splits_r x splits_s pieces


def slab_moments(like, wide, x, r, c, splits_r, splits_s, piece_mean, piece_m2, mean, m2, scale, threads):
    s = x.shape[1]
    pieces = splits_r * splits_s
    for i in prange(mean.size * pieces):
        piece_mean[i], piece_m2[i] = slabs.piece_moments(x, i // pieces, i % pieces, r, c, s, splits_r, splits_s, 1.0, wide)
    for q in prange(mean.size):
        own = slice(q * pieces, (q + 1) * pieces)
        mean[q], m2[q], scale[q] = slabs.slab_moments(x, q, r, c, s, splits_r, splits_s, piece_mean[own], piece_m2[own], wide)


def slab_forward(
    like, x, r, c, splits_r, splits_s, piece_mean, piece_m2, weight, bias, eps, code, y, mean, m2, scale, rstd, var, streamed, buffers,
    threads,
):  # fmt: skip
    s = x.shape[1]
    pieces = splits_r * splits_s
    for t in prange(threads):
        for q in range(mean.size * t // threads, mean.size * (t + 1) // threads):
            own = slice(q * pieces, (q + 1) * pieces)
            for p in range(pieces):
                piece_mean[q * pieces + p], piece_m2[q * pieces + p] = slabs.piece_moments(x, q, p, r, c, s, splits_r, splits_s, 1.0, like)
            mean[q], m2[q], scale[q] = slabs.slab_moments(x, q, r, c, s, splits_r, splits_s, piece_mean[own], piece_m2[own], like)
            one = slice(q, q + 1)
            moments.finish_statistics(1, float(r * s), eps, mean[one], m2[one], scale[one], rstd[one], var[one])
            slabs.affine_channel(x, mean, rstd, weight, bias, q, r, c, s, code, y, streamed, buffers[t])


def slab_affine(like, x, r, c, splits, mean, rstd, weight, bias, work_factors, code, y, streamed, buffers, threads):
    parts, s = x.shape[0] * splits, x.shape[1]
    scale, high, a, a_low, b = work_factors[0], work_factors[1], work_factors[2], work_factors[3], work_factors[4]
    factors.column_factors(mean.size, mean, rstd, weight, bias, like, scale, high, a, a_low, b)
    for t in prange(threads):
        lo, hi = parts * t // threads, parts * (t + 1) // threads
        normalize.affine_runs(x, lo, hi, r, c, s, splits, scale, high, a, a_low, b, code, y, streamed, buffers[t])


def slab_gradient_sums(like, dy, x, r, c, splits_r, splits_s, mean, rstd, piece_dy, piece_dy_xhat, sum_dy, sum_dy_xhat, threads):
    s = x.shape[1]
    pieces = splits_r * splits_s
    for i in prange(mean.size * pieces):
        piece_dy[i], piece_dy_xhat[i] = slabs.piece_gradient_sums(dy, x, mean, rstd, i // pieces, i % pieces, r, c, s, splits_r, splits_s)
    for q in range(mean.size):
        slabs.add_pieces(piece_dy, piece_dy_xhat, q, pieces, sum_dy, sum_dy_xhat)


def slab_gradient(like, dy, x, r, c, splits, mean, rstd, weight, c1, c2, work_factors, dx, streamed, buffers, threads):
    parts, s = x.shape[0] * splits, x.shape[1]
    scale, high, a, p, q = work_factors[0], work_factors[1], work_factors[2], work_factors[3], work_factors[4]
    factors.column_gradient_factors(mean.size, mean, rstd, weight, c1, c2, like, scale, high, a, p, q)
    for t in prange(threads):
        lo, hi = parts * t // threads, parts * (t + 1) // threads
        normalize.gradient_runs(dy, x, lo, hi, r, c, s, splits, scale, high, a, p, q, dx, streamed, buffers[t])


def slab_backward(
    like, dy, x, r, c, splits_r, splits_s, mean, rstd, weight, bias, code, piece_dy, piece_dy_xhat, sum_dy, sum_dy_xhat, c1, c2, dx,
    streamed, buffers, threads,
):  # fmt: skip
    s = x.shape[1]
    pieces = splits_r * splits_s
    pulled = dy if code == activations.IDENTITY else dx
    for t in prange(threads):
        for q in range(mean.size * t // threads, mean.size * (t + 1) // threads):
            if code != activations.IDENTITY:
                slabs.pull_channel(dy, x, mean, rstd, weight, bias, q, r, c, s, code, pulled)
            for p in range(pieces):
                piece_dy[q * pieces + p], piece_dy_xhat[q * pieces + p] = slabs.piece_gradient_sums(
                    pulled, x, mean, rstd, q, p, r, c, s, splits_r, splits_s
                )
            slabs.add_pieces(piece_dy, piece_dy_xhat, q, pieces, sum_dy, sum_dy_xhat)
            c1[q] = weight[q] * sum_dy[q] / (r * s)
            c2[q] = weight[q] * sum_dy_xhat[q] / (r * s)
            slabs.gradient_channel(pulled, x, mean, rstd, weight, c1, c2, q, r, c, s, dx, streamed, buffers[t])


# Columns: x is (a * r, c) with statistics (a, c), each taken in `splits` pieces of rows; columns go `width` at a time


def column_moments(like, wide, x, r, splits, width, work, piece_mean, piece_m2, mean, m2, scale, threads):
    a, c = mean.shape
    blocks = (c + width - 1) // width
    for t in prange(threads):
        for i in range(a * splits * blocks * t // threads, a * splits * blocks * (t + 1) // threads):
            columns.column_piece(x, i, r, c, splits, width, work[t], piece_mean, piece_m2)
    for t in prange(threads):
        for i in range(a * blocks * t // threads, a * blocks * (t + 1) // threads):
            columns.column_statistics(x, i, r, c, splits, width, work[t], piece_mean, piece_m2, mean, m2, scale)


def column_affine(like, x, r, mean, rstd, weight, bias, beside, work_factors, code, y, streamed, buffers, threads):
    a, c = mean.shape
    rows = a * r
    scale, high, factor, factor_low, b = work_factors[0], work_factors[1], work_factors[2], work_factors[3], work_factors[4]
    scaled = False
    for i in range(a):
        scaled |= factors.column_factors(c, mean[i], rstd[i], weight[i], bias[i], like, scale[i], high[i], factor[i], factor_low[i], b[i])
        for k in range(5):
            columns.repeat(c, beside, work_factors[k, i])
    for t in prange(threads):
        lo, hi = rows * t // threads, rows * (t + 1) // threads
        columns.affine_rows(x, r, c, lo, hi, beside, scaled, scale, high, factor, factor_low, b, code, y, streamed, buffers[t])


def column_gradient_sums(
    like, dy, x, r, s, splits, width, mean, rstd, work, work_factors, piece_dy, piece_dy_d, sum_dy, sum_dy_xhat, threads
):
    a, c = mean.shape
    blocks = (c * s + width - 1) // width
    scale, high = work_factors[0], work_factors[1]
    scaled = False
    for i in range(a):
        scaled |= factors.column_centres(c, mean[i], rstd[i], like, scale[i], high[i])
        if s > 1:
            columns.spread(c, s, scale[i])
            columns.spread(c, s, high[i])
    for t in prange(threads):
        for i in range(a * splits * blocks * t // threads, a * splits * blocks * (t + 1) // threads):
            columns.column_gradient_piece(dy, x, i, r, c * s, splits, width, scaled, scale, high, work[t], piece_dy, piece_dy_d)
    for i in range(a):
        factors.column_gradient_sums(i, c, s, splits, mean, rstd, piece_dy, piece_dy_d, like, sum_dy, sum_dy_xhat)


def column_gradient(like, dy, x, r, mean, rstd, weight, c1, c2, beside, work_factors, dx, streamed, buffers, threads):
    a, c = mean.shape
    rows = a * r
    scale, high, f2, f3, f4 = work_factors[0], work_factors[1], work_factors[2], work_factors[3], work_factors[4]
    scaled = False
    for i in range(a):
        scaled |= factors.column_gradient_factors(
            c, mean[i], rstd[i], weight[i], c1[i], c2[i], like, scale[i], high[i], f2[i], f3[i], f4[i]
        )
        for k in range(5):
            columns.repeat(c, beside, work_factors[k, i])
    for t in prange(threads):
        lo, hi = rows * t // threads, rows * (t + 1) // threads
        columns.gradient_rows(dy, x, r, c, lo, hi, beside, scaled, scale, high, f2, f3, f4, dx, streamed, buffers[t])


# Absolute deviations and p-norms of rows: x is (rows, n), the results (rows,)


def absolute_deviations(like, x, mean, total, most, threads):
    for i in prange(x.shape[0]):
        total[i], most[i] = deviations.absolute_deviations(x[i], x.shape[1], mean[i])


def count_signs(like, x, mean, limit, count, total, threads):
    for i in prange(x.shape[0]):
        count[i], total[i] = deviations.count_signs(x[i], x.shape[1], mean[i], limit[i])


def add_signs(like, x, mean, limit, factor, dx, threads):
    for i in prange(x.shape[0]):
        deviations.add_signs(x[i], x.shape[1], mean[i], limit[i], factor[i], dx[i])


def lp_norm_forward(like, x, p, eps, y, norm, unit, work_factors, streamed, buffers, threads):
    rows, n = x.shape
    scale, high, a, a_low, b = work_factors[0], work_factors[1], work_factors[2], work_factors[3], work_factors[4]
    for t in prange(threads):
        lo, hi = rows * t // threads, rows * (t + 1) // threads
        lp_norm.lp_norm_rows(x, rows, n, p, eps, y, norm, unit, scale, high, a, a_low, b, lo, hi, streamed, buffers[t])


def lp_gradient(like, dy, x, p, norm, eps, inner, work, dx, streamed, buffers, threads):
    rows, n = x.shape
    for t in prange(threads):
        lo, hi = rows * t // threads, rows * (t + 1) // threads
        a, b, one, zero, slope = work[t, 0], work[t, 1], work[t, 2], work[t, 3], work[t, 4]
        lp_norm.lp_gradient_rows(dy, x, n, p, norm, eps, dx, lo, hi, inner[t], a, b, one, zero, slope, streamed, buffers[t])


# Runs: every argument is one run


def activate(like, z, code, a, threads):
    n = z.size
    for b in prange((n + 1023) // 1024):
        lo, hi = 1024 * b, min(n, 1024 * (b + 1))
        activations.activate(z[lo:hi], hi - lo, code, a[lo:hi])


def activate_gradient(like, da, z, code, dz, threads):
    n = z.size
    for b in prange((n + 1023) // 1024):
        lo, hi = 1024 * b, min(n, 1024 * (b + 1))
        activations.activate_gradient(da[lo:hi], z[lo:hi], hi - lo, code, dz[lo:hi])


def widen_bfloat16(source, bits, threads):
    n = source.size
    for t in prange(threads):
        lo, hi = n * t // threads, n * (t + 1) // threads
        halves.widen_bfloat16(source[lo:hi], hi - lo, bits[lo:hi])


def narrow_bfloat16(bits, target, threads):
    n = target.size
    for t in prange(threads):
        lo, hi = n * t // threads, n * (t + 1) // threads
        halves.narrow_bfloat16(bits[lo:hi], hi - lo, target[lo:hi])


def widen_float16(source, bits, values, threads):
    n = source.size
    for b in prange((n + 1023) // 1024):
        lo, hi = 1024 * b, min(n, 1024 * (b + 1))
        halves.widen_float16(source[lo:hi], hi - lo, bits[lo:hi], values[lo:hi])


def narrow_float16(bits, values, work_bits, work, target, threads):
    n = target.size
    blocks = (n + 1023) // 1024
    for t in prange(threads):
        for b in range(blocks * t // threads, blocks * (t + 1) // threads):
            lo, hi = 1024 * b, min(n, 1024 * (b + 1))
            halves.narrow_float16(bits[lo:hi], values[lo:hi], hi - lo, work_bits[t], work[t], target[lo:hi])


def half_layer_norm_forward(x, bfloat, weight, bias, eps, centred, y, mean, rstd, var, streamed, work_bits, work, buffers, threads):
    rows, n = x.shape
    for t in prange(threads):
        lo, hi = rows * t // threads, rows * (t + 1) // threads
        half_rows.half_rows(
            x, bfloat, weight, bias, n, eps, centred, y, mean, rstd, var, lo, hi, streamed, work_bits[t, 0], work[t, 0], work_bits[t, 1],
            work[t, 1], buffers[t],
        )  # fmt: skip


def half_layer_norm_backward(
    dy, x, bfloat, mean, rstd, weight, centred, dx, tile_dweight, tile_dbias, dweight, dbias, streamed, work_bits, work, buffers, threads
):
    rows, n = x.shape
    tiles = dweight.shape[0]
    for t in prange(threads):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            lo, hi = rows * i // tiles, rows * (i + 1) // tiles
            dweight[i] = dbias[i] = 0.0
            half_rows.half_gradient_rows(
                dy, x, bfloat, mean, rstd, weight, n, centred, dx, lo, hi, tile_dweight[t], tile_dbias[t], dweight[i], dbias[i], streamed,
                work_bits[t, 0], work[t, 0], work_bits[t, 1], work[t, 1], buffers[t],
            )  # fmt: skip


def half_slab_forward(
    x, bfloat, r, c, s, weight, bias, own, eps, measured, code, y, mean, rstd, var, streamed, work_bits, work, buffers, threads
):
    sets = weight.size // own
    for t in prange(threads):
        for q in range(mean.size * t // threads, mean.size * (t + 1) // threads):
            half_slabs.half_slab(
                x, bfloat, q, r, c, s, weight, bias, sets, own, eps, measured, code, y, mean, rstd, var, streamed, work_bits[t, 0],
                work[t, 0], work_bits[t, 1], work[t, 1], buffers[t],
            )  # fmt: skip


def half_slab_backward(
    dy, x, bfloat, r, c, s, mean, rstd, weight, own, sum_dy, sum_dy_xhat, dx, streamed, work_bits, work, buffers, threads
):
    sets = weight.size // own
    for t in prange(threads):
        for q in range(mean.size * t // threads, mean.size * (t + 1) // threads):
            half_slabs.half_slab_gradient(
                dy, x, bfloat, q, r, c, s, mean, rstd, weight, sets, own, sum_dy, sum_dy_xhat, dx, streamed, work_bits[t, 0], work[t, 0],
                work_bits[t, 1], work[t, 1], buffers[t],
            )  # fmt: skip


# Dropout: x and y are one run; key is 4 uint64, space (threads, 4096 + 512 + 64) bytes and work_words the same memory, of uint32


def drop(like, x, key, position, threshold, scale, work_words, space, y, streamed, buffers, threads):
    n = x.size
    for t in prange(threads):
        lo, hi = n * t // threads, n * (t + 1) // threads
        dropout.dropout_run(
            x[lo:hi], hi - lo, key, position + lo, threshold, scale, work_words[t], space[t], y[lo:hi], streamed, buffers[t]
        )  # fmt: skip


def half_drop(x, bfloat, key, position, threshold, scale, work_words, space, y, streamed, work_bits, work, buffers, threads):
    n = x.size
    for t in prange(threads):
        lo, hi = n * t // threads, n * (t + 1) // threads
        dropout.half_dropout_run(
            x[lo:hi], bfloat, hi - lo, key, position + lo, threshold, scale, work_words[t], space[t], y[lo:hi], streamed,
            work_bits[t, 0], work[t, 0], work_bits[t, 1], work[t, 1], buffers[t],
        )  # fmt: skip


def drop_given(like, x, kept, scale, y, streamed, buffers, threads):
    n = x.size
    for t in prange(threads):
        lo, hi = n * t // threads, n * (t + 1) // threads
        dropout.select_sweep(x[lo:hi], hi - lo, kept, lo, scale, y[lo:hi], streamed, buffers[t])


def keep(key, word, threshold, work_words, space, kept, threads):
    n = kept.size
    for t in prange(threads):
        lo, hi = n * t // threads, n * (t + 1) // threads
        words = kept[lo:hi]
        dropout.keep_run(key, 32 * (word + lo), 32 * (hi - lo), threshold, words, words, -1, work_words[t], space[t], words)


# Dropout, sum and norm of rows (rows, n): space as above, kept (threads, words of bits). Nobody looks at what is not `drawn` or not `added`


def add_norm_forward(
    like, x, other, drawn, key, position, threshold, scale, work_words, space, kept, weight, bias, eps, centred, h, y, mean, rstd, var,
    streamed, work, buffers, threads,
):  # fmt: skip
    rows, n = x.shape
    for t in prange(threads):
        residual.add_norm_rows(
            x, other, drawn, key, position, threshold, scale, work_words[t], space[t], kept[t], weight, bias, n, eps, centred, h, y, mean,
            rstd, var, rows * t // threads, rows * (t + 1) // threads, streamed, work[t], buffers[t],
        )  # fmt: skip


def add_norm_backward(
    like, dy, h, added, dh, mean, rstd, drawn, key, position, threshold, scale, work_words, space, kept, weight, centred, dresidual, dx,
    tile_dweight, tile_dbias, dweight, dbias, streamed, work, buffers, threads,
):  # fmt: skip
    rows, n = h.shape
    tiles = dweight.shape[0]
    for t in prange(threads):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            dweight[i] = dbias[i] = 0.0
            residual.add_norm_gradient_rows(
                dy, h, added, dh, mean, rstd, drawn, key, position, threshold, scale, work_words[t], space[t], kept[t], weight, n, centred,
                dresidual, dx, rows * i // tiles, rows * (i + 1) // tiles, tile_dweight[t], tile_dbias[t], dweight[i], dbias[i], streamed,
                work[t], buffers[t],
            )  # fmt: skip


def half_add_norm_forward(
    x, other, bfloat, drawn, key, position, threshold, scale, work_words, space, kept, weight, bias, eps, centred, h, y, mean, rstd, var,
    streamed, work_bits, work, buffers, threads,
):  # fmt: skip
    rows, n = x.shape
    for t in prange(threads):
        residual.half_add_norm_rows(
            x, other, bfloat, drawn, key, position, threshold, scale, work_words[t], space[t], kept[t], weight, bias, n, eps, centred, h, y,
            mean, rstd, var, rows * t // threads, rows * (t + 1) // threads, streamed, work_bits[t, 0], work[t, 0], work_bits[t, 1],
            work[t, 1], buffers[t],
        )  # fmt: skip


def half_add_norm_backward(
    dy, h, bfloat, added, dh, mean, rstd, drawn, key, position, threshold, scale, work_words, space, kept, weight, centred, dresidual, dx,
    tile_dweight, tile_dbias, dweight, dbias, streamed, work_bits, work, buffers, threads,
):  # fmt: skip
    rows, n = h.shape
    tiles = dweight.shape[0]
    for t in prange(threads):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            dweight[i] = dbias[i] = 0.0
            residual.half_add_norm_gradient_rows(
                dy, h, bfloat, added, dh, mean, rstd, drawn, key, position, threshold, scale, work_words[t], space[t], kept[t], weight, n,
                centred, dresidual, dx, rows * i // tiles, rows * (i + 1) // tiles, tile_dweight[t], tile_dbias[t], dweight[i], dbias[i],
                streamed, work_bits[t, 0], work[t, 0], work_bits[t, 1], work[t, 1], buffers[t],
            )  # fmt: skip


# Bias, activation and dropout of rows (rows, n): as above; buffers are (threads, 1024), or (threads, 2, 1024) backward


def bias_activation_forward(
    like, x, bias, code, drawn, key, position, threshold, scale, work_words, space, kept, y, streamed, buffers, threads
):
    rows, n = x.shape
    for t in prange(threads):
        bias_activation.bias_activation_rows(
            x, bias, n, code, drawn, key, position, threshold, scale, work_words[t], space[t], kept[t], y, rows * t // threads,
            rows * (t + 1) // threads, streamed, buffers[t],
        )  # fmt: skip


def bias_activation_backward(
    like, dy, x, bias, code, drawn, key, position, threshold, scale, work_words, space, kept, dx, tile_dbias, dbias, streamed, buffers,
    threads,
):  # fmt: skip
    rows, n = x.shape
    tiles = dbias.shape[0]
    for t in prange(threads):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            dbias[i] = 0.0
            bias_activation.bias_activation_gradient_rows(
                dy, x, bias, n, code, drawn, key, position, threshold, scale, work_words[t], space[t], kept[t], dx, rows * i // tiles,
                rows * (i + 1) // tiles, tile_dbias[t], dbias[i], streamed, buffers[t, 0], buffers[t, 1],
            )  # fmt: skip


def random_words(key, position, work, result, threads):
    n = result.size
    for t in prange(threads):
        lo, hi = n * t // threads, n * (t + 1) // threads
        philox.random_words(key, position + lo, hi - lo, work[t], result[lo:hi])

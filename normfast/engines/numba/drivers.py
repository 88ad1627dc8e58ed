"""Who runs a kernel under Numba: the loops of `normfast/engines/cython/drivers.pyx`, argument for argument."""

from numba import prange

from normfast.engines.numba.kernels import columns, factors, layer_norm, moments, philox, slabs


def finish_statistics(count, eps, mean, m2, scale, rstd, var):
    moments.finish_statistics(mean.size, count, eps, mean, m2, scale, rstd, var)


# Rows: x is (rows, n)


def layer_norm_forward(like, x, weight, bias, eps, y, mean, rstd, var, streamed, buffers, threads):
    rows, n = x.shape
    for t in prange(threads):
        layer_norm.layer_norm_rows(
            x, weight, bias, n, eps, y, mean, rstd, var, rows * t // threads, rows * (t + 1) // threads, streamed, buffers[t]
        )


def layer_norm_backward(like, dy, x, mean, rstd, weight, dx, tile_dweight, tile_dbias, dweight, dbias, threads):
    rows, n = x.shape
    tiles = dweight.shape[0]
    for t in prange(tiles):
        layer_norm.layer_norm_gradient_rows(
            dy,
            x,
            mean,
            rstd,
            weight,
            n,
            dx,
            rows * t // tiles,
            rows * (t + 1) // tiles,
            tile_dweight[t],
            tile_dbias[t],
            dweight[t],
            dbias[t],
        )


# Slabs: x is (runs, s); statistic q has r of the runs and is taken in splits_r x splits_s pieces


def slab_moments(like, wide, x, r, c, splits_r, splits_s, piece_mean, piece_m2, mean, m2, scale, threads):
    s = x.shape[1]
    pieces = splits_r * splits_s
    for i in prange(mean.size * pieces):
        piece_mean[i], piece_m2[i] = slabs.piece_moments(x, i // pieces, i % pieces, r, c, s, splits_r, splits_s, 1.0, wide)
    for q in prange(mean.size):
        own = slice(q * pieces, (q + 1) * pieces)
        mean[q], m2[q], scale[q] = slabs.slab_moments(x, q, r, c, s, splits_r, splits_s, piece_mean[own], piece_m2[own], wide)


def slab_forward(like, x, r, c, splits_r, splits_s, piece_mean, piece_m2, weight, bias, eps, y, mean, m2, scale, rstd, var, threads):
    s = x.shape[1]
    pieces = splits_r * splits_s
    for q in prange(mean.size):
        own = slice(q * pieces, (q + 1) * pieces)
        for p in range(pieces):
            piece_mean[q * pieces + p], piece_m2[q * pieces + p] = slabs.piece_moments(x, q, p, r, c, s, splits_r, splits_s, 1.0, like)
        mean[q], m2[q], scale[q] = slabs.slab_moments(x, q, r, c, s, splits_r, splits_s, piece_mean[own], piece_m2[own], like)
        one = slice(q, q + 1)
        moments.finish_statistics(1, float(r * s), eps, mean[one], m2[one], scale[one], rstd[one], var[one])
        for p in range(pieces):
            slabs.affine_piece(x, mean, rstd, weight, bias, q, p, r, c, s, splits_r, splits_s, y)


def slab_affine(like, x, r, c, splits_r, splits_s, mean, rstd, weight, bias, y, threads):
    s = x.shape[1]
    pieces = splits_r * splits_s
    for i in prange(mean.size * pieces):
        slabs.affine_piece(x, mean, rstd, weight, bias, i // pieces, i % pieces, r, c, s, splits_r, splits_s, y)


def slab_gradient_sums(like, dy, x, r, c, splits_r, splits_s, mean, rstd, piece_dy, piece_dy_xhat, sum_dy, sum_dy_xhat, threads):
    s = x.shape[1]
    pieces = splits_r * splits_s
    for i in prange(mean.size * pieces):
        piece_dy[i], piece_dy_xhat[i] = slabs.piece_gradient_sums(dy, x, mean, rstd, i // pieces, i % pieces, r, c, s, splits_r, splits_s)
    for q in range(mean.size):
        slabs.add_pieces(piece_dy, piece_dy_xhat, q, pieces, sum_dy, sum_dy_xhat)


def slab_gradient(like, dy, x, r, c, splits_r, splits_s, mean, rstd, weight, sum_dy, sum_dy_xhat, dx, threads):
    s = x.shape[1]
    pieces = splits_r * splits_s
    for i in prange(mean.size * pieces):
        slabs.gradient_piece(dy, x, mean, rstd, weight, sum_dy, sum_dy_xhat, i // pieces, i % pieces, r, c, s, splits_r, splits_s, dx)


def slab_backward(like, dy, x, r, c, splits_r, splits_s, mean, rstd, weight, piece_dy, piece_dy_xhat, sum_dy, sum_dy_xhat, dx, threads):
    s = x.shape[1]
    pieces = splits_r * splits_s
    for q in prange(mean.size):
        for p in range(pieces):
            piece_dy[q * pieces + p], piece_dy_xhat[q * pieces + p] = slabs.piece_gradient_sums(
                dy, x, mean, rstd, q, p, r, c, s, splits_r, splits_s
            )
        slabs.add_pieces(piece_dy, piece_dy_xhat, q, pieces, sum_dy, sum_dy_xhat)
        for p in range(pieces):
            slabs.gradient_piece(dy, x, mean, rstd, weight, sum_dy, sum_dy_xhat, q, p, r, c, s, splits_r, splits_s, dx)


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


def column_affine(like, x, r, mean, rstd, weight, bias, work_factors, y, threads):
    a, c = mean.shape
    rows = a * r
    scale, high, factor, factor_low, b = work_factors[0], work_factors[1], work_factors[2], work_factors[3], work_factors[4]
    scaled = False
    for i in range(a):
        scaled |= factors.column_factors(c, mean[i], rstd[i], weight[i], bias[i], like, scale[i], high[i], factor[i], factor_low[i], b[i])
    for t in prange(threads):
        columns.affine_rows(x, r, c, rows * t // threads, rows * (t + 1) // threads, scaled, scale, high, factor, factor_low, b, y)


def column_backward(
    like, dy, x, r, splits, width, mean, rstd, weight, work, work_factors, piece_dy, piece_dy_xhat, sum_dy, sum_dy_xhat, dx, threads
):
    a, c = mean.shape
    rows = a * r
    blocks = (c + width - 1) // width
    scale, high, f2, f3, f4 = work_factors[0], work_factors[1], work_factors[2], work_factors[3], work_factors[4]
    scaled = False
    for i in range(a):
        scaled |= factors.column_centres(c, mean[i], rstd[i], like, scale[i], high[i])
    for t in prange(threads):
        for i in range(a * splits * blocks * t // threads, a * splits * blocks * (t + 1) // threads):
            columns.column_gradient_piece(dy, x, i, r, c, splits, width, scaled, scale, high, work[t], piece_dy, piece_dy_xhat)
    for i in range(a):
        factors.column_gradient_factors(i, r, c, splits, mean, rstd, weight, piece_dy, piece_dy_xhat, sum_dy, sum_dy_xhat, like, f2, f3, f4)
    for t in prange(threads):
        columns.gradient_rows(dy, x, r, c, rows * t // threads, rows * (t + 1) // threads, scaled, scale, high, f2, f3, f4, dx)


# Dropout: x and y are one run; key is 4 uint64


def dropout(like, x, key, position, threshold, scale, work, y, threads):
    n = x.size
    for t in prange(threads):
        lo, hi = n * t // threads, n * (t + 1) // threads
        philox.dropout_run(x[lo:hi], hi - lo, key, position + lo, threshold, scale, work[t], y[lo:hi])


def random_words(key, position, work, words, threads):
    n = words.size
    for t in prange(threads):
        lo, hi = n * t // threads, n * (t + 1) // threads
        philox.random_words(key, position + lo, hi - lo, work[t], words[lo:hi])

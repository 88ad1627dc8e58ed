"""Who runs a kernel ahead of time: one parallel loop each, over parts that the shape alone decides (`normfast/engines/compiled.py`).

Arrays come checked and C-contiguous, so only their addresses are used; `like` and `wide` carry the types of the values and of the
sums, and a caller takes the variant it needs once: `layer_norm_forward["float"]`. The GIL is released in every loop.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uint32_t, uint64_t
from numpy cimport PyArray_DATA, PyArray_DIM, import_array, ndarray

from . cimport columns, factors, layer_norm, moments, philox, slabs
from .primitives cimport lane

import_array()


cdef inline floating* data(ndarray array, floating like) noexcept nogil:
    return <floating*>PyArray_DATA(array)


cdef inline double* doubles(ndarray array) noexcept nogil:
    return <double*>PyArray_DATA(array)


def finish_statistics(double count, double eps, ndarray mean, ndarray m2, ndarray scale, ndarray rstd, ndarray var):
    moments.finish_statistics(
        PyArray_DIM(mean, 0), count, eps, doubles(mean), doubles(m2), doubles(scale), doubles(rstd), doubles(var)
    )


# Rows: x is (rows, n)


def layer_norm_forward(
    floating like, ndarray x, ndarray weight, ndarray bias, double eps, ndarray y, ndarray mean, ndarray rstd, ndarray var,
    bint streamed, ndarray buffers, int threads
):
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), width = PyArray_DIM(buffers, 1), t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        layer_norm.layer_norm_rows(
            data(x, like), data(weight, like), data(bias, like), n, eps, data(y, like), doubles(mean), doubles(rstd), doubles(var),
            rows * t // threads, rows * (t + 1) // threads, streamed, data(buffers, like) + width * t,
        )


def layer_norm_backward(
    floating like, ndarray dy, ndarray x, ndarray mean, ndarray rstd, ndarray weight, ndarray dx, ndarray tile_dweight,
    ndarray tile_dbias, ndarray dweight, ndarray dbias, int threads
):
    """Tile t of the rows adds to row t of the working spaces tile_dweight, tile_dbias and of the float64 dweight, dbias."""
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), tiles = PyArray_DIM(dweight, 0), t
    for t in prange(tiles, nogil=True, num_threads=threads, schedule="static"):
        layer_norm.layer_norm_gradient_rows(
            data(dy, like), data(x, like), doubles(mean), doubles(rstd), data(weight, like), n, data(dx, like),
            rows * t // tiles, rows * (t + 1) // tiles, data(tile_dweight, like) + t * n, data(tile_dbias, like) + t * n,
            doubles(dweight) + t * n, doubles(dbias) + t * n,
        )


# Slabs: x is (runs, s); statistic q has r of the runs and is taken in splits_r x splits_s pieces


def slab_moments(
    floating like, lane wide, ndarray x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits_r, Py_ssize_t splits_s, ndarray piece_mean,
    ndarray piece_m2, ndarray mean, ndarray m2, ndarray scale, int threads
):
    cdef Py_ssize_t statistics = PyArray_DIM(mean, 0), s = PyArray_DIM(x, 1), pieces = splits_r * splits_s, i, q
    with nogil:
        for i in prange(statistics * pieces, num_threads=threads, schedule="static"):
            doubles(piece_mean)[i], doubles(piece_m2)[i] = slabs.piece_moments(
                data(x, like), i // pieces, i % pieces, r, c, s, splits_r, splits_s, 1.0, wide
            )
        for q in prange(statistics, num_threads=threads, schedule="static"):
            doubles(mean)[q], doubles(m2)[q], doubles(scale)[q] = slabs.slab_moments(
                data(x, like), q, r, c, s, splits_r, splits_s, doubles(piece_mean) + q * pieces, doubles(piece_m2) + q * pieces, wide
            )


def slab_forward(
    floating like, ndarray x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits_r, Py_ssize_t splits_s, ndarray piece_mean,
    ndarray piece_m2, ndarray weight, ndarray bias, double eps, ndarray y, ndarray mean, ndarray m2, ndarray scale, ndarray rstd,
    ndarray var, int threads
):
    """Moments and normalization, a channel at a time: its runs are still in the cache when y is made."""
    cdef Py_ssize_t channels = PyArray_DIM(mean, 0), s = PyArray_DIM(x, 1), pieces = splits_r * splits_s, p, q
    for q in prange(channels, nogil=True, num_threads=threads, schedule="static"):
        for p in range(pieces):
            doubles(piece_mean)[q * pieces + p], doubles(piece_m2)[q * pieces + p] = slabs.piece_moments(
                data(x, like), q, p, r, c, s, splits_r, splits_s, 1.0, like
            )
        doubles(mean)[q], doubles(m2)[q], doubles(scale)[q] = slabs.slab_moments(
            data(x, like), q, r, c, s, splits_r, splits_s, doubles(piece_mean) + q * pieces, doubles(piece_m2) + q * pieces, like
        )
        moments.finish_statistics(
            1, r * s, eps, doubles(mean) + q, doubles(m2) + q, doubles(scale) + q, doubles(rstd) + q, doubles(var) + q
        )
        for p in range(pieces):
            slabs.affine_piece(
                data(x, like), doubles(mean), doubles(rstd), doubles(weight), doubles(bias), q, p, r, c, s, splits_r, splits_s,
                data(y, like),
            )


def slab_affine(
    floating like, ndarray x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits_r, Py_ssize_t splits_s, ndarray mean, ndarray rstd,
    ndarray weight, ndarray bias, ndarray y, int threads
):
    cdef Py_ssize_t channels = PyArray_DIM(mean, 0), s = PyArray_DIM(x, 1), pieces = splits_r * splits_s, i
    for i in prange(channels * pieces, nogil=True, num_threads=threads, schedule="static"):
        slabs.affine_piece(
            data(x, like), doubles(mean), doubles(rstd), doubles(weight), doubles(bias), i // pieces, i % pieces, r, c, s,
            splits_r, splits_s, data(y, like),
        )


def slab_gradient_sums(
    floating like, ndarray dy, ndarray x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits_r, Py_ssize_t splits_s, ndarray mean,
    ndarray rstd, ndarray piece_dy, ndarray piece_dy_xhat, ndarray sum_dy, ndarray sum_dy_xhat, int threads
):
    cdef Py_ssize_t channels = PyArray_DIM(mean, 0), s = PyArray_DIM(x, 1), pieces = splits_r * splits_s, i, q
    with nogil:
        for i in prange(channels * pieces, num_threads=threads, schedule="static"):
            doubles(piece_dy)[i], doubles(piece_dy_xhat)[i] = slabs.piece_gradient_sums(
                data(dy, like), data(x, like), doubles(mean), doubles(rstd), i // pieces, i % pieces, r, c, s, splits_r, splits_s
            )
        for q in range(channels):
            slabs.add_pieces(doubles(piece_dy), doubles(piece_dy_xhat), q, pieces, doubles(sum_dy), doubles(sum_dy_xhat))


def slab_gradient(
    floating like, ndarray dy, ndarray x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits_r, Py_ssize_t splits_s, ndarray mean,
    ndarray rstd, ndarray weight, ndarray sum_dy, ndarray sum_dy_xhat, ndarray dx, int threads
):
    cdef Py_ssize_t channels = PyArray_DIM(mean, 0), s = PyArray_DIM(x, 1), pieces = splits_r * splits_s, i
    for i in prange(channels * pieces, nogil=True, num_threads=threads, schedule="static"):
        slabs.gradient_piece(
            data(dy, like), data(x, like), doubles(mean), doubles(rstd), doubles(weight), doubles(sum_dy), doubles(sum_dy_xhat),
            i // pieces, i % pieces, r, c, s, splits_r, splits_s, data(dx, like),
        )


def slab_backward(
    floating like, ndarray dy, ndarray x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits_r, Py_ssize_t splits_s, ndarray mean,
    ndarray rstd, ndarray weight, ndarray piece_dy, ndarray piece_dy_xhat, ndarray sum_dy, ndarray sum_dy_xhat, ndarray dx, int threads
):
    """Sums and dx, a channel at a time: its runs are still in the cache when dx is made."""
    cdef Py_ssize_t channels = PyArray_DIM(mean, 0), s = PyArray_DIM(x, 1), pieces = splits_r * splits_s, p, q
    for q in prange(channels, nogil=True, num_threads=threads, schedule="static"):
        for p in range(pieces):
            doubles(piece_dy)[q * pieces + p], doubles(piece_dy_xhat)[q * pieces + p] = slabs.piece_gradient_sums(
                data(dy, like), data(x, like), doubles(mean), doubles(rstd), q, p, r, c, s, splits_r, splits_s
            )
        slabs.add_pieces(doubles(piece_dy), doubles(piece_dy_xhat), q, pieces, doubles(sum_dy), doubles(sum_dy_xhat))
        for p in range(pieces):
            slabs.gradient_piece(
                data(dy, like), data(x, like), doubles(mean), doubles(rstd), doubles(weight), doubles(sum_dy), doubles(sum_dy_xhat),
                q, p, r, c, s, splits_r, splits_s, data(dx, like),
            )


# Columns: x is (a * r, c) with statistics (a, c), each taken in `splits` pieces of rows; columns go `width` at a time


def column_moments(
    floating like, lane wide, ndarray x, Py_ssize_t r, Py_ssize_t splits, Py_ssize_t width, ndarray work, ndarray piece_mean,
    ndarray piece_m2, ndarray mean, ndarray m2, ndarray scale, int threads
):
    """work is (threads, 6, width) of the type of the sums; piece_mean and piece_m2 are (a, splits, c)."""
    cdef Py_ssize_t a = PyArray_DIM(mean, 0), c = PyArray_DIM(mean, 1), blocks = (c + width - 1) // width, t, i
    with nogil:
        for t in prange(threads, num_threads=threads, schedule="static"):
            for i in range(a * splits * blocks * t // threads, a * splits * blocks * (t + 1) // threads):
                columns.column_piece(
                    data(x, like), i, r, c, splits, width, data(work, wide) + 6 * width * t, doubles(piece_mean), doubles(piece_m2)
                )
        for t in prange(threads, num_threads=threads, schedule="static"):
            for i in range(a * blocks * t // threads, a * blocks * (t + 1) // threads):
                columns.column_statistics(
                    data(x, like), i, r, c, splits, width, data(work, wide) + 6 * width * t, doubles(piece_mean), doubles(piece_m2),
                    doubles(mean), doubles(m2), doubles(scale),
                )


def column_affine(
    floating like, ndarray x, Py_ssize_t r, ndarray mean, ndarray rstd, ndarray weight, ndarray bias, ndarray work_factors, ndarray y,
    int threads
):
    """work_factors is working space, (5, a, c) of x's type."""
    cdef Py_ssize_t a = PyArray_DIM(mean, 0), c = PyArray_DIM(mean, 1), size = a * c, rows = a * r, i, t
    cdef floating* f = data(work_factors, like)
    cdef bint scaled = False
    with nogil:
        for i in range(a):
            scaled |= factors.column_factors(
                c, doubles(mean) + i * c, doubles(rstd) + i * c, doubles(weight) + i * c, doubles(bias) + i * c, like,
                f + i * c, f + size + i * c, f + 2 * size + i * c, f + 3 * size + i * c, f + 4 * size + i * c,
            )
        for t in prange(threads, num_threads=threads, schedule="static"):
            columns.affine_rows(
                data(x, like), r, c, rows * t // threads, rows * (t + 1) // threads, scaled,
                f, f + size, f + 2 * size, f + 3 * size, f + 4 * size, data(y, like),
            )


def column_backward(
    floating like, ndarray dy, ndarray x, Py_ssize_t r, Py_ssize_t splits, Py_ssize_t width, ndarray mean, ndarray rstd,
    ndarray weight, ndarray work, ndarray work_factors, ndarray piece_dy, ndarray piece_dy_xhat, ndarray sum_dy, ndarray sum_dy_xhat,
    ndarray dx, int threads
):
    """work is (threads, 3, width) and work_factors (5, a, c) of x's type; piece_dy and piece_dy_xhat are (a, splits, c)."""
    cdef Py_ssize_t a = PyArray_DIM(mean, 0), c = PyArray_DIM(mean, 1), blocks = (c + width - 1) // width, size = a * c, rows = a * r, i, t
    cdef floating* f = data(work_factors, like)
    cdef bint scaled = False
    with nogil:
        for i in range(a):
            scaled |= factors.column_centres(c, doubles(mean) + i * c, doubles(rstd) + i * c, like, f + i * c, f + size + i * c)
        for t in prange(threads, num_threads=threads, schedule="static"):
            for i in range(a * splits * blocks * t // threads, a * splits * blocks * (t + 1) // threads):
                columns.column_gradient_piece(
                    data(dy, like), data(x, like), i, r, c, splits, width, scaled, f, f + size,
                    data(work, like) + 3 * width * t, doubles(piece_dy), doubles(piece_dy_xhat),
                )
        for i in range(a):
            factors.column_gradient_factors(
                i, r, c, splits, doubles(mean), doubles(rstd), doubles(weight), doubles(piece_dy), doubles(piece_dy_xhat),
                doubles(sum_dy), doubles(sum_dy_xhat), like, f + 2 * size, f + 3 * size, f + 4 * size,
            )
        for t in prange(threads, num_threads=threads, schedule="static"):
            columns.gradient_rows(
                data(dy, like), data(x, like), r, c, rows * t // threads, rows * (t + 1) // threads, scaled,
                f, f + size, f + 2 * size, f + 3 * size, f + 4 * size, data(dx, like),
            )


# Dropout: x and y are one run; key is 4 uint64


def dropout(
    floating like, ndarray x, ndarray key, Py_ssize_t position, uint32_t threshold, floating scale, ndarray work, ndarray y, int threads
):
    """work is (threads, 1024) of uint32."""
    cdef Py_ssize_t n = PyArray_DIM(x, 0), t, lo
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lo = n * t // threads
        philox.dropout_run(
            data(x, like) + lo, n * (t + 1) // threads - lo, <uint64_t*>PyArray_DATA(key), position + lo, threshold, scale,
            <uint32_t*>PyArray_DATA(work) + 1024 * t, data(y, like) + lo,
        )


def random_words(ndarray key, Py_ssize_t position, ndarray work, ndarray words, int threads):
    """work is (threads, 1024) of uint32."""
    cdef Py_ssize_t n = PyArray_DIM(words, 0), t, lo
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lo = n * t // threads
        philox.random_words(
            <uint64_t*>PyArray_DATA(key), position + lo, n * (t + 1) // threads - lo,
            <uint32_t*>PyArray_DATA(work) + 1024 * t, <uint32_t*>PyArray_DATA(words) + lo,
        )

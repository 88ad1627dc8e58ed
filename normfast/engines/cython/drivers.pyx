"""Who runs a kernel ahead of time: one parallel loop each, over parts that the shape alone decides (`normfast/engines/compiled.py`).

Arrays come checked and C-contiguous, so only their addresses are used; `like` and `wide` carry the types of the values and of the
sums, and a caller takes the variant it needs once: `layer_norm_forward["float"]`. The GIL is released in every loop.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from numpy cimport PyArray_DATA, PyArray_DIM, import_array, ndarray

from . cimport activations, bias_activation, columns, deviations, dropout, factors, group_norm, half_rows, half_slabs, halves, layer_norm, lp_norm, moments, normalize, philox, residual, rows, slabs
from .primitives cimport lane

cdef extern from *:
    """
    #include <limits.h>
    #if defined(_OPENMP)
    #include <omp.h>
    #define NORMFAST_OPENMP 1
    #else
    #define NORMFAST_OPENMP 0
    #define omp_get_max_threads() INT_MAX
    #endif
    """
    int NORMFAST_OPENMP
    int omp_get_max_threads() nogil

import_array()

OPENMP = bool(NORMFAST_OPENMP)


cpdef int openmp_threads():
    """How many threads OpenMP would take here: what threadpoolctl and omp_set_num_threads set, for the thread that calls."""
    return omp_get_max_threads()


cdef inline floating* data(ndarray array, floating like) noexcept nogil:
    return <floating*>PyArray_DATA(array)


cdef inline double* doubles(ndarray array) noexcept nogil:
    return <double*>PyArray_DATA(array)


def finish_statistics(double count, double eps, ndarray mean, ndarray m2, ndarray scale, ndarray rstd, ndarray var):
    moments.finish_statistics(
        PyArray_DIM(mean, 0), count, eps, doubles(mean), doubles(m2), doubles(scale), doubles(rstd), doubles(var)
    )


def merge_neighbours(double count, ndarray column_mean, ndarray column_m2, ndarray column_scale, ndarray mean, ndarray m2, int threads):
    """The moments of neighbouring columns together: (statistics, s) -> (statistics,); the scaled ones are changed."""
    cdef Py_ssize_t s = PyArray_DIM(column_mean, 1), i
    for i in prange(PyArray_DIM(mean, 0), nogil=True, num_threads=threads, schedule="static"):
        doubles(mean)[i], doubles(m2)[i] = moments.merge_equals(
            s, count, doubles(column_mean) + i * s, doubles(column_m2) + i * s, doubles(column_scale) + i * s
        )


# Rows: x is (rows, n)


def row_moments(floating like, lane wide, ndarray x, Py_ssize_t head, ndarray mean, ndarray m2, ndarray scale, int threads):
    cdef Py_ssize_t length = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        rows.row_statistics(
            data(x, like), n, True, head, length * t // threads, length * (t + 1) // threads, wide, doubles(mean), doubles(m2), doubles(scale)
        )


def layer_norm_forward(
    floating like, ndarray x, ndarray weight, ndarray bias, double eps, bint centred, ndarray y, ndarray mean, ndarray rstd, ndarray var,
    bint streamed, ndarray buffers, int threads
):
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), width = PyArray_DIM(buffers, 1), t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        layer_norm.layer_norm_rows(
            data(x, like), data(weight, like), data(bias, like), n, eps, centred, data(y, like), doubles(mean), doubles(rstd),
            doubles(var), rows * t // threads, rows * (t + 1) // threads, streamed, data(buffers, like) + width * t,
        )


def layer_norm_backward(
    floating like, ndarray dy, ndarray x, ndarray mean, ndarray rstd, ndarray weight, bint centred, ndarray dx, ndarray tile_dweight,
    ndarray tile_dbias, ndarray dweight, ndarray dbias, bint streamed, ndarray buffers, int threads
):
    """Tile i of the rows has row i of the float64 dweight and dbias; thread t takes whole tiles through row t of the working spaces."""
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), width = PyArray_DIM(buffers, 1), t, i
    cdef Py_ssize_t tiles = PyArray_DIM(dweight, 0), tile = PyArray_DIM(tile_dweight, 1)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            clear(dweight, dbias, i)
            layer_norm.layer_norm_gradient_rows(
                data(dy, like), data(x, like), doubles(mean), doubles(rstd), data(weight, like), n, centred, data(dx, like),
                rows * i // tiles, rows * (i + 1) // tiles, data(tile_dweight, like) + tile * t, data(tile_dbias, like) + tile * t,
                doubles(dweight) + i * n, doubles(dbias) + i * n, streamed, data(buffers, like) + width * t,
            )


cdef inline void clear(ndarray dweight, ndarray dbias, Py_ssize_t i) noexcept nogil:
    """Row i of both: by the thread that will add to it."""
    cdef Py_ssize_t n = PyArray_DIM(dweight, 1)
    memset(doubles(dweight) + i * n, 0, 8 * n)
    memset(doubles(dbias) + i * n, 0, 8 * n)


def add_tiles(ndarray partial, ndarray total):
    """Row i of total (sets, n) is the sum of partial[i] (tiles, n)."""
    cdef Py_ssize_t tiles = PyArray_DIM(partial, 1), n = PyArray_DIM(partial, 2), i
    with nogil:
        for i in range(PyArray_DIM(partial, 0)):
            layer_norm.add_tiles(doubles(partial) + i * tiles * n, tiles, n, doubles(total) + i * n)


def group_norm_forward(
    floating like, ndarray x, ndarray weight, ndarray bias, Py_ssize_t s, double eps, ndarray y, ndarray mean, ndarray rstd, ndarray var,
    bint streamed, ndarray buffers, int threads
):
    """Row i holds the channels of group i % groups, each s values; weight and bias are (groups, channels of a group)."""
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), groups = PyArray_DIM(weight, 0), k = PyArray_DIM(weight, 1), width = PyArray_DIM(buffers, 1), t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        group_norm.group_norm_rows(
            data(x, like), doubles(weight), doubles(bias), k, s, groups, eps, data(y, like), doubles(mean), doubles(rstd), doubles(var),
            rows * t // threads, rows * (t + 1) // threads, streamed, data(buffers, like) + width * t,
        )


def group_norm_backward(
    floating like, ndarray dy, ndarray x, ndarray mean, ndarray rstd, ndarray weight, Py_ssize_t s, ndarray sum_dy, ndarray sum_dy_xhat,
    ndarray dx, bint streamed, ndarray buffers, int threads
):
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), groups = PyArray_DIM(weight, 0), k = PyArray_DIM(weight, 1), width = PyArray_DIM(buffers, 1), t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        group_norm.group_norm_gradient_rows(
            data(dy, like), data(x, like), doubles(mean), doubles(rstd), doubles(weight), k, s, groups, doubles(sum_dy),
            doubles(sum_dy_xhat), data(dx, like), rows * t // threads, rows * (t + 1) // threads, streamed,
            data(buffers, like) + width * t,
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
    ndarray piece_m2, ndarray weight, ndarray bias, double eps, int code, ndarray y, ndarray mean, ndarray m2, ndarray scale, ndarray rstd,
    ndarray var, bint streamed, ndarray buffers, int threads
):
    """Moments and normalization, a channel at a time: its runs are still in the cache when y is made."""
    cdef Py_ssize_t channels = PyArray_DIM(mean, 0), s = PyArray_DIM(x, 1), pieces = splits_r * splits_s
    cdef Py_ssize_t width = PyArray_DIM(buffers, 1), p, q, t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for q in range(channels * t // threads, channels * (t + 1) // threads):
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
            slabs.affine_channel(
                data(x, like), doubles(mean), doubles(rstd), doubles(weight), doubles(bias), q, r, c, s, code, data(y, like), streamed,
                data(buffers, like) + width * t,
            )


def slab_affine(
    floating like, ndarray x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits, ndarray mean, ndarray rstd, ndarray weight, ndarray bias,
    ndarray work_factors, int code, ndarray y, bint streamed, ndarray buffers, int threads
):
    """work_factors is working space, (5, channels) of x's type."""
    cdef Py_ssize_t parts = PyArray_DIM(x, 0) * splits, s = PyArray_DIM(x, 1), width = PyArray_DIM(buffers, 1), size = PyArray_DIM(mean, 0)
    cdef Py_ssize_t t, lo
    cdef int shares = threads if size >= 1024 else 1  # 2048 channels take 5 us; to start a thread takes 1
    cdef floating* f = data(work_factors, like)
    with nogil:
        for t in prange(shares, num_threads=shares, schedule="static"):
            lo = size * t // shares
            factors.column_factors(
                size * (t + 1) // shares - lo, doubles(mean) + lo, doubles(rstd) + lo, doubles(weight) + lo, doubles(bias) + lo, like,
                f + lo, f + size + lo, f + 2 * size + lo, f + 3 * size + lo, f + 4 * size + lo,
            )
        for t in prange(threads, num_threads=threads, schedule="static"):
            normalize.affine_runs(
                data(x, like), parts * t // threads, parts * (t + 1) // threads, r, c, s, splits,
                f, f + size, f + 2 * size, f + 3 * size, f + 4 * size, code, data(y, like), streamed, data(buffers, like) + width * t,
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
    floating like, ndarray dy, ndarray x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits, ndarray mean, ndarray rstd, ndarray weight,
    ndarray c1, ndarray c2, ndarray work_factors, ndarray dx, bint streamed, ndarray buffers, int threads
):
    """work_factors is working space, (5, channels) of x's type."""
    cdef Py_ssize_t parts = PyArray_DIM(x, 0) * splits, s = PyArray_DIM(x, 1), width = PyArray_DIM(buffers, 1), size = PyArray_DIM(mean, 0), t
    cdef floating* f = data(work_factors, like)
    with nogil:
        factors.column_gradient_factors(
            size, doubles(mean), doubles(rstd), doubles(weight), doubles(c1), doubles(c2), like,
            f, f + size, f + 2 * size, f + 3 * size, f + 4 * size,
        )
        for t in prange(threads, num_threads=threads, schedule="static"):
            normalize.gradient_runs(
                data(dy, like), data(x, like), parts * t // threads, parts * (t + 1) // threads, r, c, s, splits,
                f, f + size, f + 2 * size, f + 3 * size, f + 4 * size, data(dx, like), streamed, data(buffers, like) + width * t,
            )


def slab_backward(
    floating like, ndarray dy, ndarray x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits_r, Py_ssize_t splits_s, ndarray mean,
    ndarray rstd, ndarray weight, ndarray bias, int code, ndarray piece_dy, ndarray piece_dy_xhat, ndarray sum_dy, ndarray sum_dy_xhat,
    ndarray c1, ndarray c2, ndarray dx, bint streamed, ndarray buffers, int threads
):
    """Sums and dx, a channel at a time: its runs are still in the cache when dx is made. Where y had an activation, dx holds first what
    that makes of dy."""
    cdef Py_ssize_t channels = PyArray_DIM(mean, 0), s = PyArray_DIM(x, 1), pieces = splits_r * splits_s
    cdef Py_ssize_t width = PyArray_DIM(buffers, 1), p, q, t
    cdef floating* pulled = data(dy, like) if code == activations.IDENTITY else data(dx, like)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for q in range(channels * t // threads, channels * (t + 1) // threads):
            if code != activations.IDENTITY:
                slabs.pull_channel(
                    data(dy, like), data(x, like), doubles(mean), doubles(rstd), doubles(weight), doubles(bias), q, r, c, s, code, pulled
                )
            for p in range(pieces):
                doubles(piece_dy)[q * pieces + p], doubles(piece_dy_xhat)[q * pieces + p] = slabs.piece_gradient_sums(
                    pulled, data(x, like), doubles(mean), doubles(rstd), q, p, r, c, s, splits_r, splits_s
                )
            slabs.add_pieces(doubles(piece_dy), doubles(piece_dy_xhat), q, pieces, doubles(sum_dy), doubles(sum_dy_xhat))
            doubles(c1)[q] = doubles(weight)[q] * doubles(sum_dy)[q] / (r * s)
            doubles(c2)[q] = doubles(weight)[q] * doubles(sum_dy_xhat)[q] / (r * s)
            slabs.gradient_channel(
                pulled, data(x, like), doubles(mean), doubles(rstd), doubles(weight), doubles(c1), doubles(c2), q, r, c, s,
                data(dx, like), streamed, data(buffers, like) + width * t,
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
    floating like, ndarray x, Py_ssize_t r, ndarray mean, ndarray rstd, ndarray weight, ndarray bias, Py_ssize_t beside, ndarray work_factors,
    int code, ndarray y, bint streamed, ndarray buffers, int threads
):
    """work_factors is working space, (5, a, beside * c) of x's type."""
    cdef Py_ssize_t a = PyArray_DIM(mean, 0), c = PyArray_DIM(mean, 1), wide = beside * c, size = a * wide, rows = a * r, i, k, t
    cdef Py_ssize_t width = PyArray_DIM(buffers, 1)
    cdef floating* f = data(work_factors, like)
    cdef bint scaled = False
    with nogil:
        for i in range(a):
            scaled |= factors.column_factors(
                c, doubles(mean) + i * c, doubles(rstd) + i * c, doubles(weight) + i * c, doubles(bias) + i * c, like,
                f + i * wide, f + size + i * wide, f + 2 * size + i * wide, f + 3 * size + i * wide, f + 4 * size + i * wide,
            )
        for k in range(5 * a):
            columns.repeat(c, beside, f + k * wide)
        for t in prange(threads, num_threads=threads, schedule="static"):
            columns.affine_rows(
                data(x, like), r, c, rows * t // threads, rows * (t + 1) // threads, beside, scaled,
                f, f + size, f + 2 * size, f + 3 * size, f + 4 * size, code, data(y, like), streamed, data(buffers, like) + width * t,
            )


def column_gradient_sums(
    floating like, ndarray dy, ndarray x, Py_ssize_t r, Py_ssize_t s, Py_ssize_t splits, Py_ssize_t width, ndarray mean, ndarray rstd,
    ndarray work, ndarray work_factors, ndarray piece_dy, ndarray piece_dy_d, ndarray sum_dy, ndarray sum_dy_xhat, int threads
):
    """A statistic has s columns side by side. work is (threads, 3, width) and work_factors (2, a, columns) of x's type; piece_dy and
    piece_dy_d are (a, splits, columns)."""
    cdef Py_ssize_t a = PyArray_DIM(mean, 0), c = PyArray_DIM(mean, 1), n = c * s, blocks = (n + width - 1) // width, size = a * n, i, t
    cdef floating* f = data(work_factors, like)
    cdef bint scaled = False
    with nogil:
        for i in range(a):
            scaled |= factors.column_centres(c, doubles(mean) + i * c, doubles(rstd) + i * c, like, f + i * n, f + size + i * n)
        if s > 1:
            for i in range(2 * a):
                columns.spread(c, s, f + i * n)
        for t in prange(threads, num_threads=threads, schedule="static"):
            for i in range(a * splits * blocks * t // threads, a * splits * blocks * (t + 1) // threads):
                columns.column_gradient_piece(
                    data(dy, like), data(x, like), i, r, n, splits, width, scaled, f, f + size,
                    data(work, like) + 3 * width * t, doubles(piece_dy), doubles(piece_dy_d),
                )
        for i in range(a):
            factors.column_gradient_sums(
                i, c, s, splits, doubles(mean), doubles(rstd), doubles(piece_dy), doubles(piece_dy_d), like, doubles(sum_dy),
                doubles(sum_dy_xhat),
            )


def column_gradient(
    floating like, ndarray dy, ndarray x, Py_ssize_t r, ndarray mean, ndarray rstd, ndarray weight, ndarray c1, ndarray c2,
    Py_ssize_t beside, ndarray work_factors, ndarray dx, bint streamed, ndarray buffers, int threads
):
    """work_factors is working space, (5, a, beside * c) of x's type."""
    cdef Py_ssize_t a = PyArray_DIM(mean, 0), c = PyArray_DIM(mean, 1), wide = beside * c, size = a * wide, rows = a * r, i, k, t
    cdef Py_ssize_t width = PyArray_DIM(buffers, 1)
    cdef floating* f = data(work_factors, like)
    cdef bint scaled = False
    with nogil:
        for i in range(a):
            scaled |= factors.column_gradient_factors(
                c, doubles(mean) + i * c, doubles(rstd) + i * c, doubles(weight) + i * c, doubles(c1) + i * c, doubles(c2) + i * c, like,
                f + i * wide, f + size + i * wide, f + 2 * size + i * wide, f + 3 * size + i * wide, f + 4 * size + i * wide,
            )
        for k in range(5 * a):
            columns.repeat(c, beside, f + k * wide)
        for t in prange(threads, num_threads=threads, schedule="static"):
            columns.gradient_rows(
                data(dy, like), data(x, like), r, c, rows * t // threads, rows * (t + 1) // threads, beside, scaled,
                f, f + size, f + 2 * size, f + 3 * size, f + 4 * size, data(dx, like), streamed, data(buffers, like) + width * t,
            )


# Absolute deviations and p-norms of rows: x is (rows, n), the results (rows,)


def absolute_deviations(floating like, ndarray x, ndarray mean, ndarray total, ndarray most, int threads):
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), i
    for i in prange(rows, nogil=True, num_threads=threads, schedule="static"):
        doubles(total)[i], doubles(most)[i] = deviations.absolute_deviations(data(x, like) + i * n, n, doubles(mean)[i])


def count_signs(floating like, ndarray x, ndarray mean, ndarray limit, ndarray count, ndarray total, int threads):
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), i
    for i in prange(rows, nogil=True, num_threads=threads, schedule="static"):
        doubles(count)[i], doubles(total)[i] = deviations.count_signs(data(x, like) + i * n, n, doubles(mean)[i], doubles(limit)[i])


def add_signs(floating like, ndarray x, ndarray mean, ndarray limit, ndarray factor, ndarray dx, int threads):
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), i
    for i in prange(rows, nogil=True, num_threads=threads, schedule="static"):
        deviations.add_signs(
            data(x, like) + i * n, n, doubles(mean)[i], doubles(limit)[i], doubles(factor)[i], data(dx, like) + i * n
        )


def lp_norm_forward(
    floating like, ndarray x, double p, double eps, ndarray y, ndarray norm, ndarray unit, ndarray work_factors, bint streamed,
    ndarray buffers, int threads
):
    """unit and work_factors are working space, (rows,) and (5, rows) of x's type."""
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), width = PyArray_DIM(buffers, 1), t
    cdef floating* f = data(work_factors, like)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lp_norm.lp_norm_rows(
            data(x, like), rows, n, p, eps, data(y, like), doubles(norm), doubles(unit), f, f + rows, f + 2 * rows, f + 3 * rows, f + 4 * rows,
            rows * t // threads, rows * (t + 1) // threads, streamed, data(buffers, like) + width * t,
        )


def lp_gradient(
    floating like, ndarray dy, ndarray x, double p, ndarray norm, double eps, ndarray inner, ndarray work, ndarray dx, bint streamed,
    ndarray buffers, int threads
):
    """inner (threads, width) and work (threads, 5, width) of x's type are working space."""
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), length = PyArray_DIM(inner, 1), width = PyArray_DIM(buffers, 1), t
    cdef floating* w
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        w = data(work, like) + 5 * length * t
        lp_norm.lp_gradient_rows(
            data(dy, like), data(x, like), n, p, doubles(norm), eps, data(dx, like), rows * t // threads, rows * (t + 1) // threads,
            doubles(inner) + length * t, w, w + length, w + 2 * length, w + 3 * length, w + 4 * length, streamed,
            data(buffers, like) + width * t,
        )


# Runs: every argument is one run


def activate(floating like, ndarray z, int code, ndarray a, int threads):
    cdef Py_ssize_t n = PyArray_DIM(z, 0), blocks = (n + 1023) // 1024, b
    for b in prange(blocks, nogil=True, num_threads=threads, schedule="static"):
        activations.activate(data(z, like) + 1024 * b, min(n - 1024 * b, 1024), code, data(a, like) + 1024 * b)


def activate_gradient(floating like, ndarray da, ndarray z, int code, ndarray dz, int threads):
    cdef Py_ssize_t n = PyArray_DIM(z, 0), blocks = (n + 1023) // 1024, b
    for b in prange(blocks, nogil=True, num_threads=threads, schedule="static"):
        activations.activate_gradient(
            data(da, like) + 1024 * b, data(z, like) + 1024 * b, min(n - 1024 * b, 1024), code, data(dz, like) + 1024 * b
        )


cdef inline uint16_t* halfwords(ndarray array) noexcept nogil:
    return <uint16_t*>PyArray_DATA(array)


cdef inline uint32_t* words(ndarray array) noexcept nogil:
    return <uint32_t*>PyArray_DATA(array)


def widen_bfloat16(ndarray source, ndarray bits, int threads):
    cdef Py_ssize_t n = PyArray_DIM(source, 0), t, lo
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lo = n * t // threads
        halves.widen_bfloat16(halfwords(source) + lo, n * (t + 1) // threads - lo, words(bits) + lo)


def narrow_bfloat16(ndarray bits, ndarray target, int threads):
    cdef Py_ssize_t n = PyArray_DIM(target, 0), t, lo
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lo = n * t // threads
        halves.narrow_bfloat16(words(bits) + lo, n * (t + 1) // threads - lo, halfwords(target) + lo)


def widen_float16(ndarray source, ndarray bits, ndarray values, int threads):
    cdef Py_ssize_t n = PyArray_DIM(source, 0), blocks = (n + 1023) // 1024, b, lo
    for b in prange(blocks, nogil=True, num_threads=threads, schedule="static"):
        lo = 1024 * b
        halves.widen_float16(halfwords(source) + lo, min(n - lo, 1024), words(bits) + lo, <float*>PyArray_DATA(values) + lo)


def narrow_float16(ndarray bits, ndarray values, ndarray work_bits, ndarray work, ndarray target, int threads):
    """work is (threads, 1024) of float32 and work_bits the same memory as uint32."""
    cdef Py_ssize_t n = PyArray_DIM(target, 0), blocks = (n + 1023) // 1024, b, lo, t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for b in range(blocks * t // threads, blocks * (t + 1) // threads):
            lo = 1024 * b
            halves.narrow_float16(
                words(bits) + lo, <float*>PyArray_DATA(values) + lo, min(n - lo, 1024), words(work_bits) + 1024 * t,
                <float*>PyArray_DATA(work) + 1024 * t, halfwords(target) + lo,
            )


def half_layer_norm_forward(
    ndarray x, bint bfloat, ndarray weight, ndarray bias, double eps, bint centred, ndarray y, ndarray mean, ndarray rstd, ndarray var,
    bint streamed, ndarray work_bits, ndarray work, ndarray buffers, int threads
):
    """x and y are words (rows, n); work is (threads, 2, a block of rows) of float32, work_bits the same memory, buffers (threads, words)."""
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), size = PyArray_DIM(work, 2), width = PyArray_DIM(buffers, 1), t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        half_rows.half_rows(
            halfwords(x), bfloat, <float*>PyArray_DATA(weight), <float*>PyArray_DATA(bias), n, eps, centred, halfwords(y), doubles(mean),
            doubles(rstd), doubles(var), rows * t // threads, rows * (t + 1) // threads, streamed,
            words(work_bits) + 2 * t * size, <float*>PyArray_DATA(work) + 2 * t * size,
            words(work_bits) + (2 * t + 1) * size, <float*>PyArray_DATA(work) + (2 * t + 1) * size, halfwords(buffers) + width * t,
        )


def half_layer_norm_backward(
    ndarray dy, ndarray x, bint bfloat, ndarray mean, ndarray rstd, ndarray weight, bint centred, ndarray dx, ndarray tile_dweight,
    ndarray tile_dbias, ndarray dweight, ndarray dbias, bint streamed, ndarray work_bits, ndarray work, ndarray buffers, int threads
):
    """As `layer_norm_backward`; dy, x and dx are words (rows, n), work and buffers as above."""
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), size = PyArray_DIM(work, 2), width = PyArray_DIM(buffers, 1), t, i
    cdef Py_ssize_t tiles = PyArray_DIM(dweight, 0), tile = PyArray_DIM(tile_dweight, 1)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            clear(dweight, dbias, i)
            half_rows.half_gradient_rows(
                halfwords(dy), halfwords(x), bfloat, doubles(mean), doubles(rstd), <float*>PyArray_DATA(weight), n, centred, halfwords(dx),
                rows * i // tiles, rows * (i + 1) // tiles, <float*>PyArray_DATA(tile_dweight) + tile * t,
                <float*>PyArray_DATA(tile_dbias) + tile * t, doubles(dweight) + i * n, doubles(dbias) + i * n, streamed,
                words(work_bits) + 2 * t * size, <float*>PyArray_DATA(work) + 2 * t * size, words(work_bits) + (2 * t + 1) * size,
                <float*>PyArray_DATA(work) + (2 * t + 1) * size, halfwords(buffers) + width * t,
            )


def half_slab_forward(
    ndarray x, bint bfloat, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, ndarray weight, ndarray bias, Py_ssize_t own, double eps, bint measured,
    int code, ndarray y, ndarray mean, ndarray rstd, ndarray var, bint streamed, ndarray work_bits, ndarray work, ndarray buffers,
    int threads
):
    """x and y are words; a statistic has r runs of s of them and `own` weights and biases, which repeat after those that there are."""
    cdef Py_ssize_t statistics = PyArray_DIM(mean, 0), sets = PyArray_DIM(weight, 0) // own, size = PyArray_DIM(work, 2), q, t
    cdef Py_ssize_t width = PyArray_DIM(buffers, 1)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for q in range(statistics * t // threads, statistics * (t + 1) // threads):
            half_slabs.half_slab(
                halfwords(x), bfloat, q, r, c, s, doubles(weight), doubles(bias), sets, own, eps, measured, code, halfwords(y),
                doubles(mean), doubles(rstd), doubles(var), streamed, words(work_bits) + 2 * t * size,
                <float*>PyArray_DATA(work) + 2 * t * size, words(work_bits) + (2 * t + 1) * size,
                <float*>PyArray_DATA(work) + (2 * t + 1) * size, halfwords(buffers) + width * t,
            )


def half_slab_backward(
    ndarray dy, ndarray x, bint bfloat, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, ndarray mean, ndarray rstd, ndarray weight, Py_ssize_t own,
    ndarray sum_dy, ndarray sum_dy_xhat, ndarray dx, bint streamed, ndarray work_bits, ndarray work, ndarray buffers, int threads
):
    """The sums of each parameter of each statistic are added to sum_dy and sum_dy_xhat."""
    cdef Py_ssize_t statistics = PyArray_DIM(mean, 0), sets = PyArray_DIM(weight, 0) // own, size = PyArray_DIM(work, 2), q, t
    cdef Py_ssize_t width = PyArray_DIM(buffers, 1)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for q in range(statistics * t // threads, statistics * (t + 1) // threads):
            half_slabs.half_slab_gradient(
                halfwords(dy), halfwords(x), bfloat, q, r, c, s, doubles(mean), doubles(rstd), doubles(weight), sets, own, doubles(sum_dy),
                doubles(sum_dy_xhat), halfwords(dx), streamed, words(work_bits) + 2 * t * size, <float*>PyArray_DATA(work) + 2 * t * size,
                words(work_bits) + (2 * t + 1) * size, <float*>PyArray_DATA(work) + (2 * t + 1) * size, halfwords(buffers) + width * t,
            )


# Dropout: x and y are one run; key is 4 uint64, space (threads, 4096 + 512 + 64) bytes and work_words the same memory, of uint32


cdef inline uint64_t* key_of(ndarray key) noexcept nogil:
    return <uint64_t*>PyArray_DATA(key)


cdef inline uint8_t* bytes_of(ndarray array) noexcept nogil:
    return <uint8_t*>PyArray_DATA(array)


def drop(
    floating like, ndarray x, ndarray key, Py_ssize_t position, uint32_t threshold, floating scale, ndarray work_words, ndarray space,
    ndarray y, bint streamed, ndarray buffers, int threads
):
    cdef Py_ssize_t n = PyArray_DIM(x, 0), size = PyArray_DIM(space, 1), width = PyArray_DIM(buffers, 1), t, lo
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lo = n * t // threads
        dropout.dropout_run(
            data(x, like) + lo, n * (t + 1) // threads - lo, key_of(key), position + lo, threshold, scale,
            words(work_words) + size // 4 * t, bytes_of(space) + size * t, data(y, like) + lo, streamed, data(buffers, like) + width * t,
        )


def half_drop(
    ndarray x, bint bfloat, ndarray key, Py_ssize_t position, uint32_t threshold, float scale, ndarray work_words, ndarray space,
    ndarray y, bint streamed, ndarray work_bits, ndarray work, ndarray buffers, int threads
):
    """work is (threads, 2, 4096) of float32, work_bits the same memory."""
    cdef Py_ssize_t n = PyArray_DIM(x, 0), size = PyArray_DIM(space, 1), block = PyArray_DIM(work, 2), width = PyArray_DIM(buffers, 1), t, lo
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lo = n * t // threads
        dropout.half_dropout_run(
            halfwords(x) + lo, bfloat, n * (t + 1) // threads - lo, key_of(key), position + lo, threshold, scale,
            words(work_words) + size // 4 * t, bytes_of(space) + size * t, halfwords(y) + lo, streamed,
            words(work_bits) + 2 * t * block, <float*>PyArray_DATA(work) + 2 * t * block,
            words(work_bits) + (2 * t + 1) * block, <float*>PyArray_DATA(work) + (2 * t + 1) * block, halfwords(buffers) + width * t,
        )


def drop_given(floating like, ndarray x, ndarray kept, floating scale, ndarray y, bint streamed, ndarray buffers, int threads):
    """kept are bits in uint32."""
    cdef Py_ssize_t n = PyArray_DIM(x, 0), width = PyArray_DIM(buffers, 1), t, lo
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lo = n * t // threads
        dropout.select_sweep(
            data(x, like) + lo, n * (t + 1) // threads - lo, words(kept), lo, scale, data(y, like) + lo, streamed,
            data(buffers, like) + width * t,
        )


def keep(ndarray key, Py_ssize_t word, uint32_t threshold, ndarray work_words, ndarray space, ndarray kept, int threads):
    """kept are bits in uint32, `word` is the place of the first word in the stream."""
    cdef Py_ssize_t n = PyArray_DIM(kept, 0), size = PyArray_DIM(space, 1), t, lo
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lo = n * t // threads
        dropout.keep_run(
            key_of(key), 32 * (word + lo), 32 * (n * (t + 1) // threads - lo), threshold, words(kept) + lo, words(kept) + lo, -1,
            words(work_words) + size // 4 * t, bytes_of(space) + size * t, words(kept) + lo,
        )


# Dropout, sum and norm of rows (rows, n): space as above, kept (threads, words of bits). Nobody looks at what is not `drawn` or not `added`


def add_norm_forward(
    floating like, ndarray x, ndarray other, bint drawn, ndarray key, Py_ssize_t position, uint32_t threshold, floating scale,
    ndarray work_words, ndarray space, ndarray kept, ndarray weight, ndarray bias, double eps, bint centred, ndarray h, ndarray y, ndarray mean,
    ndarray rstd, ndarray var, bint streamed, ndarray work, ndarray buffers, int threads
):
    """work is (threads, rows that are taken at once) of x's type, or empty."""
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), size = PyArray_DIM(space, 1), width = PyArray_DIM(buffers, 1), t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        residual.add_norm_rows(
            data(x, like), data(other, like), drawn, key_of(key), position, threshold, scale, words(work_words) + size // 4 * t,
            bytes_of(space) + size * t, words(kept) + PyArray_DIM(kept, 1) * t, data(weight, like), data(bias, like), n, eps, centred,
            data(h, like), data(y, like), doubles(mean), doubles(rstd), doubles(var), rows * t // threads, rows * (t + 1) // threads,
            streamed, data(work, like) + PyArray_DIM(work, 1) * t, data(buffers, like) + width * t,
        )


def add_norm_backward(
    floating like, ndarray dy, ndarray h, bint added, ndarray dh, ndarray mean, ndarray rstd, bint drawn, ndarray key, Py_ssize_t position,
    uint32_t threshold, floating scale, ndarray work_words, ndarray space, ndarray kept, ndarray weight, bint centred, ndarray dresidual,
    ndarray dx, ndarray tile_dweight, ndarray tile_dbias, ndarray dweight, ndarray dbias, bint streamed, ndarray work, ndarray buffers,
    int threads
):
    """Tile i of the rows adds to row i of the float64 dweight and dbias; thread t takes whole tiles through row t of the working spaces."""
    cdef Py_ssize_t rows = PyArray_DIM(h, 0), n = PyArray_DIM(h, 1), size = PyArray_DIM(space, 1), width = PyArray_DIM(buffers, 1), t, i
    cdef Py_ssize_t tiles = PyArray_DIM(dweight, 0), tile = PyArray_DIM(tile_dweight, 1)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            clear(dweight, dbias, i)
            residual.add_norm_gradient_rows(
                data(dy, like), data(h, like), added, data(dh, like), doubles(mean), doubles(rstd), drawn, key_of(key), position, threshold,
                scale, words(work_words) + size // 4 * t, bytes_of(space) + size * t, words(kept) + PyArray_DIM(kept, 1) * t,
                data(weight, like), n, centred, data(dresidual, like), data(dx, like), rows * i // tiles, rows * (i + 1) // tiles,
                data(tile_dweight, like) + tile * t, data(tile_dbias, like) + tile * t, doubles(dweight) + i * n, doubles(dbias) + i * n,
                streamed, data(work, like) + PyArray_DIM(work, 1) * t, data(buffers, like) + width * t,
            )


def half_add_norm_forward(
    ndarray x, ndarray other, bint bfloat, bint drawn, ndarray key, Py_ssize_t position, uint32_t threshold, float scale, ndarray work_words,
    ndarray space, ndarray kept, ndarray weight, ndarray bias, double eps, bint centred, ndarray h, ndarray y, ndarray mean, ndarray rstd,
    ndarray var, bint streamed, ndarray work_bits, ndarray work, ndarray buffers, int threads
):
    """As above for words; work is (threads, 2, rows that are taken at once) of float32, work_bits the same memory."""
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), size = PyArray_DIM(space, 1), width = PyArray_DIM(buffers, 1), t
    cdef Py_ssize_t block = PyArray_DIM(work, 2)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        residual.half_add_norm_rows(
            halfwords(x), halfwords(other), bfloat, drawn, key_of(key), position, threshold, scale, words(work_words) + size // 4 * t,
            bytes_of(space) + size * t, words(kept) + PyArray_DIM(kept, 1) * t, <float*>PyArray_DATA(weight),
            <float*>PyArray_DATA(bias), n, eps, centred, halfwords(h), halfwords(y), doubles(mean), doubles(rstd), doubles(var),
            rows * t // threads, rows * (t + 1) // threads, streamed, words(work_bits) + 2 * t * block,
            <float*>PyArray_DATA(work) + 2 * t * block, words(work_bits) + (2 * t + 1) * block,
            <float*>PyArray_DATA(work) + (2 * t + 1) * block, halfwords(buffers) + width * t,
        )


def half_add_norm_backward(
    ndarray dy, ndarray h, bint bfloat, bint added, ndarray dh, ndarray mean, ndarray rstd, bint drawn, ndarray key, Py_ssize_t position,
    uint32_t threshold, float scale, ndarray work_words, ndarray space, ndarray kept, ndarray weight, bint centred, ndarray dresidual, ndarray dx,
    ndarray tile_dweight, ndarray tile_dbias, ndarray dweight, ndarray dbias, bint streamed, ndarray work_bits, ndarray work, ndarray buffers,
    int threads
):
    cdef Py_ssize_t rows = PyArray_DIM(h, 0), n = PyArray_DIM(h, 1), size = PyArray_DIM(space, 1), width = PyArray_DIM(buffers, 1), t, i
    cdef Py_ssize_t tiles = PyArray_DIM(dweight, 0), tile = PyArray_DIM(tile_dweight, 1), block = PyArray_DIM(work, 2)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            clear(dweight, dbias, i)
            residual.half_add_norm_gradient_rows(
                halfwords(dy), halfwords(h), bfloat, added, halfwords(dh), doubles(mean), doubles(rstd), drawn, key_of(key), position,
                threshold, scale, words(work_words) + size // 4 * t, bytes_of(space) + size * t,
                words(kept) + PyArray_DIM(kept, 1) * t, <float*>PyArray_DATA(weight), n, centred, halfwords(dresidual), halfwords(dx),
                rows * i // tiles, rows * (i + 1) // tiles, <float*>PyArray_DATA(tile_dweight) + tile * t,
                <float*>PyArray_DATA(tile_dbias) + tile * t, doubles(dweight) + i * n, doubles(dbias) + i * n, streamed,
                words(work_bits) + 2 * t * block, <float*>PyArray_DATA(work) + 2 * t * block, words(work_bits) + (2 * t + 1) * block,
                <float*>PyArray_DATA(work) + (2 * t + 1) * block, halfwords(buffers) + width * t,
            )


# Bias, activation and dropout of rows (rows, n): as above; buffers are (threads, 1024), or (threads, 2, 1024) backward


def bias_activation_forward(
    floating like, ndarray x, ndarray bias, int code, bint drawn, ndarray key, Py_ssize_t position, uint32_t threshold, floating scale,
    ndarray work_words, ndarray space, ndarray kept, ndarray y, bint streamed, ndarray buffers, int threads
):
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), size = PyArray_DIM(space, 1), width = PyArray_DIM(buffers, 1), t
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        bias_activation.bias_activation_rows(
            data(x, like), data(bias, like), n, code, drawn, key_of(key), position, threshold, scale, words(work_words) + size // 4 * t,
            bytes_of(space) + size * t, words(kept) + PyArray_DIM(kept, 1) * t, data(y, like), rows * t // threads,
            rows * (t + 1) // threads, streamed, data(buffers, like) + width * t,
        )


def bias_activation_backward(
    floating like, ndarray dy, ndarray x, ndarray bias, int code, bint drawn, ndarray key, Py_ssize_t position, uint32_t threshold,
    floating scale, ndarray work_words, ndarray space, ndarray kept, ndarray dx, ndarray tile_dbias, ndarray dbias, bint streamed,
    ndarray buffers, int threads
):
    cdef Py_ssize_t rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1), size = PyArray_DIM(space, 1), width = PyArray_DIM(buffers, 2), t, i
    cdef Py_ssize_t tiles = PyArray_DIM(dbias, 0), tile = PyArray_DIM(tile_dbias, 1)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        for i in range(tiles * t // threads, tiles * (t + 1) // threads):
            memset(doubles(dbias) + i * n, 0, 8 * n)
            bias_activation.bias_activation_gradient_rows(
                data(dy, like), data(x, like), data(bias, like), n, code, drawn, key_of(key), position, threshold, scale,
                words(work_words) + size // 4 * t, bytes_of(space) + size * t, words(kept) + PyArray_DIM(kept, 1) * t, data(dx, like),
                rows * i // tiles, rows * (i + 1) // tiles, data(tile_dbias, like) + tile * t, doubles(dbias) + i * n, streamed,
                data(buffers, like) + 2 * width * t, data(buffers, like) + (2 * t + 1) * width,
            )


def random_words(ndarray key, Py_ssize_t position, ndarray work, ndarray result, int threads):
    """work is (threads, 64) of uint32."""
    cdef Py_ssize_t n = PyArray_DIM(result, 0), t, lo
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        lo = n * t // threads
        philox.random_words(
            key_of(key), position + lo, n * (t + 1) // threads - lo, words(work) + 64 * t, words(result) + lo,
        )

cimport cython
from cython cimport floating
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from .dropout cimport FLAGS, keep_run, select, select_sweep
from .half_rows cimport half_rows
from .halves cimport store, widen
from .layer_norm cimport TILE, drain, gradient_factors, gradient_row, layer_norm_rows
from .normalize cimport weighted_gradient_sweep
from .primitives cimport LINES, cast, chunk, lead, prefetch, row, stream, uint32
from .residual_lanes cimport add_lanes, gradient_lanes
from .rows cimport TOGETHER


@cython.locals(
    step=Py_ssize_t, block=Py_ssize_t, i=Py_ssize_t, stop=Py_ssize_t, m=Py_ssize_t, following="floating*", next_other="floating*",
    target="floating*", done=bint, left=Py_ssize_t, size=Py_ssize_t, sums="floating*")
cdef void add_norm_rows(
    floating* x, floating* residual, bint drawn, uint64_t* key, Py_ssize_t position, uint32_t threshold, floating scale, uint32_t* words,
    uint8_t* space, uint32_t* kept, floating* weight, floating* bias, Py_ssize_t n, double eps, bint centred, floating* h, floating* y,
    double* mean, double* rstd, double* var, Py_ssize_t lo, Py_ssize_t hi, bint streamed, floating* work, floating* buffer) noexcept nogil

@cython.locals(
    block=Py_ssize_t, i=Py_ssize_t, following=Py_ssize_t, like=floating, unit=double, high=double, p=double, q=double, target="floating*",
    total="floating*", nearby="floating*")
cdef void add_norm_gradient_rows(
    floating* dy, floating* h, bint added, floating* dh, double* mean, double* rstd, bint drawn, uint64_t* key, Py_ssize_t position,
    uint32_t threshold, floating scale, uint32_t* words, uint8_t* space, uint32_t* kept, floating* weight, Py_ssize_t n, bint centred,
    floating* dresidual, floating* dx, Py_ssize_t lo, Py_ssize_t hi, floating* tile_dweight, floating* tile_dbias, double* dweight,
    double* dbias, bint streamed, floating* work, floating* buffer) noexcept nogil

@cython.locals(
    step=Py_ssize_t, block=Py_ssize_t, i=Py_ssize_t, stop=Py_ssize_t, m=Py_ssize_t, following="uint16_t*", next_other="uint16_t*")
cdef void half_add_norm_rows(
    uint16_t* x, uint16_t* residual, bint bfloat, bint drawn, uint64_t* key, Py_ssize_t position, uint32_t threshold, float scale,
    uint32_t* words, uint8_t* space, uint32_t* kept, float* weight, float* bias, Py_ssize_t n, double eps, bint centred, uint16_t* h,
    uint16_t* y, double* mean, double* rstd, double* var, Py_ssize_t lo, Py_ssize_t hi, bint streamed, uint32_t* bits, float* values,
    uint32_t* other_bits, float* other, uint16_t* buffer) noexcept nogil

@cython.locals(block=Py_ssize_t, i=Py_ssize_t, following=Py_ssize_t)
cdef void half_add_norm_gradient_rows(
    uint16_t* dy, uint16_t* h, bint bfloat, bint added, uint16_t* dh, double* mean, double* rstd, bint drawn, uint64_t* key,
    Py_ssize_t position, uint32_t threshold, float scale, uint32_t* words, uint8_t* space, uint32_t* kept, float* weight, Py_ssize_t n,
    bint centred, uint16_t* dresidual, uint16_t* dx, Py_ssize_t lo, Py_ssize_t hi, float* tile_dweight, float* tile_dbias, double* dweight,
    double* dbias, bint streamed, uint32_t* bits, float* values, uint32_t* other_bits, float* other, uint16_t* buffer) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void add(floating* x, Py_ssize_t n, floating* other, floating* y) noexcept nogil

@cython.locals(done=Py_ssize_t, words=Py_ssize_t, flags="uint32_t*", i=Py_ssize_t)
cdef void select_add(
    floating* x, Py_ssize_t n, uint32_t* kept, Py_ssize_t at, floating scale, floating* other, floating* y) noexcept nogil

@cython.locals(j=int)
cdef inline void select_add_word(floating* x, int n, uint32_t flags, floating scale, floating* other, floating* y) noexcept nogil

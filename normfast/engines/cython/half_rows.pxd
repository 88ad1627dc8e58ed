cimport cython
from libc.stdint cimport uint16_t, uint32_t
from .halves cimport store, widen
from .layer_norm cimport TILE, drain, gradient_row, layer_norm_rows
from .primitives cimport chunk, row
from .rows cimport TOGETHER


@cython.locals(step=Py_ssize_t, i=Py_ssize_t, stop=Py_ssize_t, m=Py_ssize_t)
cdef void half_rows(
    uint16_t* x, bint bfloat, float* weight, float* bias, Py_ssize_t n, double eps, bint centred, uint16_t* y, double* mean, double* rstd,
    double* var, Py_ssize_t lo, Py_ssize_t hi, bint streamed, uint32_t* bits, float* values, uint32_t* work_bits, float* work,
    uint16_t* words) noexcept nogil

@cython.locals(step=Py_ssize_t, i=Py_ssize_t, k=Py_ssize_t, stop=Py_ssize_t, m=Py_ssize_t, dyk="float*")
cdef void half_gradient_rows(
    uint16_t* dy, uint16_t* x, bint bfloat, double* mean, double* rstd, float* weight, Py_ssize_t n, bint centred, uint16_t* dx,
    Py_ssize_t lo, Py_ssize_t hi, float* tile_dweight, float* tile_dbias, double* dweight, double* dbias, bint streamed,
    uint32_t* dy_bits, float* dy_values, uint32_t* bits, float* values, uint16_t* words) noexcept nogil

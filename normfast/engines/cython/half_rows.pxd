cimport cython
from libc.stdint cimport uint16_t, uint32_t
from .halves cimport narrow_bfloat16, narrow_float16, widen_bfloat16, widen_float16
from .layer_norm cimport layer_norm_rows
from .primitives cimport chunk, lead, prefetch, row, stream
from .rows cimport TOGETHER

cdef Py_ssize_t WORDS


@cython.locals(step=Py_ssize_t, i=Py_ssize_t, stop=Py_ssize_t, m=Py_ssize_t, following="uint16_t*")
cdef void half_rows(
    uint16_t* x, bint bfloat, float* weight, float* bias, Py_ssize_t n, double eps, bint centred, uint16_t* y, double* mean, double* rstd,
    double* var, Py_ssize_t lo, Py_ssize_t hi, bint streamed, uint32_t* bits, float* values, uint32_t* result_bits, float* result,
    uint16_t* words) noexcept nogil

@cython.locals(left=Py_ssize_t, m=Py_ssize_t, target="uint16_t*")
cdef void narrow_rows(
    uint32_t* bits, float* values, Py_ssize_t n, bint bfloat, uint32_t* work_bits, float* work, uint16_t* following, uint16_t* y, bint streamed,
    uint16_t* words) noexcept nogil

cimport cython
from libc.stdint cimport uint16_t, uint32_t
from .factors cimport centre
from .halves cimport store, widen
from .moments cimport BLOCK, QUARTER, extend, inverse_deviation, larger, largest, unit_scale, within_reach
from .normalize cimport affine_sweep, gradient_sweep
from .primitives cimport cast, chunk, row
from .slabs cimport run_gradient_sums, run_index

cdef Py_ssize_t CHUNK


@cython.locals(
    like=float, m2=double, scale=double, high=double, factor=double, low=double, j=Py_ssize_t, k=Py_ssize_t, i=Py_ssize_t, lo=Py_ssize_t,
    n=Py_ssize_t, m=double, a=float, a_low=float, b=float, source="uint16_t*")
cdef void half_slab(
    uint16_t* x, bint bfloat, Py_ssize_t q, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, double* weight, double* bias, Py_ssize_t sets,
    Py_ssize_t own, double eps, bint measured, int code, uint16_t* y, double* mean, double* rstd, double* var, bint streamed,
    uint32_t* bits, float* values, uint32_t* work_bits, float* work, uint16_t* words) noexcept nogil

@cython.locals(like=float, scale=double, mean=double, m2=double, a=double, j=Py_ssize_t, lo=Py_ssize_t, m=Py_ssize_t)
cdef (double, double, double) slab_statistics(
    uint16_t* x, bint bfloat, Py_ssize_t q, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, uint32_t* bits, float* values) noexcept nogil

@cython.locals(
    count=Py_ssize_t, mean=double, rest=double, m2=double, apart=Py_ssize_t, words="uint16_t*", j=Py_ssize_t, lo=Py_ssize_t,
    m=Py_ssize_t)
cdef (double, double) words_moments(
    uint16_t* x, bint bfloat, Py_ssize_t q, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, double scale, uint32_t* bits,
    float* values) noexcept nogil

@cython.locals(k=Py_ssize_t)
cdef void widen_apart(
    uint16_t* source, Py_ssize_t n, Py_ssize_t apart, Py_ssize_t runs, bint bfloat, uint32_t* bits, float* values) noexcept nogil

@cython.locals(
    like=float, scale=double, high=double, factor=double, low=double, c1=double, c2=double, total=double, total_xhat=double, d=double,
    dd=double, apart=Py_ssize_t, j=Py_ssize_t, k=Py_ssize_t, i=Py_ssize_t, lo=Py_ssize_t, m=Py_ssize_t, p=float, shift=float, a=float, source="uint16_t*")
cdef void half_slab_gradient(
    uint16_t* dy, uint16_t* x, bint bfloat, Py_ssize_t q, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, double* mean, double* rstd,
    double* weight, Py_ssize_t sets, Py_ssize_t own, double* sum_dy, double* sum_dy_xhat, uint16_t* dx, bint streamed,
    uint32_t* dy_bits, float* dy_values, uint32_t* bits, float* values, uint16_t* words) noexcept nogil

cimport cython
from cython cimport floating
from .primitives cimport lane

@cython.locals(j=Py_ssize_t, d=floating)
cdef void affine_run(
    floating* x, Py_ssize_t n, floating scale, floating high, floating a, floating a_low, floating b, floating* y) noexcept nogil

@cython.locals(j=Py_ssize_t, d=floating)
cdef void weighted_run(
    floating* x, Py_ssize_t n, floating scale, floating high, floating r, floating r_low, floating low, floating* weight, floating* bias,
    floating* y) noexcept nogil

@cython.locals(j=Py_ssize_t, d=floating)
cdef void affine_columns(
    floating* x, Py_ssize_t n, floating* high, floating* a, floating* a_low, floating* b, floating* y) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void gradient_run(
    floating* dy, floating* x, Py_ssize_t n, floating scale, floating high, floating a, floating p, floating q, floating* dx) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void weighted_gradient_run(
    floating* dy, floating* x, floating* weight, Py_ssize_t n, floating scale, floating high, floating r, floating p, floating q,
    floating* dx) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void gradient_columns(
    floating* dy, floating* x, Py_ssize_t n, floating* high, floating* a, floating* p, floating* q, floating* dx) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void scaled_gradient_columns(
    floating* dy, floating* x, Py_ssize_t n, floating* scale, floating* high, floating* a, floating* p, floating* q,
    floating* dx) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void multiply_columns(floating* x, Py_ssize_t n, lane* factor, lane* y) noexcept nogil

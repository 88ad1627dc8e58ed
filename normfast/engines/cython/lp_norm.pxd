cimport cython
from cython cimport floating
from .moments cimport LARGEST, largest, row_squares, unit_scale
from .primitives cimport pow, sqrt

cdef double INFINITE


@cython.locals(j=Py_ssize_t, total=double, m2=double, scale=double, most=double)
cdef double row_norm(floating* x, Py_ssize_t n, double p) noexcept nogil

@cython.locals(j=Py_ssize_t, total=double, scale=double, least=double, a=double)
cdef double reciprocal_norm(floating* x, Py_ssize_t n, double p) noexcept nogil

@cython.locals(
    j=Py_ssize_t, divisor=double, scale=double, unit=double, inner=double, ties=double, t=double, slope=double)
cdef void lp_gradient_row(
    floating* dy, floating* x, Py_ssize_t n, double p, double norm, double eps, floating* dx) noexcept nogil

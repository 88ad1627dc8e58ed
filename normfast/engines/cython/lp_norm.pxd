cimport cython
from cython cimport floating
from .activations cimport IDENTITY
from .factors cimport centre
from .moments cimport LARGEST, largest, row_squares, unit_scale
from .normalize cimport affine_runs
from .primitives cimport cast, pow, row, sqrt
from .rows cimport TOGETHER, row_statistics

cdef double INFINITE


@cython.locals(
    like=floating, step=Py_ssize_t, i=Py_ssize_t, stop=Py_ssize_t, k=Py_ssize_t, divisor=double, s=double, h=double, r=double, _=double)
cdef void lp_norm_rows(
    floating* x, Py_ssize_t rows, Py_ssize_t n, double p, double eps, floating* y, double* norm, double* unit, floating* scale,
    floating* high, floating* a, floating* a_low, floating* b, Py_ssize_t lo, Py_ssize_t hi, bint streamed, floating* buffer) noexcept nogil

@cython.locals(j=Py_ssize_t, total=double, m2=double, scale=double, most=double)
cdef double row_norm(floating* x, Py_ssize_t n, double p) noexcept nogil

@cython.locals(j=Py_ssize_t, total=double, scale=double, least=double, a=double)
cdef double reciprocal_norm(floating* x, Py_ssize_t n, double p) noexcept nogil

@cython.locals(
    j=Py_ssize_t, divisor=double, scale=double, unit=double, inner=double, ties=double, t=double, slope=double)
cdef void lp_gradient_row(
    floating* dy, floating* x, Py_ssize_t n, double p, double norm, double eps, floating* dx) noexcept nogil

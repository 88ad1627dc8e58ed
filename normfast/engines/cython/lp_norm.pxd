cimport cython
from cython cimport floating
from .activations cimport IDENTITY
from .factors cimport centre
from .moments cimport HEAD, LARGEST, largest, row_squares, unit_scale
from .normalize cimport PART, affine_runs, gradient_runs
from .primitives cimport cast, chunk, pow, prefetch, row, sqrt
from .rows cimport TOGETHER, row_statistics
from .sums cimport products, ties

cdef double INFINITE, REACH


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
    infinite=bint, signed=bint, fits=bint, step=Py_ssize_t, i=Py_ssize_t, k=Py_ssize_t, rows=Py_ssize_t, left=Py_ssize_t, m=Py_ssize_t,
    first=Py_ssize_t, xi="floating*", dyi="floating*", dxi="floating*", slopes="floating*", size=double, r=double, factor=double,
    least=double)
cdef void lp_gradient_rows(
    floating* dy, floating* x, Py_ssize_t n, double p, double* norm, double eps, floating* dx, Py_ssize_t lo, Py_ssize_t hi, double* inner,
    floating* a, floating* b, floating* one, floating* zero, floating* slope, bint streamed, floating* buffer) noexcept nogil

@cython.locals(j=Py_ssize_t, above=floating, below=floating)
cdef void signs(floating* x, Py_ssize_t n, floating least, floating most, floating* y) noexcept nogil

@cython.locals(j=Py_ssize_t, divisor=double, scale=double, unit=double, inner=double, t=double, slope=double)
cdef void lp_gradient_row(
    floating* dy, floating* x, Py_ssize_t n, double p, double norm, double eps, floating* dx) noexcept nogil

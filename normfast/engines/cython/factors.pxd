cimport cython
from cython cimport floating
from .moments cimport LARGEST, unit_scale
from .primitives cimport cast, lane, row

@cython.locals(scale=double, high=double, r=double, low=double)
cdef (double, double, double, double) centre(double mean, double rstd, lane like) noexcept nogil

@cython.locals(scale=double)
cdef double scale_of(double mean, double rstd, lane like) noexcept nogil

cdef bint usual(double rstd) noexcept nogil

@cython.locals(high=double, r=double)
cdef (double, double, double) centre_scaled(double mean, double rstd, double scale, lane like) noexcept nogil

@cython.locals(j=Py_ssize_t, counted=Py_ssize_t, scaled=bint)
cdef bint column_scales(Py_ssize_t n, double* mean, double* rstd, floating like, floating* scale) noexcept nogil

@cython.locals(j=Py_ssize_t, h=double, r=double, low=double, f=double, scaled=bint)
cdef bint column_factors(
    Py_ssize_t n, double* mean, double* rstd, double* weight, double* bias, floating like, floating* scale, floating* high,
    floating* a, floating* a_low, floating* b) noexcept nogil

@cython.locals(j=Py_ssize_t, scaled=bint)
cdef bint column_centres(
    Py_ssize_t n, double* mean, double* rstd, floating like, floating* scale, floating* high) noexcept nogil

@cython.locals(j=Py_ssize_t, h=double, r=double, low=double, scaled=bint)
cdef bint column_gradient_factors(
    Py_ssize_t n, double* mean, double* rstd, double* weight, double* c1, double* c2, floating like, floating* scale, floating* high,
    floating* a, floating* p, floating* q) noexcept nogil

@cython.locals(
    j=Py_ssize_t, k=Py_ssize_t, m=Py_ssize_t, own="double*", own_d="double*", total=double, total_d=double, f=double, low=double, _=double)
cdef void column_gradient_sums(
    Py_ssize_t i, Py_ssize_t c, Py_ssize_t s, Py_ssize_t splits, double* mean, double* rstd, double* piece_dy, double* piece_dy_d, floating like,
    double* sum_dy, double* sum_dy_xhat) noexcept nogil

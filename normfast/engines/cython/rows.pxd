cimport cython
from cython cimport floating
from .moments cimport row_moments, row_squares, within_reach
from .primitives cimport cast, chunk, lane, row
from .sums cimport sums_of_4

cdef Py_ssize_t ASIDE, CHAIN, TOGETHER


@cython.locals(apart=Py_ssize_t, left=Py_ssize_t)
cdef void row_statistics(
    floating* x, Py_ssize_t n, bint centred, Py_ssize_t head, Py_ssize_t lo, Py_ssize_t hi, lane like, double* mean, double* m2,
    double* scale) noexcept nogil

@cython.locals(i=Py_ssize_t, k=Py_ssize_t)
cdef void rows_apart(
    floating* x, Py_ssize_t n, bint centred, Py_ssize_t head, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t apart, lane like, double* mean,
    double* m2, double* scale) noexcept nogil

@cython.locals(i=Py_ssize_t)
cdef void mend_rows(
    floating* x, Py_ssize_t n, bint centred, Py_ssize_t lo, Py_ssize_t hi, lane like, double* mean, double* m2, double* scale) noexcept nogil

@cython.locals(
    j=Py_ssize_t, m=Py_ssize_t, x0="floating*", x1="floating*", x2="floating*",
    x3="floating*", one=lane, k0=lane, k1=lane, k2=lane, k3=lane, s0=double, s1=double, s2=double, s3=double, q0=double, q1=double,
    q2=double, q3=double, d0=double, d1=double, d2=double, d3=double, dd0=double, dd1=double, dd2=double, dd3=double)
cdef void four_rows(
    floating* x, Py_ssize_t n, bint centred, Py_ssize_t head, Py_ssize_t i, Py_ssize_t i1, Py_ssize_t i2, Py_ssize_t i3, lane like,
    double* mean, double* m2, double* scale) noexcept nogil

cdef void keep(
    Py_ssize_t i, Py_ssize_t n, bint centred, double shift, double d, double dd, double* mean, double* m2, double* scale) noexcept nogil

cimport cython
from cython cimport floating
from .primitives cimport cast, chunk, lane, row


@cython.locals(quarter=Py_ssize_t, j=Py_ssize_t, d=lane, s=double, q=double)
cdef (double, double) shifted_sums(floating* x, Py_ssize_t n, lane scale, lane shift) noexcept nogil

@cython.locals(j=Py_ssize_t, x1="floating*", x2="floating*", x3="floating*", d0=lane, d1=lane, d2=lane, d3=lane, s=lane, q=lane)
cdef (double, double) sums_apart(floating* x, Py_ssize_t n, Py_ssize_t apart, lane scale, lane shift) noexcept nogil

@cython.locals(half=Py_ssize_t, j=Py_ssize_t, s=double, q=double)
cdef (double, double) gradient_sums(
    floating* dy, floating* x, Py_ssize_t n, floating scale, floating high) noexcept nogil

@cython.locals(j=Py_ssize_t, dy1="floating*", x1="floating*", s=floating, q=floating)
cdef (double, double) gradient_sums_apart(
    floating* dy, floating* x, Py_ssize_t n, Py_ssize_t apart, floating scale, floating high) noexcept nogil

@cython.locals(
    half=Py_ssize_t, i=Py_ssize_t, j=Py_ssize_t, dy0="floating*", dy1="floating*", x0="floating*", x1="floating*", t=double)
cdef void products(floating* dy, floating* x, Py_ssize_t n, Py_ssize_t rows, double* total) noexcept nogil

@cython.locals(j=Py_ssize_t, count=double)
cdef double ties(floating* x, Py_ssize_t n, double norm) noexcept nogil

@cython.locals(j=Py_ssize_t, g=floating, w=floating, t=floating, s0=floating, q0=floating)
cdef (double, double) weighted_gradient_sums(
    floating* dy, floating* x, floating* weight, Py_ssize_t n, floating scale, floating high, floating r, floating low,
    floating* dweight, floating* dbias) noexcept nogil

@cython.locals(
    j=Py_ssize_t, d0=lane, d1=lane, d2=lane, d3=lane, s0=lane, s1=lane, s2=lane, s3=lane, q0=lane, q1=lane, q2=lane, q3=lane)
cdef (double, double, double, double, double, double, double, double) sums_of_4(
    floating* x0, floating* x1, floating* x2, floating* x3, Py_ssize_t n, lane scale, lane k0, lane k1, lane k2, lane k3) noexcept nogil

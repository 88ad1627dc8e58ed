cimport cython
from cython cimport floating
from .activations cimport IDENTITY, activate_gradient
from .factors cimport centre
from .moments cimport BLOCK, extend, larger, largest, merge, unit_scale, within_reach
from .primitives cimport cast, chunk, lane, row
from .sums cimport gradient_sums, gradient_sums_apart
from .normalize cimport affine_sweep, gradient_sweep

cdef Py_ssize_t run_index(Py_ssize_t q, Py_ssize_t i, Py_ssize_t r, Py_ssize_t c) noexcept nogil

@cython.locals(k=Py_ssize_t, lo=Py_ssize_t, hi=Py_ssize_t, count=Py_ssize_t, i=Py_ssize_t, run="floating*", mean=double,
    rest=double, m2=double)
cdef (double, double) piece_moments(
    floating* x, Py_ssize_t q, Py_ssize_t p, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, Py_ssize_t splits_r, Py_ssize_t splits_s,
    double scale, lane like) noexcept nogil

@cython.locals(k=Py_ssize_t, j=Py_ssize_t, rows=Py_ssize_t)
cdef Py_ssize_t piece_count(
    Py_ssize_t p, Py_ssize_t r, Py_ssize_t s, Py_ssize_t splits_r, Py_ssize_t splits_s) noexcept nogil

@cython.locals(p=Py_ssize_t, count=double, more=double, mean=double, m2=double)
cdef (double, double) merge_pieces(
    double* piece_mean, double* piece_m2, Py_ssize_t r, Py_ssize_t s, Py_ssize_t splits_r, Py_ssize_t splits_s) noexcept nogil

@cython.locals(a=double, i=Py_ssize_t, p=Py_ssize_t, scale=double, mean=double, m2=double)
cdef (double, double, double) slab_moments(
    floating* x, Py_ssize_t q, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, Py_ssize_t splits_r, Py_ssize_t splits_s,
    double* piece_mean, double* piece_m2, lane like) noexcept nogil

@cython.locals(i=Py_ssize_t, run=Py_ssize_t, like=floating, a=floating, scale=double, high=double, factor=double, low=double)
cdef void affine_channel(
    floating* x, double* mean, double* rstd, double* weight, double* bias, Py_ssize_t q, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s,
    int code, floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(i=Py_ssize_t, run=Py_ssize_t)
cdef void pull_channel(
    floating* dy, floating* x, double* mean, double* rstd, double* weight, double* bias, Py_ssize_t q, Py_ssize_t r, Py_ssize_t c,
    Py_ssize_t s, int code, floating* dz) noexcept nogil

@cython.locals(
    k=Py_ssize_t, lo=Py_ssize_t, hi=Py_ssize_t, i=Py_ssize_t, run=Py_ssize_t, scale=double, high=double, factor=double, low=double,
    total=double, total_xhat=double, d=double, dd=double)
cdef (double, double) piece_gradient_sums(
    floating* dy, floating* x, double* mean, double* rstd, Py_ssize_t q, Py_ssize_t p, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s,
    Py_ssize_t splits_r, Py_ssize_t splits_s) noexcept nogil

@cython.locals(lo=Py_ssize_t, apart=Py_ssize_t, like=floating, total=double, total_xhat=double, d=double, dd=double)
cdef (double, double) run_gradient_sums(
    floating* dy, floating* x, Py_ssize_t n, double scale, double high, double factor, double low) noexcept nogil

@cython.locals(i=Py_ssize_t, run=Py_ssize_t, like=floating, scale=double, high=double, factor=double, low=double)
cdef void gradient_channel(
    floating* dy, floating* x, double* mean, double* rstd, double* weight, double* c1, double* c2, Py_ssize_t q, Py_ssize_t r,
    Py_ssize_t c, Py_ssize_t s, floating* dx, bint streamed, floating* buffer) noexcept nogil

@cython.locals(p=Py_ssize_t, total=double, total_xhat=double)
cdef void add_pieces(
    double* piece_dy, double* piece_dy_xhat, Py_ssize_t q, Py_ssize_t pieces, double* sum_dy, double* sum_dy_xhat) noexcept nogil

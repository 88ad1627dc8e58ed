cimport cython
from cython cimport floating
from .factors cimport centre
from .moments cimport BLOCK, HEAD, finish_statistics
from .normalize cimport PART, SHORT, weighted_gradient_sweep, weighted_sweep
from .primitives cimport cast, chunk, prefetch, row, stream
from .rows cimport ASIDE, TOGETHER, row_statistics
from .sums cimport weighted_gradient_sums


cdef Py_ssize_t TILE


@cython.locals(
    step=Py_ssize_t, group=Py_ssize_t, beside=Py_ssize_t, i=Py_ssize_t, k=Py_ssize_t, stop=Py_ssize_t, xk="floating*", ahead=Py_ssize_t, target="floating*", rounded=floating, scale=double,
    high=double, r=double, low=double)
cdef void layer_norm_rows(
    floating* x, floating* weight, floating* bias, Py_ssize_t n, double eps, bint centred, floating* y, double* mean, double* rstd, double* var,
    Py_ssize_t lo, Py_ssize_t hi, bint streamed, floating* buffer) noexcept nogil

@cython.locals(i=Py_ssize_t, group=Py_ssize_t, beside=Py_ssize_t, target="floating*")
cdef void layer_norm_gradient_rows(
    floating* dy, floating* x, double* mean, double* rstd, floating* weight, Py_ssize_t n, bint centred, floating* dx, Py_ssize_t lo, Py_ssize_t hi,
    floating* tile_dweight, floating* tile_dbias, double* dweight, double* dbias, bint streamed, floating* buffer) noexcept nogil

@cython.locals(like=floating, scale=double, high=double, p=double, q=double)
cdef void gradient_row(
    floating* dy, floating* x, double mean, double rstd, floating* weight, Py_ssize_t n, bint centred, floating* dx, floating* tile_dweight,
    floating* tile_dbias, bint streamed, floating* buffer) noexcept nogil

@cython.locals(
    left=Py_ssize_t, right=Py_ssize_t, like=floating, scale=double, high=double, r=double, low=double, c1=double, c2=double, d=double,
    dd=double)
cdef (double, double, double, double) gradient_factors(
    floating* dy, floating* x, double mean, double rstd, floating* weight, Py_ssize_t n, bint centred, floating* tile_dweight,
    floating* tile_dbias) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void drain(floating* partial, Py_ssize_t n, double* total) noexcept nogil

@cython.locals(j=Py_ssize_t, i=Py_ssize_t, tile="double*")
cdef void add_tiles(double* partial, Py_ssize_t tiles, Py_ssize_t n, double* total) noexcept nogil

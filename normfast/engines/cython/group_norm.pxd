cimport cython
from cython cimport floating
from .activations cimport IDENTITY
from .factors cimport centre
from .moments cimport inverse_deviation, row_moments
from .primitives cimport cast, chunk, row
from .slabs cimport run_gradient_sums
from .normalize cimport affine_run, affine_sweep, gradient_run, gradient_sweep


@cython.locals(
    i=Py_ssize_t, j=Py_ssize_t, q=Py_ssize_t, left=Py_ssize_t, xi="floating*", yi="floating*", like=floating, m=double, m2=double, scale=double, v=double,
    r=double, high=double, factor=double, low=double, a=floating, a_low=floating, b=floating,
    own="floating*", target="floating*")
cdef void group_norm_rows(
    floating* x, double* weight, double* bias, Py_ssize_t k, Py_ssize_t s, Py_ssize_t groups, double eps, floating* y, double* mean,
    double* rstd, double* var, Py_ssize_t lo, Py_ssize_t hi, bint streamed, floating* buffer) noexcept nogil

@cython.locals(
    i=Py_ssize_t, j=Py_ssize_t, left=Py_ssize_t, dyi="floating*", xi="floating*", like=floating, scale=double, high=double,
    factor=double, low=double, c1=double, c2=double, total=double, total_xhat=double, a=floating, p=floating, q=floating,
    own_dy="floating*", own="floating*", target="floating*")
cdef void group_norm_gradient_rows(
    floating* dy, floating* x, double* mean, double* rstd, double* weight, Py_ssize_t k, Py_ssize_t s, Py_ssize_t groups, double* sum_dy,
    double* sum_dy_xhat, floating* dx, Py_ssize_t lo, Py_ssize_t hi, bint streamed, floating* buffer) noexcept nogil

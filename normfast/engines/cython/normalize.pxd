cimport cython
from cython cimport floating
from .activations cimport IDENTITY, RELU, activate
from .primitives cimport LINES, chunk, lane, lead, prefetch, row, stream

cdef Py_ssize_t DISTANCE, PART, SHORT


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

@cython.locals(left=Py_ssize_t, m=Py_ssize_t)
cdef void affine_sweep(
    floating* x, Py_ssize_t n, floating scale, floating high, floating a, floating a_low, floating b, int code, Py_ssize_t ahead, floating* y,
    bint streamed, floating* buffer) noexcept nogil

cdef void affine_active(
    floating* x, Py_ssize_t n, floating scale, floating high, floating a, floating a_low, floating b, int code, floating* y) noexcept nogil

cdef void affine_lines(
    floating* x, Py_ssize_t n, floating scale, floating high, floating a, floating a_low, floating b, int code, Py_ssize_t ahead, floating* y,
    floating* buffer) noexcept nogil

@cython.locals(left=Py_ssize_t)
cdef void weighted_sweep(
    floating* x, Py_ssize_t n, floating scale, floating high, floating r, floating r_low, floating low, floating* weight, floating* bias,
    Py_ssize_t ahead, floating* y, bint streamed, floating* buffer) noexcept nogil

cdef void weighted_lines(
    floating* x, Py_ssize_t n, floating scale, floating high, floating r, floating r_low, floating low, floating* weight, floating* bias,
    Py_ssize_t ahead, floating* y, floating* buffer) noexcept nogil

@cython.locals(left=Py_ssize_t)
cdef void gradient_sweep(
    floating* dy, floating* x, Py_ssize_t n, floating scale, floating high, floating a, floating p, floating q, floating* dx,
    bint streamed, floating* buffer) noexcept nogil

cdef void gradient_lines(
    floating* dy, floating* x, Py_ssize_t n, floating scale, floating high, floating a, floating p, floating q, floating* dx,
    floating* buffer) noexcept nogil

@cython.locals(left=Py_ssize_t)
cdef void weighted_gradient_sweep(
    floating* dy, floating* x, floating* weight, Py_ssize_t n, floating scale, floating high, floating r, floating p, floating q,
    floating* dx, bint streamed, floating* buffer) noexcept nogil

cdef void weighted_gradient_lines(
    floating* dy, floating* x, floating* weight, Py_ssize_t n, floating scale, floating high, floating r, floating p, floating q,
    floating* dx, floating* buffer) noexcept nogil

@cython.locals(
    group=Py_ssize_t, run=Py_ssize_t, part=Py_ssize_t, channel=Py_ssize_t, sample=Py_ssize_t, q=Py_ssize_t, beside=Py_ssize_t, i=Py_ssize_t,
    left=Py_ssize_t, right=Py_ssize_t, k=Py_ssize_t, past=bint, own="floating*", target="floating*")
cdef void affine_runs(
    floating* x, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, Py_ssize_t splits, floating* scale,
    floating* high, floating* a, floating* a_low, floating* b, int code, floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(
    group=Py_ssize_t, run=Py_ssize_t, part=Py_ssize_t, beside=Py_ssize_t, i=Py_ssize_t, left=Py_ssize_t, right=Py_ssize_t, k=Py_ssize_t,
    target="floating*")
cdef void gradient_runs(
    floating* dy, floating* x, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t r, Py_ssize_t c, Py_ssize_t s, Py_ssize_t splits, floating* scale,
    floating* high, floating* a, floating* p, floating* q, floating* dx, bint streamed, floating* buffer) noexcept nogil

@cython.locals(left=Py_ssize_t, m=Py_ssize_t)
cdef void columns_sweep(
    floating* x, Py_ssize_t n, bint scaled, floating* scale, floating* high, floating* a, floating* a_low, floating* b, int code,
    floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(target="floating*", source="floating*")
cdef void columns_part(
    floating* x, Py_ssize_t n, bint scaled, floating* scale, floating* high, floating* a, floating* a_low, floating* b, int code,
    floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(left=Py_ssize_t, m=Py_ssize_t)
cdef void gradient_columns_sweep(
    floating* dy, floating* x, Py_ssize_t n, bint scaled, floating* scale, floating* high, floating* a, floating* p, floating* q,
    floating* dx, bint streamed, floating* buffer) noexcept nogil

@cython.locals(target="floating*")
cdef void gradient_columns_part(
    floating* dy, floating* x, Py_ssize_t n, bint scaled, floating* scale, floating* high, floating* a, floating* p, floating* q,
    floating* dx, bint streamed, floating* buffer) noexcept nogil

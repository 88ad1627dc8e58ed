cimport cython
from cython cimport floating
from .primitives cimport cast, erfc, exp, log1p, tanh

cdef int RELU, LEAKY_RELU, SIGMOID, TANH, GELU, SILU, SOFTPLUS
cdef double SLOPE, ROOT_HALF, DENSITY


@cython.locals(j=Py_ssize_t, slope=floating)
cdef void activate(floating* z, Py_ssize_t n, int code, floating* a) noexcept nogil

@cython.locals(j=Py_ssize_t, slope=floating)
cdef void activate_gradient(floating* da, floating* z, Py_ssize_t n, int code, floating* dz) noexcept nogil

@cython.locals(e=double)
cdef double sigmoid(double z) noexcept nogil

@cython.locals(e=double)
cdef double bell(double z) noexcept nogil

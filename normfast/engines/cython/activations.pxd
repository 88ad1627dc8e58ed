cimport cython
from cython cimport floating
from .primitives cimport cast, power_of_two

cdef int RELU, LEAKY_RELU, SIGMOID, TANH, GELU, SILU, SOFTPLUS
cdef double SLOPE, ROOT_HALF, DENSITY, LEAST, PER_LN2, LN2_HIGH, LN2_LOW, ROUNDS


@cython.locals(j=Py_ssize_t, slope=floating, e=double)
cdef void activate(floating* z, Py_ssize_t n, int code, floating* a) noexcept nogil

@cython.locals(j=Py_ssize_t, slope=floating, e=double)
cdef void activate_gradient(floating* da, floating* z, Py_ssize_t n, int code, floating* dz) noexcept nogil

@cython.locals(e=double)
cdef double sigmoid(double z) noexcept nogil

@cython.locals(e=double)
cdef double bell(double z) noexcept nogil

@cython.locals(tail=double)
cdef double normal_cdf(double z, double e) noexcept nogil

@cython.locals(t=double, scale=double)
cdef double exponential(double x) noexcept nogil

@cython.locals(t=double, scale=double)
cdef double exp_less_1(double x) noexcept nogil

@cython.locals(k=double)
cdef double remainder(double x, double t) noexcept nogil

@cython.locals(q=double)
cdef double series(double r) noexcept nogil

@cython.locals(s=double, r=double, q=double)
cdef double log_1_plus(double e) noexcept nogil

@cython.locals(t=double, u=double, q=double)
cdef double scaled_erfc(double x) noexcept nogil

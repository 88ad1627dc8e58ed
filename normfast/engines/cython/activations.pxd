# inline, though Cython warns that a declaration should not be: gcc finds these too large to inline by itself, and a loop that calls does not
# vectorize (gelu of 786,432 values on one core: 16.6 ms)

cimport cython
from cython cimport floating
from .primitives cimport cast, power_of_two

cdef int IDENTITY, RELU, LEAKY_RELU, SIGMOID, TANH, GELU, SILU, SOFTPLUS
cdef double SLOPE


@cython.locals(j=Py_ssize_t, slope=floating, e=double)
cdef void activate(floating* z, Py_ssize_t n, int code, floating* a) noexcept nogil

@cython.locals(j=Py_ssize_t, slope=floating, e=double)
cdef void activate_gradient(floating* da, floating* z, Py_ssize_t n, int code, floating* dz) noexcept nogil

@cython.locals(e=double)
cdef inline double sigmoid(double z) noexcept nogil

@cython.locals(e=double)
cdef inline double bell(double z) noexcept nogil

@cython.locals(tail=double)
cdef inline double normal_cdf(double z, double e) noexcept nogil

@cython.locals(t=double, scale=double)
cdef inline double exponential(double x) noexcept nogil

@cython.locals(t=double, scale=double)
cdef inline double exp_less_1(double x) noexcept nogil

@cython.locals(k=double)
cdef inline double remainder(double x, double t) noexcept nogil

@cython.locals(q=double)
cdef inline double series(double r) noexcept nogil

@cython.locals(s=double, r=double, q=double)
cdef inline double log_1_plus(double e) noexcept nogil

@cython.locals(t=double, u=double, q=double)
cdef inline double scaled_erfc(double x) noexcept nogil

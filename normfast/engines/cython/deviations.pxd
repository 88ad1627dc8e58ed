cimport cython
from cython cimport floating

@cython.locals(j=Py_ssize_t, d=double, total=double, most=double)
cdef (double, double) absolute_deviations(floating* x, Py_ssize_t n, double mean) noexcept nogil

@cython.locals(j=Py_ssize_t, d=double, count=double, total=double)
cdef (double, double) count_signs(floating* x, Py_ssize_t n, double mean, double limit) noexcept nogil

@cython.locals(j=Py_ssize_t, d=double)
cdef void add_signs(floating* x, Py_ssize_t n, double mean, double limit, double factor, floating* dx) noexcept nogil

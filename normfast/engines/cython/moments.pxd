cimport cython
from cython cimport floating
from .primitives cimport cast, chunk, lane, sqrt
from .sums cimport shifted_sums, sums_apart

cdef Py_ssize_t HEAD, BLOCK, QUARTER
cdef double SMALLEST, LARGEST


@cython.locals(
    lo=Py_ssize_t, m=Py_ssize_t, half=Py_ssize_t, apart=Py_ssize_t, stop=Py_ssize_t, shift=lane, first=double, error=double, d=double, dd=double, d1=double, dd1=double)
cdef (double, double, double) extend(
    floating* x, Py_ssize_t n, double scale, Py_ssize_t count, double mean, double rest, double m2, lane like) noexcept nogil

@cython.locals(total=double, part=double)
cdef (double, double) split_sum(double a, double b) noexcept nogil

@cython.locals(count=double, d=double, share=double)
cdef (double, double, double) merge(
    double count_a, double mean_a, double m2_a, double count_b, double mean_b, double m2_b) noexcept nogil

@cython.locals(count_a=double, mean_a=double, d=double)
cdef (double, double, double) unmerge(
    double count, double mean, double m2, double count_b, double mean_b, double m2_b) noexcept nogil

@cython.locals(j=Py_ssize_t, shift=double, d=double, dd=double, total=double, _=double)
cdef (double, double) merge_equals(Py_ssize_t n, double count, double* mean, double* m2, double* scale) noexcept nogil

@cython.locals(scale=double)
cdef double unit_scale(double a, lane like) noexcept nogil

cdef bint within_reach(double m2, double count) noexcept nogil

cdef double larger(double a, double b) noexcept nogil

@cython.locals(a=double, j=Py_ssize_t)
cdef double largest(floating* x, Py_ssize_t n) noexcept nogil

@cython.locals(scale=double, mean=double, m2=double, _=double)
cdef (double, double, double) row_moments(floating* x, Py_ssize_t n, lane like) noexcept nogil

@cython.locals(scale=double, squares=double)
cdef (double, double) row_squares(floating* x, Py_ssize_t n, lane like) noexcept nogil

@cython.locals(total=double, lo=Py_ssize_t, m=Py_ssize_t, _=double, dd=double)
cdef double sum_squares(floating* x, Py_ssize_t n, double scale, lane like) noexcept nogil

@cython.locals(var=double)
cdef (double, double) inverse_deviation(double m2, double count, double scale, double eps) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void finish_statistics(
    Py_ssize_t n, double count, double eps, double* mean, double* m2, double* scale, double* rstd, double* var) noexcept nogil

@cython.locals(j=Py_ssize_t, error=double, e=double, ee=double)
cdef void fold(
    Py_ssize_t n, Py_ssize_t m, Py_ssize_t count, lane* shift, lane* d, lane* dd, double* mean, lane* rest, double* m2) noexcept nogil

@cython.locals(j=Py_ssize_t, _=double)
cdef void merge_columns(
    Py_ssize_t n, double count_a, double* mean_a, double* m2_a, double count_b, double* mean_b, double* m2_b) noexcept nogil

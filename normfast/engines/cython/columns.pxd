cimport cython
from cython cimport floating
from .moments cimport LARGEST, fold, larger, merge_columns, unit_scale, within_reach
from .normalize cimport columns_sweep, gradient_columns_sweep, multiply_columns
from .primitives cimport cast, chunk, lane, row

cdef Py_ssize_t TILE, FIRST


@cython.locals(blocks=Py_ssize_t, piece=Py_ssize_t, left=Py_ssize_t, right=Py_ssize_t, lo=Py_ssize_t, hi=Py_ssize_t, scale="lane*")
cdef void column_piece(
    floating* x, Py_ssize_t i, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits, Py_ssize_t width, lane* work,
    double* piece_mean, double* piece_m2) noexcept nogil

@cython.locals(n=Py_ssize_t, stop=Py_ssize_t, count=Py_ssize_t, shift="lane*", d="lane*", dd="lane*", buffer="lane*",
    rest="lane*")
cdef void column_moments(
    floating* x, Py_ssize_t c, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t left, Py_ssize_t right, bint scaled, lane* scale, lane* work,
    double* mean, double* m2) noexcept nogil

@cython.locals(n=Py_ssize_t, i=Py_ssize_t)
cdef void add_rows(
    floating* x, Py_ssize_t c, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t left, Py_ssize_t right, bint scaled, lane* scale, lane* shift,
    lane* buffer, lane* d, lane* dd) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void start_from(Py_ssize_t n, Py_ssize_t m, lane* d, double* mean) noexcept nogil

@cython.locals(
    blocks=Py_ssize_t, block=Py_ssize_t, left=Py_ssize_t, right=Py_ssize_t, n=Py_ssize_t, p=Py_ssize_t, total_mean="double*",
    total_m2="double*", total_scale="double*", lanes="lane*")
cdef void column_statistics(
    floating* x, Py_ssize_t i, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits, Py_ssize_t width, lane* work,
    double* piece_mean, double* piece_m2, double* mean, double* m2, double* scale) noexcept nogil

@cython.locals(n=Py_ssize_t, p=Py_ssize_t, j=Py_ssize_t, count=Py_ssize_t, more=Py_ssize_t, next_mean="double*", next_m2="double*")
cdef void merge_pieces(
    Py_ssize_t block, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits, Py_ssize_t left, Py_ssize_t right,
    double* piece_mean, double* piece_m2, double* mean, double* m2) noexcept nogil

@cython.locals(a=double, found=int, i=Py_ssize_t, j=Py_ssize_t)
cdef bint rescale(
    floating* x, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t left, Py_ssize_t c, Py_ssize_t n, double* m2, lane like,
    double* scale) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void copy(lane* source, Py_ssize_t n, floating* target) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void fill(double value, Py_ssize_t n, lane* target) noexcept nogil

@cython.locals(j=Py_ssize_t, t=lane)
cdef void add_deviations(floating* x, Py_ssize_t n, lane* shift, lane* d, lane* dd) noexcept nogil

@cython.locals(j=Py_ssize_t, t0=lane, t1=lane, t2=lane, t3=lane)
cdef void add_deviations_of_4(
    floating* x0, floating* x1, floating* x2, floating* x3, Py_ssize_t n, lane* shift, lane* d, lane* dd) noexcept nogil

@cython.locals(i=Py_ssize_t, q=Py_ssize_t, rows=Py_ssize_t, wide=Py_ssize_t)
cdef void affine_rows(
    floating* x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t beside, bint scaled, floating* scale, floating* high,
    floating* a, floating* a_low, floating* b, int code, floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(
    blocks=Py_ssize_t, piece=Py_ssize_t, block=Py_ssize_t, left=Py_ssize_t, right=Py_ssize_t, n=Py_ssize_t, lo=Py_ssize_t, hi=Py_ssize_t,
    stop=Py_ssize_t, k=Py_ssize_t, j=Py_ssize_t, d="floating*", dd="floating*", buffer="floating*", centres="floating*", dyk="floating*",
    total="double*", total_d="double*")
cdef void column_gradient_piece(
    floating* dy, floating* x, Py_ssize_t i, Py_ssize_t r, Py_ssize_t c, Py_ssize_t splits, Py_ssize_t width, bint scaled,
    floating* scale, floating* high, floating* work, double* piece_dy, double* piece_dy_d) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void add_gradients(floating* dy, floating* x, Py_ssize_t n, floating* high, floating* d, floating* dd) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void add_gradients_of_2(
    floating* dy0, floating* dy1, floating* x0, floating* x1, Py_ssize_t n, floating* high, floating* d, floating* dd) noexcept nogil

@cython.locals(i=Py_ssize_t, k=Py_ssize_t, rows=Py_ssize_t, wide=Py_ssize_t)
cdef void gradient_rows(
    floating* dy, floating* x, Py_ssize_t r, Py_ssize_t c, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t beside, bint scaled, floating* scale,
    floating* high, floating* a, floating* p, floating* q, floating* dx, bint streamed, floating* buffer) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void spread(Py_ssize_t c, Py_ssize_t s, floating* run) noexcept nogil

@cython.locals(i=Py_ssize_t)
cdef void repeat(Py_ssize_t c, Py_ssize_t times, floating* run) noexcept nogil

"""The kernels as C functions, for `cimport normfast.capi` and `include/normfast.h`: checked, with defaults for what is NULL, on one thread.

Working space lies on the stack, but for what grows with a row or the channels and is not given: that is taken from `malloc`.
"""

from cpython.pycapsule cimport PyCapsule_New
from cython cimport floating
from libc.math cimport INFINITY, NAN, rint, sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memmove, memset

from . cimport activations
from . cimport columns as column_kernels
from .dropout cimport dropout_run, keep_run
from .factors cimport column_factors
from .group_norm cimport group_norm_rows
from .layer_norm cimport layer_norm_gradient_rows, layer_norm_rows
from .lp_norm cimport lp_norm_rows
from .moments cimport HEAD, finish_statistics, merge, merge_equals
from .normalize cimport affine_runs
from .residual cimport add_norm_rows
from .rows cimport ASIDE, TOGETHER, row_statistics
from .slabs cimport affine_channel, piece_moments, slab_moments

from normfast.engines.policy import PIECE, STREAMED

cdef extern from *:
    """
    #include "normfast.h"
    /* Positions are those of the header, so the C compiler holds the two signatures to each other. */
    static normfast_api normfast_table;
    #define normfast_fill(...) (normfast_table = (normfast_api){NORMFAST_ABI, sizeof(normfast_api), __VA_ARGS__})
    #if defined(__SSE2__) || defined(_M_X64)
    #include <emmintrin.h>
    #define normfast_fence() _mm_sfence()
    #else
    #define normfast_fence() (void)0
    #endif
    """
    Py_ssize_t PY_SSIZE_T_MAX
    void* normfast_table
    void fill "normfast_fill"(...) noexcept
    void fence "normfast_fence"() noexcept nogil  # what went past the caches is there before the caller tells another thread so

cdef enum:
    READY = 16384  # values of a default parameter that stand ready
    BESIDE = 256  # rows whose statistics fit on the stack
    WIDTH = 512  # channels whose factors do
    LINE = 64
    APART = 16  # float64 values of two cache lines
    PART = 1024  # of a buffer: that of kernels/normalize.py
    BUFFER = 8 * PART + LINE  # bytes
    DRAWS = 4096  # of a block: that of kernels/dropout.py
    BITS = 129  # words that hold a bit for each, from the middle of a word on
    SPACE = 4672  # bytes: its draws, their bits, and 64

cdef Py_ssize_t piece = PIECE, streamed_from = STREAMED
cdef float float_ones[READY]
cdef double double_ones[READY]
cdef double zeros[READY]


cdef void prepare() noexcept:
    cdef Py_ssize_t j
    for j in range(READY):
        float_ones[j] = 1.0
        double_ones[j] = 1.0


prepare()


cdef inline bint no_sizes(Py_ssize_t a, Py_ssize_t b, double eps) noexcept nogil:
    return a < 0 or b < 0 or not 0.0 <= eps < INFINITY


cdef inline bint lacking(const void* x, const void* y, Py_ssize_t n) noexcept nogil:
    return n > 0 and (x == NULL or y == NULL)


cdef inline double* unless(double* given, Py_ssize_t i, double* own) noexcept nogil:
    """Statistics from the i-th on, or working space for those that nobody asks for."""
    return own if given == NULL else given + i


cdef inline void fill_with(double* values, Py_ssize_t n, double value) noexcept nogil:
    cdef Py_ssize_t i
    if values != NULL:
        for i in range(n):
            values[i] = value


cdef inline void* on_line(char* memory) noexcept nogil:
    """The first whole cache line in it."""
    return memory + (-<size_t>memory) % LINE


cdef inline bint past(const floating* x, Py_ssize_t n, const floating* y, Py_ssize_t limit) noexcept nogil:
    """Whether y goes past the caches: not where it is small, or stands where its source does."""
    return n * <Py_ssize_t>sizeof(floating) >= limit and x != y


cdef floating* run_of(const floating* given, Py_ssize_t n, double value) noexcept nogil:
    """A parameter, or n times its default, 0 or 1; NULL where there is no memory."""
    cdef Py_ssize_t j
    if given != NULL:
        return <floating*>given
    if n <= READY:
        if value == 0.0:
            return <floating*>zeros
        return <floating*>float_ones if floating is float else <floating*>double_ones
    cdef floating* run = <floating*>malloc(n * sizeof(floating))
    if run != NULL:
        for j in range(n):
            run[j] = <floating>value
    return run


cdef void give_back(floating* run, const floating* given, Py_ssize_t n) noexcept nogil:
    if given == NULL and n > READY:
        free(run)


include "capi_rows.pxi"
include "capi_channels.pxi"
include "capi_dropout.pxi"


fill(
    moments[float], moments[double], merge_moments, layer_norm[float], layer_norm[double], layer_norm_backward[float],
    layer_norm_backward[double], rms_norm[float], rms_norm[double], rms_norm_backward[float], rms_norm_backward[double], group_norm[float],
    group_norm[double], batch_norm[float], batch_norm[double], batch_norm_forward[float], batch_norm_forward[double], lp_norm[float],
    lp_norm[double], activation[float], activation[double], activation_backward[float], activation_backward[double], dropout[float],
    dropout[double], dropout_mask, dropout_add_layer_norm[float], dropout_add_layer_norm[double], dropout_add_rms_norm[float],
    dropout_add_rms_norm[double],
)
_C_API = PyCapsule_New(&normfast_table, "normfast.capi._C_API", NULL)

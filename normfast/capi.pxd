"""The kernels for other people's Cython: `from normfast.capi cimport layer_norm`. What each argument means stands in `include/normfast.h`.

Each function takes float32 or float64, as the types of its arguments say (`layer_norm[float]` where they do not), runs on the calling thread
alone, needs no GIL and returns 0, or INVALID or NO_MEMORY with nothing written. A signature, once here, stays; `setup.py` copies this file
beside `engines/cython/capi.pyx`, which it declares.
"""

from cython cimport floating
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    INVALID = 1
    NO_MEMORY = 2

cdef enum:  # the codes of activations
    IDENTITY = 0
    RELU = 1
    LEAKY_RELU = 2
    SIGMOID = 3
    TANH = 4
    GELU = 5
    SILU = 6
    SOFTPLUS = 7

cdef int moments(const floating* x, Py_ssize_t rows, Py_ssize_t n, double* mean, double* m2) noexcept nogil

cdef int merge_moments(double* count, double* mean, double* m2, double count_b, double mean_b, double m2_b) noexcept nogil

cdef int layer_norm(
    const floating* x, const floating* weight, const floating* bias, Py_ssize_t rows, Py_ssize_t n, double eps, floating* y, double* mean,
    double* rstd, double* var) noexcept nogil

cdef int layer_norm_backward(
    const floating* dy, const floating* x, const double* mean, const double* rstd, const floating* weight, Py_ssize_t rows, Py_ssize_t n,
    floating* dx, double* dweight, double* dbias) noexcept nogil

cdef int rms_norm(
    const floating* x, const floating* weight, Py_ssize_t rows, Py_ssize_t n, double eps, floating* y, double* rstd,
    double* var) noexcept nogil

cdef int rms_norm_backward(
    const floating* dy, const floating* x, const double* rstd, const floating* weight, Py_ssize_t rows, Py_ssize_t n, floating* dx,
    double* dweight) noexcept nogil

cdef int group_norm(
    const floating* x, const floating* weight, const floating* bias, Py_ssize_t samples, Py_ssize_t groups, Py_ssize_t channels,
    Py_ssize_t space, double eps, floating* y, double* mean, double* rstd, double* var) noexcept nogil

cdef int batch_norm(
    const floating* x, const double* mean, const double* var, const floating* weight, const floating* bias, Py_ssize_t samples,
    Py_ssize_t channels, Py_ssize_t space, double eps, int activation, floating* y) noexcept nogil

cdef int batch_norm_forward(
    const floating* x, const floating* weight, const floating* bias, Py_ssize_t samples, Py_ssize_t channels, Py_ssize_t space, double eps,
    int activation, floating* y, double* mean, double* rstd, double* var) noexcept nogil

cdef int lp_norm(const floating* x, Py_ssize_t rows, Py_ssize_t n, double ord, double eps, floating* y, double* norm) noexcept nogil

cdef int activation(const floating* x, Py_ssize_t n, int code, floating* y) noexcept nogil

cdef int activation_backward(const floating* dy, const floating* x, Py_ssize_t n, int code, floating* dx) noexcept nogil

cdef int dropout(
    const floating* x, Py_ssize_t n, const uint32_t* key, Py_ssize_t offset, double p, floating* y) noexcept nogil

cdef int dropout_mask(const uint32_t* key, Py_ssize_t offset, double p, Py_ssize_t n, uint8_t* kept) noexcept nogil

cdef int dropout_add_layer_norm(
    const floating* x, const floating* residual, const uint32_t* key, Py_ssize_t offset, double p, const floating* weight,
    const floating* bias, Py_ssize_t rows, Py_ssize_t n, double eps, floating* h, floating* y, double* mean, double* rstd,
    double* var) noexcept nogil

cdef int dropout_add_rms_norm(
    const floating* x, const floating* residual, const uint32_t* key, Py_ssize_t offset, double p, const floating* weight, Py_ssize_t rows,
    Py_ssize_t n, double eps, floating* h, floating* y, double* rstd, double* var) noexcept nogil

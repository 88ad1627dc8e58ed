"""The words of normfast/kernels/primitives.py in C: a block is a pointer to its first value."""

from cython cimport floating
from libc.math cimport pow, sqrt
from libc.stdint cimport uint32_t, uint64_t

ctypedef fused lane:  # the type a sum is taken in, where it may be wider than the values
    float
    double

ctypedef fused item:
    float
    double
    uint32_t


cdef inline item* row(item* block, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    return block + i * n


cdef inline item* chunk(item* run, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    return run + lo


cdef inline lane cast(double value, lane like) noexcept nogil:
    return <lane>value


cdef inline uint32_t uint32(uint32_t value) noexcept nogil:
    return value


cdef inline uint64_t uint64(uint64_t value) noexcept nogil:
    return value


cdef extern from *:
    """
    #if defined(__AVX512F__)
    #include <immintrin.h>
    #define NORMFAST_LANES 16
    #define NORMFAST_STREAM(target, source) _mm512_stream_ps(target, _mm512_loadu_ps(source))
    #elif defined(__AVX__)
    #include <immintrin.h>
    #define NORMFAST_LANES 8
    #define NORMFAST_STREAM(target, source) _mm256_stream_ps(target, _mm256_loadu_ps(source))
    #elif defined(__SSE2__) || defined(_M_X64)
    #include <xmmintrin.h>
    #define NORMFAST_LANES 4
    #define NORMFAST_STREAM(target, source) _mm_stream_ps(target, _mm_loadu_ps(source))
    #endif
    #include <stdint.h>
    #include <string.h>
    static inline double normfast_power_of_two(double t) {
        uint64_t bits;
        memcpy(&bits, &t, sizeof bits);
        bits = (bits + 1023) << 52;
        memcpy(&t, &bits, sizeof t);
        return t;
    }
    static void normfast_prefetch(const char *run, Py_ssize_t bytes) {
    #if defined(__GNUC__)
        for (Py_ssize_t j = 0; j < bytes; j += 64) __builtin_prefetch(run + j);
    #endif
    }
    /* Non-temporal stores of whole vectors, plain ones at the ends; `n` counts floats. */
    static void normfast_stream(const float *source, Py_ssize_t n, float *target) {
    #ifdef NORMFAST_LANES
        Py_ssize_t j = 0;
        for (; j < n && (uintptr_t)(target + j) % (4 * NORMFAST_LANES); j++) target[j] = source[j];
        for (; j + NORMFAST_LANES <= n; j += NORMFAST_LANES) NORMFAST_STREAM(target + j, source + j);
        for (; j < n; j++) target[j] = source[j];
    #else
        memcpy(target, source, (size_t)n * sizeof(float));
    #endif
    }
    """
    double power_of_two "normfast_power_of_two"(double t) noexcept nogil
    void normfast_prefetch(const char* run, Py_ssize_t bytes) noexcept nogil
    void normfast_stream(const float* source, Py_ssize_t n, float* target) noexcept nogil


cdef inline void stream(floating* source, Py_ssize_t n, floating* target) noexcept nogil:
    normfast_stream(<const float*>source, n * (<Py_ssize_t>sizeof(floating) // 4), <float*>target)


cdef inline Py_ssize_t lead(floating* run, Py_ssize_t n) noexcept nogil:
    return min(n, <Py_ssize_t>(-<size_t>run % 64 // sizeof(floating)))


cdef inline void prefetch(floating* run, Py_ssize_t n) noexcept nogil:
    normfast_prefetch(<const char*>run, n * <Py_ssize_t>sizeof(floating))

"""The words of normfast/kernels/primitives.py in C: a block is a pointer to its first value."""

from cython cimport floating
from libc.math cimport pow, sqrt
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

ctypedef fused lane:  # the type a sum is taken in, where it may be wider than the values
    float
    double

ctypedef fused item:
    float
    double
    uint8_t
    uint16_t
    uint32_t

ctypedef fused written:
    float
    double
    uint16_t

cdef enum:
    LINES = 64  # that of kernels/primitives.py


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
    #define NORMFAST_VECTOR 64
    #define NORMFAST_STREAM(target, source) _mm512_stream_ps(target, _mm512_loadu_ps(source))
    #elif defined(__AVX__)
    #include <immintrin.h>
    #define NORMFAST_VECTOR 32
    #define NORMFAST_STREAM(target, source) _mm256_stream_ps(target, _mm256_loadu_ps(source))
    #elif defined(__SSE2__) || defined(_M_X64)
    #include <emmintrin.h>
    #define NORMFAST_VECTOR 16
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
    /* Into the second cache: a row, the next one, weight and bias fill the first. Layer norm 8192 x 4096: 9.4 -> 7.9 ms. */
    static void normfast_prefetch(const char *run, Py_ssize_t bytes) {
    #if defined(__GNUC__)
        for (Py_ssize_t j = 0; j < bytes; j += 64) __builtin_prefetch(run + j, 0, 2);
    #endif
    }
    /* Non-temporal stores of whole cache lines. A part of a line at either end goes so only if it is whole vectors, which meet those of the
       next call on their way; with both kinds of stores in one line rows of 503 values took 2.4 times as long as rows of 512. */
    static void normfast_stream(const char *source, Py_ssize_t bytes, char *target) {
    #ifdef NORMFAST_VECTOR
        Py_ssize_t j = (Py_ssize_t)(-(uintptr_t)target % 64), end = (Py_ssize_t)((uintptr_t)(target + bytes) % 64);
        j = j % NORMFAST_VECTOR ? j : 0;
        end = bytes - (end % NORMFAST_VECTOR ? end : 0);
        if (j >= end) j = end = 0;
        if (j) memcpy(target, source, (size_t)j);
        for (; j < end; j += NORMFAST_VECTOR) NORMFAST_STREAM((float *)(target + j), (const float *)(source + j));
        if (j < bytes) memcpy(target + j, source + j, (size_t)(bytes - j));
    #else
        memcpy(target, source, (size_t)bytes);
    #endif
    }
    /* Which of 64 bytes equal this one, and which are at least as large. */
    static inline uint64_t normfast_equal_bytes(const uint8_t *run, uint8_t byte) {
    #if defined(__AVX512BW__)
        return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(run), _mm512_set1_epi8((char)byte));
    #elif defined(__SSE2__) || defined(_M_X64)
        uint64_t flags = 0;
        for (int j = 0; j < 64; j += 16) {
            __m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(run + j)), _mm_set1_epi8((char)byte));
            flags |= (uint64_t)(uint32_t)_mm_movemask_epi8(equal) << j;
        }
        return flags;
    #else
        uint64_t flags = 0;
        for (int j = 0; j < 64; j++) flags |= (uint64_t)(run[j] == byte) << j;
        return flags;
    #endif
    }
    static inline uint64_t normfast_large_bytes(const uint8_t *run, uint8_t byte) {
    #if defined(__AVX512BW__)
        return _mm512_cmpge_epu8_mask(_mm512_loadu_si512(run), _mm512_set1_epi8((char)byte));
    #elif defined(__SSE2__) || defined(_M_X64)
        uint64_t flags = 0;
        for (int j = 0; j < 64; j += 16) { /* large where the larger of both is the byte of the run */
            __m128i sixteen = _mm_loadu_si128((const __m128i *)(run + j));
            __m128i large = _mm_cmpeq_epi8(_mm_max_epu8(sixteen, _mm_set1_epi8((char)byte)), sixteen);
            flags |= (uint64_t)(uint32_t)_mm_movemask_epi8(large) << j;
        }
        return flags;
    #else
        uint64_t flags = 0;
        for (int j = 0; j < 64; j++) flags |= (uint64_t)(run[j] >= byte) << j;
        return flags;
    #endif
    }
    static inline Py_ssize_t normfast_lowest_bit(uint64_t flags) {
    #if defined(__GNUC__)
        return __builtin_ctzll(flags);
    #else
        Py_ssize_t place = 0;
        while (!(flags >> place & 1)) place++;
        return place;
    #endif
    }
    """
    uint64_t equal_bytes "normfast_equal_bytes"(const uint8_t* run, uint8_t byte) noexcept nogil
    uint64_t large_bytes "normfast_large_bytes"(const uint8_t* run, uint8_t byte) noexcept nogil
    Py_ssize_t lowest_bit "normfast_lowest_bit"(uint64_t flags) noexcept nogil
    double power_of_two "normfast_power_of_two"(double t) noexcept nogil
    void normfast_prefetch(const char* run, Py_ssize_t bytes) noexcept nogil
    void normfast_stream(const char* source, Py_ssize_t bytes, char* target) noexcept nogil


cdef inline void stream(written* source, Py_ssize_t n, written* target) noexcept nogil:
    normfast_stream(<const char*>source, n * <Py_ssize_t>sizeof(written), <char*>target)


cdef inline Py_ssize_t lead(written* run, Py_ssize_t n) noexcept nogil:
    return min(n, <Py_ssize_t>(-<size_t>run % 64 // sizeof(written)))


cdef inline void prefetch(item* run, Py_ssize_t n) noexcept nogil:
    normfast_prefetch(<const char*>run, n * <Py_ssize_t>sizeof(item))

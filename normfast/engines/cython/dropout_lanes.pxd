"""Dropout by the masks of AVX-512, which compilers do not make of the text in normfast/kernels/dropout.py."""

from cython cimport floating
from libc.stdint cimport uint32_t, uint64_t
from .philox cimport philox_lanes

cdef extern from *:
    """
    #if defined(__AVX512BW__) && defined(__AVX512DQ__)
    /* Decides for the ties of 256 draws, whose bytes do not: in the order of the 4096 elements of a block they take the upper 24 bits of
       words that no block reaches. `taken` counts them in the block, `words` are those of the last 64. */
    static inline void normfast_keep_ties(
        uint64_t ties[4], const uint64_t *key, uint64_t block, uint32_t lower, int *taken, uint32_t words[64], uint64_t kept[4]) {
        for (int i = 0; i < 4; i++)
            for (; ties[i]; ties[i] &= ties[i] - 1) {
                const int t = (*taken)++;
                if (t % 64 == 0) normfast_philox_lanes((1ULL << 63) + 1024 * block + t / 4, key[2], key[3], key[0], key[1], words);
                if (words[t % 4 * 16 + t % 64 / 4] >> 8 < lower) kept[i] &= ~(ties[i] & -ties[i]);
            }
    }
    /* `dropout_run`. 256 draws are made, compared and used at once, so that arithmetic and memory overlap within what the processor has
       in flight. Vectors of y begin with a cache line, so they lie `lag` elements before those of the draws. */
    #define NORMFAST_DROPOUT(name, type, vector, lanes, suffix) \
    static inline void name##_64(const type *x, Py_ssize_t n, Py_ssize_t j, uint64_t kept, type scale, type *y, int streamed) { \
        if (j < 0 || j + 64 > n) { \
            for (Py_ssize_t k = j < 0 ? -j : 0; k < 64 && j + k < n; k++) y[j + k] = kept >> k & 1 ? x[j + k] * scale : 0; \
            return; \
        } \
        for (int k = 0; k < 64; k += lanes) { \
            const vector v = _mm512_maskz_mul_##suffix((__mmask##lanes)(kept >> k), _mm512_loadu_##suffix(x + j + k), _mm512_set1_##suffix(scale)); \
            if (streamed) _mm512_stream_##suffix(y + j + k, v); else _mm512_storeu_##suffix(y + j + k, v); \
        } \
    } \
    static inline Py_ssize_t name( \
        const type *x, Py_ssize_t n, const uint64_t *key, Py_ssize_t position, uint32_t threshold, type scale, type *y, int streamed) { \
        const __m512i upper = _mm512_set1_epi8((char)(threshold >> 24)); \
        const uint32_t lower = threshold & 0xFFFFFF; \
        const Py_ssize_t head = (Py_ssize_t)(-(uintptr_t)y % 64 / sizeof(type)); \
        Py_ssize_t part = lower ? position / 4096 * 16 : position / 256, j = 256 * part - position; \
        const int lag = (int)(((j - head) % lanes + lanes) % lanes); \
        uint32_t words[64], tie_words[64]; \
        uint64_t kept[4] = {0, 0, 0, 0}, ties[4], before; \
        int taken = 0; \
        for (; j < n; part++, j += 256) { \
            before = kept[3]; \
            normfast_philox_lanes(16 * (uint64_t)part, key[2], key[3], key[0], key[1], words); \
            for (int i = 0; i < 4; i++) { \
                const __m512i draws = _mm512_loadu_si512(words + 16 * i); \
                kept[i] = _mm512_cmpge_epu8_mask(draws, upper); \
                ties[i] = _mm512_cmpeq_epu8_mask(draws, upper); \
            } \
            if (part % 16 == 0) taken = 0; \
            if (lower && (ties[0] | ties[1] | ties[2] | ties[3])) \
                normfast_keep_ties(ties, key, (uint64_t)part / 16, lower, &taken, tie_words, kept); \
            if (j <= -256) continue; /* before the run: for its ties alone */ \
            for (Py_ssize_t k = 0; k < 256; k += 64 / (Py_ssize_t)sizeof(type)) _mm_prefetch((const char *)(x + j + k) + 2048, _MM_HINT_T0); \
            for (int i = 0; i < 4; i++) { \
                name##_64(x, n, j + 64 * i - lag, lag ? kept[i] << lag | before >> (64 - lag) : kept[i], scale, y, streamed); \
                before = kept[i]; \
            } \
        } \
        if (lag) name##_64(x, n, j - lag, kept[3] >> (64 - lag), scale, y, streamed); \
        return n; \
    }
    NORMFAST_DROPOUT(normfast_dropout_floats, float, __m512, 16, ps)
    NORMFAST_DROPOUT(normfast_dropout_doubles, double, __m512d, 8, pd)
    /* m flags, at most 16, from that of place `at` on */
    static inline uint32_t normfast_flags(const uint32_t *kept, Py_ssize_t at, Py_ssize_t m) {
        const uint32_t first = kept[at / 32] >> at % 32;
        return at % 32 + m > 32 ? first | kept[at / 32 + 1] << (32 - at % 32) : first;
    }
    /* `select_sweep`: a vector is masked as it is loaded, wherever its flags begin, and stored where it belongs. */
    #define NORMFAST_SELECT(name, type, vector, lanes, suffix) \
    static inline Py_ssize_t name(const type *x, Py_ssize_t n, const uint32_t *kept, Py_ssize_t at, type scale, type *y, int streamed) { \
        const vector factor = _mm512_set1_##suffix(scale); \
        const Py_ssize_t head = (Py_ssize_t)(-(uintptr_t)y % 64 / sizeof(type)); \
        for (Py_ssize_t j = 0, m = head && head < n ? head : n < lanes ? n : lanes; j < n; j += m, m = n - j < lanes ? n - j : lanes) { \
            const __mmask##lanes there = (__mmask##lanes)((1u << m) - 1), flags = (__mmask##lanes)normfast_flags(kept, at + j, m) & there; \
            const vector v = _mm512_maskz_mul_##suffix(flags, _mm512_maskz_loadu_##suffix(flags, x + j), factor); \
            if (m < lanes) _mm512_mask_storeu_##suffix(y + j, there, v); \
            else if (streamed) _mm512_stream_##suffix(y + j, v); \
            else _mm512_storeu_##suffix(y + j, v); \
        } \
        return n; \
    }
    NORMFAST_SELECT(normfast_select_floats, float, __m512, 16, ps)
    NORMFAST_SELECT(normfast_select_doubles, double, __m512d, 8, pd)
    #else
    #define normfast_dropout_floats(x, n, key, position, threshold, scale, y, streamed) 0
    #define normfast_dropout_doubles(x, n, key, position, threshold, scale, y, streamed) 0
    #define normfast_select_floats(x, n, kept, at, scale, y, streamed) 0
    #define normfast_select_doubles(x, n, kept, at, scale, y, streamed) 0
    #endif
    """
    Py_ssize_t normfast_dropout_floats(
        const float* x, Py_ssize_t n, const uint64_t* key, Py_ssize_t position, uint32_t threshold, float scale, float* y, bint streamed
    ) noexcept nogil
    Py_ssize_t normfast_dropout_doubles(
        const double* x, Py_ssize_t n, const uint64_t* key, Py_ssize_t position, uint32_t threshold, double scale, double* y, bint streamed
    ) noexcept nogil
    Py_ssize_t normfast_select_floats(
        const float* x, Py_ssize_t n, const uint32_t* kept, Py_ssize_t at, float scale, float* y, bint streamed) noexcept nogil
    Py_ssize_t normfast_select_doubles(
        const double* x, Py_ssize_t n, const uint32_t* kept, Py_ssize_t at, double scale, double* y, bint streamed) noexcept nogil


cdef inline Py_ssize_t dropout_lanes(
    floating* x, Py_ssize_t n, uint64_t* key, Py_ssize_t position, uint32_t threshold, floating scale, floating* y, bint streamed
) noexcept nogil:
    if floating is float:
        return normfast_dropout_floats(x, n, key, position, threshold, scale, y, streamed)
    else:
        return normfast_dropout_doubles(x, n, key, position, threshold, scale, y, streamed)


cdef inline Py_ssize_t select_lanes(
    floating* x, Py_ssize_t n, uint32_t* kept, Py_ssize_t at, floating scale, floating* y, bint streamed
) noexcept nogil:
    if floating is float:
        return normfast_select_floats(x, n, kept, at, scale, y, streamed)
    else:
        return normfast_select_doubles(x, n, kept, at, scale, y, streamed)

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
    /* The draws of a run, or of rows that follow each other: the flags of a part of 256 elements and, first, the last 64 before it. */
    typedef struct {
        Py_ssize_t part;
        uint64_t kept[5];
        uint32_t tie_words[64];
        int taken; /* ties that the block had so far */
    } normfast_drawn;
    /* Those of the part after, drawn and compared at once. */
    static inline void normfast_draw(normfast_drawn *drawn, const uint64_t *key, uint32_t threshold) {
        const __m512i upper = _mm512_set1_epi8((char)(threshold >> 24));
        const uint32_t lower = threshold & 0xFFFFFF;
        uint32_t words[64];
        uint64_t ties[4];
        const Py_ssize_t part = ++drawn->part;
        drawn->kept[0] = drawn->kept[4];
        normfast_philox_lanes(16 * (uint64_t)part, key[2], key[3], key[0], key[1], words);
        for (int i = 0; i < 4; i++) {
            const __m512i draws = _mm512_loadu_si512(words + 16 * i);
            drawn->kept[i + 1] = _mm512_cmpge_epu8_mask(draws, upper);
            ties[i] = _mm512_cmpeq_epu8_mask(draws, upper);
        }
        if (part % 16 == 0) drawn->taken = 0;
        if (lower && (ties[0] | ties[1] | ties[2] | ties[3]))
            normfast_keep_ties(ties, key, (uint64_t)part / 16, lower, &drawn->taken, drawn->tie_words, drawn->kept + 1);
    }
    /* Before that of `position`; ties are counted from the beginning of a block. */
    static inline void normfast_rewind(normfast_drawn *drawn, Py_ssize_t position, uint32_t threshold) {
        drawn->part = (threshold & 0xFFFFFF ? position / 4096 * 16 : position / 256) - 1;
        drawn->taken = 0;
        drawn->kept[4] = 0;
    }
    /* VECTOR(j, there, flags) for the elements j.. of a run of n, where `there` has a bit; vectors begin with a cache line of `target`, so they
       lie `lag` elements before those of the draws. A part is used as soon as it is drawn, so that arithmetic and memory overlap within what
       the processor has in flight. */
    #define NORMFAST_DRAWN_SWEEP(type, lanes, target, VECTOR) { \
        const int lag = (int)(((-(position % 256) - (Py_ssize_t)(-(uintptr_t)(target) % 64 / sizeof(type))) % lanes + lanes) % lanes); \
        Py_ssize_t first = -(position % 256); \
        while (drawn->part < position / 256) normfast_draw(drawn, key, threshold); \
        for (;;) { \
            for (int i = 0; i < 4; i++) { \
                const Py_ssize_t k = first + 64 * i - lag; \
                const uint64_t kept = lag ? drawn->kept[i + 1] << lag | drawn->kept[i] >> (64 - lag) : drawn->kept[i + 1]; \
                if (k >= 0 && k + 64 <= n) { \
                    for (int e = 0; e < 64; e += lanes) VECTOR(k + e, (__mmask##lanes)-1, (__mmask##lanes)(kept >> e)) \
                } else NORMFAST_ENDS(k, lanes, VECTOR) \
            } \
            first += 256; \
            if (first >= n) break; \
            normfast_draw(drawn, key, threshold); \
        } \
        if (lag) { \
            const Py_ssize_t k = first - lag; \
            const uint64_t kept = drawn->kept[4] >> (64 - lag); \
            NORMFAST_ENDS(k, lanes, VECTOR) \
        } \
    }
    #define NORMFAST_ENDS(k, lanes, VECTOR) \
        for (int e = 0; e < 64; e += lanes) { \
            const Py_ssize_t j = k + e, lo = j < 0 ? -j : 0, hi = n - j < lanes ? n - j : lanes; \
            if (lo < hi) { \
                const __mmask##lanes there = (__mmask##lanes)((1u << hi) - (1u << lo)); \
                VECTOR(j, there, (__mmask##lanes)(kept >> e) & there) \
            } \
        }
    /* Past the caches where a vector is whole. */
    #define NORMFAST_KEEP(suffix, target, there, value) \
        if ((uint32_t)(there) + 1 != 1u << 8 * sizeof(there)) _mm512_mask_storeu_##suffix(target, there, value); \
        else if (streamed) _mm512_stream_##suffix(target, value); \
        else _mm512_storeu_##suffix(target, value);
    /* `dropout_run` */
    #define NORMFAST_DROP(j, there, flags, suffix) { \
        _mm_prefetch((const char *)(x + (j)) + 2048, _MM_HINT_T0); \
        NORMFAST_KEEP(suffix, y + (j), there, _mm512_maskz_mul_##suffix(flags, _mm512_maskz_loadu_##suffix(there, x + (j)), factor)) \
    }
    #define NORMFAST_DROP_FLOATS(j, there, flags) NORMFAST_DROP(j, there, flags, ps)
    #define NORMFAST_DROP_DOUBLES(j, there, flags) NORMFAST_DROP(j, there, flags, pd)
    #define NORMFAST_DROPOUT(name, type, vector, lanes, suffix, VECTOR) \
    static inline Py_ssize_t name( \
        const type *x, Py_ssize_t n, const uint64_t *key, Py_ssize_t position, uint32_t threshold, type scale, type *y, int streamed) { \
        const vector factor = _mm512_set1_##suffix(scale); \
        normfast_drawn state, *drawn = &state; \
        normfast_rewind(drawn, position, threshold); \
        NORMFAST_DRAWN_SWEEP(type, lanes, y, VECTOR) \
        return n; \
    }
    NORMFAST_DROPOUT(normfast_dropout_floats, float, __m512, 16, ps, NORMFAST_DROP_FLOATS)
    NORMFAST_DROPOUT(normfast_dropout_doubles, double, __m512d, 8, pd, NORMFAST_DROP_DOUBLES)
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

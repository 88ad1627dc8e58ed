cimport cython
from libc.stdint cimport uint32_t, uint64_t
from .primitives cimport chunk, uint64

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__AVX512F__)
    #include <immintrin.h>
    #define NORMFAST_LANES 8
    #define NORMFAST_SPREAD(word) _mm512_set1_epi64((long long)(word))
    #define NORMFAST_COUNT(first) _mm512_add_epi64(NORMFAST_SPREAD(first), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7))
    #define NORMFAST_MULTIPLY _mm512_mul_epu32
    #define NORMFAST_UPPER(lanes) _mm512_srli_epi64(lanes, 32)
    #define NORMFAST_XOR(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
    #define NORMFAST_STORE(words, a, b) _mm512_storeu_si512(words, _mm512_permutex2var_epi32( \
        a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b))
    typedef __m512i normfast_lanes;
    #elif defined(__AVX2__)
    #include <immintrin.h>
    #define NORMFAST_LANES 4
    #define NORMFAST_SPREAD(word) _mm256_set1_epi64x((long long)(word))
    #define NORMFAST_COUNT(first) _mm256_add_epi64(NORMFAST_SPREAD(first), _mm256_setr_epi64x(0, 1, 2, 3))
    #define NORMFAST_MULTIPLY _mm256_mul_epu32
    #define NORMFAST_UPPER(lanes) _mm256_srli_epi64(lanes, 32)
    #define NORMFAST_XOR(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
    #define NORMFAST_EVEN(lanes) _mm256_permutevar8x32_epi32(lanes, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6))
    #define NORMFAST_STORE(words, a, b) _mm256_storeu_si256( \
        (__m256i *)(words), _mm256_blend_epi32(NORMFAST_EVEN(a), NORMFAST_EVEN(b), 0xF0))
    typedef __m256i normfast_lanes;
    #endif
    /* `philox_counters` of philox.py, one in each 64-bit lane of a vector and two vectors side by side, since a multiply takes five
       cycles. gcc makes a full 64-bit product of the 32-bit one, 2.6 ns a word against 0.85 (AVX2) and 0.42 (AVX-512); LLVM finds
       it by itself. Unrolled, since what the first two rounds share is computed once for all counters then. */
    static inline int normfast_philox_lanes(
        uint64_t first, uint64_t c2_, uint64_t c3_, uint64_t k0_, uint64_t k1_, uint32_t *words) {
    #ifdef NORMFAST_LANES
        enum { LANES = NORMFAST_LANES, BESIDE = 2 };
        const normfast_lanes m0 = NORMFAST_SPREAD(0xD2511F53), m1 = NORMFAST_SPREAD(0xCD9E8D57);
        uint64_t keys[20]; /* in memory, from where the instruction spreads them itself: from registers that takes a port of the arithmetic */
        for (int r = 0; r < 20; r += 2) {
            keys[r] = k0_;
            keys[r + 1] = k1_;
            k0_ += 0x9E3779B9;
            k1_ += 0xBB67AE85;
        }
        for (int j = 0; j < 16; j += LANES * BESIDE) {
            normfast_lanes c0[BESIDE], c1[BESIDE], c2[BESIDE], c3[BESIDE];
            for (int v = 0; v < BESIDE; v++) {
                c0[v] = NORMFAST_COUNT(first + j + LANES * v);
                c1[v] = NORMFAST_SPREAD(first >> 32);
                c2[v] = NORMFAST_SPREAD(c2_);
                c3[v] = NORMFAST_SPREAD(c3_);
            }
    #pragma GCC unroll 10
            for (int r = 0; r < 20; r += 2) {
                const normfast_lanes v0 = NORMFAST_SPREAD(keys[r]), v1 = NORMFAST_SPREAD(keys[r + 1]);
                for (int v = 0; v < BESIDE; v++) { /* the multiply reads the lower halves alone; the upper ones are left out at the end */
                    normfast_lanes p0 = NORMFAST_MULTIPLY(c0[v], m0), p1 = NORMFAST_MULTIPLY(c2[v], m1);
                    c0[v] = NORMFAST_XOR(NORMFAST_UPPER(p1), c1[v], v0);
                    c2[v] = NORMFAST_XOR(NORMFAST_UPPER(p0), c3[v], v1);
                    c1[v] = p1;
                    c3[v] = p0;
                }
            }
            NORMFAST_STORE(words + j, c0[0], c0[1]);
            NORMFAST_STORE(words + 16 + j, c1[0], c1[1]);
            NORMFAST_STORE(words + 32 + j, c2[0], c2[1]);
            NORMFAST_STORE(words + 48 + j, c3[0], c3[1]);
        }
        return 1;
    #else
        (void)first; (void)c2_; (void)c3_; (void)k0_; (void)k1_; (void)words;
        return 0;
    #endif
    }
    """
    bint philox_lanes "normfast_philox_lanes"(
        uint64_t first, uint64_t c2, uint64_t c3, uint64_t k0, uint64_t k1, uint32_t* words) noexcept nogil


cdef Py_ssize_t BLOCK_WORDS, COUNTERS

@cython.locals(low=uint64_t, p0=uint64_t, p1=uint64_t, _=int)
cdef (uint64_t, uint64_t, uint64_t, uint64_t) philox4x32(
    uint64_t c0, uint64_t c1, uint64_t c2, uint64_t c3, uint64_t k0, uint64_t k1, int rounds) noexcept nogil

@cython.locals(first=uint64_t)
cdef void random_block(uint64_t* key, Py_ssize_t block, uint32_t* words) noexcept nogil

@cython.locals(top=uint64_t, j=Py_ssize_t, w0=uint64_t, w1=uint64_t, w2=uint64_t, w3=uint64_t)
cdef void philox_counters(uint64_t first, uint64_t c2, uint64_t c3, uint64_t k0, uint64_t k1, uint32_t* words) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t, j=Py_ssize_t)
cdef void random_words(uint64_t* key, Py_ssize_t position, Py_ssize_t n, uint32_t* block_words, uint32_t* words) noexcept nogil

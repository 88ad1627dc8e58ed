cimport cython
from cython cimport floating
from libc.stdint cimport uint32_t, uint64_t
from .primitives cimport cast, chunk, uint64

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__AVX2__)
    #include <immintrin.h>
    #endif
    /* A block of philox.py's random_block, 4 counters in the 64-bit lanes of a vector. gcc makes a full 64-bit product of the
       32-bit one, 2.6 ns a word against 0.9 (AVX2); LLVM finds it by itself. */
    static Py_ssize_t normfast_philox_lanes(
        uint64_t first, uint64_t c2_, uint64_t c3_, uint64_t k0_, uint64_t k1_, uint32_t *words) {
    #if defined(__AVX2__)
        const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57);
        const __m256i even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
        for (int j = 0; j < 256; j += 8) {
            __m256i c0[2], c1[2], c2[2], c3[2];
            for (int v = 0; v < 2; v++) {
                __m256i n = _mm256_add_epi64(_mm256_set1_epi64x((long long)first + j + 4 * v), _mm256_setr_epi64x(0, 1, 2, 3));
                c0[v] = n;
                c1[v] = _mm256_srli_epi64(n, 32);
                c2[v] = _mm256_set1_epi64x((long long)c2_);
                c3[v] = _mm256_set1_epi64x((long long)c3_);
            }
            uint32_t k0 = (uint32_t)k0_, k1 = (uint32_t)k1_;
            for (int r = 0; r < 10; r++) {
                const __m256i v0 = _mm256_set1_epi64x(k0), v1 = _mm256_set1_epi64x(k1);
                for (int v = 0; v < 2; v++) { /* the multiply reads the lower halves alone; the upper ones are cleared at the end */
                    __m256i p0 = _mm256_mul_epu32(c0[v], m0), p1 = _mm256_mul_epu32(c2[v], m1);
                    c0[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1[v]), v0);
                    c2[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3[v]), v1);
                    c1[v] = p1;
                    c3[v] = p0;
                }
                k0 += 0x9E3779B9u;
                k1 += 0xBB67AE85u;
            }
            __m256i *outputs[4] = {c0, c1, c2, c3};
            for (int w = 0; w < 4; w++) {
                __m256i a = _mm256_permutevar8x32_epi32(outputs[w][0], even), b = _mm256_permutevar8x32_epi32(outputs[w][1], even);
                _mm256_storeu_si256((__m256i *)(words + 256 * w + j), _mm256_blend_epi32(a, b, 0xF0));
            }
        }
        return 256;
    #else
        (void)first; (void)c2_; (void)c3_; (void)k0_; (void)k1_; (void)words;
        return 0;
    #endif
    }
    """
    Py_ssize_t philox_lanes "normfast_philox_lanes"(
        uint64_t first, uint64_t c2, uint64_t c3, uint64_t k0, uint64_t k1, uint32_t* words) noexcept nogil


@cython.locals(low=uint64_t, p0=uint64_t, p1=uint64_t, _=int)
cdef (uint64_t, uint64_t, uint64_t, uint64_t) philox4x32(
    uint64_t c0, uint64_t c1, uint64_t c2, uint64_t c3, uint64_t k0, uint64_t k1, int rounds) noexcept nogil

@cython.locals(
    k0=uint64_t, k1=uint64_t, c2=uint64_t, c3=uint64_t, first=uint64_t, counter=uint64_t, j=Py_ssize_t, w0=uint64_t, w1=uint64_t, w2=uint64_t,
    w3=uint64_t, words1="uint32_t*", words2="uint32_t*", words3="uint32_t*")
cdef void random_block(uint64_t* key, Py_ssize_t block, uint32_t* words) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t, j=Py_ssize_t)
cdef void random_words(uint64_t* key, Py_ssize_t position, Py_ssize_t n, uint32_t* block_words, uint32_t* words) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t)
cdef void dropout_run(
    floating* x, Py_ssize_t n, uint64_t* key, Py_ssize_t position, uint32_t threshold, floating scale, uint32_t* block_words,
    floating* y) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void select(floating* x, Py_ssize_t n, uint32_t* words, uint32_t threshold, floating scale, floating* y) noexcept nogil

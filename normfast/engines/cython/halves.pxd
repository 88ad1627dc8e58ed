cimport cython
from libc.stdint cimport uint16_t, uint32_t
from .primitives cimport cast, chunk, lead, prefetch, stream, uint32

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__AVX512F__) && (defined(__clang__) || __GNUC__ >= 10) /* gcc knows the instruction since 10 */
    #include <immintrin.h>
    /* The instruction for it, of Cooper Lake, Sapphire Rapids and Zen 4, takes a subnormal number for 0: from such a one on the loop goes on.
       4096 values in the first cache: 0.48 -> 0.14 us. */
    __attribute__((target("avx512bf16,avx512dq"))) static Py_ssize_t normfast_bfloat16_vectors(
        const uint32_t *bits, Py_ssize_t n, uint16_t *target) {
        const int subnormal = 0x20;
        Py_ssize_t j = 0;
        for (; j + 32 <= n; j += 32) {
            __m512 low = _mm512_loadu_ps(bits + j), high = _mm512_loadu_ps(bits + j + 16);
            if (_mm512_fpclass_ps_mask(low, subnormal) | _mm512_fpclass_ps_mask(high, subnormal)) break;
            __m512bh rounded = _mm512_cvtne2ps_pbh(high, low);
            memcpy(target + j, &rounded, sizeof rounded);
        }
        return j;
    }
    static Py_ssize_t normfast_bfloat16_lanes(const uint32_t *bits, Py_ssize_t n, uint16_t *target) {
        static int has = -1;
        if (has < 0) has = __builtin_cpu_supports("avx512bf16") != 0;
        return has ? normfast_bfloat16_vectors(bits, n, target) : 0;
    }
    #elif defined(__AVX2__)
    #include <immintrin.h>
    /* A loop without NaN, whose place one comparison of two vectors tells: 18 instructions for 16 values, gcc makes 29 of the text. */
    static Py_ssize_t normfast_bfloat16_lanes(const uint32_t *bits, Py_ssize_t n, uint16_t *target) {
        const __m256i half = _mm256_set1_epi32(0x7FFF), one = _mm256_set1_epi32(1);
        Py_ssize_t j = 0;
        for (; j + 16 <= n; j += 16) {
            __m256i a = _mm256_loadu_si256((const __m256i *)(bits + j)), b = _mm256_loadu_si256((const __m256i *)(bits + j + 8));
            const __m256 nan = _mm256_cmp_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), _CMP_UNORD_Q);
            if (!_mm256_testz_ps(nan, nan)) break;
            a = _mm256_add_epi32(_mm256_add_epi32(a, half), _mm256_and_si256(_mm256_srli_epi32(a, 16), one));
            b = _mm256_add_epi32(_mm256_add_epi32(b, half), _mm256_and_si256(_mm256_srli_epi32(b, 16), one));
            const __m256i words = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
            _mm256_storeu_si256((__m256i *)(target + j), _mm256_permute4x64_epi64(words, 0xD8)); /* packed within halves of 128 bits */
        }
        return j;
    }
    #else
    static Py_ssize_t normfast_bfloat16_lanes(const uint32_t *bits, Py_ssize_t n, uint16_t *target) {
        (void)bits; (void)n; (void)target;
        return 0;
    }
    #endif
    """
    Py_ssize_t bfloat16_lanes "normfast_bfloat16_lanes"(uint32_t* bits, Py_ssize_t n, uint16_t* target) noexcept nogil

cdef Py_ssize_t WORDS

cdef void widen(uint16_t* source, Py_ssize_t n, bint bfloat, uint32_t* bits, float* values) noexcept nogil

@cython.locals(left=Py_ssize_t, m=Py_ssize_t, target="uint16_t*")
cdef void store(
    uint32_t* bits, float* values, Py_ssize_t n, bint bfloat, uint32_t* work_bits, float* work, uint16_t* following, uint16_t* y, bint streamed,
    uint16_t* words) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void widen_bfloat16(uint16_t* source, Py_ssize_t n, uint32_t* bits) noexcept nogil

@cython.locals(j=Py_ssize_t, u=uint32_t, rounded=uint32_t)
cdef void narrow_bfloat16(uint32_t* bits, Py_ssize_t n, uint16_t* target) noexcept nogil

@cython.locals(j=Py_ssize_t, h=uint32_t, top=uint32_t)
cdef void widen_float16(uint16_t* source, Py_ssize_t n, uint32_t* bits, float* values) noexcept nogil

@cython.locals(j=Py_ssize_t, u=uint32_t, sign=uint32_t, normal=uint32_t, h=uint32_t)
cdef void narrow_float16(
    uint32_t* bits, float* values, Py_ssize_t n, uint32_t* work_bits, float* work, uint16_t* target) noexcept nogil

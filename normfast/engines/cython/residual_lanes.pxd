"""Dropout with the sum before a norm, and with its gradient, by AVX-512: in one sweep, of which compilers make three, with the draws."""

from cython cimport floating
from libc.stdint cimport uint32_t, uint64_t
from .dropout_lanes cimport select_lanes  # with it come the draws and the sweep that this is made of

cdef extern from *:
    """
    #if defined(__AVX512BW__) && defined(__AVX512DQ__)
    /* `add_lanes` */
    #define NORMFAST_ADD(j, there, flags, vector, suffix) { \
        const vector v = _mm512_fmadd_##suffix( \
            _mm512_maskz_loadu_##suffix(flags, x + (j)), factor, _mm512_maskz_loadu_##suffix(there, other + (j))); \
        _mm_prefetch((const char *)(x + n + (j)), _MM_HINT_T1); \
        _mm_prefetch((const char *)(other + n + (j)), _MM_HINT_T1); \
        if (streamed) _mm512_mask_storeu_##suffix(sum + (j), there, v); \
        NORMFAST_KEEP(suffix, h + (j), there, v) \
    }
    #define NORMFAST_ADD_FLOATS(j, there, flags) NORMFAST_ADD(j, there, flags, __m512, ps)
    #define NORMFAST_ADD_DOUBLES(j, there, flags) NORMFAST_ADD(j, there, flags, __m512d, pd)
    /* `gradient_lanes` */
    #define NORMFAST_GRADIENT(j, there, flags, vector, suffix) { \
        const vector d = _mm512_fmsub_##suffix(_mm512_maskz_loadu_##suffix(there, x + (j)), s, c); \
        const vector g = _mm512_mul_##suffix(_mm512_maskz_loadu_##suffix(there, dy + (j)), _mm512_maskz_loadu_##suffix(there, weight + (j))); \
        vector v = _mm512_fmadd_##suffix(g, rs, _mm512_fmadd_##suffix(d, ps, qs)); \
        if (more) v = _mm512_add_##suffix(v, _mm512_maskz_loadu_##suffix(there, more + (j))); \
        const vector u = _mm512_maskz_mul_##suffix(flags, v, f); \
        NORMFAST_KEEP(suffix, total + (j), there, v) \
        NORMFAST_KEEP(suffix, dropped + (j), there, u) \
    }
    #define NORMFAST_GRADIENT_FLOATS(j, there, flags) NORMFAST_GRADIENT(j, there, flags, __m512, ps)
    #define NORMFAST_GRADIENT_DOUBLES(j, there, flags) NORMFAST_GRADIENT(j, there, flags, __m512d, pd)
    #define NORMFAST_RESIDUAL(type, vector, lanes, suffix, ADD, GRADIENT) \
    static inline int normfast_add_##type( \
        const type *x, Py_ssize_t n, const uint64_t *key, Py_ssize_t position, uint32_t threshold, type scale, const type *other, \
        normfast_drawn *drawn, int fresh, type *sum, type *h, int streamed) { \
        const vector factor = _mm512_set1_##suffix(scale); \
        if (fresh) normfast_rewind(drawn, position, threshold); \
        NORMFAST_DRAWN_SWEEP(type, lanes, h, ADD) \
        return 1; \
    } \
    static inline int normfast_gradient_##type( \
        const type *dy, const type *x, const type *weight, Py_ssize_t n, type scale, type high, type r, type p, type q, const type *more, \
        const uint64_t *key, Py_ssize_t position, uint32_t threshold, type factor, normfast_drawn *drawn, int fresh, type *total, \
        type *dropped, int streamed) { \
        const vector s = _mm512_set1_##suffix(scale), c = _mm512_set1_##suffix(high), rs = _mm512_set1_##suffix(r); \
        const vector ps = _mm512_set1_##suffix(p), qs = _mm512_set1_##suffix(q), f = _mm512_set1_##suffix(factor); \
        if (streamed && ((uintptr_t)dropped - (uintptr_t)total) % 64) return 0; \
        if (fresh) normfast_rewind(drawn, position, threshold); \
        NORMFAST_DRAWN_SWEEP(type, lanes, total, GRADIENT) \
        return 1; \
    }
    NORMFAST_RESIDUAL(float, __m512, 16, ps, NORMFAST_ADD_FLOATS, NORMFAST_GRADIENT_FLOATS)
    NORMFAST_RESIDUAL(double, __m512d, 8, pd, NORMFAST_ADD_DOUBLES, NORMFAST_GRADIENT_DOUBLES)
    #else
    typedef void normfast_drawn;
    #define normfast_add_float(...) 0
    #define normfast_add_double(...) 0
    #define normfast_gradient_float(...) 0
    #define normfast_gradient_double(...) 0
    #endif
    """
    ctypedef struct drawn "normfast_drawn":
        pass
    bint normfast_add_float(
        const float* x, Py_ssize_t n, const uint64_t* key, Py_ssize_t position, uint32_t threshold, float scale, const float* other,
        drawn* state, bint fresh, float* sum, float* h, bint streamed) noexcept nogil
    bint normfast_add_double(
        const double* x, Py_ssize_t n, const uint64_t* key, Py_ssize_t position, uint32_t threshold, double scale, const double* other,
        drawn* state, bint fresh, double* sum, double* h, bint streamed) noexcept nogil
    bint normfast_gradient_float(
        const float* dy, const float* x, const float* weight, Py_ssize_t n, float scale, float high, float r, float p, float q,
        const float* more, const uint64_t* key, Py_ssize_t position, uint32_t threshold, float factor, drawn* state, bint fresh, float* total,
        float* dropped, bint streamed) noexcept nogil
    bint normfast_gradient_double(
        const double* dy, const double* x, const double* weight, Py_ssize_t n, double scale, double high, double r, double p, double q,
        const double* more, const uint64_t* key, Py_ssize_t position, uint32_t threshold, double factor, drawn* state, bint fresh,
        double* total, double* dropped, bint streamed) noexcept nogil


cdef inline bint add_lanes(
    floating* x, Py_ssize_t n, uint64_t* key, Py_ssize_t position, uint32_t threshold, floating scale, floating* other, uint32_t* words,
    bint fresh, floating* sum, floating* h, bint streamed
) noexcept nogil:
    if floating is float:
        return normfast_add_float(x, n, key, position, threshold, scale, other, <drawn*>words, fresh, sum, h, streamed)
    else:
        return normfast_add_double(x, n, key, position, threshold, scale, other, <drawn*>words, fresh, sum, h, streamed)


cdef inline bint gradient_lanes(
    floating* dy, floating* x, floating* weight, Py_ssize_t n, floating scale, floating high, floating r, floating p, floating q, bint added,
    floating* more, uint64_t* key, Py_ssize_t position, uint32_t threshold, floating factor, uint32_t* words, bint fresh, floating* total,
    floating* dropped, bint streamed
) noexcept nogil:
    if floating is float:
        return normfast_gradient_float(
            dy, x, weight, n, scale, high, r, p, q, more if added else NULL, key, position, threshold, factor, <drawn*>words, fresh, total,
            dropped, streamed)
    else:
        return normfast_gradient_double(
            dy, x, weight, n, scale, high, r, p, q, more if added else NULL, key, position, threshold, factor, <drawn*>words, fresh, total,
            dropped, streamed)

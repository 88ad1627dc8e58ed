cimport cython
from libc.stdint cimport uint16_t, uint32_t
from .primitives cimport cast, chunk, lead, prefetch, stream, uint32

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

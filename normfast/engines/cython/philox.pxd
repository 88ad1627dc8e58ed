cimport cython
from cython cimport floating
from libc.stdint cimport uint32_t, uint64_t
from .primitives cimport cast, chunk, uint64


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

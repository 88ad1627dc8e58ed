cimport cython
from cython cimport floating
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from .halves cimport store, widen
from .normalize cimport LINES
from .philox cimport BESIDE, COUNTERS, philox4x32, random_counters
from .primitives cimport cast, chunk, equal_bytes, item, lead, lowest_bit, prefetch, spread_bits, stream, uint32, uint64

cdef Py_ssize_t AHEAD, DRAWS

@cython.locals(kept="uint8_t*", i=Py_ssize_t, j=Py_ssize_t, upper=uint8_t)
cdef void keep_block(
    uint64_t* key, Py_ssize_t block, uint32_t threshold, item* x, item* y, uint32_t* words, uint8_t* space) noexcept nogil

@cython.locals(
    count=Py_ssize_t, i=Py_ssize_t, counter=uint64_t, word=uint64_t, second=uint64_t, third=uint64_t, fourth=uint64_t, taken=Py_ssize_t,
    start=Py_ssize_t, ties=uint64_t)
cdef void keep_ties(
    uint64_t* key, Py_ssize_t block, uint8_t upper, uint32_t lower, uint8_t* draws, uint8_t* kept, uint8_t* places) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t, flags="uint8_t*", target="uint8_t*", j=Py_ssize_t)
cdef Py_ssize_t keep_run(
    uint64_t* key, Py_ssize_t position, Py_ssize_t n, uint32_t threshold, item* x, item* y, Py_ssize_t block, uint32_t* words,
    uint8_t* space, uint8_t* kept) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t)
cdef void dropout_run(
    floating* x, Py_ssize_t n, uint64_t* key, Py_ssize_t position, uint32_t threshold, floating scale, uint32_t* words, uint8_t* space,
    floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t, run="uint16_t*", target="uint16_t*")
cdef void half_dropout_run(
    uint16_t* x, bint bfloat, Py_ssize_t n, uint64_t* key, Py_ssize_t position, uint32_t threshold, float scale, uint32_t* words,
    uint8_t* space, uint16_t* y, bint streamed, uint32_t* bits, float* values, uint32_t* work_bits, float* work,
    uint16_t* buffer) noexcept nogil

@cython.locals(done=Py_ssize_t, m=Py_ssize_t, j=Py_ssize_t)
cdef void masked_run(
    floating* x, Py_ssize_t n, uint64_t* flags, floating scale, uint8_t* kept, floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(left=Py_ssize_t, m=Py_ssize_t)
cdef void select_sweep(floating* x, Py_ssize_t n, uint8_t* kept, floating scale, floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void select(floating* x, Py_ssize_t n, uint8_t* kept, floating scale, floating* y) noexcept nogil

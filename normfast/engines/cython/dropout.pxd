cimport cython
from cython cimport floating
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from .dropout_lanes cimport dropout_lanes, select_lanes
from .halves cimport store, widen
from .philox cimport BLOCK_WORDS, philox4x32, random_block
from .primitives cimport LINES, cast, chunk, equal_bytes, item, large_bytes, lead, lowest_bit, prefetch, stream, uint32, uint64

cdef Py_ssize_t AHEAD, DRAWS, FLAGS

@cython.locals(kept="uint32_t*", blocks=Py_ssize_t, i=Py_ssize_t, upper=uint8_t, flags=uint64_t, places="uint8_t*")
cdef void keep_block(
    uint64_t* key, Py_ssize_t block, uint32_t threshold, item* x, item* y, uint32_t* words, uint8_t* space) noexcept nogil

@cython.locals(
    count=Py_ssize_t, i=Py_ssize_t, counter=uint64_t, word=uint64_t, second=uint64_t, third=uint64_t, fourth=uint64_t, taken=Py_ssize_t,
    start=Py_ssize_t, ties=uint64_t, place=Py_ssize_t, dropped=uint32_t)
cdef void keep_ties(
    uint64_t* key, Py_ssize_t block, uint8_t upper, uint32_t lower, uint8_t* draws, uint32_t* kept, uint8_t* places) noexcept nogil

@cython.locals(
    word=Py_ssize_t, first=Py_ssize_t, end=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t, j=Py_ssize_t, flags="uint32_t*", target="uint32_t*")
cdef Py_ssize_t keep_run(
    uint64_t* key, Py_ssize_t position, Py_ssize_t n, uint32_t threshold, item* x, item* y, Py_ssize_t block, uint32_t* words,
    uint8_t* space, uint32_t* kept) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t, run="floating*", target="floating*")
cdef void dropout_run(
    floating* x, Py_ssize_t n, uint64_t* key, Py_ssize_t position, uint32_t threshold, floating scale, uint32_t* words, uint8_t* space,
    floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t, run="uint16_t*", target="uint16_t*")
cdef void half_dropout_run(
    uint16_t* x, bint bfloat, Py_ssize_t n, uint64_t* key, Py_ssize_t position, uint32_t threshold, float scale, uint32_t* words,
    uint8_t* space, uint16_t* y, bint streamed, uint32_t* bits, float* values, uint32_t* work_bits, float* work,
    uint16_t* buffer) noexcept nogil

@cython.locals(left=Py_ssize_t, m=Py_ssize_t)
cdef void select_sweep(
    floating* x, Py_ssize_t n, uint32_t* kept, Py_ssize_t at, floating scale, floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(done=Py_ssize_t, words=Py_ssize_t, flags="uint32_t*", i=Py_ssize_t)
cdef void select(floating* x, Py_ssize_t n, uint32_t* kept, Py_ssize_t at, floating scale, floating* y) noexcept nogil

@cython.locals(j=int)
cdef inline void select_word(floating* x, int n, uint32_t flags, floating scale, floating* y) noexcept nogil

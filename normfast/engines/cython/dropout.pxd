cimport cython
from cython cimport floating
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from .halves cimport store, widen
from .normalize cimport LINES
from .philox cimport BESIDE, BLOCK_WORDS, COUNTERS, philox4x32, random_counters
from .primitives cimport cast, chunk, item, lead, prefetch, stream, uint32, uint64

cdef Py_ssize_t AHEAD, DRAWS

@cython.locals(i=Py_ssize_t, j=Py_ssize_t)
cdef void draw_block(
    uint64_t* key, Py_ssize_t block, uint32_t threshold, item* x, item* y, uint32_t* words, uint32_t* draws) noexcept nogil

@cython.locals(draws1="uint32_t*", nearest=uint32_t, j=Py_ssize_t, draw0=uint32_t, draw1=uint32_t)
cdef uint32_t split(uint32_t* words, uint32_t threshold, uint32_t* draws) noexcept nogil

@cython.locals(top=uint64_t, word=uint64_t, _=uint64_t)
cdef uint64_t lower_draw(uint64_t* key, uint64_t position) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t, target="uint8_t*", j=Py_ssize_t)
cdef void keep_run(
    uint64_t* key, Py_ssize_t position, Py_ssize_t n, uint32_t threshold, uint32_t* words, uint32_t* draws, uint8_t* kept) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t)
cdef void dropout_run(
    floating* x, Py_ssize_t n, uint64_t* key, Py_ssize_t position, uint32_t threshold, floating scale, uint32_t* words, uint32_t* draws,
    floating* y, bint streamed, floating* buffer) noexcept nogil

@cython.locals(done=Py_ssize_t, start=Py_ssize_t, m=Py_ssize_t, run="uint16_t*", target="uint16_t*")
cdef void half_dropout_run(
    uint16_t* x, bint bfloat, Py_ssize_t n, uint64_t* key, Py_ssize_t position, uint32_t threshold, float scale, uint32_t* words,
    uint32_t* draws, uint16_t* y, bint streamed, uint32_t* bits, float* values, uint32_t* work_bits, float* work,
    uint16_t* buffer) noexcept nogil

@cython.locals(left=Py_ssize_t, m=Py_ssize_t)
cdef void select_sweep(
    floating* x, Py_ssize_t n, uint32_t* draws, uint32_t threshold, floating scale, floating* y, bint streamed,
    floating* buffer) noexcept nogil

@cython.locals(j=Py_ssize_t)
cdef void select(floating* x, Py_ssize_t n, uint32_t* draws, uint32_t threshold, floating scale, floating* y) noexcept nogil

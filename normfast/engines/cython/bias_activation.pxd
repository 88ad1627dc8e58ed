cimport cython
from cython cimport floating
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from .activations cimport IDENTITY, activate, activate_gradient
from .columns cimport copy
from .dropout cimport FLAGS, keep_run, select
from .layer_norm cimport TILE, drain
from .normalize cimport PART
from .primitives cimport chunk, lead, row, stream
from .residual cimport add


@cython.locals(
    block=Py_ssize_t, i=Py_ssize_t, left=Py_ssize_t, m=Py_ssize_t, xi="floating*", yi="floating*", target="floating*")
cdef void bias_activation_rows(
    floating* x, floating* bias, Py_ssize_t n, int code, bint drawn, uint64_t* key, Py_ssize_t position, uint32_t threshold,
    floating scale, uint32_t* words, uint8_t* space, uint32_t* kept, floating* y, Py_ssize_t lo, Py_ssize_t hi, bint streamed,
    floating* buffer) noexcept nogil

@cython.locals(
    block=Py_ssize_t, i=Py_ssize_t, left=Py_ssize_t, m=Py_ssize_t, dyi="floating*", xi="floating*", dxi="floating*")
cdef void bias_activation_gradient_rows(
    floating* dy, floating* x, floating* bias, Py_ssize_t n, int code, bint drawn, uint64_t* key, Py_ssize_t position, uint32_t threshold,
    floating scale, uint32_t* words, uint8_t* space, uint32_t* kept, floating* dx, Py_ssize_t lo, Py_ssize_t hi, floating* tile_dbias,
    double* dbias, bint streamed, floating* g, floating* z) noexcept nogil

"""The mean of the layer-normalized tokens of each sentence, a row at a time: no array of x's size is made, and the GIL is released."""

from cython cimport floating
from libc.stdlib cimport free, malloc

from normfast.capi cimport layer_norm


def pooled(
    const floating[:, :, ::1] x, const floating[::1] weight, const floating[::1] bias, floating[:, ::1] out, double eps=1e-5
):
    """Write layer_norm(x, weight, bias).mean(axis=1) for x (sentences, tokens, n) into out (sentences, n)."""
    cdef Py_ssize_t sentences = x.shape[0], tokens = x.shape[1], n = x.shape[2], i, t, j
    if x.size == 0 or weight.shape[0] != n or bias.shape[0] != n or out.shape[0] != sentences or out.shape[1] != n:
        raise ValueError("x must be (sentences, tokens, n) with values, weight and bias (n,), out (sentences, n)")
    cdef floating* row = <floating*>malloc(n * sizeof(floating))
    if row == NULL:
        raise MemoryError
    cdef int status = 0
    with nogil:
        for i in range(sentences):
            for j in range(n):
                out[i, j] = 0
            for t in range(tokens):
                status |= layer_norm(&x[i, t, 0], &weight[0], &bias[0], 1, n, eps, row, NULL, NULL, NULL)
                for j in range(n):
                    out[i, j] += row[j] / tokens
    free(row)
    if status != 0:
        raise ValueError(f"eps must be a finite number of 0 or more, got {eps}")

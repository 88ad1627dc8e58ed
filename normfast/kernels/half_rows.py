"""Layer and RMS norm of 16-bit rows: widened to float32, normalized and rounded again while they are in the first cache.

`x` and `y` are the words of float16 or bfloat16; `bits` and `values` are the same memory as uint32 and as float32, so are `result_bits` and
`result`.
"""

from normfast.kernels.halves import *
from normfast.kernels.layer_norm import *
from normfast.kernels.primitives import *
from normfast.kernels.rows import *

WORDS = 256  # written past the caches at once


def half_rows(x, bfloat, weight, bias, n, eps, centred, y, mean, rstd, var, lo, hi, streamed, bits, values, result_bits, result, words):
    """`layer_norm_rows` of such rows; `words` is space for WORDS of them."""
    step = max(TOGETHER // n // 4 * 4, 1)
    i = lo
    while i < hi:
        stop = min(i + step, hi)
        m = (stop - i) * n
        if bfloat:
            widen_bfloat16(row(x, i, n), m, bits)
        else:
            widen_float16(row(x, i, n), m, bits, values)
        layer_norm_rows(
            values, weight, bias, n, eps, centred, result, chunk(mean, i, stop), chunk(rstd, i, stop), chunk(var, i, stop), 0, stop - i,
            False, result,
        )  # fmt: skip
        following = row(x, min(stop, hi - 1), n)
        narrow_rows(result_bits, result, m, bfloat, bits, values, following, row(y, i, n), streamed, words)
        i = stop


def narrow_rows(bits, values, n, bfloat, work_bits, work, following, y, streamed, words):
    """Round n values to words of y; past the caches if `streamed`, and the words `following` are asked for."""
    left = 0
    m = lead(y, n) if streamed else n
    while left < n:
        target = words if streamed else y
        if bfloat:
            narrow_bfloat16(chunk(bits, left, left + m), m, target)
        else:
            narrow_float16(chunk(bits, left, left + m), chunk(values, left, left + m), m, work_bits, work, target)
        if streamed:
            prefetch(chunk(following, left, left + m), m)
            stream(words, m, chunk(y, left, left + m))
        left += m
        m = min(n - left, WORDS)

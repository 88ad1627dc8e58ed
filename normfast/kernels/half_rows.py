"""Layer and RMS norm of 16-bit rows: widened to float32, computed with and rounded again while they are in the first cache.

`x`, `y`, `dy` and `dx` are the words of float16 or bfloat16; `bits` and `values` are the same memory as uint32 and as float32, and so are
the other pairs.
"""

from normfast.kernels.halves import *
from normfast.kernels.layer_norm import *
from normfast.kernels.primitives import *
from normfast.kernels.rows import *


def half_rows(x, bfloat, weight, bias, n, eps, centred, y, mean, rstd, var, lo, hi, streamed, bits, values, work_bits, work, words):
    """`layer_norm_rows` of such rows; `words` is space for WORDS of them."""
    step = max(TOGETHER // n // 4 * 4, 1)
    i = lo
    while i < hi:
        stop = min(i + step, hi)
        m = (stop - i) * n
        widen(row(x, i, n), m, bfloat, bits, values)
        layer_norm_rows(
            values, weight, bias, n, eps, centred, values, chunk(mean, i, stop), chunk(rstd, i, stop), chunk(var, i, stop), 0, stop - i,
            False, values,
        )  # fmt: skip
        store(bits, values, m, bfloat, work_bits, work, row(x, min(stop, hi - 1), n), row(y, i, n), streamed, words)
        i = stop


def half_gradient_rows(
    dy, x, bfloat, mean, rstd, weight, n, centred, dx, lo, hi, tile_dweight, tile_dbias, dweight, dbias, streamed, dy_bits, dy_values, bits,
    values, words,
):  # fmt: skip
    """`layer_norm_gradient_rows` of such rows."""
    step = max(TOGETHER // 2 // n, 1)
    i = lo
    while i < hi:
        stop = min(i + step, hi)
        m = (stop - i) * n
        widen(row(dy, i, n), m, bfloat, dy_bits, dy_values)
        widen(row(x, i, n), m, bfloat, bits, values)
        for k in range(i, stop):
            dyk = row(dy_values, k - i, n)
            gradient_row(dyk, row(values, k - i, n), mean[k], rstd[k], weight, n, centred, dyk, tile_dweight, tile_dbias, False, dyk)
            if (k + 1 - lo) % TILE == 0 or k + 1 == hi:
                drain(tile_dweight, n, dweight)
                drain(tile_dbias, n, dbias)
        store(dy_bits, dy_values, m, bfloat, bits, values, row(x, min(stop, hi - 1), n), row(dx, i, n), streamed, words)
        i = stop

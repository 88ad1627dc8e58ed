"""Bias, activation and dropout of the rows that a matmul made, a part of a row at a time while it is in the first cache.

`words`, `space` and `kept` are those of `residual.py`; where `drawn` is false nothing is dropped.
"""

from normfast.kernels.activations import *
from normfast.kernels.columns import *
from normfast.kernels.dropout import *
from normfast.kernels.layer_norm import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.residual import *


def bias_activation_rows(
    x, bias, n, code, drawn, key, position, threshold, scale, words, space, kept, y, lo, hi, streamed, buffer
):  # fmt: skip
    """Forward, rows lo..hi: y = dropout(f(x + bias)) for the activation f of that code; past the caches if `streamed`."""
    block = -1
    for i in range(lo, hi):
        xi = row(x, i, n)
        yi = row(y, i, n)
        if drawn:
            block = keep_run(key, position + i * n, n, threshold, xi, yi, block, words, space, kept)
        left = 0
        m = min(lead(yi, n) if streamed else PART, n)
        while left < n:
            target = buffer if streamed else chunk(yi, left, left + m)
            add(chunk(xi, left, left + m), m, chunk(bias, left, left + m), target)
            if code != IDENTITY:
                activate(target, m, code, target)
            if drawn:
                select(target, m, kept, (position + i * n) % 32 + left, scale, target)
            if streamed:
                stream(buffer, m, chunk(yi, left, left + m))
            left += m
            m = min(n - left, PART)


def bias_activation_gradient_rows(
    dy, x, bias, n, code, drawn, key, position, threshold, scale, words, space, kept, dx, lo, hi, tile_dbias, dbias, streamed, g, z
):
    """Backward, rows lo..hi; their share of dbias is added to the float64 `dbias`. g and z are space for a part of a row."""
    block = -1
    for i in range(lo, hi):
        dyi = row(dy, i, n)
        xi = row(x, i, n)
        dxi = row(dx, i, n)
        if drawn:
            block = keep_run(key, position + i * n, n, threshold, dyi, xi, block, words, space, kept)
        left = 0
        m = min(lead(dxi, n) if streamed else PART, n)
        while left < n:
            if drawn:
                select(chunk(dyi, left, left + m), m, kept, (position + i * n) % 32 + left, scale, g)
            else:
                copy(chunk(dyi, left, left + m), m, g)
            if code != IDENTITY:
                add(chunk(xi, left, left + m), m, chunk(bias, left, left + m), z)
                activate_gradient(g, z, m, code, z)
            else:
                copy(g, m, z)
            add(z, m, chunk(tile_dbias, left, left + m), chunk(tile_dbias, left, left + m))
            if streamed:
                stream(z, m, chunk(dxi, left, left + m))
            else:
                copy(z, m, chunk(dxi, left, left + m))
            left += m
            m = min(n - left, PART)
        if (i + 1 - lo) % TILE == 0 or i + 1 == hi:
            drain(tile_dbias, n, dbias)

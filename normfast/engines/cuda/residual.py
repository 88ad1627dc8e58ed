"""Dropout, the sum with the residual stream and the norm of the sum: what the kernels of rows read and write in place of x and dx.

A row's values come from `taker`, which adds and keeps h, and its gradients go through `giver`; both hold what they move in registers. Where
rows are too long for that, or do not lie in rows, the same two run over all elements by themselves, before or after the norm.
"""

from functools import cache

import numpy as np
from numba import cuda, uint32

from normfast.engines.cuda.primitives import launch, loader, storer, wide_kind, width_of

THREADS = 256
BLOCKS = 1 << 16  # of a launch at most


@cache
def chooser(kind, width, drawn):
    """choose(held, at, words, place, scale): held * scale where the bits from `place` on say so, else 0; `drawn`: whether there are."""
    wide = kind.wide

    @cuda.jit(device=True)
    def choose(held, at, words, place, scale):
        if drawn:
            for k in range(width):
                bit = place + k
                kept = (words[bit // 32] >> uint32(bit % 32)) & uint32(1)
                held[at + k] = held[at + k] * scale if kept else wide(0)

    return choose


@cache
def taker(drawn, kind, width):
    """take(source, i, held, at, write): h = dropout(x) + residual of `width` elements, kept in memory if `write`."""
    load, store, choose, wide = loader(kind, width), storer(kind, width), chooser(kind, width, drawn), kind.wide
    rounded = kind.words is np.uint16

    @cuda.jit(device=True)
    def take(source, i, held, at, write):
        x, residual, words, first, scale, h = source
        other = cuda.local.array(width, wide)
        load(x, i, held, at)
        load(residual, i, other, 0)
        choose(held, at, words, first + i, wide(scale))
        for k in range(width):
            held[at + k] += other[k]
        if write:
            store(held, at, h, i)
            if rounded:  # the norm is that of h as it is kept
                load(h, i, held, at)

    return take


@cache
def giver(drawn, added, kind, width):
    """give(part, target, i): dresidual = part + dh, of `width` elements, and dx, its dropout before it is rounded."""
    load, store, choose, wide = loader(kind, width), storer(kind, width), chooser(kind, width, drawn), kind.wide

    @cuda.jit(device=True)
    def give(part, target, i):
        dh, words, first, scale, dresidual, dx = target
        if added:
            other = cuda.local.array(width, wide)
            load(dh, i, other, 0)
            for k in range(width):
                part[k] += other[k]
        store(part, 0, dresidual, i)
        if drawn:
            choose(part, 0, words, first + i, wide(scale))
            store(part, 0, dx, i)

    return give


@cache
def taking_kernel(kind, width, drawn):
    """h of all elements."""
    take, wide = taker(drawn, kind, width), kind.wide

    @cuda.jit
    def kernel(source, n):
        held = cuda.local.array(width, wide)
        i = cuda.grid(1) * width
        while i < n:
            take(source, i, held, 0, True)
            i += cuda.gridsize(1) * width

    return kernel


@cache
def giving_kernel(kind, width, drawn, added):
    """dresidual and dx of all elements, from the gradient of the norm, which is not rounded yet."""
    load, give, wide = loader(wide_kind(kind), width), giver(drawn, added, kind, width), kind.wide

    @cuda.jit
    def kernel(total, target, n):
        part = cuda.local.array(width, wide)
        i = cuda.grid(1) * width
        while i < n:
            load(total, i, part, 0)
            give(part, target, i)
            i += cuda.gridsize(1) * width

    return kernel


def blocks_of(n, width):
    return min(-(-n // (THREADS * width)), BLOCKS)


def take_all(kind, source, drawn, n, aligned, stream):
    """Fill h; `source` is (x, residual, words, first, scale, h)."""
    width = width_of(kind, n, aligned)
    launch(taking_kernel(kind, width, drawn), blocks_of(n, width), THREADS, stream, source, n)


def give_all(kind, total, target, drawn, added, n, aligned, stream):
    """Fill dresidual and dx; `target` is (dh, words, first, scale, dresidual, dx)."""
    width = width_of(kind, n, aligned)
    launch(giving_kernel(kind, width, drawn, added), blocks_of(n, width), THREADS, stream, total, target, n)

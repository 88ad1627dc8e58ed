"""The kernels of dropout: a block of threads draws the 4096 flags of a block of the stream, as `kernels/dropout.py` says, and applies them.

Philox's counter j of 16 gives four words, each of which decides for four elements side by side; the 16 counters of a block of 64 words are
16 threads. So the flags come four at a time, a byte for each four, in shared memory. Where eight bits of a draw do not decide, the number
of such elements before one tells which words do: that is counted over the threads, in the order of the elements.
"""

from functools import cache

import numpy as np
from numba import cuda, int32, uint8, uint32, uint64

from normfast.engines.cuda.primitives import launch, loader, storer
from normfast.engines.cuda.teams import shuffled
from normfast.kernels.dropout import DRAWS

THREADS = 256  # of a block; each takes 16 elements
QUADS = DRAWS // 4
FLAG_WORDS = DRAWS // 32
BLOCKS = 1 << 16  # of a launch at most: a block then goes on with the next draws


@cuda.jit(device=True)
def philox4x32(counter, c2, c3, k0, k1):
    """The four words of a 64-bit counter: `kernels/philox.py` with words of 32 bits, which a GPU multiplies to 64 in one instruction.

    The shared text, whose lanes have 64 bits for the sake of CPUs, multiplies those: 39 multiplications of 64 bits, not 20 of 32.
    """
    c0, c1 = uint32(counter), uint32(counter >> uint64(32))
    for _ in range(10):
        p0 = uint64(0xD2511F53) * uint64(c0)
        p1 = uint64(0xCD9E8D57) * uint64(c2)
        c0 = uint32(uint32(p1 >> uint64(32)) ^ c1 ^ k0)
        c2 = uint32(uint32(p0 >> uint64(32)) ^ c3 ^ k1)
        c1 = uint32(p1)
        c3 = uint32(p0)
        k0 = uint32(uint64(k0) + uint64(0x9E3779B9))
        k1 = uint32(uint64(k1) + uint64(0xBB67AE85))
    return c0, c1, c2, c3


@cuda.jit(device=True)
def fours(word, upper):
    """Of a word's four draws of eight bits, those that reach `upper` and those that equal it: a bit for each."""
    kept = tied = 0
    for k in range(4):
        draw = int32((word >> uint32(8 * k)) & uint32(255))
        if draw >= upper:
            kept |= 1 << k
        if draw == upper:
            tied |= 1 << k
    return kept, tied


@cache
def keeper(threads):
    """keep(...) fills `flags` with the bits of a block of the stream, four to a byte, set where an element is kept; all threads call it."""
    each = QUADS // threads

    @cuda.jit(device=True)
    def ties_before(mine, totals):
        """How many ties the threads before this one hold: a scan of each warp, then of the warps."""
        lane = cuda.threadIdx.x % 32
        before = 0
        total = mine
        mask = 1
        while mask < 32:
            other = int(shuffled(total, mask))
            if lane & mask:
                before += other
            total += other
            mask *= 2
        if lane == 0:
            totals[cuda.threadIdx.x // 32] = total
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x // 32):
            before += totals[i]
        return before

    @cuda.jit(device=True)
    def keep(c2, c3, k0, k1, block, threshold, flags):
        upper, lower = int32(threshold >> 24), int32(threshold & 0xFFFFFF)
        ties = cuda.shared.array(QUADS, uint8)
        totals = cuda.shared.array(8, uint32)
        j = cuda.threadIdx.x
        while j < QUADS // 4:
            words = philox4x32(uint64(block) * uint64(QUADS // 4) + uint64(j), c2, c3, k0, k1)
            place = 64 * (j // 16) + j % 16
            for i in range(4):
                flags[place + 16 * i], ties[place + 16 * i] = fours(words[i], upper)
            j += threads
        cuda.syncthreads()
        if lower:
            first = cuda.threadIdx.x * each
            mine = 0
            for i in range(each):
                mine += cuda.popc(ties[first + i])
            rank = ties_before(mine, totals)
            if mine:
                for i in range(4 * each):
                    quad = first + i // 4
                    if (ties[quad] >> (i % 4)) & 1:
                        counter = (uint64(1) << uint64(63)) + uint64(block) * uint64(QUADS) + uint64(rank // 4)
                        if int32(philox4x32(counter, c2, c3, k0, k1)[rank % 4] >> uint32(8)) < lower:
                            flags[quad] ^= uint8(1 << (i % 4))
                        rank += 1
            cuda.syncthreads()

    return keep


@cache
def dropper(kind, lanes, threads):
    """y = x * scale where the stream keeps, else 0; `lanes` values at a time, in memory that allows that."""
    keep, wide = keeper(threads), kind.wide
    values = DRAWS // threads  # of a thread: a literal to the compiler
    each = values // lanes
    load, store = loader(kind, lanes), storer(kind, lanes)
    load_one, store_one = loader(kind, 1), storer(kind, 1)

    @cuda.jit(device=True)
    def choose(held, at, flags, place, scale):
        kept = (flags[place // 4] >> (place % 4)) & 1
        held[at] = held[at] * scale if kept else wide(0)

    @cuda.jit(device=True)
    def one(x, i, flags, place, scale, y):
        held = cuda.local.array(1, wide)
        load_one(x, i, held, 0)
        choose(held, 0, flags, place, scale)
        store_one(held, 0, y, i)

    @cuda.jit
    def drop(x, c2, c3, k0, k1, position, threshold, scale, y):
        flags = cuda.shared.array(QUADS, uint8)
        held = cuda.local.array(values, wide)
        n, factor, tid = x.shape[0], wide(scale), cuda.threadIdx.x
        block = position // DRAWS + cuda.blockIdx.x
        while block * DRAWS < position + n:
            # the elements of x that the block of draws decides, and those of them that lie in whole vectors
            start = block * DRAWS - position
            lo, hi = max(start, 0), min(start + DRAWS, n)
            inner_lo = min((lo + lanes - 1) // lanes * lanes, hi)
            inner_hi = max(hi // lanes * lanes, inner_lo)
            # ask for the values, draw while they come, then select
            for u in range(each):
                i = inner_lo + (u * threads + tid) * lanes
                if i < inner_hi:
                    load(x, i, held, u * lanes)
            keep(c2, c3, k0, k1, block, threshold, flags)
            for u in range(each):
                i = inner_lo + (u * threads + tid) * lanes
                if i < inner_hi:
                    for k in range(lanes):
                        choose(held, u * lanes + k, flags, i + k - start, factor)
                    store(held, u * lanes, y, i)
            if lo + tid < inner_lo:
                one(x, lo + tid, flags, lo + tid - start, factor, y)
            if inner_hi + tid < hi:
                one(x, inner_hi + tid, flags, inner_hi + tid - start, factor, y)
            cuda.syncthreads()
            block += cuda.gridDim.x

    return drop


@cache
def packer(threads):
    """The flags of whole blocks of draws as bits of words of 32, the lowest for the first element."""
    keep = keeper(threads)

    @cuda.jit
    def pack(c2, c3, k0, k1, first, threshold, words):
        flags = cuda.shared.array(QUADS, uint8)
        block = cuda.blockIdx.x
        while block * FLAG_WORDS < words.shape[0]:
            keep(c2, c3, k0, k1, first + block, threshold, flags)
            i = cuda.threadIdx.x
            while i < FLAG_WORDS:
                bits = uint32(0)
                for k in range(8):
                    bits |= uint32(flags[8 * i + k]) << uint32(4 * k)
                words[block * FLAG_WORDS + i] = bits
                i += threads
            cuda.syncthreads()
            block += cuda.gridDim.x

    return pack


@cache
def selector(kind):
    """y = x * scale where the bit of an element is set, else 0; all 0 for a scale of 0.

    x has `sizes`; a step along one of them is so many bits, 0 where elements share theirs. The first element has bit `at`.
    """
    wide, load, store = kind.wide, loader(kind, 1), storer(kind, 1)

    @cuda.jit
    def select(x, words, at, sizes, steps, scale, y):
        held = cuda.local.array(1, wide)
        factor = wide(scale)
        i = cuda.grid(1)
        while i < x.shape[0]:
            left, place = i, at
            for axis in range(len(sizes) - 1, 0, -1):
                place += left % sizes[axis] * steps[axis]
                left //= sizes[axis]
            place += left * steps[0]
            kept = scale != 0.0 and (words[place // 32] >> uint32(place % 32)) & uint32(1)
            load(x, i, held, 0)
            held[0] = held[0] * factor if kept else wide(0)
            store(held, 0, y, i)
            i += cuda.gridsize(1)

    return select


def blocks_of(position, n):
    """Blocks of draws that decide n elements from a position on."""
    return (position + n + DRAWS - 1) // DRAWS - position // DRAWS if n else 0


def drop(x, kind, key, position, threshold, scale, y, stream, aligned=True):
    """y = dropout(x), both runs of n values of that kind."""
    if x.shape[0]:
        kernel = dropper(kind, kind.lanes if aligned else 1, THREADS)
        launch(kernel, min(blocks_of(position, x.shape[0]), BLOCKS), THREADS, stream, x, *words_of(key), position, threshold, scale, y)


def flag_words(position, n):
    """Words that the flags of n elements from a position on take, with those of the blocks of draws that they begin and end in."""
    return blocks_of(position, n) * FLAG_WORDS


def flag(key, position, threshold, words, stream):
    """Fill `flag_words` words with the flags of the stream: that of the element at `position` is bit position % DRAWS."""
    if words.shape[0]:
        blocks = min(words.shape[0] // FLAG_WORDS, BLOCKS)
        launch(packer(THREADS), blocks, THREADS, stream, *words_of(key), position // DRAWS, threshold, words)


def select(x, kind, words, at, sizes, steps, scale, y, stream):
    """y = x * scale where the bit of an element is set: see `selector`."""
    n = x.shape[0]
    if n:
        launch(selector(kind), min(-(-n // THREADS), BLOCKS), THREADS, stream, x, words, at, tuple(sizes), tuple(steps), scale, y)


def words_of(key):
    """The generator's four words as the kernels take them: the upper half of its counter, then Philox's key."""
    return tuple(np.uint32(word) for word in (key[2], key[3], key[0], key[1]))

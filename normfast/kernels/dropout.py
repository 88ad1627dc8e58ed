"""Dropout: whether an element is kept is a function of the key and its position, and of nothing else.

An element is dropped where a draw of 32 bits is below p * 2**32, of which mostly 16 are drawn: those halves of a Philox word decide unless
they equal the upper half of the threshold, once in 65536 elements, and the lower half of the draw is made then. So a word serves two
elements: elements e and e + 1024 of a block of 2048 draw the lower and the upper half of word e.
"""

from normfast.kernels.halves import *
from normfast.kernels.normalize import LINES
from normfast.kernels.philox import *
from normfast.kernels.primitives import *

DRAWS = 2048


def keep_block(key, block, threshold, words, kept):
    """1 for each of the elements of a block that is kept, else 0; words is working space for those of a block."""
    random_block(key, block, words)
    upper = uint32(threshold >> uint32(16))
    ties = compare(words, upper, kept)
    if ties > 0 and threshold & uint32(0xFFFF):
        for j in range(DRAWS):
            word = uint32(words[j % BLOCK_WORDS])
            if (word >> uint32(16) if j >= BLOCK_WORDS else word & uint32(0xFFFF)) == upper:
                kept[j] = lower_draw(key, uint64(block) * uint64(DRAWS) + uint64(j)) >= (threshold & uint32(0xFFFF))


def compare(words, upper, kept):
    """1 for each draw of 16 bits that reaches `upper`, else 0; returns how many equal it."""
    kept1 = chunk(kept, BLOCK_WORDS, DRAWS)
    ties = uint32(0)
    for j in range(BLOCK_WORDS):
        draw0 = uint32(words[j]) & uint32(0xFFFF)
        draw1 = uint32(words[j]) >> uint32(16)
        kept[j] = draw0 >= upper
        kept1[j] = draw1 >= upper
        ties += uint32(draw0 == upper) + uint32(draw1 == upper)
    return ties


def lower_draw(key, position):
    """16 bits for the element at a position, from counters that no block reaches."""
    top = (position >> uint64(32)) | uint64(0x80000000)
    word, _, _, _ = philox4x32(position & uint64(0xFFFFFFFF), top, key[2], key[3], key[0], key[1], 10)
    return word >> uint64(16)


def keep_run(key, position, n, threshold, words, block_kept, kept):
    """1 for each of the n elements from `position` on that is kept, else 0."""
    done = 0
    start = position % DRAWS
    while done < n:
        m = min(n - done, DRAWS - start)
        keep_block(key, (position + done) // DRAWS, threshold, words, block_kept)
        for j in range(m):
            kept[done + j] = block_kept[start + j]
        done += m
        start = 0


def dropout_run(x, n, key, position, threshold, scale, words, kept, y, streamed, buffer):
    """y = x * scale where the element is kept, else 0 (also where x is infinite or NaN); past the caches, through the buffer, if `streamed`."""
    done = 0
    start = position % DRAWS
    while done < n:
        m = min(n - done, DRAWS - start)
        keep_block(key, (position + done) // DRAWS, threshold, words, kept)
        select_sweep(chunk(x, done, done + m), m, chunk(kept, start, start + m), scale, chunk(y, done, done + m), streamed, buffer)
        done += m
        start = 0


def half_dropout_run(x, bfloat, n, key, position, threshold, scale, words, kept, y, streamed, bits, values, work_bits, work, buffer):
    """`dropout_run` of words of 16-bit floats; bits and values are the same memory, space for a block, and so are the other two."""
    done = 0
    start = position % DRAWS
    while done < n:
        m = min(n - done, DRAWS - start)
        run = chunk(x, done, done + m)
        keep_block(key, (position + done) // DRAWS, threshold, words, kept)
        widen(run, m, bfloat, bits, values)
        select(values, m, chunk(kept, start, start + m), scale, values)
        store(bits, values, m, bfloat, work_bits, work, run, chunk(y, done, done + m), streamed, buffer)
        done += m
        start = 0


def select_sweep(x, n, kept, scale, y, streamed, buffer):
    """`select`; past the caches, through the buffer, if `streamed`."""
    left = 0
    m = lead(y, n) if streamed else n
    while left < n:
        select(chunk(x, left, left + m), m, chunk(kept, left, left + m), scale, buffer if streamed else y)
        if streamed:
            stream(buffer, m, chunk(y, left, left + m))
        left += m
        m = min(n - left, LINES)


def select(x, n, kept, scale, y):
    """y = x * scale where kept, else 0."""
    for j in range(n):
        y[j] = x[j] * scale if kept[j] != 0 else cast(0.0, scale)


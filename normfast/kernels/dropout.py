"""Dropout: whether an element is kept is a function of the key and its position, and of nothing else.

An element is dropped where its draw of 32 bits is below the threshold p * 2**32. The upper half of the draw decides that but once in 65536
elements; the lower half is drawn then, and 0 else. So a word of the generator serves two elements: elements e and e + 1024 of a block of
2048 have the lower and the upper half of its word e.
"""

from normfast.kernels.halves import *
from normfast.kernels.normalize import LINES
from normfast.kernels.philox import *
from normfast.kernels.primitives import *

DRAWS = 2048  # of a block
AHEAD = 256  # values asked for while 512 draws are made: all of them would take longer than that


def draw_block(key, block, threshold, x, y, words, draws):
    """The draws of a block's elements, all 32 bits of them only where they decide; words is working space for those of the block.

    The values x and y that they are meant for are asked for meanwhile: then memory is not idle (12 MB, one core: 0.59 -> 0.43 ns a value).
    """
    for i in range(COUNTERS // BESIDE):
        random_counters(key, block, i * BESIDE, words)
        prefetch(chunk(x, i * AHEAD, DRAWS), AHEAD)
        prefetch(chunk(y, i * AHEAD, DRAWS), AHEAD)
    if split(words, threshold, draws) <= uint32(0xFFFF) and threshold & uint32(0xFFFF):
        for j in range(DRAWS):
            if draws[j] ^ threshold <= uint32(0xFFFF):
                draws[j] |= lower_draw(key, uint64(block) * uint64(DRAWS) + uint64(j))


def split(words, threshold, draws):
    """Each half of a word is the upper half of a draw; returns the smallest difference from the threshold, as an exclusive or."""
    draws1 = chunk(draws, BLOCK_WORDS, DRAWS)
    nearest = uint32(0xFFFFFFFF)
    for j in range(BLOCK_WORDS):
        draw0 = uint32(words[j] << uint32(16))
        draw1 = uint32(words[j] & uint32(0xFFFF0000))
        draws[j] = draw0
        draws1[j] = draw1
        nearest = min(nearest, uint32(draw0 ^ threshold), uint32(draw1 ^ threshold))
    return nearest


def lower_draw(key, position):
    """The lower half of the draw of the element at a position, from counters that no block reaches."""
    top = (position >> uint64(32)) | uint64(0x80000000)
    word, _, _, _ = philox4x32(position & uint64(0xFFFFFFFF), top, key[2], key[3], key[0], key[1], 10)
    return word >> uint64(16)


def keep_run(key, position, n, threshold, words, draws, kept):
    """1 for each of the n elements from `position` on that is kept, else 0."""
    done = 0
    start = position % DRAWS
    while done < n:
        m = min(n - done, DRAWS - start)
        target = chunk(kept, done, n)
        draw_block(key, (position + done) // DRAWS, threshold, target, target, words, draws)
        for j in range(m):
            target[j] = draws[start + j] >= threshold
        done += m
        start = 0


def dropout_run(x, n, key, position, threshold, scale, words, draws, y, streamed, buffer):
    """y = x * scale where the element is kept, else 0, also for infinite x and NaN; past the caches, through the buffer, if `streamed`."""
    done = 0
    start = position % DRAWS
    while done < n:
        m = min(n - done, DRAWS - start)
        run = chunk(x, done, n)
        target = chunk(y, done, n)
        draw_block(key, (position + done) // DRAWS, threshold, run, chunk(run, DRAWS // 2, n) if streamed else target, words, draws)
        select_sweep(run, m, chunk(draws, start, start + m), threshold, scale, target, streamed, buffer)
        done += m
        start = 0


def half_dropout_run(x, bfloat, n, key, position, threshold, scale, words, draws, y, streamed, bits, values, work_bits, work, buffer):
    """`dropout_run` of words of 16-bit floats; bits and values are the same memory, space for a block, and so are the other two."""
    done = 0
    start = position % DRAWS
    while done < n:
        m = min(n - done, DRAWS - start)
        run = chunk(x, done, n)
        target = chunk(y, done, n)
        draw_block(key, (position + done) // DRAWS, threshold, run, chunk(run, DRAWS // 2, n) if streamed else target, words, draws)
        widen(run, m, bfloat, bits, values)
        select(values, m, chunk(draws, start, start + m), threshold, scale, values)
        store(bits, values, m, bfloat, work_bits, work, run, target, streamed, buffer)
        done += m
        start = 0


def select_sweep(x, n, draws, threshold, scale, y, streamed, buffer):
    """`select`; past the caches, through the buffer, if `streamed`."""
    left = 0
    m = lead(y, n) if streamed else n
    while left < n:
        select(chunk(x, left, left + m), m, chunk(draws, left, left + m), threshold, scale, buffer if streamed else y)
        if streamed:
            stream(buffer, m, chunk(y, left, left + m))
        left += m
        m = min(n - left, LINES)


def select(x, n, draws, threshold, scale, y):
    """y = x * scale where the draw reaches the threshold, else 0."""
    for j in range(n):
        y[j] = x[j] * scale if draws[j] >= threshold else cast(0.0, scale)

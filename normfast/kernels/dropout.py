"""Dropout: whether an element is kept is a function of the key and its position, and of nothing else.

An element is dropped where its draw of 32 bits is below the threshold p * 2**32. The upper eight bits of the draw are a byte of the
generator's words, which decides that but once in 256 elements; the other bits are drawn then. So a block of 4096 elements takes 1024
words, and a few more.
"""

from normfast.kernels.halves import *
from normfast.kernels.philox import *
from normfast.kernels.primitives import *

DRAWS = 4096  # of a block
AHEAD = 96  # values asked for while 256 draws are made: more would take longer to come than that
FLAGS = 32  # bits of a word, the lowest for the first of its elements


def keep_block(key, block, threshold, x, y, words, space):
    """A bit for each element of a block, set if it is kept, in the words behind its draws; `space` is the same memory, as bytes.

    The values x and y that this is meant for are asked for meanwhile: then memory is not idle (12 MB, one core: 0.59 -> 0.40 ns a value).
    """
    kept = chunk(words, DRAWS // 4, DRAWS // 4 + DRAWS // FLAGS)
    blocks = DRAWS // 4 // BLOCK_WORDS
    for i in range(blocks):
        random_block(key, block * blocks + i, chunk(words, i * BLOCK_WORDS, DRAWS // 4))
        prefetch(chunk(x, i * AHEAD, DRAWS), AHEAD)
        prefetch(chunk(y, i * AHEAD, DRAWS), AHEAD)
    upper = threshold >> uint32(24)
    for i in range(DRAWS // 64):
        flags = large_bytes(chunk(space, 64 * i, DRAWS), upper)
        kept[2 * i] = flags & uint64(0xFFFFFFFF)
        kept[2 * i + 1] = flags >> uint64(32)
    if threshold & uint32(0xFFFFFF):
        places = chunk(space, DRAWS + DRAWS // 8, DRAWS + DRAWS // 8 + 64)
        keep_ties(key, block, upper, threshold & uint32(0xFFFFFF), space, kept, places)


def keep_ties(key, block, upper, lower, draws, kept, places):
    """Decide for the elements whose byte does not: in their order, four of them take the words of a counter that no block reaches.

    Which 64 bytes hold such is written to `places` without a branch, since nobody can foretell it: 0.08 -> 0.05 ns an element.
    """
    count = 0
    for i in range(DRAWS // 64):
        places[count] = i
        count += equal_bytes(chunk(draws, 64 * i, DRAWS), upper) != 0
    counter = (uint64(1) << uint64(63)) + uint64(block) * uint64(DRAWS // 4)
    word = second = third = fourth = uint64(0)
    taken = 0
    for i in range(count):
        start = 64 * places[i]
        ties = equal_bytes(chunk(draws, start, DRAWS), upper)
        while ties:
            if taken % 4 == 0:
                word, second, third, fourth = philox4x32(counter, counter >> uint64(32), key[2], key[3], key[0], key[1], 10)
                counter += uint64(1)
            place = start + lowest_bit(ties)
            dropped = uint32(word >> uint64(8) < lower)
            kept[place // 32] ^= dropped << uint32(place % 32)
            ties &= ties - uint64(1)
            word, second, third = second, third, fourth
            taken += 1


def keep_run(key, position, n, threshold, x, y, block, words, space, kept):
    """The bits of the n elements from `position` on, for the values x and y; words and space as above.

    They come in whole words: the bit of the first element is bit position % 32 of `kept`. `block` is that whose bits stand in `words`
    already, or -1; returns the one that does afterwards.
    """
    word = position // 32
    first = word
    end = (position + n + 31) // 32
    while word < end:
        start = word % (DRAWS // 32)
        m = min(end - word, DRAWS // 32 - start)
        if word // (DRAWS // 32) != block:
            block = word // (DRAWS // 32)
            keep_block(key, block, threshold, x, y, words, space)
        flags = chunk(words, DRAWS // 4 + start, DRAWS // 4 + DRAWS // 32)
        target = chunk(kept, word - first, end)
        for j in range(m):
            target[j] = flags[j]
        word += m
    return block


def dropout_run(x, n, key, position, threshold, scale, words, space, y, streamed, buffer):
    """y = x * scale where the element is kept, else 0, also for infinite x and NaN; past the caches, through the buffer, if `streamed`."""
    done = dropout_lanes(x, n, key, position, threshold, scale, y, streamed)
    while done < n:
        start = (position + done) % DRAWS
        m = min(n - done, DRAWS - start)
        run = chunk(x, done, n)
        target = chunk(y, done, n)
        keep_block(key, (position + done) // DRAWS, threshold, run, chunk(run, DRAWS // 2, n) if streamed else target, words, space)
        select_sweep(run, m, chunk(words, DRAWS // 4, DRAWS // 4 + DRAWS // 32), start, scale, target, streamed, buffer)
        done += m


def half_dropout_run(x, bfloat, n, key, position, threshold, scale, words, space, y, streamed, bits, values, work_bits, work, buffer):
    """`dropout_run` of words of 16-bit floats; bits and values are the same memory, space for a block, and so are the other two."""
    done = 0
    while done < n:
        start = (position + done) % DRAWS
        m = min(n - done, DRAWS - start)
        run = chunk(x, done, n)
        target = chunk(y, done, n)
        keep_block(key, (position + done) // DRAWS, threshold, run, chunk(run, DRAWS // 2, n) if streamed else target, words, space)
        widen(run, m, bfloat, bits, values)
        select(values, m, chunk(words, DRAWS // 4, DRAWS // 4 + DRAWS // 32), start, scale, values)
        store(bits, values, m, bfloat, work_bits, work, run, target, streamed, buffer)
        done += m


def select_sweep(x, n, kept, at, scale, y, streamed, buffer):
    """`select`; past the caches, through the buffer, if `streamed`."""
    left = select_lanes(x, n, kept, at, scale, y, streamed)
    m = lead(y, n) if streamed else n
    while left < n:
        select(chunk(x, left, left + m), m, kept, at + left, scale, buffer if streamed else y)
        if streamed:
            stream(buffer, m, chunk(y, left, left + m))
        left += m
        m = min(n - left, LINES)


def select(x, n, kept, at, scale, y):
    """y = x * scale where the bit of the element is set, the first being bit `at` of `kept`, else 0."""
    done = min((32 - at % 32) % 32, n)
    if done:
        select_word(x, done, kept[at // 32] >> uint32(at % 32), scale, y)
    flags = chunk(kept, (at + done) // 32, (at + n + 31) // 32)
    words = (n - done) // 32
    for i in range(words):
        select_word(chunk(x, done + 32 * i, n), 32, flags[i], scale, chunk(y, done + 32 * i, n))
    done += 32 * words
    if done < n:
        select_word(chunk(x, done, n), n - done, flags[words], scale, chunk(y, done, n))


def select_word(x, n, flags, scale, y):
    """The same for the bits of one word."""
    for j in range(n):
        y[j] = x[j] * scale if flags & (uint32(1) << uint32(j)) else cast(0.0, scale)

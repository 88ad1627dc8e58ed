"""Dropout: whether an element is kept is a function of the key and its position, and of nothing else.

An element is dropped where its draw of 32 bits is below the threshold p * 2**32. The upper eight bits of the draw are a byte of the
generator's words, which decides that but once in 256 elements; the other bits are drawn then. So a block of 4096 elements takes 256
counters, and a few more.
"""

from normfast.kernels.halves import *
from normfast.kernels.normalize import LINES
from normfast.kernels.philox import *
from normfast.kernels.primitives import *

DRAWS = 4096  # of a block
AHEAD = 384  # values asked for while 1024 draws are made: more would take longer to come than that


def keep_block(key, block, threshold, x, y, words, space):
    """For each element of a block 1 if it is kept, else 0, in the second block of `space`; `words` is the same memory, as words.

    The values x and y that this is meant for are asked for meanwhile: then memory is not idle (12 MB, one core: 0.59 -> 0.40 ns a value).
    """
    kept = chunk(space, DRAWS, 2 * DRAWS)
    for i in range(COUNTERS // BESIDE):
        random_counters(key, block, i * BESIDE, words)
        prefetch(chunk(x, i * AHEAD, DRAWS), AHEAD)
        prefetch(chunk(y, i * AHEAD, DRAWS), AHEAD)
    upper = threshold >> uint32(24)
    for j in range(DRAWS):
        kept[j] = space[j] >= upper
    if threshold & uint32(0xFFFFFF):
        keep_ties(key, block, upper, threshold & uint32(0xFFFFFF), space, kept, chunk(space, 2 * DRAWS, 2 * DRAWS + 64))


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
            kept[start + lowest_bit(ties)] = word >> uint64(8) >= lower
            ties &= ties - uint64(1)
            word, second, third = second, third, fourth
            taken += 1


def keep_run(key, position, n, threshold, x, y, block, words, space, kept):
    """1 for each of the n elements from `position` on that is kept, else 0, for the values x and y; words and space as above.

    `block` is that whose flags stand in `space` already, or -1; returns the one that does afterwards.
    """
    done = 0
    while done < n:
        start = (position + done) % DRAWS
        m = min(n - done, DRAWS - start)
        if (position + done) // DRAWS != block:
            block = (position + done) // DRAWS
            keep_block(key, block, threshold, x, y, words, space)
        flags = chunk(space, DRAWS + start, 2 * DRAWS)
        target = chunk(kept, done, n)
        for j in range(m):
            target[j] = flags[j]
        done += m
    return block


def dropout_run(x, n, key, position, threshold, scale, words, space, y, streamed, buffer):
    """y = x * scale where the element is kept, else 0, also for infinite x and NaN; past the caches, through the buffer, if `streamed`."""
    done = 0
    start = position % DRAWS
    while done < n:
        m = min(n - done, DRAWS - start)
        run = chunk(x, done, n)
        target = chunk(y, done, n)
        keep_block(key, (position + done) // DRAWS, threshold, run, chunk(run, DRAWS // 2, n) if streamed else target, words, space)
        select_sweep(run, m, chunk(space, DRAWS + start, 2 * DRAWS), scale, target, streamed, buffer)
        done += m
        start = 0


def half_dropout_run(x, bfloat, n, key, position, threshold, scale, words, space, y, streamed, bits, values, work_bits, work, buffer):
    """`dropout_run` of words of 16-bit floats; bits and values are the same memory, space for a block, and so are the other two."""
    done = 0
    start = position % DRAWS
    while done < n:
        m = min(n - done, DRAWS - start)
        run = chunk(x, done, n)
        target = chunk(y, done, n)
        keep_block(key, (position + done) // DRAWS, threshold, run, chunk(run, DRAWS // 2, n) if streamed else target, words, space)
        widen(run, m, bfloat, bits, values)
        select(values, m, chunk(space, DRAWS + start, 2 * DRAWS), scale, values)
        store(bits, values, m, bfloat, work_bits, work, run, target, streamed, buffer)
        done += m
        start = 0


def masked_run(x, n, flags, scale, kept, y, streamed, buffer):
    """y = x * scale where a given mask has a bit, the lowest of flags[0] first, else 0; kept is space for a block's."""
    done = 0
    while done < n:
        m = min(n - done, DRAWS)
        for j in range((m + 63) // 64):
            spread_bits(flags[done // 64 + j], chunk(kept, 64 * j, DRAWS))
        select_sweep(chunk(x, done, n), m, kept, scale, chunk(y, done, n), streamed, buffer)
        done += m


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
    """y = x * scale where the element is kept, else 0."""
    for j in range(n):
        y[j] = x[j] * scale if kept[j] else cast(0.0, scale)

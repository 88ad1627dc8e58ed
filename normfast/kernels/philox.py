"""Philox4x32-10 (Salmon et al., SC 2011): random words as a function of a key and a position.

Words are numbered in blocks of 64: word w of the block comes from counter 16 * block + w % 16 and is its output w // 16. So a block is
four runs, each written in order, as wide as the widest vectors; and lanes of 64 bits hold 32-bit values, which compilers turn into
widening multiplies.
"""

from normfast.kernels.primitives import *

COUNTERS = 16  # of a block
BLOCK_WORDS = 64


def philox4x32(c0, c1, c2, c3, k0, k1, rounds):
    """The four words of one counter; every argument but `rounds` is a uint64, of which the lower 32 bits count."""
    low = uint64(0xFFFFFFFF)
    for _ in range(rounds):
        p0 = uint64(0xD2511F53) * (c0 & low)
        p1 = uint64(0xCD9E8D57) * (c2 & low)
        c0 = (p1 >> uint64(32)) ^ c1 ^ k0
        c2 = (p0 >> uint64(32)) ^ c3 ^ k1
        c1 = p1
        c3 = p0
        k0 += uint64(0x9E3779B9)
        k1 += uint64(0xBB67AE85)
    return c0 & low, c1 & low, c2 & low, c3 & low


def random_block(key, block, words):
    """The words of a block; key holds Philox's two key words and the upper two of its counter, as uint64."""
    first = uint64(block) * uint64(COUNTERS)
    if not philox_lanes(first, key[2], key[3], key[0], key[1], words):
        philox_counters(first, key[2], key[3], key[0], key[1], words)


def philox_counters(first, c2, c3, k0, k1, words):
    """One after the other, or side by side if the compiler can: LLVM does, gcc does not."""
    top = first >> uint64(32)  # that of all: a block does not lie across it
    for j in range(COUNTERS):
        w0, w1, w2, w3 = philox4x32(first + uint64(j), top, c2, c3, k0, k1, 10)
        words[j] = w0
        words[COUNTERS + j] = w1
        words[2 * COUNTERS + j] = w2
        words[3 * COUNTERS + j] = w3


def random_words(key, position, n, block_words, words):
    """The n words from `position` on; block_words is working space for a block."""
    done = 0
    start = position % BLOCK_WORDS
    while done < n:
        m = min(n - done, BLOCK_WORDS - start)
        random_block(key, (position + done) // BLOCK_WORDS, block_words)
        for j in range(m):
            words[done + j] = block_words[start + j]
        done += m
        start = 0

"""Philox4x32-10 (Salmon et al., SC 2011): random words as a function of a key and a position.

Words are numbered in blocks of 1024: word w of the block comes from counter 256 * block + w % 256 and is its output w // 256. So a
block is four runs, each written in order, and lanes of 64 bits hold 32-bit values, which both compilers turn into widening multiplies.
"""

from normfast.kernels.primitives import *


def philox4x32(c0, c1, c2, c3, k0, k1, rounds):
    """The four words of one counter; every argument but `rounds` is a uint64 below 2**32."""
    low = uint64(0xFFFFFFFF)
    for _ in range(rounds):
        p0 = uint64(0xD2511F53) * c0
        p1 = uint64(0xCD9E8D57) * c2
        c0 = (p1 >> uint64(32)) ^ c1 ^ k0
        c2 = (p0 >> uint64(32)) ^ c3 ^ k1
        c1 = p1 & low
        c3 = p0 & low
        k0 = (k0 + uint64(0x9E3779B9)) & low
        k1 = (k1 + uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3


def random_block(key, block, words):
    """The 1024 words of a block; key holds Philox's two key words and the upper two of its counter, as uint64."""
    k0, k1, c2, c3 = key[0], key[1], key[2], key[3]
    first = uint64(block) * uint64(256)
    words1 = chunk(words, 256, 512)
    words2 = chunk(words, 512, 768)
    words3 = chunk(words, 768, 1024)
    for j in range(philox_lanes(first, c2, c3, k0, k1, words), 256):
        counter = first + uint64(j)
        w0, w1, w2, w3 = philox4x32(counter & uint64(0xFFFFFFFF), counter >> uint64(32), c2, c3, k0, k1, 10)
        words[j] = w0
        words1[j] = w1
        words2[j] = w2
        words3[j] = w3


def random_words(key, position, n, block_words, words):
    """The n words from `position` on; block_words is working space for 1024."""
    done = 0
    while done < n:
        start = (position + done) % 1024
        m = min(n - done, 1024 - start)
        random_block(key, (position + done) // 1024, block_words)
        for j in range(m):
            words[done + j] = block_words[start + j]
        done += m


def dropout_run(x, n, key, position, threshold, scale, block_words, y):
    """y = x * scale where the word of the element reaches the threshold, else 0 (also where x is infinite or NaN)."""
    done = 0
    while done < n:
        start = (position + done) % 1024
        m = min(n - done, 1024 - start)
        random_block(key, (position + done) // 1024, block_words)
        select(chunk(x, done, done + m), m, chunk(block_words, start, start + m), threshold, scale, chunk(y, done, done + m))
        done += m


def select(x, n, words, threshold, scale, y):
    """y = x * scale where words >= threshold, else 0."""
    for j in range(n):
        y[j] = x[j] * scale if words[j] >= threshold else cast(0.0, scale)

"""What one text cannot say to both compilers: the plain meaning of the words that each engine replaces."""

from math import pow, sqrt

import numpy as np

LINES = 64  # values written past the caches at once: a constant of the C compiler, which unrolls what writes so many


def row(block, i, n):
    """Row i of a C-contiguous block whose rows hold n values, and what follows it: whoever takes a row says how many values."""
    return block.reshape(-1)[i * n :]


def chunk(run, lo, hi):
    """The values lo..hi of a run."""
    return run[lo:hi]


def cast(value, like):
    """The number rounded to the type of `like`."""
    return type(like)(value)


def uint32(value):
    """The number as an unsigned integer of 32 bits."""
    return np.uint32(value)


def uint64(value):
    """The number as an unsigned integer of 64 bits."""
    return np.uint64(value)


def power_of_two(t):
    """2**k for t = k + 1.5 * 2**52, whose last bits are those of k."""
    return ((np.float64(t).view(np.int64) + 1023) << 52).view(np.float64)


def stream(source, n, target):
    """Copy n values past the caches, to an output larger than they are."""
    target[:n] = source[:n]


def lead(run, n):
    """How many of n values stand before the run's first whole cache line; no result depends on it."""
    return 0


def prefetch(run, n):
    """Ask for n values that will be read soon; no result depends on it."""


def equal_bytes(run, byte):
    """Which of 64 bytes equal this one, as the bits of an integer."""
    return np.uint64(sum(1 << j for j in range(64) if run[j] == byte))


def large_bytes(run, byte):
    """Which of 64 bytes are at least this one."""
    return np.uint64(sum(1 << j for j in range(64) if run[j] >= byte))


def lowest_bit(flags):
    """The place of the lowest bit that is set; one must be."""
    return (int(flags) & -int(flags)).bit_length() - 1


def bfloat16_lanes(bits, n, target):
    """How many of n float32 values, given by their bits, the engine has rounded to bfloat16 by hand; the kernel does the rest."""
    return 0


def philox_lanes(first, c2, c3, k0, k1, words):
    """Whether the engine has done the counters of `philox_counters` by hand; the kernel does them else."""
    return False


def dropout_lanes(x, n, key, position, threshold, scale, y, streamed):
    """How many of the n values of `dropout_run` the engine has done by hand; the kernel does the rest."""
    return 0


def select_lanes(x, n, kept, at, scale, y, streamed):
    """How many of the n values of `select_sweep` the engine has done by hand; the kernel does the rest."""
    return 0


def add_lanes(x, n, key, position, threshold, scale, other, words, fresh, total, h, streamed):
    """Whether the engine has done by hand, at once: the draws, `select_add`, and the store of the sum in h too if `streamed`.

    The kernel does it else. Draws go on from those in `words` unless `fresh`.
    """
    return False


def gradient_lanes(
    dy, x, weight, n, scale, high, r, p, q, added, more, key, position, threshold, factor, words, fresh, total, dropped, streamed
):  # fmt: skip
    """Whether the engine has done so: `weighted_gradient_run`, plus `more` if `added`, drawing and the `select` of the sum."""
    return False

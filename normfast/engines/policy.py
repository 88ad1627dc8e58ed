"""Sizes: when a call uses threads or stores past the caches, and into what parts a block is cut. Measured on two cores.

The two limits that no result depends on can be set by environment variables, read at import: NORMFAST_SERIAL (values) and NORMFAST_STREAM
(bytes). The cuts depend on the shape of a block alone, (a, r, c, s), kept along a and c and reduced along r and s, and partial results are
merged in their order: so the bits of a result do not depend on the number of threads. How many threads there are is for `threads.py`.
"""

import os

import numpy as np

from normfast.engines.threads import get_num_threads

# Values below which a call stays serial. A second core is not always to be had: BLAS's threads spin on it after a matmul. Batch norm
# inference of 2048 x 7 x 7 values: 42 us on one thread, 35 us on two.
SERIAL = int(os.environ.get("NORMFAST_SERIAL", 65536))
# Bytes from which a result goes past the caches. Layer norm of 8 MB takes 0.8 of its time through them, of 12 MB 0.85, also with a
# second one that reads the result; group norm of 8 MB 0.87. Layer norm of 4 MB takes 1.1 times it, batch norm inference of 4 MB 1.5.
STREAMED = int(os.environ.get("NORMFAST_STREAM", 8 << 20))

PIECE = 65536  # values in a piece of a statistic: 256 kB of float32, so that 2 cores have 4 pieces from 1 MB on
WIDTH = 512  # columns side by side: their sums stay in the first cache
TILES = 32  # at most so many row tiles have dweight and dbias of their own


def workers(elements):
    """Number of threads for a call over so many elements."""
    if elements < SERIAL:
        return 1
    return min(get_num_threads(), 2 * elements // SERIAL)


def slab_splits(r, s):
    """Pieces of a statistic with r runs of s values, along r and along s."""
    if s > PIECE:
        return r, -(-s // PIECE)
    return max(1, min(r, r * s // PIECE)), 1


def run_splits(s):
    """Parts of a run of s values that a thread may take alone."""
    return -(-s // PIECE)


def short_runs(x):
    """Whether the runs of a block are measured as columns first: short ones cost more to begin than to add up, and lie far apart.

    Batch norm of 32 x 2048 x 7 x 7: 2.9 ms as runs, 1.7 ms as columns. Scales must fit into what a float64 holds: those of float32 do.
    """
    _, r, _, s = x.shape
    return 1 < s <= 64 and r >= 8 and x.dtype == np.float32


def column_splits(r, c):
    """Pieces of rows of a block (r, c): 256 rows or more each, so that their moments are small beside the block."""
    return max(1, min(r // 256, r * c // PIECE))


def rows_beside(c):
    """Rows of c columns that a sweep takes as one: a call for each would cost more than the work."""
    return max(1, WIDTH // c)


def row_tiles(rows, n):
    """Tiles of rows that collect dweight and dbias: 32 rows or more each."""
    return max(1, min(TILES, rows // 32, rows * n // 8192))


def fused_tiles(rows, n):
    """Such tiles of a fused gradient, fewer of wide rows: their float64 sums take half a megabyte, or 8 tiles."""
    return min(row_tiles(rows, n), max(8, 32768 // n))


def takes_groups(runs, s):
    """Whether the groups of so many runs of s values, channels of samples, are taken as rows: many short runs go as a block instead."""
    return s >= 16 or runs <= 16384


def cut_groups(groups, n):
    """Whether groups of n values are measured in pieces: few large ones would leave threads idle."""
    return groups < 4 and n > PIECE


def takes_halves(s):
    """Whether runs of s 16-bit values are taken as they lie: where they are long enough to be widened one by one."""
    return s >= 64

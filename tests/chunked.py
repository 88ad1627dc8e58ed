"""Arrays in random chunks, for the tests of the bridge to Dask."""

import threading
import weakref

import dask.array as da
import numpy as np


def cuts(n, rng):
    """n in random parts, of which some may be empty."""
    bounds = np.sort(rng.integers(0, n + 1, rng.integers(0, 5)))
    return tuple(np.diff([0, *bounds, n]).tolist())


def chunked(x, rng):
    """x in random chunks along each axis."""
    return da.from_array(x, chunks=tuple(cuts(n, rng) for n in x.shape))


def case(rng):
    """An array of 1 to 4 axes, with a large mean in half of the cases; in random chunks; and some of its axes."""
    shape = rng.integers(1, rng.choice([3, 12, 40]), rng.integers(1, 5))
    dtype = rng.choice(["f2", "f4", "f8"])
    offset = rng.choice([0.0, {"f2": 100.0, "f4": 1e4, "f8": 1e8}[dtype]])
    x = (offset + rng.standard_normal(shape) * rng.choice([1.0, 30.0])).astype(dtype)
    axes = np.sort(rng.choice(x.ndim, rng.integers(1, x.ndim + 1), replace=False))
    return x, chunked(x, rng), tuple(axes.tolist())


def precision(x, axes):
    """How many eps two float64 results may differ by: rounding takes |mean| / std of them from deviations and what is divided by these."""
    std = x.std(axis=axes, dtype=float)
    return 64 * (1 + np.max(np.abs(x.mean(axis=axes, dtype=float)) / np.where(std > 0, std, 1.0)))


class Source:
    """An array that counts how often each of its blocks is read, and how many of what it gave are alive."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.reads, self.alive, self.most = {}, 0, 0
        self.lock = threading.RLock()  # a block may be given back while another one is counted

    def __getitem__(self, index):
        block = self.values[index].copy()
        with self.lock:
            place = tuple(cut.start for cut in index)
            self.reads[place] = self.reads.get(place, 0) + 1
            self.alive += 1
            self.most = max(self.most, self.alive)
        weakref.finalize(block, self._gone)
        return block

    def _gone(self):
        with self.lock:
            self.alive -= 1

    def chunked(self, chunks):
        return da.from_array(self, chunks=chunks, name=f"source-{id(self)}", meta=self.values[:0])

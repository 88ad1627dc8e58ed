"""What the tests of `normfast.stream` share: small blocks, and runs that are stopped."""

import os

import numpy as np

from normfast.ops.scaling import minmax_scale, scale_in_units, standardize, standardized
from normfast.stream import flat, grid, state


def small_blocks(monkeypatch, size=4096):
    """Blocks of so many bytes, and a state after each one; nobody waits for the disk, since no power fails."""
    monkeypatch.setattr(grid, "BLOCK", size)
    monkeypatch.setattr(state, "SECONDS", 0.0)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda number: None, raising=False)


def by_statistics(x, m, axis, ddof=0):
    """What standardizing in memory gives for the same statistics."""
    axes = tuple(range(x.ndim)) if axis is None else tuple(np.atleast_1d(axis) % x.ndim)
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    wide = x.astype(np.float64) if x.dtype.kind in "iub" else x.astype(x.dtype.newbyteorder("="))
    return standardized(wide, m.mean, scale_in_units(m, np.ones_like(m.mean), ddof), np.ones_like(m.mean), kept)


IN_MEMORY = {"standardize": standardize, "minmax": minmax_scale}


class Killed(BaseException):
    """The process is gone: nobody tidies up."""


def stopped_at(monkeypatch, count, error):
    """Reading that raises at the block of that number, counted over all passes."""
    left, read = [count], flat.Flat.read

    def stopping(self, block, space):
        left[0] -= 1
        if left[0] < 0:
            raise error
        return read(self, block, space)

    monkeypatch.setattr(flat.Flat, "read", stopping)


def left_in(folder):
    """Names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())

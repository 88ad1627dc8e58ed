"""Tests of the kernels as plain Python; `tests/trust/test_kernels_in_python.py` starts them in a process of their own, with coverage."""

import os

import kernels_in_python
import numpy as np
import pytest

from normfast.engines import compiled, threads

if "NORMFAST_TEST_KERNELS" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """One thread, several tiles for few rows, which large arrays have otherwise, and working space that holds nothing of use."""
    aligned = compiled.aligned

    def soiled(shape, dtype):
        space = aligned(shape, dtype)
        space.view(np.uint8).fill(0xFF)
        return space

    monkeypatch.setattr(compiled, "aligned", soiled)
    for tiles in ("row_tiles", "fused_tiles"):
        monkeypatch.setattr(compiled, tiles, lambda rows, n: 2 if 5 <= rows <= 7 else 1)
    with threads.threads(1):
        yield


@pytest.fixture(params=[False, True], ids=["through the caches", "past them"])
def streamed(request, monkeypatch):
    kernels_in_python.store_past_caches(monkeypatch, request.param)


@pytest.fixture
def pieces(monkeypatch):
    """Statistics in pieces, which arrays of this size are not cut into otherwise."""
    monkeypatch.setattr(compiled, "slab_splits", lambda r, s: (min(r, 2), 1 + (s > 4)))
    monkeypatch.setattr(compiled, "run_splits", lambda s: 1 + (s > 256))  # a run is cut where it is long
    monkeypatch.setattr(compiled, "column_splits", lambda r, c: min(r, 3))


@pytest.fixture
def rng():
    """The same data in every run: what is tried here is the text, and whether a changed one is found out must not be chance."""
    return np.random.default_rng(0)

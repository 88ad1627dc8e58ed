"""Tests of the cuda engine: on a GPU, or in Numba's simulator where NUMBA_ENABLE_CUDASIM=1. `tests/test_cuda.py` starts them."""

import os

import pytest

if "NORMFAST_TEST_CUDA" not in os.environ:  # in a process of their own: the simulator takes the place of Numba's compiler for all of it
    collect_ignore_glob = ["test_*.py"]
elif os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    import cuda_simulator

    cuda_simulator.install()


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    """The simulator runs the threads of a GPU one after another: blocks are small there, and each kernel runs whole all the same."""
    from normfast.engines.cuda import arrays, copies, dropout, residual, rows

    if arrays.SIMULATED:
        for module in (copies, dropout, residual, rows):
            monkeypatch.setattr(module, "THREADS", 32)

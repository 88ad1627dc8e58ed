"""The cuda engine: its own tests in a process of their own, and what a machine without it does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import normfast as nf

HERE = Path(__file__).parent


def engine_is_there():
    try:
        with nf.use_engine("cuda"):
            return True
    except ImportError:
        return False


def test_the_tests_on_a_device():
    """On a GPU where there is one, else in the simulator."""
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    environment = os.environ | {"NORMFAST_TEST_CUDA": "1", "PYTEST_ADDOPTS": ""} | ({} if engine_is_there() else {"NUMBA_ENABLE_CUDASIM": "1"})
    command = [sys.executable, "-m", "pytest", "-q", "-rs", str(HERE / "cuda")]
    done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    print(done.stdout[-2000:])


def test_a_machine_without_a_gpu_says_so_in_a_line():
    if engine_is_there():
        pytest.skip("this machine has a GPU")
    before, x = nf.show_config("dicts")["engine"], np.arange(6.0).reshape(2, 3)
    y = nf.layer_norm(x)
    for choose in (nf.set_engine, nf.use_engine):
        with pytest.raises(ImportError, match=r"^the cuda engine needs (numba.cuda: pip install 'normfast\[cuda\]'|a GPU .*)$"):
            choose("cuda")
    assert nf.show_config("dicts")["engine"] == before
    assert (nf.layer_norm(x) == y).all()

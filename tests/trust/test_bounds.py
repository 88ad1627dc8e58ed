"""Bounds checked: no kernel indexes outside the runs that it is given, compiled so that one which did would raise."""

import os
import subprocess
import sys
from pathlib import Path

import lengths
import pytest

import normfast as nf


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_numba(tried, dtype):
    """Cython's kernels take addresses, in which there is nothing to check; the same texts take runs of known lengths in Numba."""
    try:
        with nf.use_engine("numba"):
            pass
    except ImportError as error:
        pytest.skip(f"the numba engine is not installed here: {error}")
    tests = Path(lengths.__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", lengths.__file__, dtype, "1", "7", "33", "300"],
        env=os.environ | {"PYTHONPATH": path, "NUMBA_BOUNDSCHECK": "1", "NORMFAST_ENGINE": "numba"},
        capture_output=True, text=True, timeout=7200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-2000:]
    tried(int(done.stdout.split()[-2]))

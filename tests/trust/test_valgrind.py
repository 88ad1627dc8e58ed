"""valgrind: one round of every operation reads no memory that nobody has set, and none that is not its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lengths
import operations
import pytest

pytest.importorskip("normfast.capi", reason="the Cython engine is not compiled here")
VALGRIND = shutil.which("valgrind")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(VALGRIND is None, reason="valgrind is not installed here"),
]
OURS = "normfast/engines/cython/"  # in the path of a build, which stands in each frame of it


def errors(folder, *command, **environment):
    """What valgrind says of calls into the kernels (of Python's own it says much), and what the command printed."""
    log, tests = folder / "log", Path(lengths.__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [VALGRIND, f"--log-file={log}", "--error-limit=no", "--num-callers=6", sys.executable, *command],
        env=os.environ | {"PYTHONPATH": path, "PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "2"} | environment,
        capture_output=True, text=True, timeout=7200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    paragraphs = re.split(r"^==\d+== *\n", log.read_text(), flags=re.MULTILINE)
    assert any("ERROR SUMMARY" in paragraph for paragraph in paragraphs)
    return [paragraph for paragraph in paragraphs if OURS in paragraph], done.stdout


@pytest.mark.parametrize("dtype", operations.DTYPES)
@pytest.mark.parametrize(
    "level", ["", "baseline"], ids=["best", "baseline"]
)  # of those that valgrind runs, which has no AVX-512 before 3.23
def test_one_round(tmp_path, tried, level, dtype):
    environment = {"NORMFAST_CPU": level} if level else {}
    found, printed = errors(tmp_path, lengths.__file__, dtype, "37", NORMFAST_SERIAL="64", NORMFAST_STREAM="256", **environment)
    assert not found, "\n".join(found)
    tried(int(printed.split()[-2]))


def test_what_is_not_ones_own_is_found(tmp_path):
    code = """
import numpy as np
from normfast import capi
x = np.ones(32)
capi.function("activation_f64")(x.ctypes.data, x.size + 4, 1, x.ctypes.data)
"""
    found, _ = errors(tmp_path, "-c", code)
    assert any("Invalid read" in paragraph for paragraph in found)

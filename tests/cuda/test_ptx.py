"""Every kernel compiles for a real GPU, also where none is: what its text for the GPU holds, and what it must not."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ENGINE = TESTS.parent / "normfast" / "engines" / "cuda"
SWEEPS = ("rows.", "row_gradients.", "slabs.", "columns.", "long_rows.")


def report(dtype, *more):
    """The kernels that the calls of `cuda_compile.py` start."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(TESTS / "cuda_compile.py"), dtype, *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_kernels_compile_as_they_should(dtype):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    kernels = report(dtype, *(["more"] if dtype == "float32" else []))
    for kernel in kernels:
        what = f"{dtype} {kernel}"
        assert not kernel["local"], f"arrays in memory in place of registers: {what}"
        # gradients of a block's rows take all that 128 registers hold: 8 bytes more with dropout, 200 in float64
        most = 0 if kernel["kernel"] != "row_gradients.backward_kernel" else 256 if dtype == "float64" else 16
        assert kernel.get("spilled", 0) <= most, f"registers spilled: {what}"
        assert not kernel["atomics"], f"sums whose order is left to chance: {what}"
        if kernel["kernel"].startswith(SWEEPS) and not re.search("33|odd", kernel["call"]):
            assert kernel["loads_of_16_bytes"], f"narrow loads: {what}"
        if kernel["kernel"].startswith(("rows.", "row_gradients.")):
            assert kernel["shuffles"], f"no shuffles: {what}"
    names = {kernel["kernel"] for kernel in kernels}
    written = {f"{path.stem}.{name}" for path in ENGINE.glob("*.py") for name in re.findall(r"^def (\w+_kernel)\(", path.read_text(), re.M)}
    assert written, "the kernels are named otherwise now"
    if dtype == "float64":
        written -= {"copies.cast_kernel"}  # whose weights are float64 as they come
    assert written <= names, f"never compiled: {written - names}"
    if dtype == "float32":
        few, many = (next(k for k in kernels if k["call"] == f"layer_norm {n}" and "forward" in k["kernel"]) for n in (384, 768))
        assert few["double_arithmetic"] == many["double_arithmetic"], "values are computed in float64"

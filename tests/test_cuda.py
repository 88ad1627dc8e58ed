"""The cuda engine: its own tests in processes of their own, and what a machine without it does."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import normfast as nf

HERE = Path(__file__).parent
ENGINE = HERE.parent / "normfast" / "engines" / "cuda"


def engine_is_there():
    try:
        with nf.use_engine("cuda"):
            return True
    except ImportError:
        return False


def lines_of_kernels(path):
    """Numbers of the lines of functions that run on the GPU, and in the simulator."""
    found, gpu_only = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(d).startswith(("cuda.jit", "resident(")) for d in node.decorator_list):
            found.update(range(node.body[0].lineno, node.end_lineno + 1))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "SIMULATED":
            gpu_only.update(line for other in node.orelse for line in range(other.lineno, other.end_lineno + 1))
    return found - gpu_only


def test_the_tests_on_a_device(tmp_path):
    """On a GPU where there is one, else in the simulator, which comes to every line of every kernel."""
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    pytest.importorskip("slipcover", reason="slipcover is not installed")
    pytest.importorskip("greenlet", reason="greenlet, of which the simulator's threads are made, is not installed")
    simulated, lines = not engine_is_there(), tmp_path / "lines.json"
    environment = os.environ | {"NORMFAST_TEST_CUDA": "1", "PYTEST_ADDOPTS": ""} | ({"NUMBA_ENABLE_CUDASIM": "1"} if simulated else {})
    for name in ("COVERAGE_PROCESS_CONFIG", "PYTEST_XDIST_WORKER"):  # it is neither measured by the one nor part of the other
        environment.pop(name, None)
    # not coverage, which asks at every line of every module which greenlet runs: 377 s in place of 127
    measured = [sys.executable, "-m", "slipcover", "--source", str(ENGINE), "--json", "--out", str(lines), "-m", "pytest"]
    options = ["-q", "-rs", "--tb=short", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    command = [*(measured if simulated else measured[:1] + measured[-2:]), *options, str(HERE / "cuda")]
    tests = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True, check=False)
    assert tests.returncode == 0, (tests.stdout + tests.stderr)[-16000:]
    print(tests.stdout[-4000:])
    if simulated:
        report = json.loads(lines.read_text())["files"]
        missing = {Path(name).name: set(file["missing_lines"]) for name, file in report.items()}
        never = {path.name: sorted(lines_of_kernels(path) & missing[path.name]) for path in ENGINE.glob("*.py") if lines_of_kernels(path)}
        assert not any(never.values()), f"lines of kernels that no test comes to: {never}"


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

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
    pytest.importorskip("coverage", reason="coverage is not installed")
    simulated = not engine_is_there()
    environment = os.environ | {"NORMFAST_TEST_CUDA": "1", "PYTEST_ADDOPTS": "", "COVERAGE_FILE": str(tmp_path / "coverage")}
    environment["COVERAGE_RCFILE"] = os.devnull  # the project's measures other folders
    environment.pop("COVERAGE_PROCESS_CONFIG", None)
    if simulated:
        environment["NUMBA_ENABLE_CUDASIM"] = "1"
    coverage = [sys.executable, "-m", "coverage"]
    start = [*coverage, "run", "--parallel-mode", "--concurrency=thread", f"--include={ENGINE}/*", "-m", "pytest"]
    running = []
    for file in sorted((HERE / "cuda").glob("test_*.py")):
        output = tmp_path / f"{file.stem}.txt"
        with output.open("w") as stream:
            command = [*start, "-q", "-rs", "--tb=short", "-p", "no:cacheprovider", str(file)]
            running.append((output, subprocess.Popen(command, env=environment, cwd=HERE.parent, stdout=stream, stderr=subprocess.STDOUT)))
    failed = [output for output, process in running if process.wait() != 0]
    assert not failed, "\n".join(output.read_text()[-8000:] for output in failed)
    print(*(output.read_text()[-2000:] for output, _ in running))
    if simulated:
        for command in (["combine", "-q"], ["json", "-q", "-o", str(tmp_path / "lines.json")]):
            subprocess.run([*coverage, *command], env=environment, cwd=HERE.parent, check=True)
        report = json.loads((tmp_path / "lines.json").read_text())["files"]
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

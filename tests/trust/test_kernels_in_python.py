"""The kernels as plain Python, on small blocks: every line and every branch of them, and the values that come out."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "normfast" / "kernels"


def test_every_line_and_branch(tmp_path, tried):
    pytest.importorskip("coverage", reason="coverage is not installed")
    pytest.importorskip("ml_dtypes", reason="bfloat16 is the dtype of ml_dtypes")
    environment = os.environ | {"NORMFAST_TEST_KERNELS": "1", "PYTEST_ADDOPTS": ""}
    environment |= {"COVERAGE_FILE": str(tmp_path / "coverage"), "COVERAGE_RCFILE": os.devnull}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)  # of a measurement that this is part of
    coverage = [sys.executable, "-m", "coverage"]
    tests = ["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", str(ROOT / "tests" / "kernels")]
    run = subprocess.run(
        [*coverage, "run", "--branch", f"--include={KERNELS}/*", *tests], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    tried(int(re.search(r"(\d+) passed", run.stdout)[1]))
    report = tmp_path / "report.json"
    subprocess.run([*coverage, "json", "-q", "-o", str(report)], env=environment, cwd=ROOT, check=True)
    files = json.loads(report.read_text())["files"]
    assert {Path(name).name for name in files} >= {path.name for path in KERNELS.glob("*.py")} - {"__init__.py"}
    missing = {Path(name).name: [*file["missing_lines"], *file["missing_branches"]] for name, file in files.items()}
    assert not any(missing.values()), f"lines and branches of kernels that no test comes to: {missing}"

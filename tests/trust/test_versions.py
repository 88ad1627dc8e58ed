"""The oldest NumPy that is supported and the newest, and every Python that is here: installed apart, the same tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
TESTS = ["test_operations.py", "test_edges.py", "test_layouts.py", "test_moments.py", "test_dropout.py", "test_errors.py"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def interpreter(version):
    """The path of a Python of that version outside of environments, or None."""
    own = Path(getattr(sys, "_base_executable", sys.executable))
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return str(own)
    python = shutil.which(f"python{version}")
    if python and subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
        return python
    return None


@pytest.mark.parametrize("numpy", ["numpy==2.0.*", "numpy"], ids=["oldest NumPy", "newest NumPy"])
@pytest.mark.parametrize("version", PYTHONS)
def test_version(version, numpy, tmp_path):
    """The kernels of this Python are those that were compiled; others, which have none, take the engine of formulas."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} is installed here")
    target = tmp_path / "packages"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--target", target, "--only-binary", ":all:"]
    done = subprocess.run([*command, numpy, "pytest>=8", "hypothesis"], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"{numpy} is not to be had for Python {version}: {reason}")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [target, ROOT])), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("NORMFAST_TRUST", None)
    code = "import numpy, normfast as nf; nf.layer_norm(numpy.ones((2, 3))); print(numpy.__version__, nf.config.engines.current().name)"
    shown = subprocess.run([python, "-W", "error", "-c", code], capture_output=True, text=True, env=environment)
    assert shown.returncode == 0, shown.stderr
    assert not numpy.endswith("2.0.*") or shown.stdout.startswith("2.0."), shown.stdout
    tests = [str(ROOT / "tests" / name) for name in TESTS]
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", *tests],
        capture_output=True, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr

"""Sanitizers: the tests of the kernels pass on a build that watches every access (AddressSanitizer) and undefined behaviour (UBSan)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import operations
import pytest
from lengths import AROUND

pytest.importorskip("Cython", reason="the kernels are translated by Cython, which is not installed here")
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="gcc's sanitizers are loaded before Python, which is done by LD_PRELOAD of Linux"),
]
FILES = (
    "capi",
    "edges",
    "dropout",
    "alpha_dropout",
    "moments",
    "masks",
    "halves",
    "layouts",
    "norms",
    "engines",
    "threads",
    "plans",
    "fused",
)
SANITIZERS = "-fsanitize=address,undefined"
LEVEL = "x86_64_v3"  # the intrinsics of AVX2; what AVX-512 alone does is watched by guard pages


def runtimes():
    """The libraries of the sanitizers, which must be there before any other."""
    found = [
        subprocess.run(["gcc", f"-print-file-name=lib{name}.so"], capture_output=True, text=True).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    return found if all(map(os.path.isabs, found)) else None


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the source folder with a build of its own."""
    if shutil.which("gcc") is None or runtimes() is None:
        pytest.skip("gcc with libasan and libubsan is not installed here")
    from normfast.engines import cython

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NORMFAST_CPU", raising=False)
        level = LEVEL if cython.level() in (LEVEL, "x86_64_v4") else "baseline"
    folder = tmp_path_factory.mktemp("sanitized")
    for name in ("normfast", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    flags = {"NORMFAST_LEVELS": level, "CFLAGS": f"{SANITIZERS} -fno-omit-frame-pointer", "LDFLAGS": SANITIZERS}
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, env=os.environ | flags, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr[-3000:]
    assert list((folder / "normfast/engines/cython" / level).glob("drivers.*")), built.stderr[-3000:]
    return folder, level


def run(tree, *arguments):
    """Python under the sanitizers, and what they found: AddressSanitizer writes it to a file, UBSan to the standard error."""
    folder, level = tree
    for old in folder.glob("found.*"):
        old.unlink()
    environment = {
        "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "tests")]),
        "LD_PRELOAD": os.pathsep.join(runtimes()),
        "ASAN_OPTIONS": f"detect_leaks=0:halt_on_error=1:log_path={folder / 'found'}",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "NORMFAST_CPU": level,
    }
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=7200
    )
    found = [file.read_text() for file in folder.glob("found.*")]
    found += re.findall(r"^.*runtime error: .*(?:\n.*){9}", done.stderr, re.MULTILINE)
    return done, "\n".join(text[:3000] for text in found)


@pytest.mark.parametrize("name", FILES)
def test_files(tree, tried, name):
    """Cython's part of each file; the report of a sanitizer ends the run. Sums are not vectorized there, so that some are longer chains
    than the figures of NIST's sets allow for.
    """
    file = f"tests/test_{name}.py"
    done, found = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--capture=sys", file, "-k", "not numba and not nist")
    assert not found, found
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    tried(int(done.stdout.rpartition(" passed")[0].split()[-1]))


@pytest.mark.parametrize("dtype", operations.DTYPES)
@pytest.mark.parametrize("shift", ["0", "1"])
def test_every_operation(tree, tried, tmp_path, dtype, shift):
    """On arrays that end at guard pages, and on those that begin where no value of their type may."""
    import guarded

    library = guarded.library(tmp_path)
    done, found = run(tree, "tests/guarded.py", str(library), "cython", dtype, shift, *map(str, [0, *AROUND]))
    assert not found, found
    assert done.returncode == 0, done.stderr[-3000:]
    tried(int(done.stdout.splitlines()[-1].split()[0]))


def test_what_is_not_ones_own_is_found(tree):
    code = """
import numpy as np
from normfast import capi
x = np.ones(320)
capi.function("activation_f64")(x.ctypes.data, x.size + 1, 1, x.ctypes.data)
"""
    assert "heap-buffer-overflow" in run(tree, "-c", code)[1]


def test_undefined_behaviour_is_found(tree):
    """A float64 at an address that none may have."""
    code = """
import numpy as np
from normfast import capi
x = np.ones(320)
capi.function("merge_moments")(x.ctypes.data + 1, x.ctypes.data, x.ctypes.data, 1.0, 1.0, 1.0)
"""
    assert "misaligned address" in run(tree, "-c", code)[1]

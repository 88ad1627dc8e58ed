"""What is shipped: the wheels' configuration and contents, the sdist, a machine without Numba, and processors of other times."""

import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import normfast as nf
from normfast import config
from normfast.engines.cython import LEVELS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
QEMU = shutil.which("qemu-x86_64")
COLLECTIONS = {"all", "bench", "demo", "dev", "docs", "test"}  # extras that bring programs or gather other extras
PYTHONS = ["cp311", "cp312", "cp313", "cp314", "cp314t"]
PLATFORMS = {
    ("linux", "x86_64"): ["manylinux_x86_64", "musllinux_x86_64"],
    ("linux", "aarch64"): ["manylinux_aarch64", "musllinux_aarch64"],
    ("macos", "x86_64"): ["macosx_x86_64"],
    ("macos", "arm64"): ["macosx_arm64"],
    ("windows", "AMD64"): ["win_amd64"],
}


@pytest.mark.parametrize(("system", "machine"), PLATFORMS)
def test_a_wheel_for_each_python_and_platform(system, machine):
    if not importlib.util.find_spec("cibuildwheel"):
        pytest.skip("cibuildwheel, which reads its configuration, is not installed")
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", system, "--archs", machine, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(f"{python}-{name}" for python in PYTHONS for name in PLATFORMS[system, machine])


def test_every_package_is_shipped():
    files = (file for pattern in ("__init__.py", "*.h") for file in (ROOT / "normfast").rglob(pattern))
    folders = {file.parent for file in files if file.parent.name not in LEVELS}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == names


def check_wheel():
    """The module tools/check_wheel.py."""
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / "tools" / "check_wheel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel_of(path, names):
    with zipfile.ZipFile(path, "w") as wheel:
        for name in names:
            wheel.writestr(name, "")
    return path


def test_the_check_of_wheels_finds_what_is_wrong(tmp_path, monkeypatch):
    tool = check_wheel()
    folder = "normfast/engines/cython"
    modules = [f"{folder}/{level}/{name}.cpython-313-x86_64-linux-gnu.so" for level in LEVELS for name in ("drivers", "rows")]
    names = [*tool.REQUIRED, "normfast-1.dist-info/licenses/LICENSE", *modules]
    good = wheel_of(tmp_path / "normfast-1-cp313-cp313-manylinux_2_28_x86_64.whl", names)
    assert tool.complaints(good) == []
    assert tool.main([str(good)]) == 0
    for name in names:
        lacking = wheel_of(tmp_path / "normfast-2-cp313-cp313-manylinux_2_28_x86_64.whl", [other for other in names if other != name])
        assert tool.complaints(lacking), name
        assert tool.main([str(lacking)]) == 1
    more = wheel_of(tmp_path / "normfast-3-cp313-cp313-linux_x86_64.whl", [*names, f"{folder}/rows.c", "tests/conftest.py"])
    assert [text.split()[-1] for text in tool.complaints(more)] == ["here", "here", "auditwheel"]
    arm = wheel_of(tmp_path / "normfast-1-cp313-cp313-macosx_11_0_arm64.whl", [name for name in names if "/x86_64" not in name])
    assert tool.complaints(arm) == []
    monkeypatch.setattr(tool, "MOST", 100)
    assert "are allowed" in tool.complaints(good)[0]


def test_sdist(tmp_path):
    """It has all that a build needs and nothing that a build makes."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools, which makes it, is not installed")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"pyproject.toml asks for setuptools 77 or later, here is {setuptools.__version__}")
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "*.so", "*.pyd"))
    for stray in ("baseline/rows.c", "baseline/rows.cpython-313.so", "baseline/rows.pyd"):
        (source / "normfast/engines/cython" / stray).parent.mkdir(exist_ok=True)
        (source / "normfast/engines/cython" / stray).touch()
    build = "from setuptools import build_meta; import sys; print(build_meta.build_sdist(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.split()[-1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    made = {name for name in names if name.endswith((".c", ".so", ".pyd", ".pyc")) or name.startswith(("build", "."))}
    assert made == {"docs/examples/c/scoring.c", "tests/guarded.c"}  # which are written, not made
    needed = [*source.glob("tests/*.py"), *source.glob("tools/*.py"), *source.glob("docs/*.md")]
    needed += [file for pattern in ("*.py", "*.pxd", "*.pyx", "py.typed") for file in (source / "normfast").rglob(pattern)]
    assert len(needed) > 150
    assert {file.relative_to(source).as_posix() for file in needed if file.parent.name not in LEVELS} <= names
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "PKG-INFO"} <= names


WITHOUT_NUMBA = """
import doctest, importlib, json, pkgutil, sys
sys.modules["numba"] = None  # so that importing it fails
import normfast as nf
report = {"examples": {}, "missing": {}, "engine": nf.engines.current().name}
names = ["normfast"]
for package in pkgutil.walk_packages(nf.__path__, "normfast.", onerror=lambda name: None):
    names.append(package.name)
for name in names:
    if name.startswith("normfast.benchmarks"):  # programs, with needs of their own
        continue
    if name == "normfast.fusing":
        try:
            nf.fuse(nf.layer_norm, epilogue=abs)
        except ImportError as error:
            report["fuse"] = str(error)
        continue
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        report["missing"][name] = error.name
    else:
        failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
        report["examples"][name] = [failed, tried]
nf.set_engine("auto")
try:
    nf.set_engine("numba")
except ImportError as error:
    report["numba"] = str(error)
print(json.dumps(report))
"""


def test_without_numba():
    """Every module's examples, and so every public function, but for `normfast.numba` and the Numba engine."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert {name: result for name, result in report["examples"].items() if result[0]} == {}, done.stdout
    optional = {name for name, lacks in report["missing"].items() if lacks != "numba"}
    for name in optional:  # they need another library that is not here
        assert importlib.util.find_spec(report["missing"][name].split(".")[0]) is None, name
    without = set(report["missing"]) - optional
    assert without, "the Numba engine was imported without Numba"
    assert all(name.startswith(("normfast.engines.cuda", "normfast.engines.numba", "normfast.numba")) for name in without)
    assert sum(tried for _, tried in report["examples"].values()) > 200
    assert report["engine"] != "numba"
    assert "numba" in report["numba"]
    assert report["fuse"] == "normfast.fuse needs numba: pip install 'normfast[numba]'"


def test_info_names_every_extra():
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(config.OPTIONAL) == set(extras) - COLLECTIONS
    for extra, library in config.OPTIONAL.items():
        assert any(requirement.startswith(library) for requirement in extras[extra]), f"{extra} does not bring {library}"


def test_info_says_how_to_install_what_is_missing(monkeypatch, capsys):
    def version(name):
        if name == "torch":
            raise PackageNotFoundError(name)
        return "7.8.9"

    monkeypatch.setattr("importlib.metadata.version", version)
    nf.show_config()
    printed = capsys.readouterr().out
    assert "torch        missing: pip install 'normfast[torch]'" in printed
    assert "onnx         7.8.9" in printed
    for key in nf.show_config("dicts"):
        assert f"\n{key}" in f"\n{printed}"


def test_info_imports_nothing_optional():
    modules = ("google.protobuf", "ml_dtypes", "numba", "onnx", "safetensors", "sklearn", "torch")
    code = f"import sys, normfast as nf; nf.show_config('dicts'); print([name for name in {modules} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ).stdout.strip() == "[]"


def test_info_tells_of_the_gil(monkeypatch):
    for enabled, told in ((lambda: False, "off"), (lambda: True, "on")):
        monkeypatch.setattr(sys, "_is_gil_enabled", enabled, raising=False)
        assert nf.show_config("dicts")["gil"] == told
    monkeypatch.delattr(sys, "_is_gil_enabled")  # as before Python 3.13
    assert nf.show_config("dicts")["gil"] == "on"


PROCESSORS = {  # the build each must choose, and the glibc features that its libm lacks
    "Nehalem": ("baseline", "-AVX2,-FMA,-FMA4"),
    "Haswell-noTSX": ("x86_64_v3", ""),
}


def bits(prefix=(), **environment):
    """What tests/bits.py prints: sizes that use threads and stores past the caches."""
    several = {"NORMFAST_SERIAL": "512", "NORMFAST_STREAM": "2048", "OMP_NUM_THREADS": "2"}
    paths = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]  # which PYTHONSAFEPATH leaves out
    several["PYTHONPATH"] = os.pathsep.join(paths)
    command = [*prefix, sys.executable, str(ROOT / "tests" / "bits.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | several | environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def emulates(test):
    """Skips where there is nobody to play another processor, or nothing compiled to play with."""
    installed = not nf.show_config("dicts")["engines"]["cython"].startswith("missing")
    for skipped, reason in (
        (not QEMU, "qemu-x86_64, which plays them, is not installed (Debian: qemu-user)"),
        (sys.platform != "linux" or platform.machine() != "x86_64", "qemu-user runs programs of x86-64 Linux"),
        (not installed, "the Cython engine is not installed here"),
    ):
        test = pytest.mark.skipif(skipped, reason=reason)(test)
    return test


@emulates
@pytest.mark.parametrize("processor", PROCESSORS)
def test_other_processors(processor):
    """One without AVX, of 2008, and one without AVX-512, of 2013: the right build, and the bits of that build on this processor."""
    chosen, lacks = PROCESSORS[processor]
    emulated = bits([QEMU, "-cpu", processor])
    assert emulated["level"] == chosen
    native = bits(NORMFAST_CPU=chosen, **({"GLIBC_TUNABLES": f"glibc.cpu.hwcaps={lacks}"} if lacks else {}))  # pow is that of the C library
    assert native["level"] == chosen
    assert len(native["digests"]) > 150
    assert {name: value for name, value in emulated["digests"].items() if native["digests"][name] != value} == {}


@emulates
def test_an_emulated_processor_stops_at_what_it_lacks(tmp_path):
    """So that the test above can fail: a build for later processors, were it chosen, would not run."""
    code = """
import numpy as np, normfast as nf
from normfast.engines import cython
cython.level = lambda: "x86_64_v3"
nf.layer_norm(np.ones((9, 99)))
"""
    done = subprocess.run([QEMU, "-cpu", "Nehalem", sys.executable, "-c", code], capture_output=True, env=os.environ, cwd=tmp_path)
    assert done.returncode in (-signal.SIGILL, 128 + signal.SIGILL)

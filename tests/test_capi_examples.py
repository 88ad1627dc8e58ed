"""What docs/c-and-cython.md shows is built, run and compared: its code, its two example projects, the header in C and C++."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import normfast as nf

try:
    import normfast.capi
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

DOCS = Path(__file__).parents[1] / "docs"
PACKAGE = Path(nf.__file__).parents[1]


def compiler(name):
    """The compiler that extensions are built with, CC or CXX."""
    command = os.environ.get(name) or sysconfig.get_config_var(name) or "cl"
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"no compiler: {command} is not on the path")
    return command.split()


def run(*command, folder, more=(), variables=()):
    """Run a command in a folder, with these folders and normfast on Python's path; return what it prints."""
    path = os.pathsep.join(map(str, [*more, PACKAGE]))
    env = {**os.environ, "PYTHONPATH": path, **dict(variables)}
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def build(tmp_path):
    """Copies an example project, installs it and returns the folder of each."""

    def built(name):
        compiler("CC")
        for needed in ("pip", "setuptools", *(["Cython"] if name == "cython" else [])):
            try:
                importlib.metadata.distribution(needed)
            except importlib.metadata.PackageNotFoundError:
                pytest.skip(f"{needed} is not installed")
        project, target = tmp_path / name, tmp_path / "installed"
        shutil.copytree(DOCS / "examples" / name, project)
        install = ("install", "--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--target", target, ".")
        run(sys.executable, "-m", "pip", *install, folder=project)
        return project, target

    return built


@pytest.mark.parametrize(("name", "says"), [("cython", "the bits of nf.layer_norm"), ("c", "rms_norm as nf.rms_norm")])
def test_example_project(build, name, says):
    project, target = build(name)
    assert says in run(sys.executable, "check.py", folder=project, more=[target])


OLD = """
import ctypes, sys, types
class Table(ctypes.Structure):
    _fields_ = [("abi", ctypes.c_int), ("size", ctypes.c_size_t)]
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
name = b"normfast.capi._C_API"
for abi, size, advice in ((1, 64, "upgrade normfast"), (2, 100_000, "build the extension again")):
    table = Table(abi, size)
    sys.modules["normfast.capi"] = types.SimpleNamespace(_C_API=new(ctypes.addressof(table), name, None))
    try:
        import scoring
    except ImportError as error:
        assert advice in str(error) and str(size) in str(error), error
    else:
        raise AssertionError("took a table of another ABI")
sys.modules["normfast.capi"] = None
try:
    import scoring
except ImportError as error:
    print("refused")
"""


def test_another_table_is_refused_at_import(build):
    _, target = build("c")
    assert run(sys.executable, "-c", OLD, folder=target) == "refused\n"


def test_the_declarations_are_installed():
    package = Path(nf.__file__).parent
    assert [path.name for path in (package / "capi.pxd", Path(nf.get_include(), "normfast.h")) if not path.is_file()] == []


def test_where_nothing_was_compiled(tmp_path):
    code = "try:\n    import normfast.capi\nexcept ImportError as error:\n    print(error)"
    said = run(sys.executable, "-c", code, folder=tmp_path, variables={"NORMFAST_CPU": "m68k"})
    assert said.startswith("normfast.capi needs the Cython engine: NORMFAST_CPU='m68k'")
    assert said.count("\n") == 1


SOURCE = """
#include <normfast.h>
int twice(const normfast_api *nf, const float *x, float *y);
int twice(const normfast_api *nf, const float *x, float *y) {
    return nf->layer_norm_f32(x, NULL, NULL, 1, 4, 1e-5, y, NULL, NULL, NULL) | nf->activation_f32(y, 4, NORMFAST_RELU, y);
}
"""


@pytest.mark.parametrize(("language", "standard"), [("CC", "c99"), ("CC", "c17"), ("CXX", "c++11"), ("CXX", "c++17")])
@pytest.mark.parametrize("python", [True, False], ids=["Python.h", "alone"])
def test_the_header_has_no_warnings(tmp_path, language, standard, python):
    command = compiler(language)
    if "cl" in command:
        pytest.skip("the flags are those of gcc and clang")
    source = tmp_path / ("header.c" if language == "CC" else "header.cpp")
    extra = "const normfast_api *table(void);\nconst normfast_api *table(void) { return normfast_import(); }\n"
    source.write_text(f"#include <Python.h>\n{SOURCE}{extra}" if python else SOURCE)
    flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-isystem", sysconfig.get_path("include"), "-I", nf.get_include()]
    run(*command, f"-std={standard}", *flags, "-c", source, "-o", tmp_path / "header.o", folder=tmp_path)


def code_of(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_code_by_address(capsys):
    names = {}
    exec(code_of(DOCS / "c-and-cython.md")[0], names)
    shown, _ = capsys.readouterr()
    assert f"# {shown}" in code_of(DOCS / "c-and-cython.md")[0]
    assert np.array_equal(names["y"], nf.rms_norm(names["x"], eps=1e-6))


def test_code_in_numba(capsys):
    pytest.importorskip("numba", reason="Numba is not installed")
    names = {}
    exec(code_of(DOCS / "c-and-cython.md")[1], names)
    expected = (nf.rms_norm(names["x"], eps=1e-6) ** 3).sum()
    assert abs(float(capsys.readouterr().out) - expected) < 1e-10 * abs(expected)

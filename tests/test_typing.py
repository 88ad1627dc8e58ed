"""The types of the public names: whole, as mypy reads them, and for a user's program."""

import importlib
import inspect
import re
import shutil
from pathlib import Path

import pytest

import normfast as nf

SAMPLE = Path(__file__).with_name("typing_sample.py")
ROOT = SAMPLE.parents[1]
MODULES = ("normfast", "normfast.dask", "normfast.diagnostics", "normfast.layers", "normfast.mpi", "normfast.preprocessing",
    "normfast.pruning", "normfast.stream")  # fmt: skip


def mypy(*arguments):
    """Output and exit status of mypy on arguments."""
    api = pytest.importorskip("mypy.api", reason="mypy is not installed: pip install 'normfast[test]'")
    output, trouble, status = api.run([*map(str, arguments)])
    assert not trouble, trouble
    return output, status


def test_the_package_is_clean(tmp_path):
    """By the settings of pyproject.toml, which name what is left out and why."""
    if not (ROOT / "normfast").is_dir():
        pytest.skip("this is not a checkout: the settings of mypy are not here")
    output, status = mypy("--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path, ROOT / "normfast")
    assert status == 0, output


def test_a_users_program(tmp_path):
    """Under --strict the right lines pass and each wrong one is reported, by its code."""
    program = shutil.copy(SAMPLE, tmp_path / "program.py")
    settings, path = tmp_path / "mypy.ini", tmp_path / "path"  # of normfast alone: mypy refuses a path to all of site-packages
    path.mkdir()
    (path / "normfast").symlink_to(Path(nf.__file__).parent, target_is_directory=True)
    settings.write_text(f"[mypy]\nstrict = True\nmypy_path = {path}\n[mypy-normfast.*]\nfollow_imports = silent\n")
    output, _ = mypy("--config-file", settings, "--cache-dir", tmp_path / "cache", program)
    reported = {int(line): code for line, code in re.findall(r"program\.py:(\d+): error: .* \[([\w-]+)\]$", output, re.MULTILINE)}
    lines = SAMPLE.read_text().splitlines()
    expected = {number: line.partition("# wrong: ")[2] for number, line in enumerate(lines, 1) if line.endswith(WRONG)}
    assert len(expected) == 16
    assert reported == expected, output


WRONG = tuple(f"# wrong: {code}" for code in ("arg-type", "attr-defined", "call-arg", "call-overload"))


def public_callables():
    """Name and callable of every public function, constructor and method."""
    for module in map(importlib.import_module, MODULES):
        names = getattr(module, "__all__", None) or [name for name, thing in vars(module).items() if own(thing, module, name)]
        for name in names:
            thing = getattr(module, name)
            if inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing
            elif inspect.isclass(thing) and not hasattr(thing, "_fields"):
                for method, function in vars(thing).items():
                    function = function.fget if isinstance(function, property) else getattr(function, "__func__", function)
                    special = method in ("__init__", "__call__", "__add__", "__sub__", "__array__", "__repr__", "__str__")
                    if inspect.isfunction(function) and (special or not method.startswith("_")):
                        yield f"{module.__name__}.{name}.{method}", function


def own(thing, module, name):
    return not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__


def test_every_public_function_is_annotated_whole():
    callables = dict(public_callables())
    assert len(callables) > 120
    for name, function in callables.items():
        signature = inspect.signature(function)
        bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")]
        assert not bare, f"{name} has no types for {bare}"
        assert signature.return_annotation is not signature.empty, f"{name} has no type for what it returns"


def test_every_field_of_a_record_is_annotated():
    for module in map(importlib.import_module, MODULES):
        for name, record in vars(module).items():
            if inspect.isclass(record) and hasattr(record, "_fields"):
                assert set(record.__annotations__) == set(record._fields), name


def test_the_types_are_shipped():
    assert (Path(nf.__file__).parent / "py.typed").exists()

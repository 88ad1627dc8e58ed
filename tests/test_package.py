"""The package as its user meets it: import, command line, documentation, the kernels as plain Python."""

import doctest
import importlib
import inspect
import math
import os
import pkgutil
import subprocess
import sys
import types

import numpy as np
import pytest

import normfast as nf
from normfast import cli
from normfast.engines.compiled import bits_of
from normfast.engines.numpy import kept_of


def python(code, *options, **environment):
    """Run code in a fresh interpreter and return what it prints and what it says on stderr."""
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment)
    return done.stdout.strip(), done.stderr


def own_cost(report):
    """Microseconds that `import normfast` takes beyond NumPy's own."""
    cost = {line.rsplit("|", 1)[-1].strip(): int(line.split("|")[1]) for line in report.splitlines()[1:]}
    return cost["normfast"] - cost.get("numpy", 0)


def test_import_brings_nothing_heavy(tmp_path):
    byte_code = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}  # kept, as an installation keeps it
    report = python("import normfast", "-X", "importtime", **byte_code)[1]  # which compiled it
    heavy = ("numba", "scipy", "llvmlite", "torch", "sklearn", "matplotlib", "cupy")
    imported = [line.rsplit("|", 1)[-1].strip() for line in report.splitlines()]
    assert [name for name in imported if name.split(".")[0] in heavy] == []
    own = math.inf
    for _ in range(30):  # others run here too: the cheapest counts
        own = min(own, own_cost(python("import normfast", "-X", "importtime", **byte_code)[1]))
        if own < 30_000:
            break
    assert own < 30_000, f"import normfast costs {own / 1000:.0f} ms beyond NumPy's own"


def test_calls_on_the_default_engine_import_neither_numba_nor_scipy():
    code = "import sys, numpy as np, normfast as nf; nf.layer_norm(np.ones((2, 3))); print({'numba', 'scipy'} & set(sys.modules))"
    if nf.show_config("dicts")["engines"]["cython"].startswith("missing"):
        pytest.skip("the Cython engine is not installed here")
    assert python(code)[0] == "set()"


def test_import_changes_nothing_in_the_process():
    code = """
import numpy as np, os, threading, warnings
def state():
    return (np.geterr(), np.random.get_state()[1].tobytes(), threading.active_count(), dict(os.environ), list(warnings.filters),
            float(np.float64(2.0**-1040) * np.float64(0.5)), float(np.float32(1e-40) * np.float32(0.5)), 1.0 + 2.0**-53)
before = state()
import normfast as nf
nf.layer_norm(np.ones((2000, 300), np.float32)); nf.dropout(np.ones(10)); nf.moments(np.ones(10))
after = state()
assert before[:1] + before[3:] == after[:1] + after[3:] and before[1] == after[1], (before, after)
assert after[5] > 0 and after[6] > 0
print("same")
"""
    assert python(code)[0] == "same"


def modules():
    return ["normfast"] + [module.name for module in pkgutil.walk_packages(nf.__path__, "normfast.")]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{name} needs {error.name}, which is not installed")
    if (
        name.startswith("normfast.mpi.")
        and subprocess.run([sys.executable, "-c", "from mpi4py import MPI"], capture_output=True).returncode
    ):
        pytest.skip("the examples of normfast.mpi need mpi4py and an MPI library, and there is none")
    threads = nf.get_num_threads()
    try:
        failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    finally:
        nf.set_num_threads(threads)
    assert failed == 0


PUBLIC = ("capi", "dask", "diagnostics", "inference", "layers", "mpi", "numba", "onnx", "preprocessing", "pruning", "safetensors", "stream",
    "torch", "typing")  # fmt: skip


def public_names(*modules):
    """Name and thing of everything that the modules list in `__all__`."""
    for module in modules:
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)


def without_example(names):
    """Those of the functions and classes whose own docstring shows no use of it, and public methods that are not described."""
    for name, thing in names:
        if not (inspect.isclass(thing) or inspect.isroutine(thing) or hasattr(thing, "py_func")):  # of Numba
            continue  # modules, numbers and types of arguments, which the docstring of their module shows
        if ">>>" not in (thing.__doc__ or ""):
            yield name
        for method in vars(thing) if inspect.isclass(thing) else ():
            value = getattr(thing, method)
            if not method.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)) and not inspect.getdoc(value):
                yield f"{name}.{method}"


@pytest.mark.parametrize("name", ["", *PUBLIC])
def test_every_public_name_has_an_example(name):
    try:
        module = importlib.import_module(f"normfast.{name}".rstrip("."))
    except ModuleNotFoundError as error:
        pytest.skip(f"normfast.{name} needs {error.name}, which is not installed")
    assert module.__doc__
    assert list(without_example(public_names(module))) == []


def test_a_missing_example_is_found():
    class Bare:
        def method(self): ...

    bare = types.SimpleNamespace(__name__="made", __all__=["Bare", "f"], Bare=Bare, f=lambda: "without a word")
    assert list(without_example(public_names(bare))) == ["made.Bare", "made.Bare.method", "made.f"]


def test_every_public_module_is_listed_here():
    inner = (
        "_interpreter",
        "benchmarks",
        "cli",
        "config",
        "demo",
        "engines",
        "estimators",
        "extras",
        "file_commands",
        "fusing",
        "kernels",
        "ops",
    )
    assert {module.name for module in pkgutil.iter_modules(nf.__path__)} == {*PUBLIC, *inner}


def test_kernels_run_as_plain_python(rng):
    """The text means in Python what it means compiled."""
    from normfast.kernels import activations, dropout, layer_norm, lp_norm, philox

    x = rng.standard_normal((3, 100))
    y, buffer, (mean, rstd, var) = np.empty_like(x), np.empty(1024), np.empty((3, 3))
    for streamed in (False, True):
        layer_norm.layer_norm_rows(x, np.ones(100), np.zeros(100), 100, 1e-5, True, y, mean, rstd, var, 0, 3, streamed, buffer)
        assert np.abs(y - nf.layer_norm(x)).max() < 1e-13
    words = np.empty(1024, np.uint32)
    philox.random_block(np.zeros(4, np.uint64), 0, words)
    assert int(words[0]) == 0x6627E8D5
    space, key, kept = np.empty(4096 + 512 + 64, np.uint8), np.arange(4, dtype=np.uint64), np.empty(11, np.uint32)
    with np.errstate(over="ignore"):
        dropout.keep_run(key, 4005, 300, np.uint32(429496730), kept, kept, -1, space.view(np.uint32), space, kept)
    keep = bits_of(kept, 305)[5:]
    assert (keep == kept_of(key, 4005, 300, 429496730)).all()
    dropout.select_sweep(x[0], 100, kept, 5, 2.0, y[0], True, buffer)
    assert (y[0] == np.where(keep[:100], 2 * x[0], 0)).all()
    for name in ("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "softplus"):
        code = getattr(activations, name.upper())
        activations.activate(x[0], 100, code, y[0])
        activations.activate_gradient(x[1], x[0], 100, code, y[1])
        assert np.abs(y[0] - nf.activation(x[0], name)).max() < 1e-14
        assert np.abs(y[1] - nf.activation_backward(x[1], x[0], name)).max() < 1e-14
    for p in (0.0, 1.0, 1.5, 2.0, np.inf, -1.0):
        assert abs(lp_norm.row_norm(x[0], 100, p) / np.linalg.norm(x[0], p) - 1) < 1e-14


@pytest.mark.filterwarnings("default")
def test_demo(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    picture = tmp_path / "curves.png"
    assert cli.main(["demo", "--epochs", "8", "--seed", "3", "--out", str(picture)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("with batch norm", "without", "time per step", "largest error against float64", "360 of 360 predictions are the same"):
        assert part in text
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert cli.main(["demo", "--epochs", "1", "--engine", "numpy", "--no-plot"]) == 0
    assert "picture" not in capsys.readouterr().out


def test_info(capsys):
    assert cli.main(["info"]) == 0
    assert "engine" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["demo", "--epochs", "0"], ["demo", "--engine", "fortran"]])
def test_wrong_commands(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err

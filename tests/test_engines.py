"""Engines, threads and processes: which one runs, the same bits for any number of threads, and safety beside others."""

import ast
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import normfast as nf
from normfast import engines

COMPILED = ["cython", "numba"]
SHAPES = [((700, 300), 1), ((6, 50_000), 1), ((40, 3, 33, 41), 1), ((40, 33, 41, 3), -1), ((5, 2, 90_000), 1), ((64, 20, 100), 1)]


def everything(x, dy, axis):
    """The bytes of every result that threads could change."""
    y, stats = nf.layer_norm_forward(x)
    results = [y, stats.mean, stats.rstd, stats.var, *nf.layer_norm_backward(dy, x, stats)]
    y, stats = nf.batch_norm_forward(x, axis=axis)
    results += [y, stats.mean, stats.rstd, stats.var, *nf.batch_norm_backward(dy, x, stats, axis=axis)]
    results += [nf.batch_norm(x, stats.mean, stats.var, axis=axis), nf.dropout(x, 0.3, rng=4)]
    for axes in (None, 0, axis):
        m = nf.moments(x, axes)
        results += [m.mean, m.m2]
    mask = x > x.flat[0]
    y, stats = nf.batch_norm_forward(x, axis=axis, where=mask, activation="gelu", ord=1)
    results += [y, *stats, *nf.batch_norm_backward(dy, x, stats, axis=axis, where=mask, activation="gelu", ord=1)]
    y, stats = nf.instance_norm_forward(x)
    results += [y, stats.mean, stats.rstd, *nf.instance_norm_backward(dy, x, stats)]
    y, stats = nf.rms_norm_forward(x)
    results += [y, stats.rstd, *nf.rms_norm_backward(dy, x, stats)]
    for ord in (1, 2, 3):
        y, norm = nf.lp_norm_forward(x, ord, axis=axis)
        results += [y, norm, *nf.lp_norm_backward(dy, x, norm, ord=ord, axis=axis)]
    half = x.astype(np.float16)
    results += [nf.layer_norm(half), nf.dropout(half, 0.3, rng=4), nf.moments(half, axis).m2]
    return [np.asarray(result).tobytes() for result in results]


@pytest.fixture(params=COMPILED)
def compiled(request):
    try:
        with nf.use_engine(request.param):
            yield request.param
    except ImportError as error:
        pytest.skip(f"the {request.param} engine is not installed here: {error}")


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_bits_do_not_depend_on_threads(compiled, dtype, shape, axis, rng):
    x, dy = (1e3 + rng.standard_normal((2, *shape))).astype(dtype)
    with nf.threads(1):
        expected = everything(x, dy, axis)
    for threads in (2, 3, 16):
        with nf.threads(threads):
            assert everything(x, dy, axis) == expected, f"{threads} threads"


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_bits_do_not_depend_on_the_way_past_the_caches(compiled, dtype, shape, axis, rng, monkeypatch):
    x, dy = (1e3 + rng.standard_normal((2, *shape))).astype(dtype)
    expected = everything(x, dy, axis)
    monkeypatch.setattr("normfast.engines.compiled.STREAMED", 0)
    assert everything(x, dy, axis) == expected


def test_bits_do_not_depend_on_where_an_array_begins(compiled, dtype, rng, monkeypatch):
    """Stores past the caches come in whole lines, so what stands before and after them is stored otherwise."""
    x = rng.standard_normal((40, 6, 7, 9)).astype(dtype)
    weight = rng.standard_normal(6).astype(dtype)
    calls = {
        "rows": lambda out: nf.layer_norm(x, axis=(1, 2, 3), out=out),
        "short rows": lambda out: nf.layer_norm(x, out=out),
        "slabs": lambda out: nf.batch_norm_forward(x, weight, activation="silu", out=out)[0],
        "columns": lambda out: nf.batch_norm_forward(x, axis=-1, out=out)[0],
        "runs": lambda out: nf.batch_norm(x, weight, weight**2, out=out),
        "groups": lambda out: nf.group_norm(x, 2, weight, out=out),
    }
    for streamed in (1 << 40, 0):
        monkeypatch.setattr("normfast.engines.compiled.STREAMED", streamed)
        for name, call in calls.items():
            expected = call(None)
            for start in range(0, 17, 5):
                memory = np.full(x.size + 20, 7, dtype)
                assert (call(memory[start : start + x.size].reshape(x.shape)) == expected).all(), (name, streamed, start)
                assert (memory[:start] == 7).all(), (name, streamed, start)
                assert (memory[start + x.size :] == 7).all(), (name, streamed, start)


def test_engines_agree(dtype, rng):
    """float64 results agree to 1e-12 and float32 ones to 2e-6 of their size (of the number of terms, for sums)."""
    for shape, axis in SHAPES:
        x, dy = (10 + rng.standard_normal((2, *shape))).astype(dtype)
        weight, bias = rng.standard_normal((2, shape[axis])).astype(dtype)
        results = {}
        for name in engines.ENGINES:
            try:
                engines.load(name)
            except ImportError:
                continue
            with nf.use_engine(name):
                y, stats = nf.batch_norm_forward(x, weight, bias, axis=axis)
                results[name] = [y, *stats[:3], *nf.batch_norm_backward(dy, x, stats, weight, axis=axis)]
        terms = x.size // x.shape[axis]
        for name, values in results.items():
            for value, expected, size in zip(values, results["numpy"], [1] * 5 + [terms] * 2, strict=True):
                limit = (2e-6 if dtype == np.float32 else 1e-12) * max(size, np.abs(expected).max())
                assert np.abs(value - expected).max() <= limit, name


def test_sixteen_python_threads_at_once(compiled, rng):
    x, dy = rng.standard_normal((2, 600, 200)).astype(np.float32)
    expected = everything(x, dy, 1)
    start = threading.Barrier(16)

    def work(_):
        with nf.use_engine(compiled), nf.threads(2):
            start.wait()
            return all(everything(x, dy, 1) == expected for _ in range(5))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork.. was called:RuntimeWarning")  # by JAX, where the tests of the benchmark have loaded it
def test_forked_child_computes_the_same(compiled, rng):
    x, dy = rng.standard_normal((2, 600, 200)).astype(np.float32)
    with nf.threads(2):
        expected = everything(x, dy, 1)
        child = os.fork()
        if child == 0:
            os._exit(0 if nf.get_num_threads() == 1 and everything(x, dy, 1) == expected else 3)
        assert os.waitpid(child, 0)[1] == 0


def test_choosing_an_engine():
    before = engines.current()
    with nf.use_engine("numpy"):
        assert engines.current().name == "numpy"
        with nf.use_engine("auto"):
            assert engines.current() is engines.load("auto")
        assert engines.current().name == "numpy"
    assert engines.current() is before
    nf.set_engine("numpy")
    try:
        assert engines.current().name == "numpy"
    finally:
        nf.set_engine(before.name)
    with ThreadPoolExecutor(1) as pool, nf.use_engine("numpy"):
        # a `with` block is its own thread's affair, and from Python 3.14 without a GIL on of those that it starts
        inherits = getattr(sys.flags, "thread_inherit_context", False)
        assert pool.submit(lambda: engines.current()).result() is (engines.load("numpy") if inherits else before)


def test_environment_chooses_the_engine():
    code = "import normfast as nf; nf.moments([1.0]); print(nf.show_config('dicts')['engine'])"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"NORMFAST_ENGINE": "numpy"}, capture_output=True, text=True)
    assert done.stdout.strip() == "numpy"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"NORMFAST_ENGINE": "fortran"}, capture_output=True, text=True)
    assert "unknown engine 'fortran': choose one of 'auto', 'cython', 'numba', 'numpy'" in done.stderr


def test_every_instruction_set_gives_the_same_masks_and_close_results():
    """The builds that this processor runs, chosen by NORMFAST_CPU."""
    from normfast.engines.cython import LEVELS, level

    try:
        level()
    except ImportError as error:
        pytest.skip(f"the Cython engine is not installed here: {error}")
    code = (
        "import numpy as np, normfast as nf; nf.set_engine('cython'); x = np.random.default_rng(0).normal(1e4, 1, (300, 500)).astype('f4');"
        "print(repr(nf.dropout(x, 0.3, rng=1).sum(dtype='f8')), float(np.abs(nf.layer_norm(x)).max()), float(nf.moments(x).std()))"
    )
    outputs = []
    for name in LEVELS:
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"NORMFAST_CPU": name}, capture_output=True, text=True)
        if "this processor runs" not in done.stderr:
            outputs.append(done.stdout.split())
    assert all(output[0] == outputs[0][0] for output in outputs)
    for k in (1, 2):
        assert all(abs(float(output[k]) - float(outputs[0][k])) < 1e-6 for output in outputs)


def signatures(path):
    """Names and arguments of the functions in a file of drivers; those of Cython lose their types."""
    text = Path(path).read_text()
    if path.suffix == ".py":
        functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        return {f.name: [a.arg for a in f.args.args] for f in functions}
    result = {}
    for part in text.split("\ndef ")[1:]:
        name, rest = part.split("(", 1)
        result[name] = [argument.split()[-1] for argument in rest.split("):", 1)[0].split(",") if argument.strip()]
    return result


def test_the_drivers_of_both_engines_are_twins():
    root = Path(engines.__file__).parent
    assert signatures(root / "cython" / "drivers.pyx") == signatures(root / "numba" / "drivers.py")


def test_every_engine_has_the_same_methods():
    from normfast.engines.compiled import CompiledEngine
    from normfast.engines.numpy import NumpyEngine

    public = [
        {name for name in vars(cls) if not name.startswith("_") and callable(getattr(cls, name))} for cls in (CompiledEngine, NumpyEngine)
    ]
    assert public[0] == public[1]

"""The same bits again: threads, runs, processes, load, batches, layouts, instruction sets, engines, and golden digests.

Each test is a sentence of docs/reproducibility.md. Cases and digests are those of `tests/operations.py`, `tests/bits.py` and `goldens.py`.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from bits import DTYPES, digests
from goldens import goldens, plain_masks, sha, values
from operations import bound, cases
from profiles import LONG
from profiles import cases as tries

import normfast as nf
from normfast.engines import cython, policy

TESTS = Path(__file__).parents[1]
GOLDEN = json.loads((TESTS / "goldens.json").read_text())
THREADS = (1, 2, 3, 16)
FULL = "auto", *(["numba"] if LONG else [])  # Numba compiles for minutes what all operations call
HALVES = ("float16", "float32", "float64")
try:
    import ml_dtypes  # noqa: F401  (gives NumPy the name bfloat16)

    HALVES = ("bfloat16", *HALVES)
except ImportError:  # then bfloat16 is left out: NumPy itself has no such type
    pass


@pytest.fixture
def small_limits(monkeypatch):
    """Small arrays that take several threads and are stored past the caches."""
    monkeypatch.setattr(policy, "SERIAL", 512)
    monkeypatch.setattr("normfast.engines.compiled.STREAMED", 2048)


@pytest.fixture(params=FULL)
def full(request):
    """Each compiled engine that this profile takes through every operation."""
    if request.param == "numba":
        pytest.importorskip("numba", reason="Numba is not installed")
    with nf.use_engine(request.param):
        yield request.param


# Everywhere


def test_goldens(full, tried):
    with nf.use_engine("numpy"):
        plain = goldens(HALVES)
    found = goldens(HALVES)
    assert found == plain
    assert found == {name: value for name, value in GOLDEN.items() if "bfloat16" not in name or "bfloat16" in HALVES}
    tried(2 * len(found))


def test_goldens_of_numba(tried):
    """Those that take one kernel; all of them in the long profile."""
    pytest.importorskip("numba", reason="Numba is not installed")
    with nf.use_engine("numba"):
        found = dict(plain_masks())
    assert found == {name: GOLDEN[name] for name in found}
    tried(len(found))


def test_a_golden_can_fail():
    """One bit of one value, one element of a mask."""
    x, mask = np.ones(10), nf.dropout_forward(np.ones(10), 0.5, rng=7)[1].toarray()
    moved, flipped = x.copy(), mask.copy()
    moved[3], flipped[3] = np.nextafter(1, 2), not mask[3]
    assert len({sha(x), sha(moved), sha(mask), sha(flipped)}) == 4


def test_goldens_in_any_number_of_threads(small_limits, tried):
    for threads in THREADS:
        with nf.threads(threads):
            found = dict(values("float32"))
            assert found == {name: GOLDEN[name] for name in found}, threads
    tried(len(found) * len(THREADS))


def test_a_stream_of_draws_is_taken_up_anywhere(rng):
    """A part of a dropout, begun at its offset, is the part of the whole."""
    x = rng.standard_normal(9000)
    whole = nf.dropout_forward(x, 0.4, rng=3)[0]
    for lo, hi in rng.integers(0, 9001, (tries(50, 2000), 2)):
        lo, hi = sorted((int(lo), int(hi)))
        assert (nf.dropout_forward(x[lo:hi], 0.4, rng=3, offset=lo)[0] == whole[lo:hi]).all()


# On one machine: any number of threads, any run, any process


def test_any_number_of_threads(full, small_limits, tried):
    with nf.threads(1):
        expected = digests(HALVES)
    for threads in THREADS[1:]:
        with nf.threads(threads):
            assert differing(digests(HALVES), expected) == [], f"{threads} threads"
    tried(len(expected) * len(THREADS))


def test_limits_of_threads_and_stores_change_nothing(full, monkeypatch, tried):
    expected = digests(HALVES)
    for serial, streamed in ((1, 0), (1 << 40, 0), (1, 1 << 40)):
        monkeypatch.setattr(policy, "SERIAL", serial)
        monkeypatch.setattr("normfast.engines.compiled.STREAMED", streamed)
        assert differing(digests(HALVES), expected) == []
    tried(3 * len(expected))


def test_other_processes(tried):
    """Two more processes, with other numbers of threads, other seeds of Python's hashes, other limits."""
    levels()  # skips where bits.py has none to tell
    expected = digests()
    for threads, serial in (("1", "65536"), ("3", "512")):
        said = process({"OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads, "NORMFAST_SERIAL": serial, "NORMFAST_STREAM": serial})
        assert differing(said["digests"], expected) == []
    tried(2 * len(expected))


def test_repetitions_under_load(small_limits, tried):
    """50 times each, while other threads take the cores."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 300, 700)).astype(np.float32)
    images = x.reshape(10, 21, 20, 50)
    repetitions, stop = tries(50, 2000), threading.Event()

    def calls():
        y, rows = nf.layer_norm_forward(x)
        z, batch = nf.batch_norm_forward(images)
        w, columns = nf.batch_norm_forward(x)
        parts = [y, z, w, nf.group_norm(images, 7), nf.dropout(x, 0.3, rng=1), nf.moments(x).m2, *nf.layer_norm_backward(dy, x, rows)]
        parts += [*nf.batch_norm_backward(dy.reshape(images.shape), images, batch), *nf.batch_norm_backward(dy, x, columns)]
        return [part.tobytes() for part in parts]

    def burn():
        while not stop.is_set():
            hashlib.sha256(bytes(1 << 20))  # a millisecond without the GIL

    with nf.threads(3):
        expected = calls()
        burning = [threading.Thread(target=burn) for _ in range(4)]
        for thread in burning:
            thread.start()
        try:
            for _ in range(repetitions):
                assert calls() == expected
        finally:
            stop.set()
            for thread in burning:
                thread.join()
    tried(repetitions * len(expected))


def differing(found, expected):
    assert found.keys() == expected.keys()
    return [name for name, value in found.items() if value != expected[name]]


def process(environment, *arguments):
    """What tests/bits.py prints in a process of its own."""
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, str(TESTS / "bits.py"), *arguments]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# On one machine: other instruction sets, other engines


def levels():
    """The builds that this processor runs, the best one first."""
    try:
        best = cython.level()
    except ImportError as error:
        pytest.skip(f"the Cython engine is not installed here: {error}")
    folder = Path(cython.__file__).parent
    order = list(cython.LEVELS)
    return [name for name in order[order.index(best) :] if list((folder / name).glob("drivers.*"))]


EXACT = ("dropout, ", "activation, identity, ", "activation, relu, ")  # one rounding or none for each result


def compare(first, second, what):
    """Results of the same calls, computed otherwise: each is within its bound of the exact one, so both within twice that."""
    limits = {f"{case.name}, {dtype}": 2 * bound(case, dtype) for case in cases() for dtype in DTYPES}
    assert first.keys() == second.keys()
    for name in first:
        one, other = first[name], second[name]
        assert one.dtype == other.dtype, name
        call = name.rpartition(", ")[0]
        eps = float(np.finfo(one.dtype).eps) * float(np.abs(one).max())
        limit = 0 if name.startswith(EXACT) else limits[call]
        apart = float(np.abs(one.astype(np.longdouble) - other).max()) / eps
        assert apart <= limit, f"{name}, {what}: {apart:.3g} eps apart, allowed {limit}"
    return len(first)


def kept(folder, name, environment):
    """The results of a process of its own, and its instruction set."""
    file = folder / f"{name}.npz"
    level = process(environment, str(file))["level"]
    with np.load(file) as arrays:
        return dict(arrays), level


def test_instruction_sets(tmp_path, tried):
    """Each build that the processor runs, beside the best one and beside NumPy's engine."""
    names = levels()
    numpy, _ = kept(tmp_path, "numpy", {"NORMFAST_ENGINE": "numpy"})
    count, best = 0, None
    for name in names:
        found, level = kept(tmp_path, name, {"NORMFAST_CPU": name, "NORMFAST_ENGINE": "cython"})
        assert level == name
        best = found if best is None else best
        count += compare(found, best, f"{name} and {names[0]}") + compare(found, numpy, f"{name} and NumPy's engine")
    tried(count)


@pytest.mark.long
def test_numba_beside_the_others(tmp_path, tried):
    pytest.importorskip("numba", reason="Numba is not installed")
    numba, _ = kept(tmp_path, "numba", {"NORMFAST_ENGINE": "numba"})
    auto, _ = kept(tmp_path, "auto", {"NORMFAST_ENGINE": "auto"})
    tried(compare(numba, auto, "numba and the default"))


def test_instruction_sets_have_the_same_goldens(tried):
    code = "import sys, json; from goldens import goldens; json.dump(goldens(['float32', 'float64']), sys.stdout)"
    names = levels()
    for name in names:
        paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = os.environ | {"NORMFAST_CPU": name, "NORMFAST_ENGINE": "cython", "PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, timeout=600)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found == {key: GOLDEN[key] for key in found}, name
    tried(len(names) * len(found))

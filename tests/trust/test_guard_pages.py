"""Guard pages: no operation reads or writes a byte outside its arrays, whatever their length, type and address."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import operations
import pytest
from lengths import SHORT, WHOLE, cases_of
from profiles import cases

import normfast as nf

if sys.platform == "win32":
    pytest.skip("guard pages are made by mmap and mprotect, which Windows has not", allow_module_level=True)

import guarded

TESTS = Path(guarded.__file__).parent
WAYS = {"plain": {}, "streamed": {"NORMFAST_SERIAL": "1", "NORMFAST_STREAM": "64"}}  # on two threads, past the caches
PAIRS = [(dtype, way) for dtype in operations.DTYPES for way in WAYS]
HALF = [("float16", "plain"), ("bfloat16", "streamed"), ("float32", "plain"), ("float64", "streamed")]  # of every kernel a dtype and a way


def in_short(pairs):
    """All pairs, of which the short profile takes these."""
    return [pytest.param(*pair, marks=[] if pair in pairs else pytest.mark.long) for pair in PAIRS]


@pytest.fixture(scope="module")
def allocator(tmp_path_factory):
    """guarded.c, compiled."""
    try:
        return guarded.library(tmp_path_factory.mktemp("guarded"))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no C compiler for the allocator whose memory has guard pages: {error}")


def run(allocator, engine, dtype, shift, lengths, **environment):
    """What a process under guard prints; fails with the call that a signal ended."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", guarded.__file__, allocator, engine, dtype, str(shift), *map(str, lengths)],
        env=os.environ | {"PYTHONPATH": path} | environment, capture_output=True, text=True, timeout=7200,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    end = signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"
    assert done.returncode == 0, f"{end} in: {lines[-1] if lines else 'the start'}\n{done.stderr[-2000:]}"
    calls, arrays = map(int, re.findall(r"\d+", lines[-1]))
    assert arrays > calls > 0
    return calls


def levels():
    """The builds of the Cython engine that this processor runs."""
    from normfast.engines import cython

    names = []
    for name in cython.LEVELS:
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("NORMFAST_CPU", name)
                names.append(cython.level())
        except ImportError:
            continue
    return names


def available(engine):
    try:
        with nf.use_engine(engine):
            pass
    except ImportError as error:
        pytest.skip(f"the {engine} engine is not installed here: {error}")


@pytest.mark.parametrize(("dtype", "way"), in_short([*HALF, ("float32", "streamed")]))
def test_operations(allocator, tried, dtype, way):
    """The best build of this processor, forward and backward, on arrays and working space between guard pages."""
    available("cython")
    tried(run(allocator, "cython", dtype, 0, cases(SHORT[PAIRS.index((dtype, way)) :: 8], WHOLE), **WAYS[way]))


@pytest.mark.parametrize(
    "dtype", [pytest.param(dtype, marks=[] if dtype == "float16" else pytest.mark.long) for dtype in operations.DTYPES]
)
def test_addresses_that_no_value_has(allocator, tried, dtype):
    """Arrays that begin a byte beside where their type may: they are copied, not read as they lie."""
    available("cython")
    tried(run(allocator, "cython", dtype, 1, cases([33], range(1, 301, 7))))


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "way"), PAIRS)
@pytest.mark.parametrize("level", levels()[1:])
def test_other_builds(allocator, tried, level, dtype, way):
    tried(run(allocator, "cython", dtype, 0, [*WHOLE][:: 2 if way == "plain" else 3], **WAYS[way], NORMFAST_CPU=level))


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "way"), HALF)
def test_numba(allocator, tried, dtype, way):
    """Compiling takes minutes: each kernel for one thread or for several."""
    available("numba")
    tried(run(allocator, "numba", dtype, 0, [0, *SHORT], **WAYS[way]))


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "way"), PAIRS)
def test_long_rows(allocator, tried, dtype, way):
    """Around the sizes of blocks: of sums, of draws, of pieces and of rows that pass the caches whole."""
    available("cython")
    lengths = [edge + step for edge in (512, 1024, 4096, 65536) for step in (-1, 0, 1, 37)]
    tried(run(allocator, "cython", dtype, 0, lengths, **WAYS[way]))


@pytest.mark.parametrize("at_end", [True, False])
def test_the_guard_bites(allocator, at_end):
    """A byte outside ends the process."""
    place = "at + 56" if at_end else "at - 1"
    code = f"""
import ctypes, sys, numpy as np, guarded
memory = guarded.Guarded(sys.argv[1])
memory.turn({at_end})
x = np.empty(7)
at = x.ctypes.data
ctypes.string_at(at, 56)
ctypes.string_at({place}, 1)
"""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code, allocator], env=os.environ | {"PYTHONPATH": path}, capture_output=True, timeout=600)
    assert -done.returncode in (signal.SIGSEGV, signal.SIGBUS)


def test_every_operation_is_tried():
    assert {case.operation for case in cases_of(7)} == {case.operation for case in operations.cases()}

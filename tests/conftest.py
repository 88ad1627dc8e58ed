"""Fixtures: every engine, the two dtypes, and a seed that a failure prints."""

import gc
import os
import sys

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # before SciPy is imported: scikit-learn's check of array-API input is skipped without it

import numpy as np
import pytest

import normfast as nf

gc.set_threshold(100_000)  # Numba compiles for minutes and keeps what it makes: looking through it every 700 objects took a twelfth of that

if "NORMFAST_TEST_SEED" in os.environ:  # hypothesis then repeats its cases too
    from hypothesis import settings

    settings.register_profile("repeated", derandomize=True)
    settings.load_profile("repeated")


def pytest_report_header():
    return [f"normfast {nf.__version__}: {nf.show_config('dicts')['engines']}"]


COMPILING = "numba", "test_engines.py", "test_fuse.py", "test_operations.py"  # and references that engines share


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`pytest -n 2`: a file stays in one process, and so does all that Numba compiles, which would take minutes in each of them.

    By name, not by number of tests: the files of few tests that take minutes (a browser, a simulator of a GPU) would be last, and alone.
    """
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "numba" if any(word in nodeid for word in COMPILING) else nodeid.split("::")[0]

    return Scheduling(config, log)


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """A file's collections of garbage leave alone what stands from those before: beside all that Numba made each took a second."""
    gc.freeze()


@pytest.fixture(autouse=True)
def same_default():
    """What a test sets for the whole process (the demo does) is not the next one's affair."""
    before = nf.engines.current().name
    yield
    nf.set_engine(before)


@pytest.fixture(params=nf.engines.ENGINES)
def engine(request):
    """Each engine in turn, chosen for the test."""
    yield from chosen(request)


@pytest.fixture(params=[name for name in nf.engines.ENGINES if name != "numpy"])
def compiled_engine(request):
    """Each compiled engine in turn: for promises that formulas on whole arrays do not make."""
    yield from chosen(request)


def chosen(request):
    try:
        context = nf.use_engine(request.param)
        context.__enter__()
    except ImportError as error:
        pytest.skip(f"the {request.param} engine is not installed here: {error}")
    yield request.param
    context.__exit__(None, None, None)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    """Fresh data in every run; NORMFAST_TEST_SEED repeats a run."""
    seed = int(os.environ.get("NORMFAST_TEST_SEED", np.random.SeedSequence().entropy % 2**32))
    print(f"NORMFAST_TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture
def busy(monkeypatch):
    """Threads that take turns often, and small arrays that take several."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    monkeypatch.setattr(nf.engines.policy, "SERIAL", 512)
    monkeypatch.setattr("normfast.engines.compiled.STREAMED", 2048)
    yield
    sys.setswitchinterval(before)

"""Forked, spawned and nested processes compute the same bits and end: after use, during a call and while an engine loads."""

import ctypes
import multiprocessing
import os
import sys
import threading

import pytest
from processes import LIMIT, digest, in_child, python
from profiles import cases

import normfast as nf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:os.fork.. was called:RuntimeWarning"),  # by JAX, where another test has loaded it
]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def expected(engine):
    """With threads, and as children compute it: so that none of them compiles with Numba."""
    found = digest(engine)
    assert digest(engine, 1) == found
    return found


@forks
def test_a_child_of_a_process_that_has_used_threads(engine, expected):
    assert in_child(lambda: nf.get_num_threads() == 1 and digest(engine) == expected)
    assert digest(engine) == expected


@forks
def test_a_child_of_a_child(engine, expected):
    assert in_child(lambda: digest(engine) == expected and in_child(lambda: nf.get_num_threads() == 1 and digest(engine) == expected))


@forks
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS ends a child that C code forked and that uses its libraries")
def test_a_fork_that_python_does_not_see(engine, expected):
    """An extension may call fork itself, and no hook of Python's runs."""
    fork = ctypes.PyDLL(None).fork
    assert in_child(lambda: nf.get_num_threads() == 1 and digest(engine) == expected, fork)


@forks
def test_forks_while_other_threads_are_inside_calls(engine, expected, tried):
    stop, wrong = threading.Event(), []

    def work():
        while not stop.is_set():
            if digest(engine) != expected:
                wrong.append(True)

    busy = [threading.Thread(target=work) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(cases(8, 200)):
            assert in_child(lambda: digest(engine) == expected)
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    assert not wrong
    tried(cases(8, 200))


LOADING = """
import importlib.abc, logging, sys, threading, time  # logging, whose own hooks complain if it comes while a fork waits
import normfast as nf
from processes import in_child

class Slow(importlib.abc.MetaPathFinder):  # another thread is certain to be inside the import when the fork comes
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            begun.set()
            time.sleep(1)

begun = threading.Event()
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=nf.engines.load, args=[{engine!r}])
thread.start()
begun.wait()
assert in_child(lambda: nf.engines.load({engine!r}).name == {engine!r})
thread.join()
print("loaded")
"""


@forks
@pytest.mark.parametrize(("name", "module"), [("cython", "normfast.engines.cython"), ("numba", "numba.core")])
def test_a_fork_while_an_engine_loads(name, module):
    try:
        nf.engines.load(name)
    except ImportError as error:
        pytest.skip(f"the {name} engine is not installed here: {error}")
    assert python(LOADING.format(engine=name, module=module)) == "loaded"


COMPILING = """
import threading, time
import numpy as np, normfast as nf
from processes import in_child
from numba.core.compiler_lock import global_compiler_lock as lock

x = np.ones((4, 300), np.float32)
def work():
    with nf.use_engine("numba"):
        return np.abs(nf.rms_norm(x) - 1).max() < 1e-5
nf.engines.load("numba")
thread = threading.Thread(target=work)
thread.start()
while lock._lock.acquire(blocking=False):  # until the other thread has it
    lock._lock.release()
    time.sleep(0.001)
assert in_child(work)
thread.join()
print("compiled")
"""


@forks
@pytest.mark.long
def test_a_fork_while_numba_compiles():
    pytest.importorskip("numba", reason="Numba is not installed here")
    assert python(COMPILING, limit=3 * LIMIT) == "compiled"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes(method, tried):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    expected = digest("auto")
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        assert pool.map_async(digest, ["auto", "numpy"] * 2).get(LIMIT) == [expected, digest("numpy")] * 2
    tried(4)


def test_workers_that_load_data():
    """PyTorch's: forked, and each computes."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

    class Digests(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return digest("auto")

    expected = digest("auto")
    loader = torch.utils.data.DataLoader(Digests(), batch_size=2, num_workers=2, timeout=LIMIT)
    assert [text for batch in loader for text in batch] == [expected] * 6


@forks
def test_nobody_waits_for_a_child_that_is_killed():
    expected = digest("auto")
    child = os.fork()
    if child == 0:
        while True:
            digest("auto")
    os.kill(child, 9)
    assert os.waitpid(child, 0)[1] == 9
    assert digest("auto") == expected


INTERPRETER = """
import sys
try:
    import {module} as interpreters
except ImportError:
    sys.exit("no sub-interpreters")
code = '''
try:
    import normfast
except ImportError as error:
    text = str(error)
    assert "\\\\n" not in text and "sub-interpreter" in text and "normfast" in text, text
else:
    raise AssertionError("it was imported")
'''
{first}
own = interpreters.create()
failure = {run}
assert not failure, failure
interpreters.destroy(own)
import numpy as np, normfast as nf
assert (nf.layer_norm(np.ones((2, 3))) == 0).all()
print("went on")
"""


@pytest.mark.parametrize("first", ["", "import normfast"], ids=["fresh", "imported before"])
def test_a_sub_interpreter_is_refused_in_a_line(first):
    """NumPy's modules cannot be there twice; the process goes on."""
    modules = {"_xxsubinterpreters": "interpreters.run_string(own, code)", "_interpreters": "interpreters.run_string(own, code)"}
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    assert python(INTERPRETER.format(module=name, first=first, run=modules[name])) == "went on"

"""Ctrl-C ends a call between its rounds, shutdown may come during one, and the package goes on as before."""

import os
import signal
import sys

import numpy as np
import pytest
from processes import digest, python

import normfast as nf
from normfast import engines
from normfast.engines import rounds

ROUND = 4096
SHAPE = (1024, 64)  # 16 rounds, and as many values as go to the loops on threads

OPERATIONS = {
    "layer_norm": lambda x: nf.layer_norm(x),
    "layer_norm, backward": lambda x: nf.layer_norm_backward(x, x, nf.NormStats(*np.ones((3, len(x))), 64)),
    "batch_norm": lambda x: nf.batch_norm(x, np.zeros(64), np.ones(64)),
    "batch_norm, channels": lambda x: nf.batch_norm_forward(x.reshape(4, 64, -1)),
    "batch_norm, backward": lambda x: nf.batch_norm_backward(
        x.reshape(4, 64, -1), x.reshape(4, 64, -1), nf.NormStats(*np.ones((3, 64)), 1024)
    ),
    "group_norm": lambda x: nf.group_norm(x.reshape(-1, 16, 64), 4),
    "lp_norm": lambda x: nf.lp_norm(x, 3),
    "dropout": lambda x: nf.dropout(x, 0.3, rng=1),
    "dropout_add_layer_norm": lambda x: nf.dropout_add_layer_norm_forward(x, x, p=0.1, rng=1),
    "bias_activation_dropout": lambda x: nf.bias_activation_dropout(x, activation="gelu", p=0.1, rng=1),
    "activation": lambda x: nf.activation(x, "gelu"),
    "moments": lambda x: nf.moments(x, -1),
    "float16": lambda x: nf.layer_norm(x.astype(np.float16)),
}


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C raises KeyboardInterrupt; what a shell starts in the background is deaf to it, and so is its Python."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Loops:
    """The loops of an engine; in the last of so many calls it is as if somebody pressed Ctrl-C."""

    def __init__(self, loops, left):
        self._loops, self._left = loops, left

    def __getattr__(self, name):
        loop = getattr(self._loops, name)

        def counted(*arguments):
            loop(*arguments)
            self._left[0] -= 1
            if self._left[0] == 0:
                signal.raise_signal(signal.SIGINT)

        return counted


def several(results):
    return [
        np.asarray(values).tobytes() for values in (results if isinstance(results, tuple) else (results,)) if isinstance(values, np.ndarray)
    ]


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_call_ends_between_its_rounds(name, monkeypatch):
    """In the middle of it; what comes next is computed as ever."""
    try:
        engine = engines.load("cython")
    except ImportError as error:
        pytest.skip(f"the cython engine is not installed here: {error}")
    operation, x = OPERATIONS[name], np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    left = [-1]
    loops = {id(drivers): Loops(drivers, left) for drivers in engine._drivers.values()}
    with nf.use_engine("cython"), monkeypatch.context() as patch:
        patch.setattr(rounds, "ROUND", ROUND)
        expected = several(operation(x))
        for pair, drivers in list(engine._drivers.items()):
            patch.setitem(engine._drivers, pair, loops[id(drivers)])
        patch.setattr(engine, "_untyped", loops[id(engine._untyped)])
        operation(x)
        calls = -1 - left[0]
        assert calls >= x.size // ROUND
        left[0] = calls // 2
        with pytest.raises(KeyboardInterrupt):
            operation(x)
        assert left[0] == 0
        left[0] = -1
        assert several(operation(x)) == expected


PRESSED = """
import os, signal, sys, threading, time
import numpy as np, normfast as nf
from processes import digest
nf.set_engine({engine!r})
x = np.ones((1 << {rows}, 1024), np.float32)
expected, environment = digest({engine!r}), dict(os.environ)
nf.lp_norm(x[:32], 3, out=x[:32])

def press():
    time.sleep(0.3)
    pressed.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

pressed = []
threading.Thread(target=press).start()
try:
    while True:
        nf.lp_norm(x, 3, out=x)
except KeyboardInterrupt:
    print(time.perf_counter() - pressed[0])
assert digest({engine!r}) == expected and dict(os.environ) == environment
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows sends Ctrl-C to consoles, not to a process")
@pytest.mark.parametrize("name", ["cython", "numpy"])  # numba's way to its loops is cython's
def test_ctrl_c_in_a_process(name):
    """32 MB in the slowest of the loops, again and again, until somebody presses it: within a second where nothing else runs."""
    try:
        engines.load(name)
    except ImportError as error:
        pytest.skip(f"the {name} engine is not installed here: {error}")
    assert float(python(PRESSED.format(engine=name, rows=13))) < 10


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="Windows sends Ctrl-C to consoles, not to a process")
def test_ctrl_c_during_a_call_of_half_a_minute():
    """2 GB on one thread."""
    assert float(python(PRESSED.format(engine="cython", rows=19), OMP_NUM_THREADS="1")) < 2


SHUTDOWN = """
import sys, threading, time
import numpy as np, normfast as nf
from processes import digest
nf.set_engine({engine!r})
inside = threading.Event()

def work():
    x = np.ones((1 << 13, 1024), np.float32)
    while True:
        inside.set()
        nf.layer_norm(x, out=x)
        digest({engine!r})

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
inside.wait()
time.sleep({after})
{end}
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "import os; os._exit(0)"])
@pytest.mark.parametrize("name", ["cython", "numpy"])
def test_the_process_ends_while_threads_are_inside_calls(name, end, tried):
    """Daemon threads, which Python leaves where they are."""
    try:
        engines.load(name)
    except ImportError as error:
        pytest.skip(f"the {name} engine is not installed here: {error}")
    for after in (0.0, 0.02):
        python(SHUTDOWN.format(engine=name, end=end, after=after))
    tried(2)


def test_calls_at_exit():
    """What is registered with atexit runs when much of Python is gone."""
    code = """
import atexit, sys
import normfast as nf
from processes import digest
expected = digest()
atexit.register(lambda: print(digest() == expected))
"""
    assert python(code) == "True"


def test_a_thread_that_is_left_ends_first():
    """A thread that is no daemon: Python waits for its call."""
    code = """
import threading
from processes import digest
threading.Thread(target=lambda: print(digest() == digest())).start()
"""
    assert python(code) == "True"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_signal_handlers_run_between_rounds(monkeypatch):
    """Any signal's: here an alarm, which raises nothing."""
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(True))
    monkeypatch.setattr(rounds, "ROUND", ROUND)
    x = np.random.default_rng(0).standard_normal((4096, 64)).astype(np.float32)
    try:
        expected = nf.layer_norm(x).tobytes()
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        for _ in range(50):
            assert nf.layer_norm(x).tobytes() == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen
    assert digest() == digest()

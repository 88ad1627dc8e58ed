"""Many Python threads at once, with or without a GIL: the bits of one, and no choice of engine or threads is lost."""

import os
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from bits import digest
from many_threads import at_once
from networks import model, shaken
from operations import cases

import normfast as nf
from normfast import engines
from normfast.engines import threads as counts

THREADS = 8


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("engine", ["auto", "numpy"])  # numba, which takes minutes to compile all this, is in test_engines.py
def test_every_operation(engine, kind, busy):
    """Each thread goes through them from another one on, so that different ones meet."""
    with nf.use_engine(engine):
        expected = [digest(case, kind) for case in cases()]

    def work(i):
        order = np.roll(np.arange(len(expected)), -i * len(expected) // THREADS)
        with nf.use_engine(engine), nf.threads(2):
            return all(digest(cases()[k], kind) == expected[k] for k in order)

    assert all(at_once(work, THREADS))


def test_one_model_that_all_share(busy, rng):
    net = shaken(model(np.float32), rng).eval()
    plan = nf.inference.freeze(net)
    x = rng.standard_normal((300, 6)).astype(np.float32)
    expected = net(x), plan(x)

    def work(_):
        return all((call(x) == y).all() for _ in range(50) for call, y in zip((net, plan), expected, strict=True))

    assert all(at_once(work, THREADS))


def test_one_generator_that_all_share(busy):
    x, source = np.ones(64), np.random.default_rng(5)
    keys = at_once(lambda _: [nf.dropout_forward(x, rng=source)[1].key.tobytes() for _ in range(50)], THREADS)
    again = np.random.default_rng(5)
    assert {key for run in keys for key in run} == {nf.dropout_forward(x, rng=again)[1].key.tobytes() for _ in range(50 * THREADS)}


def test_first_calls():
    """In a fresh process: all threads meet while the engine is loaded, and get the same one."""
    code = """
import sys, threading, numpy as np, normfast as nf
sys.setswitchinterval(1e-6)
start, found = threading.Barrier(16), []
def work():
    start.wait()
    found.append((nf.engines.current(), nf.get_num_threads(), nf.layer_norm(np.arange(6.0).reshape(2, 3)).tobytes()))
threads = [threading.Thread(target=work) for _ in range(16)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
assert len(found) == 16 and len(set(found)) == 1, found
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr


def test_a_first_call_undoes_no_choice(monkeypatch):
    """The engine, and the number of threads, that another thread sets while this one finds out the default."""
    load = engines.load
    monkeypatch.setattr(engines, "_default", None)
    monkeypatch.setattr(counts, "_default", None)
    numpy = load("numpy")

    def slow(name):
        monkeypatch.setattr(engines, "load", load)
        nf.set_engine("numpy")
        return load(name)

    engines._initial.cache_clear()
    monkeypatch.setattr(engines, "load", slow)
    engines.current()
    assert engines.current() is numpy

    def available():
        nf.set_num_threads(7)
        return 2

    monkeypatch.setattr(counts, "_available", available)
    nf.get_num_threads()
    assert nf.get_num_threads() == 7


def test_an_engine_is_made_once(monkeypatch):
    """Threads that load it at the same time share what the first of them made: two would each compile their loops."""
    monkeypatch.setattr(engines, "_loaded", {})
    made = at_once(lambda _: engines.load("auto"), THREADS)
    assert all(engine is made[0] for engine in made)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL, which nothing can switch on")
def test_the_gil_stays_off():
    code = """
import sys, numpy as np, normfast as nf
from normfast.engines.cython import build
nf.set_engine("cython"); nf.layer_norm(np.ones((2, 3)))
folder = build()[0].__name__.rpartition(".")[0]
assert nf.show_config("dicts")["gil"] == "off" and not sys._is_gil_enabled(), folder
print(len([name for name in sys.modules if name.startswith(folder + ".")]))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2

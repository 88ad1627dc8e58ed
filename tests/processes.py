"""Other processes for tests: fresh ones, forked ones that end in time, and what a worker of a pool computes."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import normfast as nf

LIMIT = 120  # seconds, for what takes one
PATH = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])  # so that fresh ones find this file


def python(code, *flags, folder=None, limit=LIMIT, **environment):
    """What a fresh Python prints, begun in this folder; it must end in time with status 0 and without a word on stderr.

    A variable of the environment that is None is taken away.
    """
    changed = os.environ | {"PYTHONPATH": PATH} | environment
    changed = {name: value for name, value in changed.items() if value is not None}
    command = [sys.executable, "-W", "error", *flags, "-c", code]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=limit, env=changed, cwd=folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


def in_child(check, fork=None):
    """Whether a forked child ends in time in which check() is true."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, of forks beside other threads: they are the point
        child = (fork or os.fork)()
    if child == 0:
        try:
            os._exit(0 if check() else 3)
        finally:
            os._exit(4)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"the child of a fork has not ended after {LIMIT} s")


def digest(engine="auto", threads=2):
    """Of results that several threads computed, forward and backward; for numba, which compiles each operation, of one operation."""
    rng = np.random.default_rng(3)
    x, dy = rng.standard_normal((2, 512, 300)).astype(np.float32)
    with nf.use_engine(engine), nf.threads(threads):
        y, stats = nf.layer_norm_forward(x)
        results = [y, *stats[:3]]
        if engine != "numba":
            results += nf.layer_norm_backward(dy, x, stats)
            y, stats = nf.batch_norm_forward(x)
            results += [y, *nf.batch_norm_backward(dy, x, stats), nf.dropout(x, 0.3, rng=4), nf.moments(x).m2]
    return hashlib.sha256(b"".join(np.asarray(values).tobytes() for values in results)).hexdigest()

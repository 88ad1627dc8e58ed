"""How many threads there are for a call.

A forked child runs serially: a child of a process whose OpenMP pool has run hangs in its first parallel region (libgomp) or is
ended by the runtime (Numba).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import SupportsIndex

from normfast.engines import cores

SPINS = "2000"  # 20 us

_threads: ContextVar[int | None] = ContextVar("normfast_threads", default=None)
_default: int | None = None  # what set_num_threads asked for
_process = os.getpid()  # compared in each call that could use threads, 0.1 us: nothing else sees a fork that C code made
_openmp = None  # how many threads OpenMP would take: the loaded engine's function


def _after_fork():
    global _process
    _process = 0  # also where a namespace of its own gave the child the number of its parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def hold_at_fork(lock):
    """Let forks wait for a lock that another thread holds: nobody would ever release it in the child."""
    held = []  # True while a fork that this has held up is made; one that had begun before knows nothing of it

    def acquire():
        lock.acquire()
        held.append(True)

    def release():
        if held:
            held.pop()
            lock.release()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=acquire, after_in_parent=release, after_in_child=release)


def respect(limit):
    """Let calls take no more threads by default than limit() says: what threadpoolctl sets."""
    global _openmp
    _openmp = limit


@cache
def _available():
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and asked.isascii() and 0 < int(asked) < 1 << 31 else cores.available()


def _checked(n):
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"the number of threads must be an integer, got {type(n).__name__}")
    if n.__index__() < 1:
        raise ValueError(f"the number of threads must be 1 or more, got {n}")
    return n.__index__()


def set_num_threads(n: SupportsIndex) -> None:
    """Set the number of threads that calls may use, for the whole process.

    Parameters
    ----------
    n : int
        1 or more; more than there are cores is allowed. The result of a call has the same bits for every n.

    Examples
    --------
    >>> import normfast as nf
    >>> nf.set_num_threads(2)
    >>> nf.get_num_threads()
    2
    """
    global _default
    _default = _checked(n)


def get_num_threads() -> int:
    """Return the number of threads that calls may use here.

    It is what `threads` or `set_num_threads` asked for, else OMP_NUM_THREADS, else the number of cores this process may run on, or
    that the quota of its container is worth; where nobody asked, no more than threadpoolctl allows here. A forked child always uses one.

    Examples
    --------
    >>> import normfast as nf
    >>> nf.get_num_threads() >= 1
    True
    """
    n = _threads.get() or _default
    if n == 1 or os.getpid() != _process:
        return 1
    if n is None:  # what was asked for holds whatever PyTorch, which may share our libgomp, sets for itself
        n = _available() if _openmp is None else min(_available(), _openmp())
    return n


@contextmanager
def threads(n: SupportsIndex) -> Iterator[None]:
    """Use n threads inside a `with` block, in this thread or task only.

    Threads that are started in the block inherit it where Python passes on contexts (`sys.flags.thread_inherit_context`: without a GIL from
    3.14 on).

    Examples
    --------
    >>> import normfast as nf
    >>> with nf.threads(1):
    ...     nf.get_num_threads()
    1
    """
    token = _threads.set(_checked(n))
    try:
        yield
    finally:
        _threads.reset(token)


@contextmanager
def short_spins():
    """Load libgomp inside this block, so that its idle threads sleep after 20 us.

    By default they spin for 3 ms, on cores that others need: a step of a small network, layers in turn with BLAS's matmuls, took
    27 ms on 2 cores and takes 1 ms so. Whoever has set OMP_WAIT_POLICY or GOMP_SPINCOUNT, or loaded libgomp before, keeps what he has.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)

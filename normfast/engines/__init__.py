"""The engines that run the kernels, and how one is chosen.

An engine has the methods of `compiled.CompiledEngine`. `auto` takes the first that loads: Cython (compiled ahead of time), Numba
(compiled at the first call), NumPy (plain formulas, always there). An engine asked for by name loads or raises. The cuda engine is chosen
by name alone; arrays that lie on a GPU go to it whichever is chosen.
"""

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from normfast.engines.threads import hold_at_fork
from normfast.typing import EngineName

ENGINES = ("cython", "numba", "numpy")  # of the CPU
NAMES = (*ENGINES, "cuda")

_chosen: ContextVar[Any] = ContextVar("normfast_engine", default=None)
_default: Any = None  # what set_engine asked for
_loaded: dict[str, Any] = {}
_loading = threading.RLock()  # a fork waits for it too: a module that was half imported would never be whole in the child
hold_at_fork(_loading)


def load(name):
    """The engine of that name, or the first of ENGINES that loads for "auto"."""
    if not isinstance(name, str):
        raise TypeError(f"engine must be a string, got {type(name).__name__}")
    if name not in ("auto", *NAMES):
        raise ValueError(f"unknown engine {name!r}: choose one of 'auto', {', '.join(map(repr, NAMES))}")
    if name not in _loaded:
        with _loading:  # of several threads that come here at once, all get what the first one made
            if name not in _loaded:
                _loaded[name] = _first() if name == "auto" else importlib.import_module(f"normfast.engines.{name}").load()
    return _loaded[name]


def _first():
    for name in ENGINES:
        try:
            return load(name)
        except ImportError:
            continue
    raise AssertionError("the NumPy engine always loads")


def current():
    """The engine that a call uses here."""
    return _chosen.get() or _default or _initial()


@cache  # apart from _default, so that a thread's first call never undoes what another one sets
def _initial():
    return load(os.environ.get("NORMFAST_ENGINE") or "auto")


def set_engine(name: EngineName) -> None:
    """Choose the engine for the whole process.

    Parameters
    ----------
    name : {"auto", "cython", "numba", "numpy", "cuda"}
        "auto" takes the first of the next three that is there. "cuda" computes also what lies on the CPU on the GPU, where it can:
        docs/gpu.md. The environment variable NORMFAST_ENGINE sets the start value.

    Raises
    ------
    ValueError
        For an unknown name.
    ImportError
        Where the engine asked for is not installed, or there is no GPU for it.

    Examples
    --------
    >>> import normfast as nf
    >>> nf.set_engine("auto")
    """
    global _default
    _default = load(name)


@contextmanager
def using(engine: Any) -> Iterator[None]:
    """Use an engine, loaded or made, inside a `with` block, in this thread or task only."""
    token = _chosen.set(engine)
    try:
        yield
    finally:
        _chosen.reset(token)


def use_engine(name: EngineName) -> AbstractContextManager[None]:
    """Use an engine inside a `with` block, in this thread or task only.

    Threads that are started in the block inherit it where Python passes on contexts (`sys.flags.thread_inherit_context`: without a GIL from
    3.14 on).

    Examples
    --------
    >>> import normfast as nf
    >>> with nf.use_engine("numpy"):
    ...     m = nf.moments([1.0, 2.0, 3.0])
    >>> float(m.mean)
    2.0
    """
    return using(load(name))

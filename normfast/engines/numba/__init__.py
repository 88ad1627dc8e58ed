"""The kernels compiled at the first call by Numba: the function objects of `normfast/kernels` as they are."""

import threading
import types
from functools import partial

import numpy as np

from normfast.engines.compiled import DOUBLE, SINGLE, CompiledEngine
from normfast.engines.threads import hold_at_fork, short_spins

REORDERED = {"reassoc", "contract", "arcp", "nsz"}  # as REORDER_FLAGS in setup.py: never finite-math
IN_ORDER = {"contract"}
# its serial loops take 34 ms for layer norm of 34 MB past the caches and 9 ms through them; the parallel ones 7.2 and 9.5 ms
STREAMS_ALONE = False


def load():
    """The engine; raises ImportError without Numba. Nothing is compiled yet."""
    from numba.core.compiler_lock import global_compiler_lock

    from normfast.engines.numba import drivers

    hold_at_fork(global_compiler_lock)  # a child of a process that compiles could otherwise never compile
    return CompiledEngine("numba", variants(loops_of(drivers)), streams_alone=STREAMS_ALONE)


def loops_of(drivers):
    """The functions of the drivers' module, by name."""
    return {name: f for name, f in vars(drivers).items() if isinstance(f, types.FunctionType) and f.__module__ == drivers.__name__}


def variants(loops):
    """The drivers for each pair of types, from their loops by name."""
    loops = {name: Driver(f) for name, f in loops.items()}
    return {pair: variant(loops, *pair) for pair in ((SINGLE, SINGLE), (SINGLE, DOUBLE), (DOUBLE, DOUBLE))}


def variant(loops, values, sums):
    """The drivers for one type of values and one of sums, which stand first among their arguments."""
    types_of = {"like": values.type(0), "wide": sums.type(0)}
    return types.SimpleNamespace(
        **{name: partial(loop, *(types_of[word] for word in loop.words if word in types_of)) for name, loop in loops.items()}
    )


class Memory:
    """Where an array lies, which it keeps alive, as memory that may be written."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def writable(array):
    """The same values as an array that Numba takes for one that may be written, though no loop writes what it is given to read.

    A read-only array is another type to Numba, for which it would compile the loop again: 3 s for each argument that is one or is not.
    """
    return np.asarray(Memory(array))


class Driver:
    """A loop of `drivers.py`, compiled for one thread and for several; its last argument is their number.

    One thread takes the serial build: that starts no thread pool, so it is safe in a forked child. Numba's workqueue layer, which is
    all there is where OpenMP and TBB are missing, aborts the process when two Python threads enter it at once: hence the lock.
    """

    lock = threading.Lock()

    def __init__(self, loop):
        import numba

        options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
        self.serial = numba.njit(**options)(loop)
        self.parallel = numba.njit(**options, parallel=True)(loop)
        self.words = loop.__code__.co_varnames[: loop.__code__.co_argcount]
        self.loops = "prange" in loop.__code__.co_names

    def __call__(self, *arguments):
        arguments = [writable(a) if isinstance(a, np.ndarray) and not a.flags.writeable else a for a in arguments]
        if not self.loops or arguments[-1] == 1:
            return self.serial(*arguments)
        if self._safe():
            return self.parallel(*arguments)
        with self.lock, short_spins():
            return self.parallel(*arguments)

    @staticmethod
    def _safe():
        import numba

        try:
            return numba.threading_layer() in ("omp", "tbb")
        except ValueError:  # no layer is chosen before the first parallel call
            return False

"""Runs every operation on arrays that end, then begin, at a page that nobody may touch; `trust/test_guard_pages.py` starts it.

    python tests/guarded.py LIBRARY ENGINE DTYPE SHIFT LENGTH ...

NumPy takes the memory of every array from here (NEP 49), also that of the engine's own working space and of results, so that the first
byte read or written outside ends the process by a signal; the last line printed says in which call. Fresh memory is filled with NaN once
and with zeros once, and the results must not differ: nothing depends on where an array lies, or on what lay there before. SHIFT is how
many bytes an array lies from its guard: by 1 it begins where no value of its type may.
"""

import ctypes
import os
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

import numpy as np
from lengths import arrays_of, cases_of, other_calls, results_of

import normfast as nf
from normfast.engines import compiled


def library(folder):
    """guarded.c compiled into this folder."""
    result = Path(folder) / "libguarded.so"
    source = Path(__file__).with_suffix(".c")
    include = [f"-I{path}" for path in (sysconfig.get_path("include"), np.get_include())]
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", *include, str(source), "-o", str(result)], check=True)
    return result


class Guarded:
    """The allocator of guarded.c, which NumPy takes memory from once it is made."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        api, space = ctypes.pythonapi, ctypes.c_void_p
        api.PyCapsule_GetPointer.restype, api.PyCapsule_GetPointer.argtypes = space, (ctypes.py_object, ctypes.c_char_p)
        api.PyCapsule_New.restype, api.PyCapsule_New.argtypes = ctypes.py_object, (space, ctypes.c_char_p, space)
        table = api.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None)
        set_handler = ctypes.cast(table, ctypes.POINTER(space))[304]  # PyDataMem_SetHandler
        handler = api.PyCapsule_New(ctypes.addressof(ctypes.c_char.in_dll(self.library, "guarded_handler")), b"mem_handler", None)
        ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(set_handler)(handler)

    def count(self):
        """How many arrays had their memory from here."""
        return ctypes.c_long.in_dll(self.library, "guarded_count").value

    def turn(self, at_end, shift=0):
        """What is taken from now on ends at a guard and has NaN in it, or begins behind one and has zeros, so many bytes from it."""
        ctypes.c_int.in_dll(self.library, "guarded_at_end").value = at_end
        ctypes.c_int.in_dll(self.library, "guarded_fill").value = 0xFF if at_end else 0
        ctypes.c_long.in_dll(self.library, "guarded_shift").value = shift
        compiled.constant.cache_clear()


def exact(shape, dtype):
    """As `compiled.aligned`, with no more bytes behind it than the last cache line has."""
    size = int(np.prod(shape)) * dtype.itemsize
    return np.ndarray(shape, dtype, np.empty(-(-size // 64) * 64, np.uint8))


def main(path, engine, dtype, shift, lengths):
    if dtype == "bfloat16":
        import ml_dtypes  # noqa: F401  (gives NumPy the dtype's name)
    nf.set_engine(engine)
    nf.set_num_threads(2)
    compiled.aligned = exact
    memory, calls = Guarded(path), 0

    def tried(what, arrays, call):
        """The arrays are made and the call is run on either side of a guard: the results must be the same."""
        os.write(1, f"{engine} {dtype} {what}\n".encode())
        both = []
        for at_end in (True, False):
            memory.turn(at_end, shift)
            given = arrays()
            memory.turn(at_end)
            both.append([np.asarray(result).tobytes() for result in call(*given)])
        if both[0] != both[1]:
            sys.exit("the bits depend on where the arrays lie, or on what lay there before")
        return len(both)

    for n in lengths:
        for case in cases_of(n):
            calls += tried(f"{case.name}, {n} values", partial(arrays_of, case, dtype), partial(results_of, case))
        for name, arrays, call in other_calls(n, dtype):
            calls += tried(f"{name}, {n} values", arrays, call)
    print(f"{calls} calls, {memory.count()} arrays", flush=True)
    os._exit(0)  # what NumPy still holds goes with the process


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), list(map(int, sys.argv[5:])))

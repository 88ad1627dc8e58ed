"""The first import of the package: it ends in one line in a sub-interpreter, where compiled modules, NumPy's too, cannot be had twice."""

import importlib
import importlib.util


def first():
    """Whether this is the interpreter that the process began with; where Python does not say, it has no other."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13 on, and before
        if importlib.util.find_spec(name) is not None:
            interpreters = importlib.import_module(name)
            return interpreters.get_current() == interpreters.get_main()
    return True


if not first():
    raise ImportError("normfast does not run in a sub-interpreter, since NumPy does not: import both in the main one")

"""Who is timed beside normfast: a file per library, which is imported when it is asked for.

Each function takes a problem and a number of threads and returns a `Contender`, or None where the library does not have the operation.
"""

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

# the name in the table: the module that must be installed, the file here and the function in it
RIVALS = {
    "numpy": ("numpy", "numpy", "contender"),
    "torch": ("torch", "torch", "eager"),
    "torch.compile": ("torch", "torch", "compiled"),
    "onnxruntime": ("onnxruntime", "onnxruntime", "contender"),
    "jax": ("jax", "jax", "contender"),
    "openvino": ("openvino", "openvino", "contender"),
    "sklearn": ("sklearn", "sklearn", "contender"),
}
OURS = {f"normfast ({engine})": engine for engine in ("cython", "numba")}


@dataclass
class Contender:
    """A call without arguments, all of whose inputs are prepared."""

    run: Callable
    results: Callable  # from what `run` returned to the tuple of NumPy arrays that the case has
    state: Callable[[], AbstractContextManager] = nullcontext  # threads, engine, no gradients: entered around the calls, not timed


def installed(name):
    """Whether a rival's library is there, without importing it."""
    return importlib.util.find_spec(RIVALS[name][0]) is not None


def build(name, problem, threads):
    """The contender of that name, or None where it does not have the operation; raises ImportError without its library."""
    if name in OURS:
        from normfast.benchmarks.rivals.ours import contender

        return contender(OURS[name], problem, threads)
    _, file, function = RIVALS[name]
    return getattr(importlib.import_module(f"{__name__}.{file}"), function)(problem, threads)

"""The kernels compiled ahead of time by Cython, in the best build that this processor runs."""

import importlib
import os
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES  # of this Python: a clone may hold those of several
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from normfast.engines.compiled import CompiledEngine
from normfast.engines.threads import respect, short_spins

DTYPES = {"float": np.float32, "double": np.float64}
LEVELS = {  # best first, with the features each needs
    "x86_64_v4": ("AVX512F", "AVX512CD", "AVX512_SKX", "AVX2", "FMA3", "F16C"),
    "x86_64_v3": ("AVX2", "FMA3", "F16C"),
    "baseline": (),
}


def level():
    """Name of the build to use: the best one that the processor runs, or the one that NORMFAST_CPU asks for."""
    from numpy._core._multiarray_umath import __cpu_features__ as features

    able = [name for name, needs in LEVELS.items() if all(features.get(need) for need in needs)]
    asked = os.environ.get("NORMFAST_CPU")
    if asked and asked not in able:
        raise ImportError(f"NORMFAST_CPU={asked!r}: this processor runs {' and '.join(able)}")
    folders = [Path(folder) for folder in __path__]
    for name in [asked] if asked else able:
        if any((folder / name / f"drivers{suffix}").is_file() for folder in folders for suffix in EXTENSION_SUFFIXES):
            return name
    raise ImportError("its kernels were not compiled: no C compiler at installation, or this is the source folder (pip install -e .)")


def build():
    """The modules that are called, of the build to use; raises ImportError where they were not compiled."""
    with short_spins():
        folder = f"{__name__}.{level()}"
        return [importlib.import_module(f"{folder}.{name}") for name in ("drivers", "shortcuts")]


def threaded():
    """Whether the loops run on threads: a compiler without OpenMP, as Apple's, makes them run one part after the other."""
    return build()[0].OPENMP


def load():
    """The engine; raises ImportError where it was not compiled."""
    drivers, shortcuts = build()
    respect(drivers.openmp_threads)
    pairs = [("float", "float"), ("float", "double"), ("double", "double")]
    loops = {(np.dtype(DTYPES[x]), np.dtype(DTYPES[sums])): variant(drivers, x, sums) for x, sums in pairs}
    return CompiledEngine("cython", loops, shortcuts=shortcuts)


def variant(drivers, values, sums):
    """The drivers for one type of values and one of sums: looked up once, not by Cython's dispatch in every call."""
    like, wide = DTYPES[values](0), DTYPES[sums](0)
    chosen = {}
    for name, driver in vars(drivers).items():
        signatures = getattr(driver, "__signatures__", {})
        if values in signatures:
            chosen[name] = partial(signatures[values], like)
        elif f"{values}|{sums}" in signatures:
            chosen[name] = partial(signatures[f"{values}|{sums}"], like, wide)
        else:
            chosen[name] = driver
    return SimpleNamespace(**chosen)

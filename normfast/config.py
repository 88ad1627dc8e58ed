"""What this installation runs on, `show_config`, and where its C header lies, `get_include`."""

from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from normfast import engines
from normfast.engines.threads import get_num_threads

# Extras that add something to the package, and the library that each brings
OPTIONAL = {
    "bfloat16": "ml_dtypes",
    "cuda": "numba-cuda",
    "dask": "dask",
    "mpi": "mpi4py",
    "numba": "numba",
    "onnx": "onnx",
    "parquet": "pyarrow",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "xarray": "xarray",
    "zarr": "zarr",
}


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: Literal["stdout", "dicts"] = "stdout") -> dict[str, Any] | None:
    """Show the engines, instruction sets, threads and optional libraries that calls use here.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dictionary. No optional library is imported to know that it is there.

    Raises
    ------
    ValueError
        For another mode.

    Examples
    --------
    >>> import normfast as nf
    >>> config = nf.show_config("dicts")
    >>> sorted(config)
    ['blas', 'engine', 'engines', 'gil', 'normfast', 'numpy', 'optional', 'processor', 'python', 'threads']
    >>> config["engines"]["numpy"]
    'plain formulas'
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    import platform
    import sys

    import normfast

    config: dict[str, Any] = {
        "normfast": normfast.__version__,
        "python": platform.python_version(),
        "gil": "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off",
        "numpy": np.__version__,
        "blas": _blas(),
        "processor": platform.machine(),
        "threads": get_num_threads(),
        "engine": engines.current().name,
        "engines": {name: _status(name) for name in engines.NAMES},
        "optional": {library: _version(library, extra) for extra, library in OPTIONAL.items()},
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        if isinstance(value, dict):
            print(key, *(f"  {name:12} {status}" for name, status in value.items()), sep="\n")
        else:
            print(f"{key:10} {value}")
    return None


def get_include() -> str:
    """The folder of `normfast.h`, for the include path of a C, C++ or Cython extension: docs/c-and-cython.md.

    Returns
    -------
    str

    Examples
    --------
    >>> import normfast as nf, pathlib
    >>> (pathlib.Path(nf.get_include()) / "normfast.h").is_file()
    True
    """
    return str(Path(__file__).with_name("include"))


def _blas():
    """The BLAS that NumPy multiplies matrices with."""
    found = np.show_config("dicts")["Build Dependencies"]["blas"]
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()


def _version(library, extra):
    """The version that is installed, or the command that installs it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return f"missing: pip install 'normfast[{extra}]'"


def _status(name):
    """Whether an engine can run here, without importing what is heavy."""
    if name == "cython":
        from normfast.engines.cython import level, threaded

        try:
            serial = "" if threaded() else ", on one thread: its compiler had no OpenMP"
            return f"compiled ahead of time, {level()} instructions{serial}"
        except ImportError as error:
            return f"missing: {error}"
    if name == "numba":
        found = _version("numba", "numba")
        return found if found.startswith("missing") else f"compiled at the first call by numba {found}"
    if name == "cuda":
        found = _version("numba-cuda", "cuda")
        return found if found.startswith("missing") else f"for arrays on a GPU, compiled at the first call by numba-cuda {found}"
    return "plain formulas"

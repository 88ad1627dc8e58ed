"""What this installation runs on, `show_config`, and where its C header lies, `get_include`."""

from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from normfast import engines
from normfast.engines.threads import get_num_threads


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: Literal["stdout", "dicts"] = "stdout") -> dict[str, Any] | None:
    """Show the engines, instruction sets and threads that calls use here.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dictionary.

    Examples
    --------
    >>> import normfast as nf
    >>> sorted(nf.show_config("dicts"))
    ['engine', 'engines', 'normfast', 'numpy', 'processor', 'python', 'threads']
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    import platform

    import normfast

    config: dict[str, Any] = {
        "normfast": normfast.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "processor": platform.machine(),
        "threads": get_num_threads(),
        "engine": engines.current().name,
        "engines": {name: _status(name) for name in engines.ENGINES},
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        if key != "engines":
            print(f"{key:10} {value}")
    for name, status in config["engines"].items():
        print(f"  {name:8} {status}")
    return None


def get_include():
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


def _status(name):
    """Whether an engine can run here, without importing what is heavy."""
    if name == "cython":
        from normfast.engines.cython import level

        try:
            return f"compiled ahead of time, {level()} instructions"
        except ImportError as error:
            return f"missing: {error}"
    if name == "numba":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"compiled at the first call by numba {version('numba')}"
        except PackageNotFoundError:
            return "missing: pip install 'normfast[numba]'"
    return "plain formulas"

"""The kernels for other people's compiled code: Cython, C, C++, and what calls C functions by their address.

Cython takes them by `from normfast.capi cimport layer_norm`, C and C++ by `#include <normfast.h>` (in `normfast.get_include()`), others
(ctypes, cffi, Numba, Julia, Rust) by `address` and `signature`. docs/c-and-cython.md shows each. Importing this module loads the build for
this processor.
"""

import ctypes
from importlib import import_module
from typing import Any

from normfast.engines.cython import level
from normfast.engines.threads import short_spins

__all__ = ["FUNCTIONS", "address", "function", "signature"]

try:
    with short_spins():
        _build = import_module(f"normfast.engines.cython.{level()}.capi")
except ImportError as error:
    raise ModuleNotFoundError(f"normfast.capi needs the Cython engine: {error}", name="normfast.engines.cython") from None

_C_API = _build._C_API


def _plain(name):
    """The name of a function: Cython's own for one of several types begins with their number."""
    for number, suffix in enumerate(("_f32", "_f64")):
        if name.startswith(f"__pyx_fuse_{number}"):
            return name.removeprefix(f"__pyx_fuse_{number}") + suffix
    return name


_capsules = {_plain(name): capsule for name, capsule in _build.__pyx_capi__.items() if "[" not in name}  # some stand there twice
__pyx_capi__ = {**_build.__pyx_capi__, **_capsules}  # where Cython's cimport, Numba and SciPy look
FUNCTIONS = tuple(sorted(_capsules))
"""Names of all functions."""

_name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_TYPES: dict[str, Any] = {"int": ctypes.c_int, "double": ctypes.c_double, "Py_ssize_t": ctypes.c_ssize_t}


def signature(name):
    """The C type of a function, by which it may be called.

    Parameters
    ----------
    name : str
        One of `FUNCTIONS`: that of the Python function, with `_f32` or `_f64` where it takes arrays of either.

    Returns
    -------
    str
        What it returns and, in brackets, what it takes; `Py_ssize_t` is C's `ptrdiff_t`. Names and meanings stand in `normfast.h`.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> from normfast import capi
    >>> capi.signature("dropout_f32")
    'int (float const *, Py_ssize_t, uint32_t const *, Py_ssize_t, double, float *)'
    """
    return _name_of(_capsule_of(name)).decode()


def address(name):
    """The address of a function, good for as long as the process lives; `name` as in `signature`.

    Returns
    -------
    int

    Examples
    --------
    >>> import ctypes, numpy as np
    >>> from normfast import capi
    >>> pointer, size = ctypes.c_void_p, ctypes.c_ssize_t
    >>> activation = ctypes.CFUNCTYPE(ctypes.c_int, pointer, size, ctypes.c_int, pointer)(capi.address("activation_f64"))
    >>> x = np.array([-1.0, 2.0])
    >>> activation(x.ctypes.data, x.size, 1, x.ctypes.data), x
    (0, array([0., 2.]))
    """
    capsule = _capsule_of(name)
    return _pointer_of(capsule, _name_of(capsule))


def function(name):
    """The function for ctypes, which releases the GIL while it runs: pointers are addresses, None is NULL; `name` as in `signature`.

    Returns
    -------
    ctypes function
        Of ints and floats to an int: 0, 1 for an invalid argument, 2 for no memory; nothing is written but for 0.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import capi
    >>> x, y = np.array([[1.0, 2.0, 3.0]]), np.empty((1, 3))
    >>> capi.function("layer_norm_f64")(x.ctypes.data, None, None, *x.shape, 0.0, y.ctypes.data, None, None, None), y.round(4)
    (0, array([[-1.2247,  0.    ,  1.2247]]))
    """
    result, _, arguments = signature(name).partition(" ")
    types = (_TYPES.get(argument, ctypes.c_void_p) for argument in arguments[1:-1].split(", "))
    return ctypes.CFUNCTYPE(_TYPES[result], *types)(address(name))


def _capsule_of(name):
    if name not in FUNCTIONS:
        raise ValueError(f"there is no C function {name!r}: choose one of {', '.join(FUNCTIONS)}")
    return _capsules[name]

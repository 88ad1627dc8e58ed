"""What every function here shares: how it is compiled, and the checks of its arguments, by type when compiled and by size when called."""

from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import overload

from normfast.engines.numba.runs import bytes_of, equal, given, space

__all__ = ["bytes_of", "checked", "compiled", "equal", "fits", "given", "holds", "space"]

compiled = njit(nogil=True, error_model="numpy")
FLOATS = (types.float32, types.float64)


def checked(x):
    """Nothing; x must be a float32 or float64 array."""


def fits(x, other):
    """Whether the other array has as many values as x, or is None."""


def holds(x, n):
    """Whether the array has n values, or is None or a number."""


def _float_array(x, what):
    if not (isinstance(x, types.Array) and x.dtype in FLOATS):
        raise TypingError(f"{what} must be a float32 or float64 array, got {x}: convert it with astype(np.float32)")


def _missing(x):
    return isinstance(x, types.NoneType) or (isinstance(x, types.Omitted) and x.value is None)


@overload(checked)
def _checked(x):
    _float_array(x, "x")
    return lambda x: None


@overload(fits)
def _fits(x, other):
    _float_array(x, "x")
    if _missing(other):
        return lambda x, other: True
    _float_array(other, "each other argument of x's size")
    return lambda x, other: other.size == x.size


@overload(holds)
def _holds(x, n):
    if _missing(x) or isinstance(x, types.Number):
        return lambda x, n: True
    _float_array(x, "a weight, a bias and their gradients")
    return lambda x, n: x.size == n

"""A row normalized by statistics that are known: for a user's own loops, and again on the way back from his function."""

from numba import njit

from normfast.engines.numba.kernels import factors, normalize
from normfast.engines.numba.primitives import cast


@njit(nogil=True, error_model="numpy")
def normalize_row(x, n, mean, rstd, weight, bias, y):
    """y = (x - mean) * rstd * weight + bias; y may be x."""
    like = x[0]
    scale, high, r, low = factors.centre(mean, rstd, like)
    rounded = cast(r, like)
    normalize.weighted_sweep(
        x, n, cast(scale, like), cast(high, like), rounded, cast(r - rounded, like), cast(low, like), weight, bias, 0, y, False, y
    )

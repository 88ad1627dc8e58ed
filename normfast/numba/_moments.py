"""Moments of a run, and their merging."""

import math

from normfast.engines.numba.kernels import moments as kernel
from normfast.engines.numba.primitives import row as _row
from normfast.numba._runs import checked, compiled


@compiled
def row(x, i):
    """Row i of a C-contiguous array of two axes or more: its values along all axes but the first, as one run.

    As `x[i]`, but it counts no reference: two threads that count those of one array wait for each other. It holds as long as x lives, so do
    not return it, nor keep it. An index beyond the rows is not noticed.

    Parameters
    ----------
    x : array, C-contiguous
    i : int, 0 or more

    Returns
    -------
    1-D array
        A view of x.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import njit
    >>> from normfast import numba as nfn
    >>> last = njit(lambda x: nfn.row(x, x.shape[0] - 1).sum())
    >>> last(np.array([[1.0, 2.0], [3.0, 4.0]]))
    7.0
    """
    return _row(x, i, x[0].size)


@compiled
def moments(x):
    """Count, mean and sum of squared deviations of a run, in one pass over it, summed in float64.

    Parameters
    ----------
    x : 1-D array, float32 or float64

    Returns
    -------
    count : int
    mean : float
        NaN without values.
    m2 : float
        m2 / count is the population variance.

    See Also
    --------
    normfast.moments : the same of a whole array.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> nfn.moments(np.array([1e8 + 1, 1e8 + 2, 1e8 + 3]))
    (3, 100000002.0, 2.0)
    """
    checked(x)
    if x.size == 0:
        return 0, math.nan, 0.0
    mean, m2, scale = kernel.row_moments(x, x.size, 1.0)
    return x.size, mean / scale, m2 / scale / scale


@compiled
def merge(count_a, mean_a, m2_a, count_b, mean_b, m2_b):
    """Moments of two disjoint sets together, from their own (Chan, Golub and LeVeque 1979).

    Parameters
    ----------
    count_a, mean_a, m2_a, count_b, mean_b, m2_b : numbers
        As `moments` returns them; a count may be 0.

    Returns
    -------
    count, mean, m2 : numbers

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> nfn.merge(*nfn.moments(np.array([1.0, 2.0])), *nfn.moments(np.array([3.0, 6.0])))
    (4, 3.0, 14.0)
    """
    if count_a == 0:
        return count_b, 1.0 * mean_b, 1.0 * m2_b
    if count_b == 0:
        return count_a, 1.0 * mean_a, 1.0 * m2_a
    return kernel.merge(count_a, mean_a, m2_a, count_b, mean_b, m2_b)

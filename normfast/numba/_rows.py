"""Layer norm, RMS norm and the p-norm of a row."""

import math

import numpy as np

from normfast.engines.numba.kernels import layer_norm as kernel
from normfast.engines.numba.kernels import lp_norm as orders
from normfast.engines.numba.kernels import moments as statistics
from normfast.engines.numba.primitives import cast
from normfast.engines.numba.rows import normalize_row
from normfast.numba._runs import compiled, fits, given, space


@compiled
def _normalize(x, weight, bias, mean, rstd, y):
    normalize_row(x, x.size, mean, rstd, given(weight, cast(1.0, x[0])), given(bias, cast(0.0, x[0])), y)


@compiled
def layer_norm(x, weight, bias, eps, y):
    """Layer norm of a row: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : 1-D array, float32 or float64
    weight, bias : 1-D array of x's size, or None
    eps : float
        0 or more. With eps = 0 a constant row gives the bias.
    y : 1-D array of x's size
        Takes the result; it may be x.

    Returns
    -------
    mean, rstd : float
        Mean and 1 / sqrt(var + eps), in float64, as `layer_norm_backward` needs them; NaN without values.

    Raises
    ------
    ValueError
        For arrays of another size than x's; nothing is written then.

    See Also
    --------
    normfast.layer_norm : the same of a whole array.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> x, y = np.array([1.0, 2.0, 3.0]), np.empty(3)
    >>> mean, rstd = nfn.layer_norm(x, None, None, 0.0, y)
    >>> mean, y.round(4)
    (2.0, array([-1.2247,  0.    ,  1.2247]))
    """
    if not (fits(x, weight) and fits(x, bias) and fits(x, y)):
        raise ValueError("weight, bias and y must have the size of x")
    n = x.size
    if n == 0:
        return math.nan, math.nan
    mean, m2, scale = statistics.row_moments(x, n, x[0])
    _, rstd = statistics.inverse_deviation(m2, n, scale, eps)
    _normalize(x, weight, bias, mean / scale, rstd, y)
    return mean / scale, rstd


@compiled
def _gradient(dy, x, mean, rstd, weight, centred, dx, dweight, dbias):
    n = x.size
    if n > 0:
        kernel.gradient_row(
            dy, x, mean, rstd, given(weight, cast(1.0, x[0])), n, centred, dx, given(dweight, x[0]), given(dbias, x[0]), False, dx
        )
        if n == 1 and centred:  # y is the bias, whatever x
            dx[0] *= 0.0


@compiled
def layer_norm_backward(dy, x, mean, rstd, weight, dx, dweight, dbias):
    """Gradients of `layer_norm` of a row.

    Parameters
    ----------
    dy, x : 1-D array, float32 or float64
        Gradient of the loss with respect to y, and the row of the forward call; of the same size.
    mean, rstd : float
        What `layer_norm` returned for x.
    weight : 1-D array of x's size, or None
        The weight of the forward call.
    dx : 1-D array of x's size
        Takes the gradient with respect to x; it may be dy or x.
    dweight, dbias : 1-D array of x's size
        To which dy * xhat and dy are added; in float64 sums over many rows keep their digits. Each thread needs its own.

    Raises
    ------
    ValueError
        For arrays of another size than x's; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> x, y, dx, dweight, dbias = np.array([1.0, 2.0, 4.0]), np.empty(3), np.empty(3), np.zeros(3), np.zeros(3)
    >>> mean, rstd = nfn.layer_norm(x, None, None, 1e-5, y)
    >>> nfn.layer_norm_backward(np.array([1.0, 0.0, 0.0]), x, mean, rstd, None, dx, dweight, dbias)
    >>> dx.round(4), dbias
    (array([ 0.2291, -0.3436,  0.1145]), array([1., 0., 0.]))
    """
    if not (fits(x, dy) and fits(x, weight) and fits(x, dx) and fits(x, dweight) and fits(x, dbias)):
        raise ValueError("dy, weight, dx, dweight and dbias must have the size of x")
    _gradient(dy, x, mean, rstd, weight, True, dx, dweight, dbias)


@compiled
def rms_norm(x, weight, eps, y):
    """RMS norm of a row: y = x / sqrt(mean(x**2) + eps) * weight.

    Parameters
    ----------
    x, weight, eps, y
        As in `layer_norm`.

    Returns
    -------
    rstd : float
        1 / sqrt(mean(x**2) + eps) in float64, as `rms_norm_backward` needs it; NaN without values.

    Raises
    ------
    ValueError
        For arrays of another size than x's; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> y = np.empty(2)
    >>> rstd = nfn.rms_norm(np.array([3.0, 4.0]), None, 0.0, y)
    >>> y.round(4)
    array([0.8485, 1.1314])
    """
    if not (fits(x, weight) and fits(x, y)):
        raise ValueError("weight and y must have the size of x")
    if x.size == 0:
        return math.nan
    squares, scale = statistics.row_squares(x, x.size, x[0])
    _, rstd = statistics.inverse_deviation(squares, x.size, scale, eps)
    _normalize(x, weight, None, 0.0, rstd, y)
    return rstd


@compiled
def rms_norm_backward(dy, x, rstd, weight, dx, dweight):
    """Gradients of `rms_norm` of a row.

    Parameters
    ----------
    dy, x, weight, dx, dweight
        As in `layer_norm_backward`.
    rstd : float
        What `rms_norm` returned for x.

    Raises
    ------
    ValueError
        For arrays of another size than x's; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> x, y, dx, dweight = np.array([3.0, 4.0]), np.empty(2), np.empty(2), np.zeros(2)
    >>> rstd = nfn.rms_norm(x, None, 0.0, y)
    >>> nfn.rms_norm_backward(np.array([1.0, 0.0]), x, rstd, None, dx, dweight)
    >>> dx.round(4)
    array([ 0.181 , -0.1358])
    """
    if not (fits(x, dy) and fits(x, weight) and fits(x, dx) and fits(x, dweight)):
        raise ValueError("dy, weight, dx and dweight must have the size of x")
    _gradient(dy, x, 0.0, rstd, weight, False, dx, dweight, None)


@compiled
def lp_norm(x, p, eps, y):
    """A row divided by its p-norm: y = x / max(norm, eps).

    Parameters
    ----------
    x : 1-D array, float32 or float64, contiguous
    p : float
        Any real number or an infinity; 0 counts the values that are not 0.
    eps : float
    y : 1-D array of x's size, contiguous
        Takes the result; it may be x.

    Returns
    -------
    norm : float

    Raises
    ------
    ValueError
        If y has not the size of x; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> y = np.empty(2)
    >>> nfn.lp_norm(np.array([3.0, -4.0]), 2.0, 1e-12, y), y
    (5.0, array([ 0.6, -0.8]))
    """
    if not fits(x, y):
        raise ValueError("y must have the size of x")
    norm, unit = space(1, np.float64(0.0)), space(1, np.float64(0.0))
    norm[0] = 0.0
    if x.size > 0:
        scale, high, a, a_low, b = space(1, x[0]), space(1, x[0]), space(1, x[0]), space(1, x[0]), space(1, x[0])
        orders.lp_norm_rows(x, 1, x.size, 1.0 * p, eps, y, norm, unit, scale, high, a, a_low, b, 0, 1, False, y)
    return norm[0]


@compiled
def lp_norm_backward(dy, x, p, norm, eps, dx):
    """Gradient of `lp_norm` of a row.

    Parameters
    ----------
    dy, x : 1-D array, float32 or float64, contiguous
        Gradient of the loss with respect to y, and the row of the forward call; of the same size.
    p, norm, eps : float
        The order and eps of the forward call, and what it returned.
    dx : 1-D array of x's size, contiguous
        Takes the gradient with respect to x; it may be dy or x.

    Raises
    ------
    ValueError
        For arrays of another size than x's; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> dx = np.empty(2)
    >>> nfn.lp_norm_backward(np.array([1.0, 0.0]), np.array([3.0, -4.0]), 2.0, 5.0, 1e-12, dx)
    >>> dx
    array([0.128, 0.096])
    """
    if not (fits(x, dy) and fits(x, dx)):
        raise ValueError("dy and dx must have the size of x")
    if x.size > 0:
        inner, norms, slope = space(1, np.float64(0.0)), space(1, np.float64(0.0)), space(1024, x[0])
        a, b, one, zero = space(1, x[0]), space(1, x[0]), space(1, x[0]), space(1, x[0])
        norms[0] = norm
        orders.lp_gradient_rows(dy, x, x.size, 1.0 * p, norms, eps, dx, 0, 1, inner, a, b, one, zero, slope, False, dx)

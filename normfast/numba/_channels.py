"""Group, instance and batch norm of one group or one channel."""

import math

import numpy as np

from normfast.engines.numba.kernels import group_norm as groups
from normfast.engines.numba.kernels import moments as statistics
from normfast.engines.numba.kernels import slabs
from normfast.engines.numba.primitives import row
from normfast.kernels.activations import IDENTITY
from normfast.numba._runs import compiled, equal, fits, given, holds, space


@compiled
def group_norm(x, weight, bias, eps, y):
    """Group norm of one group of channels of one sample: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : 2-D array (channels of the group, values of each), float32 or float64, contiguous
    weight, bias : 1-D array (channels of the group,), or None
    eps : float
        0 or more.
    y : array of x's shape, contiguous
        Takes the result; it may be x.

    Returns
    -------
    mean, rstd : float
        Mean and 1 / sqrt(var + eps), in float64, as `group_norm_backward` needs them; NaN without values.

    Raises
    ------
    ValueError
        For arrays of another size than these; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> y = np.empty((2, 2))
    >>> mean, rstd = nfn.group_norm(np.array([[1.0, 3.0], [1.0, 3.0]]), np.array([1.0, 2.0]), None, 0.0, y)
    >>> y
    array([[-1.,  1.],
           [-2.,  2.]])
    """
    k, s = x.shape
    if not (fits(x, y) and holds(weight, k) and holds(bias, k)):
        raise ValueError("y must have the shape of x, weight and bias a value for each of its rows")
    return _normalize(x, k, s, weight, bias, eps, y)


@compiled
def _normalize(x, k, s, weight, bias, eps, y):
    if k * s == 0:
        return math.nan, math.nan
    mean, rstd, var = space(1, np.float64(0.0)), space(1, np.float64(0.0)), space(1, np.float64(0.0))
    groups.group_norm_rows(x, given(weight, 1.0), given(bias, 0.0), k, s, 1, eps, y, mean, rstd, var, 0, 1, False, row(y, 0, k * s))
    return mean[0], rstd[0]


@compiled
def group_norm_backward(dy, x, mean, rstd, weight, dx, dweight, dbias):
    """Gradients of `group_norm` of one group of one sample.

    Parameters
    ----------
    dy, x : 2-D array (channels of the group, values of each), float32 or float64, contiguous
        Gradient of the loss with respect to y, and the values of the forward call; of the same shape.
    mean, rstd : float
        What `group_norm` returned for x.
    weight : 1-D array (channels of the group,), or None
        The weight of the forward call.
    dx : array of x's shape, contiguous
        Takes the gradient with respect to x; it may be dy or x.
    dweight, dbias : 1-D array (channels of the group,)
        Take this sample's sums of dy * xhat and of dy: whoever loops over samples adds them up.

    Raises
    ------
    ValueError
        For arrays of another size than these; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> x, y, dx, dweight, dbias = np.array([[1.0, 2.0, 4.0]]), np.empty((1, 3)), np.empty((1, 3)), np.empty(1), np.empty(1)
    >>> mean, rstd = nfn.group_norm(x, None, None, 1e-5, y)
    >>> nfn.group_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, mean, rstd, None, dx, dweight, dbias)
    >>> dx.round(4)
    array([[ 0.2291, -0.3436,  0.1145]])
    """
    k, s = x.shape
    if not (fits(x, dy) and fits(x, dx) and holds(weight, k) and holds(dweight, k) and holds(dbias, k)):
        raise ValueError("dy and dx must have the shape of x, weight, dweight and dbias a value for each of its rows")
    _gradient(dy, x, k, s, mean, rstd, weight, dx, dweight, dbias)


@compiled
def _gradient(dy, x, k, s, mean, rstd, weight, dx, dweight, dbias):
    if k * s == 0:
        for j in range(k):
            dweight[j] = dbias[j] = 0.0
        return
    groups.group_norm_gradient_rows(
        dy,
        x,
        equal(1.0 * mean),
        equal(1.0 * rstd),
        given(weight, 1.0),
        k,
        s,
        1,
        dbias,
        dweight,
        dx,
        0,
        1,
        False,
        row(dx, 0, k * s),
    )
    _without_dependence(k * s, dx)


@compiled
def _without_dependence(n, dx):
    if n == 1:  # y is the bias, whatever x
        dx.flat[0] *= 0.0


@compiled
def instance_norm(x, weight, bias, eps, y):
    """Instance norm of one channel of one sample: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : 1-D array, float32 or float64, contiguous
    weight, bias : float, or None
        Those of the channel.
    eps : float
        0 or more.
    y : 1-D array of x's size, contiguous
        Takes the result; it may be x.

    Returns
    -------
    mean, rstd : float
        As of `group_norm`.

    Raises
    ------
    ValueError
        If y has not the size of x; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> y = np.empty(2)
    >>> nfn.instance_norm(np.array([1.0, 3.0]), 2.0, None, 0.0, y), y
    ((2.0, 1.0), array([-2.,  2.]))
    """
    if not fits(x, y):
        raise ValueError("y must have the size of x")
    return _normalize(x, 1, x.size, given(weight, 1.0), given(bias, 0.0), eps, y)


@compiled
def instance_norm_backward(dy, x, mean, rstd, weight, dx):
    """Gradients of `instance_norm` of one channel of one sample.

    Parameters
    ----------
    dy, x : 1-D array, float32 or float64, contiguous
        Gradient of the loss with respect to y, and the values of the forward call; of the same size.
    mean, rstd : float
        What `instance_norm` returned for x.
    weight : float, or None
        The weight of the forward call.
    dx : 1-D array of x's size, contiguous
        Takes the gradient with respect to x; it may be dy or x.

    Returns
    -------
    dweight, dbias : float
        This sample's sums of dy * xhat and of dy.

    Raises
    ------
    ValueError
        For arrays of another size than x's; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> x, y, dx = np.array([1.0, 2.0, 4.0]), np.empty(3), np.empty(3)
    >>> mean, rstd = nfn.instance_norm(x, None, None, 1e-5, y)
    >>> dweight, dbias = nfn.instance_norm_backward(np.array([1.0, 0.0, 0.0]), x, mean, rstd, None, dx)
    >>> dx.round(4), dbias
    (array([ 0.2291, -0.3436,  0.1145]), 1.0)
    """
    if not (fits(x, dy) and fits(x, dx)):
        raise ValueError("dy and dx must have the size of x")
    dweight, dbias = space(1, np.float64(0.0)), space(1, np.float64(0.0))
    _gradient(dy, x, 1, x.size, mean, rstd, given(weight, 1.0), dx, dweight, dbias)
    return dweight[0], dbias[0]


@compiled
def batch_norm(x, mean, var, weight, bias, eps, y):
    """Values of one channel by given statistics, as at inference: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : 1-D array, float32 or float64, contiguous
    mean, var : float
        Those of the channel.
    weight, bias : float, or None
        Those of the channel.
    eps : float
        0 or more.
    y : 1-D array of x's size, contiguous
        Takes the result; it may be x.

    Raises
    ------
    ValueError
        If y has not the size of x; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> y = np.empty(2)
    >>> nfn.batch_norm(np.array([10.0, 30.0]), 20.0, 100.0, None, None, 0.0, y)
    >>> y
    array([-1.,  1.])
    """
    if not fits(x, y):
        raise ValueError("y must have the size of x")
    if x.size > 0:
        _, rstd = statistics.inverse_deviation(1.0 * var, 1, 1.0, eps)
        _affine(x, 0, 1, 1, x.size, mean, rstd, weight, bias, y)


@compiled
def _affine(x, q, r, c, s, mean, rstd, weight, bias, y):
    w, b = given(weight, 1.0), given(bias, 0.0)
    slabs.affine_channel(x, equal(1.0 * mean), equal(rstd), w, b, q, r, c, s, IDENTITY, y, False, row(y, 0, s))


@compiled
def batch_norm_forward(x, c, weight, bias, eps, y):
    """Channel c of a batch by its own statistics, as in training: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : 3-D array (samples, channels, values of each), float32 or float64, contiguous
        Only x[:, c] is read.
    c : int
        The channel, 0 or more.
    weight, bias : 1-D array (channels,), or None
    eps : float
        0 or more.
    y : array of x's shape, contiguous
        y[:, c] takes the result; it may be x.

    Returns
    -------
    mean, rstd, var : float
        Mean, 1 / sqrt(var + eps) and population variance, in float64; NaN without values.

    Raises
    ------
    ValueError
        For arrays of another size than these, or a channel that is not there; nothing is written then.

    Notes
    -----
    Runs should be long: for (samples, channels) take the statistics of a transposed copy.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> x, y = np.array([[[1.0, 3.0], [0.0, 0.0]], [[1.0, 3.0], [0.0, 0.0]]]), np.zeros((2, 2, 2))
    >>> nfn.batch_norm_forward(x, 0, None, None, 0.0, y), y[0, 0]
    ((2.0, 1.0, 1.0), array([-1.,  1.]))
    """
    r, channels, s = x.shape
    if not (fits(x, y) and holds(weight, channels) and holds(bias, channels) and 0 <= c < channels):
        raise ValueError("y must have the shape of x, weight and bias a value for each channel, of which c is one")
    if r * s == 0:
        return math.nan, math.nan, math.nan
    piece_mean, piece_m2 = space(1, np.float64(0.0)), space(1, np.float64(0.0))
    like = x[0, 0, 0]
    piece_mean[0], piece_m2[0] = slabs.piece_moments(x, c, 0, r, channels, s, 1, 1, 1.0, like)
    mean, m2, scale = slabs.slab_moments(x, c, r, channels, s, 1, 1, piece_mean, piece_m2, like)
    var, rstd = statistics.inverse_deviation(m2, r * s, scale, eps)
    _affine(x, c, r, channels, s, mean / scale, rstd, weight, bias, y)
    return mean / scale, rstd, var


@compiled
def batch_norm_backward(dy, x, c, mean, rstd, weight, dx):
    """Gradients of `batch_norm_forward` of channel c.

    Parameters
    ----------
    dy, x : 3-D array (samples, channels, values of each), float32 or float64, contiguous
        Gradient of the loss with respect to y, and the batch of the forward call; of the same shape.
    c : int
        The channel, 0 or more.
    mean, rstd : float
        What `batch_norm_forward` returned for it.
    weight : 1-D array (channels,), or None
        The weight of the forward call.
    dx : array of x's shape, contiguous
        dx[:, c] takes the gradient with respect to x; it may be dy or x.

    Returns
    -------
    dweight, dbias : float
        The sums of dy * xhat and of dy over the channel.

    Raises
    ------
    ValueError
        For arrays of another size than these, or a channel that is not there; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> x, y, dx = np.array([[[1.0]], [[2.0]], [[4.0]]]), np.empty((3, 1, 1)), np.empty((3, 1, 1))
    >>> mean, rstd, var = nfn.batch_norm_forward(x, 0, None, None, 1e-5, y)
    >>> dweight, dbias = nfn.batch_norm_backward(np.array([[[1.0]], [[0.0]], [[0.0]]]), x, 0, mean, rstd, None, dx)
    >>> dx.ravel().round(4), dbias
    (array([ 0.2291, -0.3436,  0.1145]), 1.0)
    """
    r, channels, s = x.shape
    if not (fits(x, dy) and fits(x, dx) and holds(weight, channels) and 0 <= c < channels):
        raise ValueError("dy and dx must have the shape of x, weight a value for each channel, of which c is one")
    n = r * s
    if n == 0:
        return 0.0, 0.0
    m, f, w = equal(1.0 * mean), equal(1.0 * rstd), given(weight, 1.0)
    dbias, dweight = slabs.piece_gradient_sums(dy, x, m, f, c, 0, r, channels, s, 1, 1)
    c1, c2 = equal(w[c] * dbias / n), equal(w[c] * dweight / n)
    slabs.gradient_channel(dy, x, m, f, w, c1, c2, c, r, channels, s, dx, False, row(dx, 0, s))
    if n == 1:  # y is the bias, whatever x
        dx[0, c, 0] *= 0.0
    return dweight, dbias

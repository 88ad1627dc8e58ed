"""Layer normalization (Ba, Kiros, Hinton 2016): statistics over the features of one sample."""

from typing import NamedTuple

import numpy as np

from normfast import engines
from normfast.ops._arrays import apart, checked_eps, checked_out, floating, layout_of, parameter, same_shape, statistics
from normfast.ops._stats import NormStats


class NormGradients(NamedTuple):
    """Gradients of a normalization with respect to x, weight and bias."""

    dx: np.ndarray
    dweight: np.ndarray
    dbias: np.ndarray


def layer_norm(x, weight=None, bias=None, *, axis=-1, eps=1e-5, out=None):
    """Normalize over the axes: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : array_like, float32 or float64
        Of any shape and strides.
    weight, bias : array_like, optional
        Of the shape of x along `axis`.
    axis : int or tuple of int
        The axes of one sample's features.
    eps : float
        Added to the population variance, 0 or more. With eps = 0 a constant row still gives the bias.
    out : ndarray, optional
        Of x's shape and dtype; takes y. It may be x itself or overlap it.

    Returns
    -------
    ndarray
        y, of x's shape and dtype: `out` if that was given.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong type, shape or range; nothing is written then.

    See Also
    --------
    layer_norm_forward : also returns what the backward pass needs.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton, Layer Normalization, arXiv:1607.06450 (2016).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.layer_norm(np.array([[1.0, 2.0, 3.0], [1e8, 1e8, 1e8 + 3]]), eps=0).round(4)
    array([[-1.2247,  0.    ,  1.2247],
           [-0.7071, -0.7071,  1.4142]])
    """
    return layer_norm_forward(x, weight, bias, axis=axis, eps=eps, out=out)[0]


def layer_norm_forward(x, weight=None, bias=None, *, axis=-1, eps=1e-5, out=None):
    """As `layer_norm`, and the statistics that `layer_norm_backward` needs.

    Returns
    -------
    y : ndarray
    stats : NormStats
        (mean, rstd, var, count) of the shape of x without `axis`, float64.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, stats = nf.layer_norm_forward(np.array([[1.0, 2.0, 3.0]]))
    >>> stats.mean, stats.var.round(4), stats.count
    (array([2.]), array([0.6667]), 3)
    """
    x = floating(x)
    layout = layout_of(x, axis, rows=True)
    weight = parameter(weight, layout, layout.reduced, x.dtype, "weight", 1)
    bias = parameter(bias, layout, layout.reduced, x.dtype, "bias", 0)
    eps = checked_eps(eps)
    checked_out(out, x)
    rows, n = layout.block[2:]
    mean, rstd, var = np.full((3, rows), np.nan) if x.size == 0 else np.empty((3, rows))
    block = layout.target(out, x.dtype)
    if x.size:
        x, weight, bias = apart(x, out), apart(weight, out), apart(bias, out)
        rows_of = layout.load(x).reshape(rows, n), block.reshape(rows, n)
        engines.current().layer_norm_forward(rows_of[0], weight, bias, eps, rows_of[1], mean, rstd, var)
    stats = NormStats(*(layout.unpack(values, layout.kept) for values in (mean, rstd, var)), n)
    return layout.deliver(block, out), stats


def layer_norm_backward(dy, x, stats, weight=None, *, axis=-1):
    """Gradients of `layer_norm`, from the gradient dy of y.

    Parameters
    ----------
    dy : array_like
        Gradient of the loss with respect to y, of x's shape.
    x : array_like
        The input of the forward call.
    stats : NormStats
        What `layer_norm_forward` returned for x.
    weight : array_like, optional
        The weight of the forward call.
    axis : int or tuple of int
        The axes of the forward call.

    Returns
    -------
    NormGradients
        dx of x's shape and dtype, dweight and dbias of the shape of x along `axis` (also where there is no weight). With
        g = dy * weight and xhat = (x - mean) * rstd it is dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), which does not
        cancel for a large mean; dweight = sum(dy * xhat) and dbias = sum(dy) over the samples.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, 2.0, 4.0]])
    >>> y, stats = nf.layer_norm_forward(x)
    >>> gradients = nf.layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, stats)
    >>> gradients.dx.round(4), gradients.dbias
    (array([[ 0.2291, -0.3436,  0.1145]]), array([1., 0., 0.]))
    """
    x = floating(x)
    dy = same_shape(dy, x, "dy")
    layout = layout_of(x, axis, rows=True)
    weight = parameter(weight, layout, layout.reduced, x.dtype, "weight", 1)
    mean, rstd = statistics(stats, layout)
    rows, n = layout.block[2:]
    dx = np.empty(layout.block, x.dtype)
    dweight = dbias = np.zeros(n)
    if x.size:
        blocks = [block.reshape(rows, n) for block in (layout.load(dy), layout.load(x), dx)]
        dweight, dbias = engines.current().layer_norm_backward(blocks[0], blocks[1], mean, rstd, weight, blocks[2])
    gradients = (layout.unpack(values.astype(x.dtype), layout.reduced) for values in (dweight, dbias))
    return NormGradients(layout.unload(dx), *gradients)

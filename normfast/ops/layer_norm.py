"""Layer normalization (Ba, Kiros, Hinton 2016): statistics over the features of one sample."""

from normfast import engines
from normfast.ops._arrays import (
    checked_eps,
    checked_out,
    checked_where,
    computing,
    direct,
    floating,
    gradient_dtype,
    layout_of,
    parameter,
    same_shape,
    statistics,
)
from normfast.ops._device import device, on_device
from normfast.ops._norm import gradients, normalize
from normfast.ops._rows import rows_backward, rows_forward
from normfast.ops._stats import NormGradients, NormStats
from normfast.typing import Array, ArrayLike, Axis, Writeable


def layer_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
    out: Writeable | None = None,
) -> Array:
    """Normalize over the axes: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : array_like, float16, bfloat16, float32 or float64
        Of any shape and strides.
    weight, bias : array_like, optional
        Of the shape of x along `axis`; float32 where x has 16 bits, or as x.
    axis : int or tuple of int
        The axes of one sample's features.
    eps : float
        Added to the population variance, 0 or more. With eps = 0 a constant row still gives the bias.
    where : array_like of bool, optional
        Broadcasts to x; values where it is False take no part in the statistics, and their y is 0.
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
    if where is None and (y := engines.current().layer_norm_at_once(x, weight, bias, axis, eps, True, out, False)) is not None:
        return y
    return layer_norm_forward(x, weight, bias, axis=axis, eps=eps, where=where, out=out)[0]


def layer_norm_forward(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
    out: Writeable | None = None,
) -> tuple[Array, NormStats]:
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
    if where is None and (simple := engines.current().layer_norm_at_once(x, weight, bias, axis, eps, True, out, True)) is not None:
        y, statistics = simple
        return y, NormStats(*statistics, y.shape[-1])
    if where is None and on_device(x):
        return device("layer_norm_forward")(x, weight, bias, axis=axis, eps=eps, out=out)
    x = floating(x)
    layout = layout_of(x, axis, rows=True)
    dtype = computing(x.dtype)
    plain = weight is None and bias is None
    weight = parameter(weight, layout, layout.reduced, dtype, "weight", 1)
    bias = parameter(bias, layout, layout.reduced, dtype, "bias", 0)
    eps = checked_eps(eps)
    out = checked_out(out, x)
    where = checked_where(where, x)
    columns = plain and not direct(layout, x) and direct(layout_of(x, axis), x)  # rows would be copied, columns lie ready
    if where is not None or columns:
        affine = () if plain else layout.reduced
        parameters = (None, None) if plain else (layout.unpack(run, layout.reduced) for run in (weight, bias))
        return normalize(x, layout_of(x, axis), affine, *parameters, eps, out, where)
    y, *statistics = rows_forward(x, layout, weight, bias, eps, True, out)
    return y, NormStats(*(layout.unpack(values, layout.kept) for values in statistics), layout.block[3])


def layer_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    stats: NormStats,
    weight: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    out: Writeable | None = None,
) -> NormGradients:
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
    axis, where
        As in the forward call.
    out : ndarray, optional
        Of x's shape and dtype; takes dx. It may be dy or x themselves or overlap them.

    Returns
    -------
    NormGradients
        dx of x's shape and dtype, dweight and dbias of the shape of x along `axis` (also where there is no weight). With
        g = dy * weight and xhat = (x - mean) * rstd it is dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), which does not
        cancel for a large mean; dweight = sum(dy * xhat) and dbias = sum(dy) over the samples. Where a mask leaves out values their dy
        is not read and their dx is 0.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, 2.0, 4.0]])
    >>> y, stats = nf.layer_norm_forward(x)
    >>> gradients = nf.layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, stats)
    >>> gradients.dx.round(4), gradients.dbias
    (array([[ 0.2291, -0.3436,  0.1145]]), array([1., 0., 0.]))
    """
    if where is None and isinstance(stats, NormStats):
        simple = engines.current().layer_norm_gradients_at_once(dy, x, stats.mean, stats.rstd, weight, axis, True, out)
        if simple is not None:
            return NormGradients(*simple)
    if where is None and on_device(x):
        return device("layer_norm_backward")(dy, x, stats, weight, axis=axis, out=out)
    x = floating(x)
    dy = same_shape(dy, x, "dy")
    layout = layout_of(x, axis, rows=True)
    dtype = gradient_dtype(x, weight)
    out = checked_out(out, x)
    weight = parameter(weight, layout, layout.reduced, computing(x.dtype), "weight", 1, out)
    where = checked_where(where, x)
    if where is not None:
        return gradients(dy, x, stats, layout, layout.reduced, layout.unpack(weight, layout.reduced), dtype, out, where=where)
    mean, rstd = statistics(stats, layout, out=out)
    dx, dweight, dbias = rows_backward(dy, x, layout, mean, rstd, weight, True, out)
    return NormGradients(dx, layout.unpack(dweight.astype(dtype), layout.reduced), layout.unpack(dbias.astype(dtype), layout.reduced))

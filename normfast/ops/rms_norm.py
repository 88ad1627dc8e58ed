"""Root mean square normalization (Zhang, Sennrich 2019): layer norm without centring and without bias."""

from typing import NamedTuple

import numpy as np

from normfast import engines
from normfast.ops._arrays import (
    checked_eps,
    checked_out,
    computing,
    floating,
    gradient_dtype,
    layout_of,
    parameter,
    same_shape,
    statistics,
)
from normfast.ops._device import device, on_device
from normfast.ops._rows import rows_backward, rows_forward
from normfast.ops._stats import NormStats
from normfast.typing import Array, ArrayLike, Axis, Writeable


class RMSNormGradients(NamedTuple):
    """Gradients of `rms_norm` with respect to x and weight.

    Attributes
    ----------
    dx : ndarray
        Of x's shape and dtype.
    dweight : ndarray
        Of the shape of x along the axes of the norm.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, 7.0]])
    >>> _, stats = nf.rms_norm_forward(x, eps=0.0)
    >>> nf.rms_norm_backward(np.ones_like(x), x, stats).dweight
    array([0.2, 1.4])
    """

    dx: Array
    dweight: Array


def zero_centered_weight(weight, x):
    """weight + 1, in the type that x is computed in; None stays None."""
    return None if weight is None else 1 + floating(weight, "weight").astype(computing(floating(x).dtype), copy=False)


def rms_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    zero_centered: bool = False,
    out: Writeable | None = None,
) -> Array:
    """Divide by the root mean square over the axes: y = x / sqrt(mean(x**2) + eps) * weight.

    Parameters
    ----------
    x : array_like, float16, bfloat16, float32 or float64
        Of any shape and strides.
    weight : array_like, optional
        Of the shape of x along `axis`; float32 where x has 16 bits, or as x.
    axis : int or tuple of int
        The axes of one sample's features.
    eps : float
        Added to the mean square, 0 or more. With eps = 0 zeros still give zeros.
    zero_centered : bool
        Whether the factor is 1 + weight, as in Gemma's checkpoints, whose weight decay then draws the factor to 1.
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

    References
    ----------
    B. Zhang, R. Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467 (2019).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.rms_norm(np.array([3.0, 4.0]), eps=0).round(4)
    array([0.8485, 1.1314])
    """
    if zero_centered and on_device(x):
        return rms_norm_forward(x, weight, axis=axis, eps=eps, zero_centered=True, out=out)[0]
    weight = zero_centered_weight(weight, x) if zero_centered else weight
    if (y := engines.current().layer_norm_at_once(x, weight, None, axis, eps, False, out, False)) is not None:
        return y
    return rms_norm_forward(x, weight, axis=axis, eps=eps, out=out)[0]


def rms_norm_forward(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    zero_centered: bool = False,
    out: Writeable | None = None,
) -> tuple[Array, NormStats]:
    """As `rms_norm`, and the statistics that `rms_norm_backward` needs.

    Returns
    -------
    y : ndarray
    stats : NormStats
        (None, rstd, mean square, count) of the shape of x without `axis`, float64.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, stats = nf.rms_norm_forward(np.array([[3.0, 4.0]]))
    >>> stats.mean is None, stats.var, stats.count
    (True, array([12.5]), 2)
    """
    weight = zero_centered_weight(weight, x) if zero_centered and not on_device(x) else weight
    if (simple := engines.current().layer_norm_at_once(x, weight, None, axis, eps, False, out, True)) is not None:
        y, (_, rstd, var) = simple
        return y, NormStats(None, rstd, var, y.shape[-1])
    if on_device(x):
        return device("rms_norm_forward")(x, weight, axis=axis, eps=eps, zero_centered=zero_centered, out=out)
    x = floating(x)
    layout = layout_of(x, axis, rows=True)
    dtype = computing(x.dtype)
    weight = parameter(weight, layout, layout.reduced, dtype, "weight", 1)
    bias = parameter(None, layout, layout.reduced, dtype, "bias", 0)
    eps = checked_eps(eps)
    out = checked_out(out, x)
    y, _, rstd, var = rows_forward(x, layout, weight, bias, eps, False, out)
    return y, NormStats(None, layout.unpack(rstd, layout.kept), layout.unpack(var, layout.kept), layout.block[3])


def rms_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    stats: NormStats,
    weight: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    zero_centered: bool = False,
    out: Writeable | None = None,
) -> RMSNormGradients:
    """Gradients of `rms_norm`, from the gradient dy of y.

    Parameters
    ----------
    dy, x : array_like
        Gradient of the loss with respect to y, and the input of the forward call; of the same shape.
    stats : NormStats
        What `rms_norm_forward` returned for x.
    weight : array_like, optional
        The weight of the forward call.
    axis, zero_centered
        As in the forward call.
    out : ndarray, optional
        Of x's shape and dtype; takes dx. It may be dy or x themselves or overlap them.

    Returns
    -------
    RMSNormGradients
        dx of x's shape and dtype, and dweight = sum(dy * xhat) of the shape of x along `axis` (also where there is no weight). With
        g = dy * weight and xhat = x * rstd it is dx = rstd * (g - xhat * mean(g * xhat)).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[3.0, 4.0]])
    >>> y, stats = nf.rms_norm_forward(x, eps=0)
    >>> nf.rms_norm_backward(np.array([[1.0, 0.0]]), x, stats).dx.round(4)
    array([[ 0.181 , -0.1358]])
    """
    if zero_centered and weight is not None and not on_device(x):
        gradients = rms_norm_backward(dy, x, stats, zero_centered_weight(weight, x), axis=axis, out=out)
        return RMSNormGradients(gradients.dx, gradients.dweight.astype(gradient_dtype(gradients.dx, weight), copy=False))
    if isinstance(stats, NormStats):
        simple = engines.current().layer_norm_gradients_at_once(dy, x, None, stats.rstd, weight, axis, False, out)
        if simple is not None:
            return RMSNormGradients(*simple[:2])
    if on_device(x):
        return device("rms_norm_backward")(dy, x, stats, weight, axis=axis, zero_centered=zero_centered, out=out)
    x = floating(x)
    dy = same_shape(dy, x, "dy")
    layout = layout_of(x, axis, rows=True)
    dtype = gradient_dtype(x, weight)
    out = checked_out(out, x)
    weight = parameter(weight, layout, layout.reduced, computing(x.dtype), "weight", 1, out)
    (rstd,) = statistics(stats, layout, ("rstd",), out)
    dx, dweight, _ = rows_backward(dy, x, layout, np.zeros(rstd.size), rstd, weight, False, out)
    return RMSNormGradients(dx, layout.unpack(dweight.astype(dtype), layout.reduced))

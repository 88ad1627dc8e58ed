"""The blocks of a Transformer between its matmuls: dropout, the sum with the residual stream, and the norm of that sum, in one sweep.

A pre-norm network goes on with h = dropout(x) + residual, a post-norm network with its norm y; forward calls return both.
"""

import functools
import math
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from normfast import engines
from normfast.ops._arrays import (
    apart,
    checked_eps,
    checked_out,
    computing,
    direct,
    floating,
    gradient_dtype,
    layout_of,
    parameter,
    same_shape,
    statistics,
    unset_statistics,
)
from normfast.ops._device import device, lies_on_device, on_device
from normfast.ops._foreign import borrowed
from normfast.ops._rows import pieces_of_rows, without_dependence
from normfast.ops._stats import NormGradients, NormStats
from normfast.ops.dropout import DropoutMask, checked_p, drawn_alone, drawn_in_order, mask_for, scale_kept
from normfast.ops.rms_norm import RMSNormGradients, zero_centered_weight
from normfast.typing import Array, ArrayLike, Axis, Rng, Writeable


class AddNorm(NamedTuple):
    """The norm y of the sum h of x and the residual stream, and the statistics of h.

    Attributes
    ----------
    y, h : ndarray
        Of x's shape and dtype.
    stats : NormStats
        Those of h.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> result = nf.add_layer_norm_forward(np.array([[1.0, 2.0]]), np.array([[3.0, 6.0]]), eps=0.0)
    >>> result.y, result.h, result.stats.mean.ravel()
    (array([[-1.,  1.]]), array([[4., 8.]]), array([6.]))
    """

    y: Array
    h: Array
    stats: NormStats


class DropoutAddNorm(NamedTuple):
    """The norm y of h = dropout(x) + residual, h, its statistics, and the mask.

    Attributes
    ----------
    y, h : ndarray
        Of x's shape and dtype.
    stats : NormStats
        Those of h.
    mask : DropoutMask
        The key of what was kept, for the backward pass.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> result = nf.dropout_add_layer_norm_forward(np.ones((1, 4)), np.zeros((1, 4)), p=0.5, rng=1, eps=0.0)
    >>> result.mask.toarray(), result.h
    (array([[ True, False,  True,  True]]), array([[2., 0., 2., 2.]]))
    """

    y: Array
    h: Array
    stats: NormStats
    mask: DropoutMask


class DropoutAddNormGradients(NamedTuple):
    """Gradients of dropout, sum and layer norm with respect to x, the residual stream, weight and bias.

    Attributes
    ----------
    dx, dresidual : ndarray
        Of x's shape and dtype.
    dweight, dbias : ndarray
        Of the shape of x along the axes of the norm.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, 2.0, 6.0]])
    >>> _, h, stats, mask = nf.dropout_add_layer_norm_forward(x, x, p=0.0)
    >>> gradients = nf.dropout_add_layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), h, stats, mask)
    >>> bool((gradients.dx == gradients.dresidual).all()), gradients.dbias
    (True, array([1., 0., 0.]))
    """

    dx: Array
    dresidual: Array
    dweight: Array
    dbias: Array


class DropoutAddRMSNormGradients(NamedTuple):
    """Gradients of dropout, sum and RMS norm with respect to x, the residual stream and weight.

    Attributes
    ----------
    dx, dresidual : ndarray
        Of x's shape and dtype.
    dweight : ndarray
        Of the shape of x along the axes of the norm.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, 2.0, 6.0]])
    >>> _, h, stats, mask = nf.dropout_add_rms_norm_forward(x, x, p=0.0, eps=0.0)
    >>> gradients = nf.dropout_add_rms_norm_backward(np.array([[1.0, 0.0, 0.0]]), h, stats, mask)
    >>> gradients.dresidual.shape, gradients.dweight.round(3)
    ((1, 3), array([0.271, 0.   , 0.   ]))
    """

    dx: Array
    dresidual: Array
    dweight: Array


def dropout_add_layer_norm(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    p: float = 0.5,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: Axis = -1,
    eps: float = 1e-5,
    out: Writeable | None = None,
    h_out: Writeable | None = None,
) -> Array:
    """y = layer_norm(dropout(x) + residual).

    Parameters
    ----------
    x, residual : array_like, float16, bfloat16, float32 or float64
        Of the same shape: the output of a sublayer and the stream that it is added to.
    weight, bias : array_like, optional
        Of the shape of x along `axis`; float32 where x has 16 bits, or as x.
    p, rng, mask, offset
        As in `dropout`: the same key gives the same mask.
    axis : int or tuple of int
        The axes of one sample's features.
    eps : float
        Added to the population variance, 0 or more.
    out, h_out : ndarray, optional
        Of x's shape and dtype; take y and h = dropout(x) + residual. Each may be x or residual themselves, so that the residual stream is
        updated in place with h_out=residual.

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
    dropout_add_layer_norm_forward : also returns h and what the backward pass needs.

    References
    ----------
    A. Vaswani et al., Attention Is All You Need, arXiv:1706.03762 (2017), section 5.4.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x, stream = np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 0.0, -1.0]])
    >>> nf.dropout_add_layer_norm(x, stream, p=0.5, mask=[[True, False, True]], h_out=stream).round(4)
    array([[ 0.1622, -1.2978,  1.1355]])
    >>> stream
    array([[3., 0., 5.]])
    """
    return _forward(x, residual, weight, bias, checked_p(p), rng, mask, offset, axis, eps, True, out, h_out)[0]


def dropout_add_layer_norm_forward(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    p: float = 0.5,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: Axis = -1,
    eps: float = 1e-5,
    out: Writeable | None = None,
    h_out: Writeable | None = None,
) -> DropoutAddNorm:
    """As `dropout_add_layer_norm`, and what `dropout_add_layer_norm_backward` needs.

    Returns
    -------
    y, h : ndarray
        The norm of h, and h = dropout(x) + residual itself, of x's shape and dtype.
    stats : NormStats
        (mean, rstd, var, count) of h, of the shape of x without `axis`, float64.
    mask : DropoutMask

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x, residual = np.random.default_rng(0).standard_normal((2, 4, 8))
    >>> y, h, stats, mask = nf.dropout_add_layer_norm_forward(x, residual, p=0.1, rng=1)
    >>> bool(np.allclose(h, nf.dropout_forward(x, 0.1, mask=mask)[0] + residual)), bool(np.allclose(y, nf.layer_norm(h)))
    (True, True)
    """
    return DropoutAddNorm(*_forward(x, residual, weight, bias, checked_p(p), rng, mask, offset, axis, eps, True, out, h_out))


def dropout_add_layer_norm_backward(
    dy: ArrayLike,
    h: ArrayLike,
    stats: NormStats,
    mask: DropoutMask,
    weight: ArrayLike | None = None,
    *,
    dh: ArrayLike | None = None,
    axis: Axis = -1,
    out: Writeable | None = None,
    dresidual_out: Writeable | None = None,
) -> DropoutAddNormGradients:
    """Gradients of `dropout_add_layer_norm`, from the gradient dy of y and, where h is used too, the gradient dh of h.

    Parameters
    ----------
    dy : array_like
        Gradient of the loss with respect to y, of h's shape.
    h, stats, mask
        What `dropout_add_layer_norm_forward` returned.
    weight : array_like, optional
        The weight of the forward call.
    dh : array_like, optional
        Gradient of the loss with respect to h, where a pre-norm network goes on with it.
    axis : int or tuple of int
        As in the forward call.
    out, dresidual_out : ndarray, optional
        Of h's shape and dtype; take dx and dresidual. Each may be dy, dh or h themselves.

    Returns
    -------
    DropoutAddNormGradients
        dx and dresidual of h's shape and dtype, dweight and dbias of the shape of h along `axis` (also where there is no weight).
        dresidual is the gradient of the norm, as in `layer_norm_backward`, plus dh; dx is its dropout by the same mask.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x, residual, dy, dh = np.random.default_rng(0).standard_normal((4, 3, 8))
    >>> y, h, stats, mask = nf.dropout_add_layer_norm_forward(x, residual, p=0.1, rng=1)
    >>> gradients = nf.dropout_add_layer_norm_backward(dy, h, stats, mask, dh=dh)
    >>> bool((gradients.dx == nf.dropout_backward(gradients.dresidual, mask)).all())
    True
    """
    return DropoutAddNormGradients(*_backward(dy, h, stats, _drawn(mask), weight, dh, axis, True, out, dresidual_out))


def dropout_add_rms_norm(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    p: float = 0.5,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: Axis = -1,
    eps: float = 1e-5,
    zero_centered: bool = False,
    out: Writeable | None = None,
    h_out: Writeable | None = None,
) -> Array:
    """y = rms_norm(dropout(x) + residual): as `dropout_add_layer_norm`, without centring and bias; zero_centered as in `rms_norm`.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.dropout_add_rms_norm(np.array([3.0, 9.0]), np.array([0.0, 4.0]), p=0.5, mask=[True, False], eps=0).round(4)
    array([1.1767, 0.7845])
    """
    weight = _one_more(weight, x) if zero_centered else weight
    return _forward(x, residual, weight, None, checked_p(p), rng, mask, offset, axis, eps, False, out, h_out)[0]


def dropout_add_rms_norm_forward(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    p: float = 0.5,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: Axis = -1,
    eps: float = 1e-5,
    zero_centered: bool = False,
    out: Writeable | None = None,
    h_out: Writeable | None = None,
) -> DropoutAddNorm:
    """As `dropout_add_rms_norm`, and what `dropout_add_rms_norm_backward` needs.

    Returns
    -------
    y, h : ndarray
        The norm of h, and h = dropout(x) + residual itself, of x's shape and dtype.
    stats : NormStats
        (None, rstd, mean square, count) of h, of the shape of x without `axis`, float64.
    mask : DropoutMask

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, h, stats, mask = nf.dropout_add_rms_norm_forward(np.ones((2, 3)), np.ones((2, 3)), p=0.0)
    >>> h.tolist(), stats.var
    ([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]], array([4., 4.]))
    """
    weight = _one_more(weight, x) if zero_centered else weight
    return DropoutAddNorm(*_forward(x, residual, weight, None, checked_p(p), rng, mask, offset, axis, eps, False, out, h_out))


def dropout_add_rms_norm_backward(
    dy: ArrayLike,
    h: ArrayLike,
    stats: NormStats,
    mask: DropoutMask,
    weight: ArrayLike | None = None,
    *,
    dh: ArrayLike | None = None,
    axis: Axis = -1,
    zero_centered: bool = False,
    out: Writeable | None = None,
    dresidual_out: Writeable | None = None,
) -> DropoutAddRMSNormGradients:
    """Gradients of `dropout_add_rms_norm`; parameters as in `dropout_add_layer_norm_backward`.

    Returns
    -------
    DropoutAddRMSNormGradients
        dx and dresidual of h's shape and dtype, dweight of the shape of h along `axis` (also where there is no weight).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[3.0, 4.0]])
    >>> y, h, stats, mask = nf.dropout_add_rms_norm_forward(x, 0 * x, p=0.0, eps=0)
    >>> nf.dropout_add_rms_norm_backward(np.array([[1.0, 0.0]]), h, stats, mask).dresidual.round(4)
    array([[ 0.181 , -0.1358]])
    """
    own = _dtype_of(weight)
    weight = _one_more(weight, h) if zero_centered else weight
    gradients = _backward(dy, h, stats, _drawn(mask), weight, dh, axis, False, out, dresidual_out, own)
    return DropoutAddRMSNormGradients(*gradients[:3])


def add_layer_norm(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    out: Writeable | None = None,
    h_out: Writeable | None = None,
) -> Array:
    """y = layer_norm(x + residual): `dropout_add_layer_norm` at inference, where nothing is dropped.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x, stream = np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 0.0, 3.0]])
    >>> nf.add_layer_norm(x, stream, eps=0, h_out=stream).round(4)
    array([[-0.9258, -0.4629,  1.3887]])
    >>> stream
    array([[1., 2., 6.]])
    """
    return _forward(x, residual, weight, bias, None, None, None, 0, axis, eps, True, out, h_out)[0]


def add_layer_norm_forward(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    out: Writeable | None = None,
    h_out: Writeable | None = None,
) -> AddNorm:
    """As `add_layer_norm`; returns an `AddNorm` (y, h, stats) with h = x + residual.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, h, stats = nf.add_layer_norm_forward(np.ones((1, 3)), np.array([[0.0, 0.0, 3.0]]))
    >>> h, stats.mean
    (array([[1., 1., 4.]]), array([2.]))
    """
    return AddNorm(*_forward(x, residual, weight, bias, None, None, None, 0, axis, eps, True, out, h_out)[:3])


def add_layer_norm_backward(
    dy: ArrayLike,
    h: ArrayLike,
    stats: NormStats,
    weight: ArrayLike | None = None,
    *,
    dh: ArrayLike | None = None,
    axis: Axis = -1,
    out: Writeable | None = None,
) -> NormGradients:
    """Gradients of `add_layer_norm`: a `NormGradients` (dx, dweight, dbias), whose dx is that of x and of the residual stream.

    It is the gradient of the norm, from the gradient dy of y, plus the gradient dh of h where that is used too.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, h, stats = nf.add_layer_norm_forward(np.array([[1.0, 2.0, 4.0]]), np.zeros((1, 3)))
    >>> nf.add_layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), h, stats).dx.round(4)
    array([[ 0.2291, -0.3436,  0.1145]])
    """
    return NormGradients(*_backward(dy, h, stats, None, weight, dh, axis, True, None, out)[1:])


def add_rms_norm(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    zero_centered: bool = False,
    out: Writeable | None = None,
    h_out: Writeable | None = None,
) -> Array:
    """y = rms_norm(x + residual): `dropout_add_rms_norm` at inference, where nothing is dropped.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.add_rms_norm(np.array([3.0, 0.0]), np.array([0.0, 4.0]), eps=0).round(4)
    array([0.8485, 1.1314])
    """
    weight = _one_more(weight, x) if zero_centered else weight
    return _forward(x, residual, weight, None, None, None, None, 0, axis, eps, False, out, h_out)[0]


def add_rms_norm_forward(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    zero_centered: bool = False,
    out: Writeable | None = None,
    h_out: Writeable | None = None,
) -> AddNorm:
    """As `add_rms_norm`; returns an `AddNorm` (y, h, stats) with h = x + residual.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, h, stats = nf.add_rms_norm_forward(np.array([[3.0, 0.0]]), np.array([[0.0, 4.0]]))
    >>> h, stats.var
    (array([[3., 4.]]), array([12.5]))
    """
    weight = _one_more(weight, x) if zero_centered else weight
    return AddNorm(*_forward(x, residual, weight, None, None, None, None, 0, axis, eps, False, out, h_out)[:3])


def add_rms_norm_backward(
    dy: ArrayLike,
    h: ArrayLike,
    stats: NormStats,
    weight: ArrayLike | None = None,
    *,
    dh: ArrayLike | None = None,
    axis: Axis = -1,
    zero_centered: bool = False,
    out: Writeable | None = None,
) -> RMSNormGradients:
    """Gradients of `add_rms_norm`: an `RMSNormGradients` (dx, dweight), whose dx is that of x and of the residual stream.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, h, stats = nf.add_rms_norm_forward(np.array([[3.0, 0.0]]), np.array([[0.0, 4.0]]), eps=0)
    >>> nf.add_rms_norm_backward(np.array([[1.0, 0.0]]), h, stats).dx.round(4)
    array([[ 0.181 , -0.1358]])
    """
    own = _dtype_of(weight)
    weight = _one_more(weight, h) if zero_centered else weight
    return RMSNormGradients(*_backward(dy, h, stats, None, weight, dh, axis, False, None, out, own)[1:3])


def _drawn(mask):
    if not isinstance(mask, DropoutMask):
        raise TypeError(f"mask must be the DropoutMask that the forward call returned, got {type(mask).__name__}")
    return mask


def _one_more(weight, x):
    """The weight of a zero-centred norm as that of any other."""
    return device("zero_centered_weight")(weight, x) if on_device(x) else zero_centered_weight(weight, x)


def _dtype_of(weight):
    if weight is None:
        return None
    return weight.dtype if lies_on_device(weight) else borrowed(weight, "weight").dtype


def _forward(x, residual, weight, bias, p, rng, mask, offset, axis, eps, centred, out, h_out):
    """y, h, stats and mask; p is None where nothing is dropped."""
    engine = engines.current()
    if mask is None and (p is None or (type(p) is float and 0.0 <= p < 1.0)):
        draw = None if p is None else functools.partial(mask_for, x, p, rng, None, None, offset)
        simple = engine.add_norm_at_once(x, residual, weight, bias, axis, eps, centred, out, h_out, draw)
        if simple is not None:
            y, h, (mean, rstd, var), mask = simple
            return y, h, NormStats(mean if centred else None, rstd, var, y.shape[-1]), mask
    if on_device(x):
        return device("add_norm_forward")(x, residual, weight, bias, p, rng, mask, offset, axis, eps, centred, out, h_out)
    x = floating(x)
    residual = same_shape(residual, x, "residual")
    layout = layout_of(x, axis, rows=True)
    dtype = computing(x.dtype)
    weight = parameter(weight, layout, layout.reduced, dtype, "weight", 1)
    bias = parameter(bias, layout, layout.reduced, dtype, "bias", 0)
    eps = checked_eps(eps)
    out = checked_out(out, x)
    h_out = checked_out(h_out, x, "h_out")
    if out is not None and h_out is not None and np.may_share_memory(out, h_out):
        raise ValueError("out and h_out overlap: y and h need memory of their own")
    mask = None if p is None else mask_for(x, p, rng, mask, None, offset)
    x, residual, weight, bias = (apart(apart(values, out), h_out) for values in (x, residual, weight, bias))
    weight, bias = (values.copy() if shared(values, h_out) else values for values in (weight, bias))
    y, h = (np.empty_like(x, subok=False) if target is None else target for target in (out, h_out))
    mean, rstd, var = unset_statistics(x, layout.block[2])
    whole = _as_they_lie(layout, mask, x, residual, h, y)
    if whole is not None:
        stream = None if mask is None else mask.stream()
        engine.add_norm_forward(*whole[:2], stream, weight, bias, eps, centred, *whole[2:], mean, rstd, var)
    else:
        kept = np.broadcast_to(np.True_, x.shape) if mask is None else mask._kept()
        residual = residual.copy() if shared(residual, h_out) else residual
        scale = 1.0 if mask is None else mask.scale
        for own, run, other, keep, total, result in pieces_of_rows(layout, x, residual, kept, h, y, targets=2):
            total[...] = run
            scale_kept(total, keep, scale)
            with np.errstate(all="ignore"):
                total += other
                if x.itemsize == 2:  # h as it is kept
                    total[...] = total.astype(x.dtype)
            engine.layer_norm_forward(total, weight, bias, eps, centred, result, mean[own], rstd[own], var[own])
    mean, rstd, var = (layout.unpack(values, layout.kept) for values in (mean, rstd, var))
    return y, h, NormStats(mean if centred else None, rstd, var, layout.block[3]), mask


def _backward(dy, h, stats, mask, weight, dh, axis, centred, out, dresidual_out, own=None):
    """dx, dresidual, dweight and dbias; dx is None without a mask. `own` is the dtype of the weight that was given."""
    engine = engines.current()
    if isinstance(stats, NormStats) and own is None and (mask is None or (drawn_alone(mask) and mask.shape == getattr(h, "shape", None))):
        stream, mean = None if mask is None else mask.stream(), stats.mean if centred else None
        simple = engine.add_norm_gradients_at_once(dy, h, dh, mean, stats.rstd, stream, weight, axis, centred, out, dresidual_out)
        if simple is not None:
            return simple
    if on_device(h):
        return device("add_norm_backward")(dy, h, stats, mask, weight, dh, axis, centred, out, dresidual_out, own)
    h = floating(h, "h")
    dy = same_shape(dy, h, "dy")
    dh = None if dh is None else same_shape(dh, h, "dh")
    if mask is not None and mask.shape != h.shape:
        raise ValueError(f"h has shape {h.shape} and the mask has {mask.shape}: they must be the same")
    layout = layout_of(h, axis, rows=True)
    dtype = gradient_dtype(h, weight) if own is None or h.itemsize > 2 else own
    out = checked_out(out, h)
    dresidual_out = checked_out(dresidual_out, h, "dresidual_out" if mask is not None else "out")
    if out is not None and dresidual_out is not None and np.may_share_memory(out, dresidual_out):
        raise ValueError("out and dresidual_out overlap: dx and dresidual need memory of their own")
    weight = parameter(weight, layout, layout.reduced, computing(h.dtype), "weight", 1)
    given = statistics(stats, layout, ("mean", "rstd") if centred else ("rstd",))
    dy, h, weight, rstd = (apart(apart(values, out), dresidual_out) for values in (dy, h, weight, given[-1]))
    dh = apart(apart(dh, out), dresidual_out)
    mean = apart(apart(given[0], out), dresidual_out) if centred else np.zeros(rstd.size)
    dresidual = np.empty_like(h, subok=False) if dresidual_out is None else dresidual_out
    dx: Any = None if mask is None else np.empty_like(h, subok=False) if out is None else out
    n = layout.block[3]
    dweight, dbias = np.zeros(n), np.zeros(n)
    whole = _as_they_lie(layout, mask, dy, h, dh, dresidual, dx)
    if whole is not None and not (n == 1 and centred):  # where dresidual is dh, whatever the gradient of the norm
        stream = None if mask is None else mask.stream()
        dweight, dbias = engine.add_norm_backward(*whole[:3], mean, rstd, stream, weight, centred, *whole[3:])
        if mask is not None and mask.p == 0.0:
            dx[...] = dresidual
    else:
        kept = np.broadcast_to(np.True_, h.shape) if mask is None else mask._kept()
        scale = 1.0 if mask is None else mask.scale
        dh = np.broadcast_to(h.dtype.type(0), h.shape) if dh is None else dh.copy() if shared(dh, dresidual_out) else dh
        targets = [dresidual] if mask is None else [dresidual, dx]
        for own_rows, gradient, run, more, keep, total, *result in pieces_of_rows(layout, dy, h, dh, kept, *targets, targets=len(targets)):
            shares = engine.layer_norm_backward(gradient, run, mean[own_rows], rstd[own_rows], weight, centred, total)
            dweight += shares[0]
            dbias += shares[1]
            with np.errstate(all="ignore"):
                without_dependence(total, n, centred)
                total += more
            for dropped in result:
                dropped[...] = total
                scale_kept(dropped, keep, scale)
    return dx, dresidual, *(layout.unpack(values.astype(dtype), layout.reduced) for values in (dweight, dbias))


def shared(array, out):
    """Whether writing `out` changes values of the array, even in its own place."""
    return out is not None and np.may_share_memory(array, out)


def _as_they_lie(layout, mask, *arrays):
    """The arrays as blocks of rows, where the engine takes them, and the mask, as they lie; else None."""
    if not (layout.natural and (mask is None or drawn_in_order(mask, layout)) and math.prod(layout.block)):
        return None
    blocks = direct(layout, *(array for array in arrays if array is not None), shape=layout.block[2:], halves=True)
    return blocks and [None if array is None else blocks.pop(0) for array in arrays]

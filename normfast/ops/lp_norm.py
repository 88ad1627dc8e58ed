"""Lp normalization: rows divided by their p-norm, as `torch.nn.functional.normalize` and ONNX's LpNormalization."""

import numpy as np

from normfast import engines
from normfast.ops._arrays import apart, checked_eps, checked_out, floating, layout_of, number, same_shape, shown
from normfast.ops._foreign import borrowed
from normfast.ops._rows import pieces_of_rows
from normfast.ops._stats import InputGradient
from normfast.typing import Array, ArrayLike, Axis, Float64Array, Writeable


def lp_norm(x: ArrayLike, ord: float = 2, *, axis: Axis = -1, eps: float = 1e-12, out: Writeable | None = None) -> Array:
    """Divide by the p-norm over the axes: y = x / max(norm, eps), norm = sum(|x|**ord)**(1/ord).

    Parameters
    ----------
    x : array_like, float16, bfloat16, float32 or float64
        Of any shape and strides.
    ord : float
        Any real number, inf (the largest |x|), -inf (the smallest) or 0 (how many values are not 0).
    axis : int or tuple of int
        Axes of the norm.
    eps : float
        Least divisor, 0 or more. With eps = 0 a norm of 0 gives zeros.
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

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([3.0, -4.0])
    >>> nf.lp_norm(x), nf.lp_norm(x, 1).round(4), nf.lp_norm(x, np.inf)
    (array([ 0.6, -0.8]), array([ 0.4286, -0.5714]), array([ 0.75, -1.  ]))
    """
    return lp_norm_forward(x, ord, axis=axis, eps=eps, out=out)[0]


def lp_norm_forward(
    x: ArrayLike, ord: float = 2, *, axis: Axis = -1, eps: float = 1e-12, out: Writeable | None = None
) -> tuple[Array, Float64Array]:
    """As `lp_norm`, and the norms that `lp_norm_backward` needs.

    Returns
    -------
    y : ndarray
    saved : ndarray
        The norms, of the shape of x without `axis`, float64.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, saved = nf.lp_norm_forward(np.array([[3.0, -4.0], [0.0, 0.0]]))
    >>> saved
    array([5., 0.])
    """
    x, p, eps = floating(x), checked_order(ord), checked_eps(eps)
    layout = layout_of(x, axis, rows=True)
    out = checked_out(out, x)
    x = apart(x, out)
    y = np.empty_like(x) if out is None else out
    engine, norm = engines.current(), np.zeros(layout.block[2])
    for own, run, result in pieces_of_rows(layout, x, y):
        engine.lp_norm_forward(run, p, eps, result, norm[own])
    return y, layout.unpack(norm, layout.kept)


def lp_norm_backward(
    dy: ArrayLike, x: ArrayLike, saved: ArrayLike, *, ord: float = 2, axis: Axis = -1, eps: float = 1e-12, out: Writeable | None = None
) -> InputGradient:
    """Gradient of `lp_norm`, from the gradient dy of y.

    Parameters
    ----------
    dy, x : array_like
        Gradient of the loss with respect to y, and the input of the forward call; of the same shape.
    saved : ndarray
        The norms that `lp_norm_forward` returned.
    ord, axis, eps
        As in the forward call.
    out : ndarray, optional
        Of x's shape and dtype; takes dx. It may be dy or x themselves or overlap them.

    Returns
    -------
    InputGradient
        (dx,) of x's shape and dtype: dx = (dy - d(norm)/dx * sum(dy * y)) / norm, and dy / eps where the norm is at most eps. For
        ord = +-inf the derivative of the norm is shared by the values that attain it; at 0 it is 0.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[3.0, -4.0]])
    >>> y, saved = nf.lp_norm_forward(x)
    >>> nf.lp_norm_backward(np.array([[1.0, 0.0]]), x, saved).dx
    array([[0.128, 0.096]])
    """
    x, p, eps = floating(x), checked_order(ord), checked_eps(eps)
    dy = same_shape(dy, x, "dy")
    layout = layout_of(x, axis, rows=True)
    out = checked_out(out, x)
    norm = borrowed(saved, "saved")
    if norm.dtype.kind not in "iuf":
        raise TypeError(f"saved must be the norms that lp_norm_forward returned, got dtype {norm.dtype}")
    norm = norm.astype(np.float64, copy=False)
    if norm.shape != layout.kept_shape:
        raise ValueError(f"saved has shape {norm.shape}: an x of shape {x.shape} needs {layout.kept_shape}, its shape without axis")
    norm, dy, x = apart(layout.pack(norm, layout.kept), out), apart(dy, out), apart(x, out)
    dx = np.empty_like(x) if out is None else out
    for own, gradient, run, result in pieces_of_rows(layout, dy, x, dx):
        engines.current().lp_gradient(gradient, run, p, norm[own], eps, result)
    return InputGradient(dx)


def checked_order(ord):
    """ord as a float that is not NaN."""
    known = type(ord) is int or type(ord) is float  # else the checks take 1.5 us
    if not known and (isinstance(ord, str | bytes) or np.ndim(ord) != 0 or np.asarray(ord).dtype.kind not in "iuf"):
        raise TypeError(f"ord must be a real number, got {shown(ord)}")
    p = number(ord, "ord")
    if p != p:
        raise ValueError("ord must be a number or +-inf, got nan")
    return p

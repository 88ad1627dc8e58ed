"""Batch norm at inference is affine: folded into the weights of an affine layer behind or before it, it costs nothing."""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from normfast.ops._arrays import checked_eps, floating
from normfast.typing import Array, ArrayLike, Axis


def fold_batch_norm(
    weight: ArrayLike,
    bias: ArrayLike | None,
    mean: ArrayLike,
    var: ArrayLike,
    bn_weight: ArrayLike | None = None,
    bn_bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    axis: Axis | None = None,
    before: bool = False,
) -> tuple[Array, Array]:
    """Weights and bias of one affine layer that does what an affine layer and the batch norm behind (or before) it do.

    Parameters
    ----------
    weight : array_like, float16, bfloat16, float32 or float64
        Of the affine layer, in any layout.
    bias : array_like or None
        Of the affine layer, of shape (outputs,).
    mean, var : array_like
        Population statistics of the batch norm, of shape (channels,).
    bn_weight, bn_bias : array_like, optional
        Weight and bias of the batch norm.
    eps : float
        Of the batch norm.
    axis : int or tuple of int, optional
        The axis of `weight` that holds the channels of the batch norm; several axes hold them in C order. Behind the layer these are its
        outputs, by default axis 0. Before it they are its inputs, by default axis 1.
    before : bool
        Whether the batch norm stands before the layer. That is exact for a Dense layer alone: a convolution pads its input with zeros
        after the norm, which no bias can make up for.

    Returns
    -------
    weight, bias : ndarray
        Computed in float64, in the dtype of `weight`.

    Raises
    ------
    TypeError, ValueError
        For weights that are not floating-point, shapes that do not fit, var below 0, and before=True with a weight that is not 2-D.

    Notes
    -----
    With a = bn_weight / sqrt(var + eps), 0 where var + eps is 0, and shift = bn_bias - mean * a: behind the layer weight * a and
    bias * a + shift; before it weight * a and bias + weight @ shift.

    ========================================  =============================  ==========
    layer                                     weight                         axis
    ========================================  =============================  ==========
    Dense, PyTorch Linear                     (out, in)                      0
    Keras Dense                               (in, out)                      -1
    PyTorch Conv, grouped or not              (out, in / groups, kh, kw)     0
    PyTorch ConvTranspose                     (in, out, kh, kw)              1
    Keras Conv                                (kh, kw, in, out)              -1
    Keras Conv2DTranspose                     (kh, kw, out, in)              2
    Keras DepthwiseConv2D                     (kh, kw, in, multiplier)       (2, 3)
    PyTorch ConvTranspose of g groups         reshaped to (g, in / g,        (0, 2)
                                              out / g, kh, kw)
    ========================================  =============================  ==========

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.inference.fold_batch_norm(np.array([[2.0]]), None, mean=[1.0], var=[4.0], eps=0)
    (array([[1.]]), array([-0.5]))
    >>> nf.inference.fold_batch_norm(np.array([[2.0, 3.0]]), None, mean=[1.0, 0.0], var=[4.0, 1.0], eps=0, before=True)
    (array([[1., 3.]]), array([-1.]))
    """
    weight = floating(weight, "weight")
    if before and weight.ndim != 2:
        raise ValueError(
            f"before=True needs the weight of a Dense layer, with 2 axes, got shape {weight.shape}: a convolution pads its input with "
            "zeros after the norm, so that the norm cannot be folded into it"
        )
    axes = normalize_axis_tuple((1 if before else 0) if axis is None else axis, weight.ndim, "axis")
    if before and len(axes) != 1:
        raise ValueError(f"with before=True axis must be the one axis of the inputs, got {axis}")
    channels = (math.prod(weight.shape[i] for i in axes),)
    outputs = (weight.shape[1 - axes[0]],) if before else channels
    named = {"mean": mean, "var": var, "bn_weight": bn_weight, "bn_bias": bn_bias}
    for name, values, shape in [("bias", bias, outputs), *((name, values, channels) for name, values in named.items())]:
        if values is None and name in ("mean", "var"):
            raise TypeError(f"{name} is needed, got None")
        if values is not None and np.shape(values) != shape:
            raise ValueError(f"{name} has shape {np.shape(values)}: a weight of shape {weight.shape} with axis={axis} needs {shape}")
    a, shift = scale_and_shift(mean, var, bn_weight, bn_bias, eps)
    beside = [1] * weight.ndim
    for i in axes:
        beside[i] = weight.shape[i]
    order = np.argsort(axes)  # the channels in the order of `axis`, the weight's axes in their own
    along = a.reshape([weight.shape[i] for i in axes]).transpose(order).reshape(beside)
    folded = weight.astype(np.float64) * along
    bias = np.zeros(outputs) if bias is None else np.asarray(bias, np.float64)
    bias = bias + (np.moveaxis(weight, axes[0], 1).astype(np.float64) @ shift) if before else bias * a + shift
    return folded.astype(weight.dtype), bias.astype(weight.dtype)


def scale_and_shift(mean, var, weight, bias, eps):
    """a and b, float64, of a batch norm at inference as x * a + b."""
    var, eps = np.asarray(var, np.float64), checked_eps(eps)
    if (var < 0).any():
        raise ValueError(f"var must be 0 or more, got {var.min()}")
    a = inverse_deviations(var, eps)
    if weight is not None:
        a = a * np.asarray(weight, np.float64)
    shift = -np.asarray(mean, np.float64) * a
    return a, shift if bias is None else shift + np.asarray(bias, np.float64)


def inverse_deviations(var, eps):
    """1 / sqrt(var + eps), and 0 where that sum is 0, as `batch_norm` takes it."""
    total = np.asarray(var, np.float64) + eps
    return 1.0 / np.sqrt(np.where(total == 0, np.inf, total))

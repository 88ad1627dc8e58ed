"""What follows a matmul in a feed-forward block, in one sweep: bias, activation and dropout."""

from typing import NamedTuple, SupportsIndex

import numpy as np

from normfast import engines
from normfast.ops._arrays import (
    apart,
    checked_out,
    computing,
    floating,
    gradient_dtype,
    layout_of,
    parameter,
    same_shape,
)
from normfast.ops._rows import pieces_of_rows
from normfast.ops.activation import checked_activation
from normfast.ops.dropout import DropoutMask, checked_p, drawn_in_order, mask_for, scale_kept
from normfast.typing import Activation, Array, ArrayLike, Axis, Rng, Writeable


class BiasGradients(NamedTuple):
    """Gradients of bias, activation and dropout with respect to x and bias.

    Attributes
    ----------
    dx : ndarray
        Of x's shape and dtype.
    dbias : ndarray
        Of the shape of x along the axes of the bias.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[-1.0, 2.0], [3.0, 4.0]])
    >>> _, mask = nf.bias_activation_dropout_forward(x, activation="relu", p=0.0)
    >>> gradients = nf.bias_activation_dropout_backward(np.ones_like(x), x, mask, activation="relu")
    >>> gradients.dx, gradients.dbias
    (array([[0., 1.],
           [1., 1.]]), array([1., 2.]))
    """

    dx: Array
    dbias: Array


def bias_activation_dropout(
    x: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: Activation = "gelu",
    p: float = 0.5,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: Axis = -1,
    out: Writeable | None = None,
) -> Array:
    """y = dropout(f(x + bias)).

    Parameters
    ----------
    x : array_like, float16, bfloat16, float32 or float64
        What a matmul made, of any shape and strides.
    bias : array_like, optional
        Of the shape of x along `axis`; float32 where x has 16 bits, or as x.
    activation : None or str
        The function f, by its name, as in `activation`.
    p, rng, mask, offset
        As in `dropout`: the same key gives the same mask.
    axis : int or tuple of int
        The axes of the features.
    out : ndarray, optional
        Of x's shape and dtype; takes y. It may be x itself or overlap it, but the backward pass needs x.

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
    >>> nf.bias_activation_dropout(np.array([[1.0, -3.0, 2.0]]), [0.5, 0.5, 0.5], activation="relu", p=0.5, mask=[[True, True, False]])
    array([[3., 0., 0.]])
    """
    return bias_activation_dropout_forward(x, bias, activation=activation, p=p, rng=rng, mask=mask, offset=offset, axis=axis, out=out)[0]


def bias_activation_dropout_forward(
    x: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: Activation = "gelu",
    p: float = 0.5,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: Axis = -1,
    out: Writeable | None = None,
) -> tuple[Array, DropoutMask]:
    """As `bias_activation_dropout`, and the mask that `bias_activation_dropout_backward` needs beside x.

    Returns
    -------
    y : ndarray
    mask : DropoutMask

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.random.default_rng(0).standard_normal((4, 8))
    >>> y, mask = nf.bias_activation_dropout_forward(x, activation="tanh", p=0.1, rng=1)
    >>> bool(np.allclose(y, nf.dropout_forward(np.tanh(x), 0.1, mask=mask)[0]))
    True
    """
    x, code = floating(x), named(activation)
    out = checked_out(out, x)
    layout = layout_of(x, axis, rows=True)
    bias = parameter(bias, layout, layout.reduced, computing(x.dtype), "bias", 0, out)
    mask = mask_for(x, checked_p(p), rng, mask, None, offset)
    x = apart(x, out)
    y = np.empty_like(x, subok=False) if out is None else out
    engine = engines.current()
    if drawn_in_order(mask, layout):
        for own, run, result in pieces_of_rows(layout, x, y):
            engine.bias_activation(run, bias, code, mask.stream(own.start * layout.block[3]), result)
    else:
        for _, run, keep, result in pieces_of_rows(layout, x, mask._kept(), y):
            engine.bias_activation(run, bias, code, None, result)
            scale_kept(result, keep, mask.scale)
    return y, mask


def bias_activation_dropout_backward(
    dy: ArrayLike,
    x: ArrayLike,
    mask: DropoutMask,
    bias: ArrayLike | None = None,
    *,
    activation: Activation = "gelu",
    axis: Axis = -1,
    out: Writeable | None = None,
) -> BiasGradients:
    """Gradients of `bias_activation_dropout`, from the gradient dy of y.

    Parameters
    ----------
    dy, x : array_like
        Gradient of the loss with respect to y, and the input of the forward call; of the same shape.
    mask : DropoutMask
        What `bias_activation_dropout_forward` returned.
    bias, activation, axis
        As in the forward call.
    out : ndarray, optional
        Of x's shape and dtype; takes dx. It may be dy or x themselves or overlap them.

    Returns
    -------
    BiasGradients
        dx = dropout(dy) * f'(x + bias), of x's shape and dtype, and dbias, its sum over the other axes (also where there is no bias).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, -3.0, 2.0]])
    >>> y, mask = nf.bias_activation_dropout_forward(x, activation="relu", p=0.5, mask=[[True, True, False]])
    >>> nf.bias_activation_dropout_backward(np.ones((1, 3)), x, mask, activation="relu")
    BiasGradients(dx=array([[2., 0., 0.]]), dbias=array([2., 0., 0.]))
    """
    x, code = floating(x), named(activation)
    dy = same_shape(dy, x, "dy")
    if not isinstance(mask, DropoutMask):
        raise TypeError(f"mask must be the DropoutMask that the forward call returned, got {type(mask).__name__}")
    if mask.shape != x.shape:
        raise ValueError(f"x has shape {x.shape} and the mask has {mask.shape}: they must be the same")
    out = checked_out(out, x)
    layout, dtype = layout_of(x, axis, rows=True), gradient_dtype(x, bias)
    bias = parameter(bias, layout, layout.reduced, computing(x.dtype), "bias", 0, out)
    dy, x = apart(dy, out), apart(x, out)
    dx = np.empty_like(x, subok=False) if out is None else out
    dbias, engine = np.zeros(layout.block[3]), engines.current()
    if drawn_in_order(mask, layout):
        for own, gradient, run, result in pieces_of_rows(layout, dy, x, dx):
            dbias += engine.bias_activation_backward(gradient, run, bias, code, mask.stream(own.start * layout.block[3]), result)
    else:
        for _, gradient, run, keep, result in pieces_of_rows(layout, dy, x, mask._kept(), dx):
            kept = gradient.copy()
            scale_kept(kept, keep, mask.scale)
            dbias += engine.bias_activation_backward(kept, run, bias, code, None, result)
    return BiasGradients(dx, layout.unpack(dbias.astype(dtype), layout.reduced))


def named(activation):
    """The code of an activation; a pair of functions cannot be fused."""
    code = checked_activation(activation)
    if isinstance(code, tuple):
        raise TypeError("activation must be a name here: call activation and dropout one after the other for functions of your own")
    return code

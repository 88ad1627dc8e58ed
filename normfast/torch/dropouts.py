"""Dropout as functions of tensors with autograd, its mask a key that PyTorch's generator draws."""

import numpy as np
import torch
from torch.nn import functional

import normfast as nf
from normfast.torch.arrays import array, differentiable, fits


@torch.library.custom_op("normfast::draw", mutates_args=(), schema="() -> Tensor")
def draw_operator():
    """The key of a mask: 128 bits of PyTorch's default generator, so that `torch.manual_seed` repeats it."""
    return torch.empty(2, dtype=torch.int64).random_(-(2**63), None)


@draw_operator.register_fake
def _():
    return torch.empty(2, dtype=torch.int64)


draw_operator.register_effect(torch.library.EffectType.ORDERED)  # masks come in the order of the program, compiled or not


def draw():
    """A key for one mask."""
    return torch.ops.normfast.draw() if torch.compiler.is_compiling() else draw_operator._init_fn()


def mask_of(key, p, shape):
    """The mask of a key."""
    return nf.DropoutMask(p, shape, key=key.numpy().view(np.uint32))


def drop(x, key, p, alpha):
    """x, scaled where the key's mask keeps it, and 0 elsewhere: a linear map that is its own transpose."""
    y = torch.empty_like(x)
    (nf.alpha_dropout_backward if alpha else nf.dropout_backward)(array(x), mask_of(key, p, x.shape), out=array(y))
    return y


def alpha_drop(x, key, p):
    """Alpha dropout by the key's mask."""
    y = torch.empty_like(x)
    nf.alpha_dropout_forward(array(x), p, mask=mask_of(key, p, x.shape), out=array(y))
    return y


def _save(ctx, inputs, output):
    _, key, ctx.p, *alpha = inputs
    ctx.alpha = alpha[0] if alpha else None
    ctx.save_for_backward(key)


def _gradient(ctx, dy):
    """The gradient of both: `drop`, with alpha for what alpha dropout scales by."""
    (key,) = ctx.saved_tensors
    dx = dropped(dy, key, ctx.p, ctx.alpha is not False)
    return (dx, None, None) if ctx.alpha is None else (dx, None, None, None)


def dropped(x, key, p, alpha=False):
    """`drop`: operator, function or plain call, by who asks."""
    if torch.compiler.is_compiling() or type(x) not in (torch.Tensor, torch.nn.Parameter):
        return torch.ops.normfast.drop(x, key, p, alpha)
    if torch._C._functorch.is_legacy_batchedtensor(x):  # many gradients at once, as in vectorized Jacobians
        return x * drop(torch.ones(x.shape, dtype=x.dtype), key, p, alpha)
    return (Drop.apply if differentiable(x) else drop)(x, key, p, alpha)


class Drop(torch.autograd.Function):
    """`drop` for eager calls."""

    @staticmethod
    def forward(ctx, *inputs):
        _save(ctx, inputs, None)
        return drop(*inputs)

    backward = staticmethod(_gradient)


class AlphaDrop(torch.autograd.Function):
    """`alpha_drop` for eager calls."""

    @staticmethod
    def forward(ctx, *inputs):
        _save(ctx, inputs, None)
        return alpha_drop(*inputs)

    backward = staticmethod(_gradient)


for name, function, schema in (
    ("drop", drop, "(Tensor x, Tensor key, float p, bool alpha) -> Tensor"),
    ("alpha_drop", alpha_drop, "(Tensor x, Tensor key, float p) -> Tensor"),
):
    operator = torch.library.custom_op(f"normfast::{name}", function, mutates_args=(), schema=schema)
    operator.register_fake(lambda x, *_: torch.empty_like(x))
    operator.register_autograd(_gradient, setup_context=_save)


def dropout(input, p=0.5, training=True, inplace=False):
    """`torch.nn.functional.dropout`, about as fast as a copy.

    Parameters
    ----------
    input : Tensor
        float16, bfloat16, float32 or float64, of any strides; y has the same memory format.
    p : float in [0, 1]
        Probability of dropping.
    training : bool
        Whether anything is dropped at all.
    inplace : bool
        Whether input takes the result.

    Returns
    -------
    Tensor
        y of input's shape and dtype. The backward pass keeps the 16 bytes of the mask's key, which `torch.manual_seed` repeats.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import dropout
    >>> _ = torch.manual_seed(0)
    >>> dropout(torch.ones(1000), 0.25).unique()
    tensor([0.0000, 1.3333])
    """
    if not (training and 0.0 < p <= 1.0 and fits(input)):
        return functional.dropout(input, p, training, inplace)
    return _in_memory_order(dropped, input, p, inplace)


def alpha_dropout(input, p=0.5, training=False, inplace=False):
    """`torch.nn.functional.alpha_dropout`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import alpha_dropout
    >>> alpha_dropout(torch.zeros(1000), 0.5, training=True).unique()
    tensor([-0.7792,  0.7792])
    """
    if not (training and 0.0 < p <= 1.0 and fits(input)):
        return functional.alpha_dropout(input, p, training, inplace)
    return _in_memory_order(_alpha_dropped, input, p, inplace)


def _alpha_dropped(x, key, p):
    if torch.compiler.is_compiling():
        return torch.ops.normfast.alpha_drop(x, key, p)
    return (AlphaDrop.apply if differentiable(x) else alpha_drop)(x, key, p)


def _in_memory_order(function, x, p, inplace):
    """A new mask, drawn along the axes as they lie in memory: which element gets which draw does not matter."""
    if x.is_contiguous():
        y = function(x, draw(), p)
    else:
        order = sorted(range(x.dim()), key=lambda axis: -x.stride(axis))
        y = function(x.permute(order), draw(), p).permute([order.index(axis) for axis in range(x.dim())])
    return x.copy_(y) if inplace else y

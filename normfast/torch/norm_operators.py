"""The norms with autograd, one operation for all of them: for eager calls a `torch.autograd.Function`, for compiled ones an operator."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

import normfast as nf
from normfast.torch.arrays import apart, array, differentiable, result_of, tensor_of


class Norm(NamedTuple):
    """How normfast is called for a norm.

    `number` is how many trailing axes are normalized, or the number of groups; batch norm has no use for it.
    """

    inference: Callable[..., Any] | None  # (x, weight, bias, eps=, out=, **options) -> y
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    options: Callable[..., Any]  # number -> how normfast calls it
    statistics: Callable[..., Any]  # shape of x, number -> shape of a statistic


def trailing(number):
    return {"axis": -1 if number == 1 else tuple(range(-number, 0))}


NORMS = {
    "layer_norm": Norm(
        nf.layer_norm,
        nf.layer_norm_forward,
        nf.layer_norm_backward,
        trailing,
        lambda shape, number: shape[:-number],
    ),
    "rms_norm": Norm(
        lambda x, weight, bias, **options: nf.rms_norm(x, weight, **options),
        lambda x, weight, bias, **options: nf.rms_norm_forward(x, weight, **options),
        lambda *args, **options: (*nf.rms_norm_backward(*args, **options), None),
        trailing,
        lambda shape, number: shape[:-number],
    ),
    "batch_norm": Norm(
        None,
        nf.batch_norm_forward,
        nf.batch_norm_backward,
        lambda number: {},
        lambda shape, number: shape[1:2],
    ),
    "group_norm": Norm(
        nf.group_norm,
        nf.group_norm_forward,
        nf.group_norm_backward,
        lambda number: {"num_groups": number},
        lambda shape, number: (shape[0], number),
    ),
}


def norm(x, weight, bias, name, number, eps):
    """y, and the statistics of x: mean (empty for RMS norm), rstd and var in float64."""
    own, y = NORMS[name], result_of(x, name)
    _, stats = own.forward(array(x), weight=array(weight), bias=array(bias), eps=eps, out=array(y), **own.options(number))
    mean = torch.empty(0, dtype=torch.float64) if stats.mean is None else tensor_of(stats.mean)
    return y, mean, tensor_of(stats.rstd), tensor_of(stats.var)


def norm_backward(dy, x, mean, rstd, var, weight, name, number, eps):
    """dx, dweight and dbias; RMS norm has an empty dbias. Its own gradient needs eps."""
    own, dx = NORMS[name], torch.empty_like(x)
    stats = nf.NormStats(None if name == "rms_norm" else array(mean), array(rstd), array(var), x.numel() // rstd.numel())
    _, dweight, dbias = own.backward(array(dy), array(x), stats, array(weight), out=array(dx), **own.options(number))
    return dx, tensor_of(dweight), torch.empty(0) if dbias is None else tensor_of(dbias)


def formula(x, weight, bias, name, number, eps):
    """The norm in PyTorch's operations, right to any derivative; PyTorch's own layer and batch norm are wrong from the third one on."""
    parts, axes = x.to(torch.promote_types(x.dtype, torch.float32)), tuple(range(-number, 0))
    if name == "group_norm":
        parts, axes = parts.reshape(x.shape[0], number, -1), (2,)
    elif name == "batch_norm":
        axes = (0, *range(2, x.dim()))
    d = parts if name == "rms_norm" else parts - parts.mean(axes, keepdim=True)
    y = (d * (d.square().mean(axes, keepdim=True) + eps).rsqrt()).reshape(x.shape)
    beside = [-1] + [1] * (x.dim() - 2) if name in ("batch_norm", "group_norm") else weight.shape
    return (y * weight.reshape(beside) + bias.reshape(beside)).to(x.dtype)


def gradients_by_torch(dy, x, weight, name, number, eps):
    """dx, dweight and dbias in PyTorch's operations, which it differentiates again."""
    along = x.shape[-number:] if name in ("layer_norm", "rms_norm") else x.shape[1:2]
    weight = torch.ones(along, dtype=x.dtype) if weight is None else weight
    _, gradients = torch.func.vjp(lambda *inputs: formula(*inputs, name, number, eps), x, weight, torch.zeros_like(weight))
    return gradients(dy)


def _save_norm(ctx, inputs, output):
    x, weight, _, ctx.name, ctx.number, ctx.eps = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, *output[1:])


def _norm_gradients(ctx, dy, *_):
    needed = ctx.needs_input_grad
    if dy is None:
        return (None,) * len(needed)
    x, weight, mean, rstd, var = ctx.saved_tensors
    gradients = norm_gradients(dy, x, mean, rstd, var, weight, ctx.name, ctx.number, ctx.eps)
    return (*(own if wanted else None for own, wanted in zip(gradients, needed, strict=False)), *(None for _ in needed[3:]))


def norm_gradients(dy, x, mean, rstd, var, weight, *how):
    """Gradients of a norm: operator, function or plain call, by who asks."""
    if type(dy) is not torch.Tensor:
        return torch.ops.normfast.norm_backward(dy, x, mean, rstd, var, weight, *how)
    if torch._C._functorch.is_legacy_batchedtensor(dy):  # many gradients at once, as in vectorized Jacobians
        return gradients_by_torch(dy, x, weight, *how)
    return (NormGradients.apply if torch.is_grad_enabled() else norm_backward)(dy, x, mean, rstd, var, weight, *how)


def _save_gradients(ctx, inputs, output):
    dy, x, _, _, _, weight, *ctx.how = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(dy, x, weight)


def _gradients_of_gradients(ctx, *gradients):
    dy, x, weight = ctx.saved_tensors
    inputs = (dy, x) if weight is None else (dy, x, weight)
    outputs, again = torch.func.vjp(lambda dy, x, weight=None: gradients_by_torch(dy, x, weight, *ctx.how), *inputs)
    given = zip(gradients, outputs, strict=True)
    ddy, dx, *dweight = again(tuple(torch.zeros_like(out) if own is None or own.shape != out.shape else own for own, out in given))
    return (ddy, dx, None, None, None, *(dweight or (None,)), None, None, None)


class NormFunction(torch.autograd.Function):
    """y of `norm` for eager calls: an operator of `torch.library` costs twice as much to call, and so do results that nobody reads.

    The statistics go to the list `known`, where there is one.
    """

    @staticmethod
    def forward(ctx, *inputs):
        *inputs, known = inputs
        output = norm(*inputs)
        _save_norm(ctx, inputs, output)
        if known is not None:
            known += output[1:]
        return output[0]

    backward = staticmethod(_norm_gradients)


class NormGradients(torch.autograd.Function):
    """`norm_backward`, which can be differentiated again."""

    @staticmethod
    def forward(ctx, *inputs):
        output = norm_backward(*inputs)
        _save_gradients(ctx, inputs, output)
        return output

    backward = staticmethod(_gradients_of_gradients)


@torch.library.custom_op(
    "normfast::norm",
    mutates_args=(),
    schema="(Tensor x, Tensor? weight, Tensor? bias, str name, SymInt number, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
)
def norm_operator(*inputs):
    y, *statistics = norm(*inputs)
    return y, *apart(statistics)


@norm_operator.register_fake
def _(x, weight, bias, name, number, eps):
    own = NORMS[name].statistics(x.shape, number)
    return result_of(x, name), *(x.new_empty(shape, dtype=torch.float64) for shape in ((0,) if name == "rms_norm" else own, own, own))


@torch.library.custom_op(
    "normfast::norm_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor x, Tensor mean, Tensor rstd, Tensor var, Tensor? weight, str name, SymInt number, float eps) -> "
    "(Tensor, Tensor, Tensor)",
)
def norm_backward_operator(*inputs):
    dx, *parameters = norm_backward(*inputs)
    return dx, *apart(parameters)


@norm_backward_operator.register_fake
def _(dy, x, mean, rstd, var, weight, name, number, eps):
    along = x.shape[-number:] if name in ("layer_norm", "rms_norm") else x.shape[1:2]
    dweight = x.new_empty(along, dtype=x.dtype if weight is None else weight.dtype)
    return torch.empty_like(x), dweight, x.new_empty(0, dtype=torch.float32) if name == "rms_norm" else torch.empty_like(dweight)


norm_operator.register_autograd(_norm_gradients, setup_context=_save_norm)
norm_backward_operator.register_autograd(_gradients_of_gradients, setup_context=_save_gradients)


def run(x, weight, bias, name, number, eps):
    """y and the statistics, by whichever way autograd and the compiler want."""
    inputs = x, weight, bias, name, number, eps
    if torch.compiler.is_compiling():
        return torch.ops.normfast.norm(*inputs)
    if not differentiable(x, weight, bias):
        return norm(*inputs)
    known: list[torch.Tensor] = []
    y = NormFunction.apply(*inputs, known)
    return y, *known


def normalized(x, weight, bias, name, number, eps):
    """y alone."""
    if torch.compiler.is_compiling():
        return run(x, weight, bias, name, number, eps)[0]
    if differentiable(x, weight, bias):
        return NormFunction.apply(x, weight, bias, name, number, eps, None)
    own, y = NORMS[name], result_of(x, name)
    own.inference(array(x), weight=array(weight), bias=array(bias), eps=eps, out=array(y), **own.options(number))
    return y

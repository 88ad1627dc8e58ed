"""Dropout, the sum with the residual stream and the norm of that sum, as functions of tensors with autograd."""

import torch
from torch.nn import functional

import normfast as nf
from normfast.torch.arrays import apart, array, differentiable, fits, result_of, tensor_of
from normfast.torch.dropouts import draw, dropped, mask_of
from normfast.torch.norm_operators import norm_gradients, trailing
from normfast.torch.norms import along, layer_norm, rms_eps, rms_norm


def dropout_add_norm(x, residual, weight, bias, key, name, number, p, eps):
    """y, h = dropout(x) + residual, and the statistics of h: mean (empty for RMS norm), rstd and var in float64."""
    y, h = result_of(residual, "layer_norm"), torch.empty_like(residual)
    forward = getattr(nf, f"dropout_add_{name}_forward")
    parameters = (array(weight), array(bias)) if name == "layer_norm" else (array(weight),)
    options = {"p": p, "mask": mask_of(key, p, x.shape), "eps": eps, "out": array(y), "h_out": array(h)} | trailing(number)
    stats = forward(array(x), array(residual), *parameters, **options).stats
    mean = torch.empty(0, dtype=torch.float64) if stats.mean is None else tensor_of(stats.mean)
    return y, h, mean, tensor_of(stats.rstd), tensor_of(stats.var)


def dropout_add_norm_backward(dy, dh, h, mean, rstd, var, weight, key, name, number, p):
    """dx, dresidual, dweight and dbias; RMS norm has an empty dbias."""
    dx, dresidual = torch.empty_like(h), torch.empty_like(h)
    stats = nf.NormStats(array(mean) if name == "layer_norm" else None, array(rstd), array(var), h.numel() // rstd.numel())
    options = {"dh": array(dh), "out": array(dx), "dresidual_out": array(dresidual)} | trailing(number)
    backward = getattr(nf, f"dropout_add_{name}_backward")
    _, _, dweight, *dbias = backward(array(dy), array(h), stats, mask_of(key, p, h.shape), array(weight), **options)
    return dx, dresidual, tensor_of(dweight), tensor_of(dbias[0]) if dbias else torch.empty(0)


def _save(ctx, inputs, output):
    _, _, weight, _, key, ctx.name, ctx.number, ctx.p, ctx.eps = inputs
    _, *state = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*state, weight, key)


def _gradients(ctx, dy, dh, *_):
    h, mean, rstd, var, weight, key = ctx.saved_tensors
    dresidual, dweight, dbias = dh, None, None
    if dy is None:
        dx = None if dh is None else dropped(dh, key, ctx.p)
    elif torch.is_grad_enabled() and type(dy) is torch.Tensor:  # step by step, where each step can be differentiated again
        dresidual, dweight, dbias = norm_gradients(dy, h, mean, rstd, var, weight, ctx.name, ctx.number, ctx.eps)
        dresidual = dresidual if dh is None else dresidual + dh
        dx = dropped(dresidual, key, ctx.p)
    else:
        call = dropout_add_norm_backward if type(dy) is torch.Tensor else torch.ops.normfast.dropout_add_norm_backward
        dx, dresidual, dweight, dbias = call(dy, dh, h, mean, rstd, var, weight, key, ctx.name, ctx.number, ctx.p)
    gradients = zip((dx, dresidual, dweight, dbias), ctx.needs_input_grad, strict=False)
    return (*(own if needed else None for own, needed in gradients), None, None, None, None, None)


class DropoutAddNorm(torch.autograd.Function):
    """`dropout_add_norm` for eager calls."""

    @staticmethod
    def forward(ctx, *inputs):
        output = dropout_add_norm(*inputs)
        _save(ctx, inputs, output)
        return output[:2]  # what autograd need not know of costs 6 us each

    backward = staticmethod(_gradients)


@torch.library.custom_op(
    "normfast::dropout_add_norm",
    mutates_args=(),
    schema="(Tensor x, Tensor residual, Tensor? weight, Tensor? bias, Tensor key, str name, SymInt number, float p, float eps) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def dropout_add_norm_operator(*inputs):
    y, h, *statistics = dropout_add_norm(*inputs)
    return y, h, *apart(statistics)


@dropout_add_norm_operator.register_fake
def _(x, residual, weight, bias, key, name, number, p, eps):
    shapes = ((0,) if name == "rms_norm" else x.shape[:-number], x.shape[:-number], x.shape[:-number])
    statistics = (x.new_empty(shape, dtype=torch.float64) for shape in shapes)
    return result_of(residual, "layer_norm"), torch.empty_like(residual), *statistics


@torch.library.custom_op(
    "normfast::dropout_add_norm_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor? dh, Tensor h, Tensor mean, Tensor rstd, Tensor var, Tensor? weight, Tensor key, str name, SymInt number, "
    "float p) -> (Tensor, Tensor, Tensor, Tensor)",
)
def dropout_add_norm_backward_operator(*inputs):
    dx, dresidual, *parameters = dropout_add_norm_backward(*inputs)
    return dx, dresidual, *apart(parameters)


@dropout_add_norm_backward_operator.register_fake
def _(dy, dh, h, mean, rstd, var, weight, key, name, number, p):
    dweight = h.new_empty(h.shape[-number:], dtype=h.dtype if weight is None else weight.dtype)
    dbias = h.new_empty(0, dtype=torch.float32) if name == "rms_norm" else torch.empty_like(dweight)
    return torch.empty_like(h), torch.empty_like(h), dweight, dbias


dropout_add_norm_operator.register_autograd(_gradients, setup_context=_save)


def dropout_add_layer_norm(x, residual, normalized_shape, weight=None, bias=None, p=0.5, training=True, eps=1e-5, prenorm=False):
    """y = layer_norm(h) with h = dropout(x) + residual, in one sweep.

    Parameters
    ----------
    x, residual : Tensor
        Of the same shape: the output of a sublayer and the stream that it is added to.
    normalized_shape : sequence of int
        The trailing axes that are normalized.
    weight, bias : Tensor, optional
        Of that shape; float32 where x has 16 bits, or as x.
    p : float in [0, 1]
        Probability of dropping.
    training : bool
        Whether anything is dropped at all.
    eps : float
        Added to the population variance.
    prenorm : bool
        Whether h is returned too, for a network that goes on with it.

    Returns
    -------
    Tensor, or a pair of them
        y, or (y, h).

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import dropout_add_layer_norm
    >>> y, h = dropout_add_layer_norm(torch.ones(1, 3), torch.tensor([[0.0, 1.0, 2.0]]), (3,), p=0.0, prenorm=True)
    >>> y, h
    (tensor([[-1.2247,  0.0000,  1.2247]]), tensor([[1., 2., 3.]]))
    """
    return _fused(x, residual, normalized_shape, weight, bias, p, training, eps, prenorm, "layer_norm")


def dropout_add_rms_norm(x, residual, normalized_shape, weight=None, p=0.5, training=True, eps=None, prenorm=False):
    """y = rms_norm(h) with h = dropout(x) + residual: as `dropout_add_layer_norm`, without centring and bias; eps as in `rms_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import dropout_add_rms_norm
    >>> dropout_add_rms_norm(torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 0.0]]), (2,), p=0.0)
    tensor([[0.8485, 1.1314]])
    """
    return _fused(x, residual, normalized_shape, weight, None, p, training, eps, prenorm, "rms_norm")


def _fused(x, residual, shape, weight, bias, p, training, eps, prenorm, name):
    taken = fits(x, residual, weight, bias) and x.shape == residual.shape and x.dtype == residual.dtype
    taken = taken and along(x, shape) and 0.0 <= p <= 1.0
    if taken and training and p > 0.0:
        eps = rms_eps(eps, x) if name == "rms_norm" else eps
        inputs = x, residual, weight, bias, draw(), name, len(shape), p, eps
        if torch.compiler.is_compiling():
            y, h, *_ = torch.ops.normfast.dropout_add_norm(*inputs)
        else:
            y, h, *_ = (DropoutAddNorm.apply if differentiable(x, residual, weight, bias) else dropout_add_norm)(*inputs)
    elif taken and not torch.compiler.is_compiling() and not differentiable(x, residual, weight, bias):
        y, h = result_of(residual, "layer_norm"), torch.empty_like(residual) if prenorm else None
        eps = rms_eps(eps, x) if name == "rms_norm" else eps
        parameters = (array(weight), array(bias)) if name == "layer_norm" else (array(weight),)
        getattr(nf, f"add_{name}")(array(x), array(residual), *parameters, eps=eps, out=array(y), h_out=array(h), **trailing(len(shape)))
    else:
        h = functional.dropout(x, p, training) + residual
        y = layer_norm(h, shape, weight, bias, eps) if name == "layer_norm" else rms_norm(h, shape, weight, eps)
    return (y, h) if prenorm else y

"""The norms as functions of tensors: `torch.nn.functional`'s signatures, normfast's arithmetic."""

import torch
from torch.nn import functional

import normfast as nf
from normfast.torch.arrays import array, differentiable, fits, result_of
from normfast.torch.norm_operators import normalized, run


def along(x, normalized_shape):
    """Whether x ends in the shape that is to be normalized."""
    return 0 < len(normalized_shape) <= x.dim() and x.shape[-len(normalized_shape) :] == torch.Size(normalized_shape)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """`torch.nn.functional.layer_norm`.

    Parameters
    ----------
    input : Tensor
        float16, bfloat16, float32 or float64, of any strides.
    normalized_shape : sequence of int
        The trailing axes of input that are normalized.
    weight, bias : Tensor, optional
        Of that shape; float32 where input has 16 bits, or as input.
    eps : float
        Added to the population variance.

    Returns
    -------
    Tensor
        y of input's shape and dtype, C-contiguous, differentiable any number of times.

    Notes
    -----
    What normfast does not take (tensors on a GPU, complex or empty ones, tensors inside `torch.func`, wrong arguments) goes to PyTorch's
    function, which computes it or says what is wrong. That holds for every function here.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import layer_norm
    >>> layer_norm(torch.tensor([[1.0, 2.0, 3.0]]), (3,), eps=0.0)
    tensor([[-1.2247,  0.0000,  1.2247]])
    """
    if not (fits(input, weight, bias) and along(input, normalized_shape)):
        return functional.layer_norm(input, normalized_shape, weight, bias, eps)
    return normalized(input, weight, bias, "layer_norm", len(normalized_shape), eps)


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """`torch.nn.functional.rms_norm`; eps=None stands for the machine epsilon of the type that is computed in, as in PyTorch.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import rms_norm
    >>> rms_norm(torch.tensor([3.0, 4.0]), (2,))
    tensor([0.8485, 1.1314])
    """
    if not (fits(input, weight) and along(input, normalized_shape)):
        return functional.rms_norm(input, normalized_shape, weight, eps)
    return normalized(input, weight, None, "rms_norm", len(normalized_shape), rms_eps(eps, input))


def rms_eps(eps, x):
    """RMS norm's eps, or what None stands for."""
    return torch.finfo(torch.float64 if x.dtype is torch.float64 else torch.float32).eps if eps is None else eps


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """`torch.nn.functional.group_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import group_norm
    >>> group_norm(torch.tensor([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0)
    tensor([[-1.,  1., -1.,  1.]])
    """
    taken = fits(input, weight, bias) and input.dim() > 1 and num_groups > 0
    if not (taken and input.shape[1] % num_groups == 0 and input.numel() != num_groups):
        return functional.group_norm(input, num_groups, weight, bias, eps)
    return normalized(input, weight, bias, "group_norm", num_groups, eps)


def instance_norm(input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5):
    """`torch.nn.functional.instance_norm`; running statistics are updated in place by those of the samples, averaged.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import instance_norm
    >>> instance_norm(torch.tensor([[[1.0, 3.0], [10.0, 30.0]]]), eps=0.0)
    tensor([[[-1.,  1.],
             [-1.,  1.]]])
    """
    taken = use_input_stats and fits(input, weight, bias, running_mean, running_var) and input.dim() > 2
    if not (taken and input.numel() > input.shape[0] * input.shape[1]):
        arguments = input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        return functional.instance_norm(*arguments)
    if running_mean is None:
        return normalized(input, weight, bias, "group_norm", input.shape[1], eps)
    y, mean, _, var = run(input, weight, bias, "group_norm", input.shape[1], eps)
    update_running(running_mean, running_var, mean.mean(0), var.mean(0), input.shape[2:].numel(), momentum)
    return y


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """`torch.nn.functional.batch_norm`; in training running statistics are updated in place.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import batch_norm
    >>> mean, var = torch.zeros(2), torch.ones(2)
    >>> batch_norm(torch.tensor([[1.0, 10.0], [3.0, 30.0]]), mean, var, training=True, eps=0.0), mean
    (tensor([[-1., -1.],
            [ 1.,  1.]]), tensor([0.2000, 2.0000]))
    """
    taken = fits(input, weight, bias, running_mean, running_var) and input.dim() > 1
    if training:
        taken = taken and input.numel() > input.shape[1]
    else:
        wanted = torch.compiler.is_compiling() or differentiable(input, weight, bias)  # whose fusions and gradients are PyTorch's
        taken = taken and not wanted and running_mean is not None and running_var is not None
    if not taken:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        y = result_of(input, "batch_norm")
        nf.batch_norm(*(array(values) for values in (input, running_mean, running_var, weight, bias)), eps=eps, out=array(y))
        return y
    y, mean, _, var = run(input, weight, bias, "batch_norm", 0, eps)
    if running_mean is not None:
        update_running(running_mean, running_var, mean, var, input.numel() // input.shape[1], momentum)
    return y


def update_running(running_mean, running_var, mean, var, count, momentum):
    """Running statistics in place, in float64 in between; the unbiased variance, as PyTorch does."""
    for running, new in (running_mean, mean), (running_var, var * (count / (count - 1))):
        if torch.compiler.is_compiling():
            running.copy_(running.double().lerp_(new.detach(), momentum))
        else:  # 40 us sooner than so
            values = array(running)
            values[...] = values + momentum * (array(new) - values)
            torch.autograd.graph.increment_version(running)

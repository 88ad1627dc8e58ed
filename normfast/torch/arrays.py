"""Which tensors normfast computes on, and their memory as arrays."""

import numpy as np
import torch

PLAIN = (torch.Tensor, torch.nn.Parameter)
HALVES = (torch.float16, torch.bfloat16)
FLOATS = (*HALVES, torch.float32, torch.float64)


def fits(x, *others):
    """Whether normfast computes on these tensors (None: not given); PyTorch's own function takes all else.

    They are ordinary tensors with values, in the memory of the CPU, of x's dtype, or float32 beside an x of 16 bits.
    """
    if _transformed() or x.numel() == 0:
        return False
    for tensor in (x, *others):
        if tensor is not None:
            if type(tensor) not in PLAIN or tensor.device.type != "cpu" or tensor.layout is not torch.strided:
                return False
            if tensor.dtype is not x.dtype and not (tensor.dtype is torch.float32 and x.dtype in HALVES):
                return False
    return x.dtype in FLOATS


def _transformed():
    """Whether PyTorch must see operations of its own: exported and traced graphs, `torch.func`, forward-mode gradients."""
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    return forward_mode or torch._C._are_functorch_transforms_active() or torch._C._get_tracing_state() is not None


def differentiable(*tensors):
    """Whether autograd will want a gradient of any of them."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def result_of(x, name):
    """Memory for a norm of x: C-contiguous, or channels last where x is and the norm is no layer norm, as PyTorch has it."""
    if name != "layer_norm" and not x.is_contiguous():
        for layout, axes in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
            if x.dim() == axes and x.is_contiguous(memory_format=layout):
                return torch.empty_like(x, memory_format=layout)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def array(tensor):
    """A tensor's memory as an array; None stays None."""
    if tensor is None:
        return None
    tensor = tensor.detach().resolve_neg()
    if tensor.dtype is not torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def tensor_of(values):
    """An array's memory as a tensor."""
    if values.itemsize == 2 and values.dtype != np.float16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.asarray(values))  # statistics of a single row are scalars


def apart(tensors):
    """Copies that are C-contiguous and share no memory, as results of an operator must be."""
    return [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]

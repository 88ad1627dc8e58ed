"""PyTorch's own norm and dropout modules with another forward: parameters, buffers, names and options stay theirs."""

from torch import nn

from normfast.torch import dropouts, fused, norms


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm`, computed by `layer_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import LayerNorm
    >>> LayerNorm(3)(torch.tensor([[1.0, 2.0, 3.0]])).detach().round(decimals=3)
    tensor([[-1.2250,  0.0000,  1.2250]])
    """

    def forward(self, input):
        return norms.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm`, computed by `rms_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import RMSNorm
    >>> RMSNorm(2)(torch.tensor([3.0, 4.0])).detach()
    tensor([0.8485, 1.1314])
    """

    def forward(self, x):
        return norms.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, computed by `group_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import GroupNorm
    >>> GroupNorm(2, 4, eps=0.0)(torch.tensor([[1.0, 3.0, 10.0, 30.0]])).detach()
    tensor([[-1.,  1., -1.,  1.]])
    """

    def forward(self, input):
        return norms.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """What the batch norms share."""

    def forward(self, input):
        self._check_input_dim(input)
        momentum, track = self.momentum, self.training and self.track_running_stats
        if track and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if momentum is None else momentum
        running = (self.running_mean, self.running_var) if not self.training or self.track_running_stats else (None, None)
        batch = self.training or (self.running_mean is None and self.running_var is None)
        return self._normalize(input, *running, batch, 0.0 if momentum is None else momentum)

    def _normalize(self, input, running_mean, running_var, batch, momentum):
        return norms.batch_norm(input, running_mean, running_var, self.weight, self.bias, batch, momentum, self.eps)


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`, computed by `batch_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import BatchNorm1d
    >>> norm = BatchNorm1d(1, eps=0.0)
    >>> norm(torch.tensor([[1.0], [3.0]])).detach().flatten(), norm.running_mean
    (tensor([-1.,  1.]), tensor([0.2000]))
    """


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, computed by `batch_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import BatchNorm2d
    >>> BatchNorm2d(3)(torch.ones(2, 3, 4, 4)).abs().max().item()
    0.0
    """


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d`, computed by `batch_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import BatchNorm3d
    >>> BatchNorm3d(3)(torch.ones(2, 3, 4, 4, 4)).abs().max().item()
    0.0
    """


class _InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """What the instance norms share."""

    def _apply_instance_norm(self, input):
        batch, momentum = self.training or not self.track_running_stats, 0.0 if self.momentum is None else self.momentum
        return norms.instance_norm(input, self.running_mean, self.running_var, self.weight, self.bias, batch, momentum, self.eps)


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d`, computed by `instance_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import InstanceNorm1d
    >>> InstanceNorm1d(2, eps=0.0)(torch.tensor([[[1.0, 3.0], [10.0, 30.0]]]))
    tensor([[[-1.,  1.],
             [-1.,  1.]]])
    """


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d`, computed by `instance_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import InstanceNorm2d
    >>> InstanceNorm2d(3)(torch.ones(2, 3, 4, 4)).abs().max().item()
    0.0
    """


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d`, computed by `instance_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import InstanceNorm3d
    >>> InstanceNorm3d(3)(torch.ones(2, 3, 4, 4, 4)).abs().max().item()
    0.0
    """


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, computed by `dropout`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import Dropout
    >>> x, _ = torch.ones(1000), torch.manual_seed(0)
    >>> y, _ = Dropout(0.5)(x), torch.manual_seed(0)
    >>> bool((Dropout(0.5)(x) == y).all()), y.unique()
    (True, tensor([0., 2.]))
    """

    def forward(self, input):
        return dropouts.dropout(input, self.p, self.training, self.inplace)


class AlphaDropout(nn.AlphaDropout):
    """`torch.nn.AlphaDropout`, computed by `alpha_dropout`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import AlphaDropout
    >>> AlphaDropout(0.5)(torch.zeros(1000)).unique()
    tensor([-0.7792,  0.7792])
    """

    def forward(self, input):
        return dropouts.alpha_dropout(input, self.p, self.training, self.inplace)


class DropoutAddLayerNorm(nn.LayerNorm):
    """y = layer_norm(dropout(x) + residual), called as `module(x, residual)`: what stands behind each sublayer of a Transformer.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The trailing axes that are normalized.
    p : float in [0, 1]
        Probability of dropping.
    eps, elementwise_affine, bias, device, dtype
        As in `torch.nn.LayerNorm`.
    prenorm : bool
        Whether the sum is returned too, for a network that goes on with it: (y, h).

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import DropoutAddLayerNorm
    >>> module = DropoutAddLayerNorm(3, p=0.1).eval()
    >>> module(torch.ones(1, 3), torch.tensor([[0.0, 1.0, 2.0]])).detach()
    tensor([[-1.2247,  0.0000,  1.2247]])
    """

    def __init__(self, normalized_shape, p=0.5, eps=1e-5, elementwise_affine=True, bias=True, prenorm=False, device=None, dtype=None):
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device, dtype)
        self.p, self.prenorm = p, prenorm

    def forward(self, x, residual):
        parameters = self.normalized_shape, self.weight, self.bias
        return fused.dropout_add_layer_norm(x, residual, *parameters, self.p, self.training, self.eps, self.prenorm)

    def extra_repr(self):
        return f"{super().extra_repr()}, p={self.p}, prenorm={self.prenorm}"


class DropoutAddRMSNorm(nn.RMSNorm):
    """y = rms_norm(dropout(x) + residual), called as `module(x, residual)`; parameters as in `DropoutAddLayerNorm`, eps as in `rms_norm`.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import DropoutAddRMSNorm
    >>> module = DropoutAddRMSNorm(2, p=0.1).eval()
    >>> module(torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 0.0]])).detach()
    tensor([[0.8485, 1.1314]])
    """

    def __init__(self, normalized_shape, p=0.5, eps=None, elementwise_affine=True, prenorm=False, device=None, dtype=None):
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)
        self.p, self.prenorm = p, prenorm

    def forward(self, x, residual):
        return fused.dropout_add_rms_norm(x, residual, self.normalized_shape, self.weight, self.p, self.training, self.eps, self.prenorm)

    def extra_repr(self):
        return f"{super().extra_repr()}, p={self.p}, prenorm={self.prenorm}"

"""The norms as layers: weight, bias, running statistics and what the backward pass needs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from normfast.layers.base import Layer, Parameter
from normfast.ops._arrays import checked_where
from normfast.ops._stats import NormGradients, NormStats
from normfast.ops.activation import checked_activation
from normfast.ops.batch_norm import batch_norm, batch_norm_backward, batch_norm_forward, update_running
from normfast.ops.group_norm import group_norm_backward, group_norm_forward, instance_norm_backward, instance_norm_forward
from normfast.ops.layer_norm import layer_norm_backward, layer_norm_forward
from normfast.ops.rms_norm import rms_norm_backward, rms_norm_forward
from normfast.typing import Activation, Array, ArrayLike, Writeable


class Norm(Layer):
    """What the norms share: a weight and a bias, either of which may be missing.

    A call takes, beside x, `out`: an array of x's shape and dtype for the result, which may be x itself at inference.
    """

    weight: Parameter | None = None
    bias: Parameter | None = None
    momentum: float | None
    running_mean: Any  # arrays, or None where they are not tracked
    running_var: Any
    num_batches_tracked: Any

    def _learn(self, shape, dtype, weight, bias):
        if weight:
            self.weight = Parameter(np.ones(shape, dtype))
        if bias:
            self.bias = Parameter(np.zeros(shape, dtype))

    def _affine(self):
        return tuple(None if parameter is None else parameter.data for parameter in (self.weight, self.bias))

    def _take(self, gradients):
        """Keep the gradients of the parameters; returns that of x."""
        if self.weight is not None:
            self.weight.grad = gradients.dweight
        if self.bias is not None:
            self.bias.grad = gradients.dbias
        return gradients.dx

    def _track(self, shape, dtype):
        dtype = np.result_type(dtype, np.float32)  # 16 bits would swallow the small steps of an average
        self.running_mean, self.running_var = np.zeros(shape, dtype), np.ones(shape, dtype)
        self.num_batches_tracked = np.zeros((), np.int64)

    def _update_running(self, stats, ddof):
        batches = int(self.num_batches_tracked)
        update_running(self.running_mean, self.running_var, stats, momentum=self.momentum, ddof=ddof, num_batches=batches)
        self.num_batches_tracked += 1


class BatchNorm(Norm):
    """Batch normalization of the channels, with running statistics for inference.

    Parameters
    ----------
    num_features : int
        Number of channels.
    eps : float
        As in `batch_norm`.
    momentum : float or None
        Weight of the new batch in the running statistics, as PyTorch counts; ONNX and Keras give the weight of the old ones, 1 - momentum.
        None averages over all batches. `update_running` has the table of conventions; `recalibrate` puts exact statistics in their place.
    affine : bool
        Whether weight and bias are learned.
    axis : int
        The axis of the channels: 1 for (N, C) and NCHW, -1 for NHWC.
    activation : None, str or pair of functions
        Applied to the result in the same sweep, as in `batch_norm`.
    ord : {1, 2, inf}
        How a batch's deviation is measured, as in `batch_norm_forward`.
    ddof : int
        The running variance takes that of a batch as m2 / (count - ddof): 1 for PyTorch, 0 for ONNX and Keras. Used with ord=2 alone.
    dtype : dtype
        Of weight and bias; the running statistics are float32 or wider.

    Notes
    -----
    Called with `where=mask`, entries where the mask is False take no part and give 0.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import BatchNorm
    >>> layer = BatchNorm(3)
    >>> y = layer(np.random.default_rng(0).normal(5, 2, (100, 3)).astype(np.float32))
    >>> bool(abs(y.mean()) < 1e-6), int(layer.num_batches_tracked)
    (True, 1)
    """

    buffers = ("running_mean", "running_var", "num_batches_tracked")
    _forward: Callable[..., tuple[Array, NormStats]] = staticmethod(batch_norm_forward)
    _backward: Callable[..., NormGradients] = staticmethod(batch_norm_backward)

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        axis: int = 1,
        activation: Activation = None,
        ord: float = 2,
        ddof: int = 1,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.eps, self.momentum, self.axis, self.ord, self.ddof = eps, momentum, axis, ord, ddof
        self.activation = activation
        checked_activation(activation)
        self._learn(num_features, dtype, affine, affine)
        self._track(num_features, dtype)

    def forward(self, x: ArrayLike, *, where: ArrayLike | None = None, out: Writeable | None = None) -> Array:
        """y, from the statistics of the batch in training and from the running ones at inference."""
        options: dict[str, Any] = {"axis": self.axis, "eps": self.eps, "activation": self.activation, "out": out}
        if not self.training:
            self._saved = None
            y = batch_norm(x, self.running_mean, self.running_var, *self._affine(), **options)
            if where is not None:
                np.copyto(y, 0, where=~checked_where(where, y))
            return y
        y, stats = self._forward(x, *self._affine(), ord=self.ord, where=where, **options)
        self._update_running(stats, self.ddof if self.ord == 2 else 0)
        self._saved = x, stats, where
        return y

    def backward(self, dy: ArrayLike) -> Array:
        """Gradient of the input, from that of the output."""
        x, stats, where = self._remembered()
        weight, bias = self._affine()
        options: dict[str, Any] = {"axis": self.axis, "activation": self.activation, "ord": self.ord, "where": where}
        return self._take(self._backward(dy, x, stats, weight, bias=bias, **options))


class LayerNorm(Norm):
    """Layer normalization over the last axes.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Shape of the last axes.
    eps : float
        Added to the variance.
    elementwise_affine, bias : bool
        Whether a weight, and a bias beside it, are learned.
    dtype : dtype
        Of weight and bias.

    Notes
    -----
    Called with `where=mask`, entries where the mask is False take no part and give 0.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import LayerNorm
    >>> LayerNorm(4)(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)).round(3)
    array([[-1.342, -0.447,  0.447,  1.342]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        shape, self.axis = _last_axes(normalized_shape)
        self.eps = eps
        self._learn(shape, dtype, elementwise_affine, elementwise_affine and bias)

    def forward(self, x: ArrayLike, *, where: ArrayLike | None = None, out: Writeable | None = None) -> Array:
        """y, the same in training and at inference."""
        y, stats = layer_norm_forward(x, *self._affine(), axis=self.axis, eps=self.eps, where=where, out=out)
        self._saved = (x, stats, where) if self.training else None
        return y

    def backward(self, dy: ArrayLike) -> Array:
        """Gradient of the input, from that of the output."""
        x, stats, where = self._remembered()
        return self._take(layer_norm_backward(dy, x, stats, self._affine()[0], axis=self.axis, where=where))


def _last_axes(normalized_shape):
    """A shape as a tuple, and the axes at the end of an array that it stands for."""
    shape = (normalized_shape,) if np.ndim(normalized_shape) == 0 else tuple(normalized_shape)
    return shape, tuple(range(-len(shape), 0))


class RMSNorm(Norm):
    """Normalization by the root mean square of the last axes.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Shape of the last axes.
    eps : float
        Added to the mean square. PyTorch's default, eps=None, is np.finfo(dtype).eps.
    elementwise_affine : bool
        Whether a weight is learned.
    dtype : dtype
        Of the weight.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import RMSNorm
    >>> RMSNorm(2)(np.array([[3.0, 4.0]], np.float32)).round(3)
    array([[0.849, 1.131]], dtype=float32)
    """

    def __init__(
        self, normalized_shape: int | tuple[int, ...], *, eps: float = 1e-5, elementwise_affine: bool = True, dtype: DTypeLike = np.float32
    ) -> None:
        shape, self.axis = _last_axes(normalized_shape)
        self.eps = eps
        self._learn(shape, dtype, elementwise_affine, False)

    def forward(self, x: ArrayLike, *, out: Writeable | None = None) -> Array:
        """y, the same in training and at inference."""
        y, stats = rms_norm_forward(x, self._affine()[0], axis=self.axis, eps=self.eps, out=out)
        self._saved = (x, stats) if self.training else None
        return y

    def backward(self, dy: ArrayLike) -> Array:
        """Gradient of the input, from that of the output."""
        x, stats = self._remembered()
        return self._take(rms_norm_backward(dy, x, stats, self._affine()[0], axis=self.axis))


class GroupNorm(Norm):
    """Normalization of groups of channels, each sample for itself.

    Parameters
    ----------
    num_groups, num_channels : int
        The channels are split into so many groups of neighbours, all of one size.
    eps : float
        Added to the variance.
    affine : bool
        Whether weight and bias are learned, one for each channel.
    axis : int
        The axis of the channels: 1 for (N, C) and NCHW, -1 for NHWC.
    dtype : dtype
        Of weight and bias.

    Notes
    -----
    Called with `where=mask`, entries where the mask is False take no part and give 0.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import GroupNorm
    >>> GroupNorm(2, 4)(np.array([[1.0, 3.0, 10.0, 30.0]], np.float32)).round(3)
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    def __init__(
        self, num_groups: int, num_channels: int, *, eps: float = 1e-5, affine: bool = True, axis: int = 1, dtype: DTypeLike = np.float32
    ) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"{num_channels} channels cannot be split into {num_groups} groups of one size")
        self.num_groups, self.eps, self.axis = num_groups, eps, axis
        self._learn(num_channels, dtype, affine, affine)

    def forward(self, x: ArrayLike, *, where: ArrayLike | None = None, out: Writeable | None = None) -> Array:
        """y, the same in training and at inference."""
        y, stats = group_norm_forward(x, self.num_groups, *self._affine(), axis=self.axis, eps=self.eps, where=where, out=out)
        self._saved = (x, stats, where) if self.training else None
        return y

    def backward(self, dy: ArrayLike) -> Array:
        """Gradient of the input, from that of the output."""
        x, stats, where = self._remembered()
        options = {"num_groups": self.num_groups, "axis": self.axis, "where": where}
        return self._take(group_norm_backward(dy, x, stats, self._affine()[0], **options))


class InstanceNorm(Norm):
    """Normalization of each channel of each sample over its positions.

    Parameters
    ----------
    num_features : int
        Number of channels.
    eps : float
        Added to the variance.
    affine : bool
        Whether weight and bias are learned.
    track_running_stats : bool
        Whether running averages of the instances' means and variances are kept, which then serve at inference.
    momentum : float or None
        Of the running averages, as in `BatchNorm`.
    axis : int
        The axis of the channels: 1 for NCHW, -1 for NHWC.
    dtype : dtype
        Of weight and bias; the running statistics are float32 or wider.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import InstanceNorm
    >>> InstanceNorm(2)(np.array([[[1.0, 3.0], [10.0, 30.0]]], np.float32)).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]], dtype=float32)
    """

    buffers = BatchNorm.buffers
    running_mean = running_var = num_batches_tracked = None

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        affine: bool = False,
        track_running_stats: bool = False,
        momentum: float | None = 0.1,
        axis: int = 1,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.eps, self.momentum, self.axis = eps, momentum, axis
        self._learn(num_features, dtype, affine, affine)
        if track_running_stats:
            self._track(num_features, dtype)

    def forward(self, x: ArrayLike, *, out: Writeable | None = None) -> Array:
        """y, from the statistics of the instances; at inference from the running ones where they are tracked."""
        options: dict[str, Any] = {"axis": self.axis, "eps": self.eps, "out": out}
        if not self.training and self.running_mean is not None:
            self._saved = None
            return batch_norm(x, self.running_mean, self.running_var, *self._affine(), **options)
        y, stats = instance_norm_forward(x, *self._affine(), **options)
        if self.training and self.running_mean is not None:
            self._update_running(NormStats(stats.mean.mean(axis=0), None, stats.var.mean(axis=0), stats.count), 1)
        self._saved = (x, stats) if self.training else None
        return y

    def backward(self, dy: ArrayLike) -> Array:
        """Gradient of the input, from that of the output."""
        x, stats = self._remembered()
        return self._take(instance_norm_backward(dy, x, stats, self._affine()[0], axis=self.axis))

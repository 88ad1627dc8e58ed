"""Layers with state, forward and backward by hand, under PyTorch's names: a PyTorch `state_dict` loads as it is.

A layer is called on a batch and remembers, in training, what its backward pass needs; `backward` takes the gradient of its output, puts
the gradients of its parameters into their `grad` and returns the gradient of its input.

>>> import numpy as np, normfast as nf
>>> from normfast.layers import Dense, Sequential
>>> model = Sequential(Dense(4, 8, norm="batch", activation="relu", rng=0), Dense(8, 2, rng=1))
>>> x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
>>> model(x).shape
(16, 2)
>>> model.backward(np.ones((16, 2), np.float32)).shape
(16, 4)
>>> sorted(model.state_dict())[:4]
['0.bias', '0.norm.bias', '0.norm.num_batches_tracked', '0.norm.running_mean']
"""

import numpy as np

from normfast.ops.batch_norm import batch_norm, batch_norm_backward, batch_norm_forward, update_running
from normfast.ops.dropout import checked_p, dropout_backward, dropout_forward
from normfast.ops.layer_norm import layer_norm_backward, layer_norm_forward


class Parameter:
    """A learned array and the gradient of the loss with respect to it.

    Attributes
    ----------
    data : ndarray
        The values, to be changed in place.
    grad : ndarray or None
        Their gradient, of the same shape, from the last backward pass.
    """

    def __init__(self, data):
        self.data = data
        self.grad = None

    def __array__(self, dtype=None, copy=None):
        return np.array(self.data, dtype=dtype, copy=copy)

    def __repr__(self):
        return f"Parameter({self.data!r})"


class Layer:
    """What all layers share: parameters, buffers, inner layers and the two modes."""

    training = True

    def _children(self):
        return {name: value for name, value in vars(self).items() if isinstance(value, Layer)}

    def _arrays(self):
        """The parameters and buffers of this layer alone, by name."""
        arrays = {name: value.data for name, value in vars(self).items() if isinstance(value, Parameter)}
        return arrays | {name: value for name in self.buffers if (value := getattr(self, name)) is not None}

    buffers = ()

    def train(self, mode=True):
        """Switch to training, or to inference with mode=False; returns the layer."""
        self.training = mode
        for child in self._children().values():
            child.train(mode)
        return self

    def eval(self):
        """Switch to inference; returns the layer."""
        return self.train(False)

    def parameters(self):
        """List of the `Parameter`s of the layer and its inner layers."""
        own = [value for value in vars(self).values() if isinstance(value, Parameter)]
        return own + [parameter for child in self._children().values() for parameter in child.parameters()]

    def state_dict(self):
        """Copies of all parameters and buffers by name, as PyTorch names them."""
        state = {name: np.array(array) for name, array in self._arrays().items()}
        for prefix, child in self._children().items():
            state |= {f"{prefix}.{name}": array for name, array in child.state_dict().items()}
        return state

    def load_state_dict(self, state):
        """Take all parameters and buffers from a dictionary of arrays (or CPU tensors), in place.

        Raises
        ------
        ValueError
            If names are missing or left over, or a shape differs; nothing is changed then.
        """
        targets = self._targets()
        missing, unknown = sorted(targets.keys() - state.keys()), sorted(state.keys() - targets.keys())
        if missing or unknown:
            raise ValueError(f"the state does not fit: missing {missing}, not known here {unknown}")
        values = {name: np.asarray(value) for name, value in state.items()}
        for name, target in targets.items():
            if values[name].shape != target.shape:
                raise ValueError(f"{name} has shape {values[name].shape} and the layer needs {target.shape}")
        for name, target in targets.items():
            target[...] = values[name]

    def _targets(self):
        targets = self._arrays()
        for prefix, child in self._children().items():
            targets |= {f"{prefix}.{name}": array for name, array in child._targets().items()}
        return targets

    def _remembered(self, name):
        value = vars(self).get(name)
        if value is None:
            raise RuntimeError(f"{type(self).__name__}.backward needs a forward call in training mode before it")
        return value


class BatchNorm(Layer):
    """Batch normalization of the channels, with running statistics for inference.

    Parameters
    ----------
    num_features : int
        Number of channels.
    eps, momentum : float
        As in `batch_norm` and `update_running`; momentum=None averages over all batches.
    affine : bool
        Whether weight and bias are learned.
    axis : int
        The axis of the channels: 1 for (N, C) and NCHW, -1 for NHWC.
    dtype : dtype
        Of weight and bias; the running statistics are of the same.

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

    def __init__(self, num_features, *, eps=1e-5, momentum=0.1, affine=True, axis=1, dtype=np.float32):
        self.eps, self.momentum, self.axis = eps, momentum, axis
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        self.running_mean = np.zeros(num_features, dtype)
        self.running_var = np.ones(num_features, dtype)
        self.num_batches_tracked = np.zeros((), np.int64)

    def _affine(self):
        return (None, None) if self.weight is None else (self.weight.data, self.bias.data)

    def __call__(self, x):
        if not self.training:
            return batch_norm(x, self.running_mean, self.running_var, *self._affine(), axis=self.axis, eps=self.eps)
        y, stats = batch_norm_forward(x, *self._affine(), axis=self.axis, eps=self.eps)
        batches = int(self.num_batches_tracked)
        update_running(self.running_mean, self.running_var, stats, momentum=self.momentum, num_batches=batches)
        self.num_batches_tracked += 1
        self._x, self._stats = x, stats
        return y

    def backward(self, dy):
        """Gradient of the input, from that of the output."""
        gradients = batch_norm_backward(dy, self._remembered("_x"), self._stats, self._affine()[0], axis=self.axis)
        if self.weight is not None:
            self.weight.grad, self.bias.grad = gradients.dweight, gradients.dbias
        return gradients.dx


class LayerNorm(Layer):
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

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import LayerNorm
    >>> LayerNorm(4)(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)).round(3)
    array([[-1.342, -0.447,  0.447,  1.342]], dtype=float32)
    """

    def __init__(self, normalized_shape, *, eps=1e-5, elementwise_affine=True, bias=True, dtype=np.float32):
        shape = (normalized_shape,) if np.ndim(normalized_shape) == 0 else tuple(normalized_shape)
        self.eps, self.axis = eps, tuple(range(-len(shape), 0))
        self.weight = Parameter(np.ones(shape, dtype)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(shape, dtype)) if elementwise_affine and bias else None

    def __call__(self, x):
        weight, bias = (None if p is None else p.data for p in (self.weight, self.bias))
        y, stats = layer_norm_forward(x, weight, bias, axis=self.axis, eps=self.eps)
        if self.training:
            self._x, self._stats = x, stats
        return y

    def backward(self, dy):
        """Gradient of the input, from that of the output."""
        weight = None if self.weight is None else self.weight.data
        gradients = layer_norm_backward(dy, self._remembered("_x"), self._stats, weight, axis=self.axis)
        for parameter, gradient in ((self.weight, gradients.dweight), (self.bias, gradients.dbias)):
            if parameter is not None:
                parameter.grad = gradient
        return gradients.dx


class Dropout(Layer):
    """Dropout in training, nothing at inference.

    Parameters
    ----------
    p : float
        Probability of dropping an element.
    rng : None, int, SeedSequence or Generator
        Where the masks come from. An int or SeedSequence seeds one Generator, so that each call draws a new mask.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import Dropout
    >>> layer = Dropout(0.5, rng=0)
    >>> sorted(set(layer(np.ones(100, np.float32)).tolist())), layer.eval()(np.ones(2))
    ([0.0, 2.0], array([1., 1.]))
    """

    def __init__(self, p=0.5, *, rng=None):
        self.p = checked_p(p)
        self.rng = np.random.default_rng(rng)

    def __call__(self, x):
        if not self.training:
            return x
        y, self._mask = dropout_forward(x, self.p, rng=self.rng)
        return y

    def backward(self, dy):
        """Gradient of the input, from that of the output."""
        return dropout_backward(dy, self._remembered("_mask"))


def relu(z):
    """max(z, 0), in place."""
    return np.maximum(z, 0, out=z)


def relu_backward(da, a):
    """da where a > 0, else 0."""
    return da * (a > 0)


ACTIVATIONS = {None: None, "relu": (relu, relu_backward)}


class Dense(Layer):
    """The neuron layer: x @ weight.T + bias, then norm, activation and dropout.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of a sample's input and output.
    bias : bool
        Whether a bias is learned.
    norm : {None, "batch", "layer"}
        The norm between sum and activation.
    activation : {None, "relu"}
        The non-linear function.
    dropout : float
        Probability of dropping an output in training.
    dtype : dtype
        Of the parameters.
    rng : None, int, SeedSequence or Generator
        Where the initial weights (uniform within 1 / sqrt(in_features), as PyTorch's Linear) and the dropout masks come from.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import Dense
    >>> layer = Dense(2, 1, activation="relu")
    >>> layer.weight.data[...], layer.bias.data[...] = [[1.0, -1.0]], 0.5
    >>> layer(np.array([[3.0, 1.0], [1.0, 3.0]], np.float32))
    array([[2.5],
           [0. ]], dtype=float32)
    """

    def __init__(self, in_features, out_features, *, bias=True, norm=None, activation=None, dropout=0.0, dtype=np.float32, rng=None):
        norms = {None: None, "batch": BatchNorm, "layer": LayerNorm}
        if norm not in norms:
            raise ValueError(f"unknown norm {norm!r}: choose one of {', '.join(map(repr, norms))}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}: choose one of {', '.join(map(repr, ACTIVATIONS))}")
        rng = np.random.default_rng(rng)
        bound = in_features**-0.5
        self.weight = Parameter(rng.uniform(-bound, bound, (out_features, in_features)).astype(dtype))
        self.bias = Parameter(rng.uniform(-bound, bound, out_features).astype(dtype)) if bias else None
        self.norm = norms[norm](out_features, dtype=dtype) if norm else None
        self.activation = activation
        self.dropout = Dropout(dropout, rng=rng) if checked_p(dropout) else None

    def __call__(self, x):
        y = x @ self.weight.data.T
        if self.bias is not None:
            y += self.bias.data
        if self.norm is not None:
            y = self.norm(y)
        if self.activation is not None:
            y = ACTIVATIONS[self.activation][0](y)
        if self.training:
            self._x, self._activated = x, y
        return y if self.dropout is None else self.dropout(y)

    def backward(self, dy):
        """Gradient of the input, from that of the output."""
        x = self._remembered("_x")
        if self.dropout is not None:
            dy = self.dropout.backward(dy)
        if self.activation is not None:
            dy = ACTIVATIONS[self.activation][1](dy, self._activated)
        if self.norm is not None:
            dy = self.norm.backward(dy)
        self.weight.grad = dy.T @ x
        if self.bias is not None:
            self.bias.grad = dy.sum(axis=0)
        return dy @ self.weight.data


class Sequential(Layer):
    """Layers one after the other, named by their position.

    Examples
    --------
    >>> from normfast.layers import Dense, Dropout, Sequential
    >>> list(Sequential(Dense(2, 3), Dropout(0.1), Dense(3, 1)).state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *layers):
        self.layers = layers

    def _children(self):
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dy):
        """Gradient of the input, from that of the output."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

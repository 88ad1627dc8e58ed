"""Inference without training code: batch norm folded into the layer before it, models frozen to a list of affine steps."""

import numpy as np

from normfast.layers import ACTIVATIONS, BatchNorm, Dense, Dropout, LayerNorm, Sequential
from normfast.ops.layer_norm import layer_norm


def fold_batch_norm(weight, bias, mean, var, bn_weight=None, bn_bias=None, *, eps=1e-5):
    """Weights and bias of one affine layer that does what an affine layer and the batch norm behind it do.

    Parameters
    ----------
    weight : array_like
        Of the layer before: its first axis holds the output channels (Dense, and convolutions as PyTorch keeps them).
    bias : array_like or None
        Of the layer before.
    mean, var : array_like
        Population statistics of the batch norm, of shape (channels,).
    bn_weight, bn_bias : array_like, optional
        Weight and bias of the batch norm.
    eps : float
        Of the batch norm.

    Returns
    -------
    weight, bias : ndarray
        Computed in float64, in the dtype of `weight`.

    Notes
    -----
    With a = bn_weight / sqrt(var + eps): weight * a and (bias - mean) * a + bn_bias.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.inference.fold_batch_norm(np.array([[2.0]]), None, mean=[1.0], var=[4.0], eps=0)
    (array([[1.]]), array([-0.5]))
    """
    weight = np.asarray(weight)
    channels = (weight.shape[0],)
    given = {"bias": bias, "mean": mean, "var": var, "bn_weight": bn_weight, "bn_bias": bn_bias}
    for name, values in given.items():
        if values is not None and np.shape(values) != channels:
            raise ValueError(f"{name} has shape {np.shape(values)}: a weight of shape {weight.shape} needs {channels}")
    bias, shift = (np.zeros(channels) if values is None else np.asarray(values, np.float64) for values in (bias, bn_bias))
    a = 1.0 / np.sqrt(np.asarray(var, np.float64) + eps)
    if bn_weight is not None:
        a = a * np.asarray(bn_weight, np.float64)
    folded = weight * a.reshape(channels + (1,) * (weight.ndim - 1))
    return folded.astype(weight.dtype), ((bias - np.asarray(mean, np.float64)) * a + shift).astype(weight.dtype)


class Plan:
    """A frozen model: steps of weight, bias, layer norm and activation, on arrays of its own.

    Called on x it returns what the model returns in inference. `freeze` makes it.
    """

    def __init__(self, steps):
        self._steps = steps

    def __call__(self, x):
        for weight, bias, norm, activation in self._steps:
            if weight is not None:
                x = x @ weight.T
                x += bias
            if norm is not None:
                x = layer_norm(x, norm["weight"], norm["bias"], axis=norm["axis"], eps=norm["eps"])
            if activation is not None:
                x = ACTIVATIONS[activation][0](x)
        return x

    def __repr__(self):
        return f"Plan({len(self._steps)} steps)"


def freeze(model):
    """Turn a model into a `Plan` for inference: batch norms are folded into the Dense layer before them, dropouts vanish.

    Parameters
    ----------
    model : Dense, LayerNorm, BatchNorm, Dropout or a Sequential of them
        Its weights and running statistics are copied; it is not changed. A batch norm needs a Dense layer without activation before it.

    Returns
    -------
    Plan

    Raises
    ------
    TypeError, ValueError
        For layers that cannot be frozen.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> from normfast.layers import Dense, Sequential
    >>> model = Sequential(Dense(4, 8, norm="batch", activation="relu", dropout=0.2), Dense(8, 2)).eval()
    >>> x = np.ones((3, 4), np.float32)
    >>> bool(np.allclose(nf.inference.freeze(model)(x), model(x), atol=1e-6))
    True
    """
    steps = []
    for layer in _flat(model):
        if isinstance(layer, Dense):
            bias = np.zeros(len(layer.weight.data), layer.weight.data.dtype) if layer.bias is None else layer.bias.data.copy()
            steps.append([layer.weight.data.copy(), bias, None, None])
            if isinstance(layer.norm, BatchNorm):
                _fold(steps, layer.norm)
            elif layer.norm is not None:
                steps[-1][2] = _frozen_norm(layer.norm)
            steps[-1][3] = layer.activation
        elif isinstance(layer, BatchNorm):
            _fold(steps, layer)
        elif isinstance(layer, LayerNorm):
            steps.append([None, None, _frozen_norm(layer), None])
        elif not isinstance(layer, Dropout):
            raise TypeError(f"cannot freeze {type(layer).__name__}: only Dense, BatchNorm, LayerNorm, Dropout and Sequential")
    return Plan([tuple(step) for step in steps])


def _flat(model):
    return [inner for layer in model.layers for inner in _flat(layer)] if isinstance(model, Sequential) else [model]


def _fold(steps, norm):
    if not steps or steps[-1][0] is None or steps[-1][2] is not None or steps[-1][3] is not None:
        raise ValueError("a BatchNorm can be folded only into a Dense layer right before it, without norm and activation between")
    weight, bias = norm._affine()
    steps[-1][:2] = fold_batch_norm(*steps[-1][:2], norm.running_mean, norm.running_var, weight, bias, eps=norm.eps)


def _frozen_norm(norm):
    weight, bias = (None if p is None else p.data.copy() for p in (norm.weight, norm.bias))
    return {"weight": weight, "bias": bias, "axis": norm.axis, "eps": norm.eps}

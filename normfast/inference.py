"""Inference: batch norm folded into the layer before it, frozen models, exact running statistics, and dropout left on for a spread."""

import copy
from typing import NamedTuple

import numpy as np

from normfast.layers import Activation, BatchNorm, Dense, Dropout, Sequential
from normfast.layers.dense import stored_like, weighted_sum
from normfast.layers.norms import Norm
from normfast.ops._arrays import floating
from normfast.ops.batch_norm import batch_norm_forward
from normfast.ops.moments import Moments, moments


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
    """A frozen model: weighted sums and what follows each of them, on arrays of its own.

    Called on x it returns what the model returns in inference. `freeze` makes it.
    """

    def __init__(self, steps):
        self._steps = steps

    def __call__(self, x):
        x = floating(x)
        for weight, bias, layers in self._steps:
            y = x if weight is None else weighted_sum(x, weight, bias)
            for layer in layers:
                y = layer(y, out=None if y is x else y)
            x = stored_like(y, x)
        return x

    def __repr__(self):
        return f"Plan({len(self._steps)} steps)"


def freeze(model):
    """Turn a model into a `Plan` for inference: batch norms are folded into the Dense layer before them, dropouts vanish.

    Parameters
    ----------
    model : Dense, Activation, Dropout, a norm, or a Sequential of them
        Its weights and running statistics are copied; it is not changed. A batch norm needs a Dense layer without activation before it.

    Returns
    -------
    Plan

    Raises
    ------
    TypeError, ValueError
        For layers that cannot be frozen; a Dropout with always_on=True is one, since its outputs are random.

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
    for layer in flat(model):
        if isinstance(layer, Dense):
            steps.append([layer.weight.data.copy(), None if layer.bias is None else layer.bias.data.copy(), []])
            for part in (layer.norm, layer.function, layer.dropout):
                _freeze_part(steps, part)
        elif isinstance(layer, (Norm, Activation, Dropout)):
            _freeze_part(steps, layer)
        else:
            raise TypeError(f"cannot freeze {type(layer).__name__}: only Dense, Activation, Dropout, the norms and Sequential")
    return Plan([tuple(step) for step in steps])


def flat(model):
    """The layers of nested Sequentials in their order."""
    return [inner for layer in model.layers for inner in flat(layer)] if isinstance(model, Sequential) else [model]


def _freeze_part(steps, layer):
    """Add a norm, an activation or a dropout to the steps."""
    if layer is None or (isinstance(layer, Dropout) and not layer.always_on):
        return
    if isinstance(layer, Dropout):
        raise ValueError("cannot freeze a Dropout with always_on=True, whose outputs are random: call mc_predict on the model")
    if isinstance(layer, BatchNorm):
        if not steps or steps[-1][0] is None or steps[-1][2]:
            raise ValueError("a BatchNorm can be folded only into a Dense layer right before it, without norm and activation between")
        weight, bias = layer._affine()
        steps[-1][:2] = fold_batch_norm(*steps[-1][:2], layer.running_mean, layer.running_var, weight, bias, eps=layer.eps)
        if layer.activation in (None, "identity"):
            return
        layer = Activation(layer.activation)
    elif not steps:
        steps.append([None, None, []])
    steps[-1][2].append(copy.deepcopy(layer).eval())


class Prediction(NamedTuple):
    """What `mc_predict` returns.

    Attributes
    ----------
    mean, std : ndarray
        Mean and standard deviation of each output over the passes, float64.
    """

    mean: np.ndarray
    std: np.ndarray


def mc_predict(model, x, n, *, ddof=0, rng=None):
    """Monte-Carlo dropout: mean and spread of the outputs over n passes with dropout on and all else as at inference.

    Parameters
    ----------
    model : Layer
        Its modes, and its sources of random numbers where rng is given, are put back.
    x : array_like
        A batch.
    n : int
        Number of passes, 1 or more. They are merged as they come: no more than one output is kept.
    ddof : int
        The spread is sqrt(m2 / (n - ddof)).
    rng : None, int, SeedSequence or Generator
        Where the masks come from; None leaves that to the dropout layers.

    Returns
    -------
    Prediction
        (mean, std) of the shape of the model's output, float64.

    References
    ----------
    Y. Gal, Z. Ghahramani, Dropout as a Bayesian Approximation, ICML 2016, arXiv:1506.02142.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.inference import mc_predict
    >>> from normfast.layers import Dropout
    >>> mean, std = mc_predict(Dropout(0.5), np.ones(3), 10_000, rng=0)
    >>> bool((abs(mean - 1) < 0.1).all()), bool((abs(std - 1) < 0.1).all())
    (True, True)
    """
    if not hasattr(n, "__index__") or n.__index__() < 1:
        raise ValueError(f"n must be an integer of 1 or more, got {n!r}")
    generator = None if rng is None else np.random.default_rng(rng)
    modules = [layer for _, layer in model.named_modules()]
    before = [(layer, layer.training, getattr(layer, "rng", None)) for layer in modules]
    try:
        for layer in modules:
            layer.training = isinstance(layer, Dropout)
            if layer.training and generator is not None:
                layer.rng = generator
        total = _one(model(x))
        for _ in range(n - 1):
            total += _one(model(x))
    finally:
        for layer, training, source in before:
            layer.training = training
            if isinstance(layer, Dropout):
                layer.rng = source
    return Prediction(total.mean, total.std(ddof))


def _one(y):
    """The moments of one pass."""
    return Moments(1, y, np.zeros(y.shape))


def recalibrate(model, batches, *, ddof=0):
    """Give every `BatchNorm` of a model the exact statistics of its input at inference, over all batches.

    Parameters
    ----------
    model : Layer
        Changed in place: running_mean, running_var and num_batches_tracked of its batch norms. Its modes are put back.
    batches : iterable of array_like
        Inputs of the model, in batches of any sizes; how they are cut does not matter. They are gone through once for each batch norm and
        an iterator is therefore kept as a list.
    ddof : int
        The running variance is m2 / (count - ddof).

    Returns
    -------
    Layer
        The model.

    Notes
    -----
    The batch norms are taken in the order in which the model calls them. Each sees what it will see at inference: dropout is off, and the
    norms before it already use their new statistics. The moments of the batches are merged (Chan), so that a recalibrated network gives
    over these batches a mean and variance of exactly `bias` and `weight**2` behind every batch norm, with no variance shift by dropout.
    With ord=1 and ord=inf the squared deviations of the batches merge as variances do, which is exact for batches of equal means.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.inference import recalibrate
    >>> from normfast.layers import BatchNorm
    >>> layer = recalibrate(BatchNorm(1), [np.array([[1.0], [2.0]]), np.array([[6.0]])])
    >>> layer.running_mean, layer.running_var.round(4)
    (array([3.], dtype=float32), array([4.6667], dtype=float32))
    """
    batches = list(batches) if iter(batches) is batches else batches
    modules = [layer for _, layer in model.named_modules()]
    before = [(layer, layer.training) for layer in modules]
    try:
        model.eval()
        order = _in_order_of_calls(model, [layer for layer in modules if isinstance(layer, BatchNorm)], batches)
        for norm in order:
            parts = []
            norm.observer = lambda x, norm=norm, parts=parts: parts.append(_moments_of(norm, x))
            for batch in batches:
                model(batch)
            norm.observer = None
            population = Moments.merge(parts)
            norm.running_mean[...], norm.running_var[...] = population.mean, population.var(ddof)
            norm.num_batches_tracked[...] = len(parts)
    finally:
        for layer, training in before:
            layer.training, layer.observer = training, None
    return model


def _in_order_of_calls(model, norms, batches):
    """The norms that a batch meets, as it meets them."""
    order = []
    for norm in norms:
        norm.observer = lambda x, norm=norm: norm in order or order.append(norm)
    for batch in batches:
        model(batch)
        break
    else:
        raise ValueError("there are no batches to take statistics of: give one or more")
    for norm in norms:
        norm.observer = None
    return order


def _moments_of(norm, x):
    """Moments of the channels of x, as the batch norm measures them."""
    if norm.ord != 2:
        return batch_norm_forward(x, axis=norm.axis, ord=norm.ord)[1].moments
    axes = range(np.ndim(x))
    return moments(x, axis=tuple(axis for axis in axes if axis != axes[norm.axis]))

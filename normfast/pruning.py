"""Channel pruning by |gamma| (Liu et al. 2017): push the gammas of batch norms to zero, rank the channels, cut the smallest.

>>> import numpy as np
>>> from normfast import pruning
>>> from normfast.layers import Dense, Sequential
>>> model = Sequential(Dense(4, 8, norm="batch", activation="relu", rng=0), Dense(8, 2, rng=1)).eval()
>>> model.layers[0].norm.weight.data[:] = [0.0, 0.9, 0.0, 0.5, 0.7, 0.0, 0.8, 0.6]
>>> smaller = pruning.prune(model, threshold=0.0)
>>> smaller.layers[0].weight.data.shape, smaller.layers[1].weight.data.shape
((5, 4), (2, 5))
>>> x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
>>> bool(abs(smaller(x) - model(x)).max() < 1e-6)
True
"""

import copy
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from normfast.layers import Activation, BatchNorm, Dense, Dropout, Layer, Parameter, Sequential

__all__ = ["l1_subgradient", "prune", "rank", "threshold"]

Network = TypeVar("Network", bound=Layer)


class Path(NamedTuple):
    """The Dense layer that makes channels, what they go through as pairs of name and layer, and the Dense layer that takes them."""

    source: Dense
    between: list[tuple[str, Layer]]
    sink: Dense


def _parts(model, prefix=""):
    """Pairs of name and layer in the order of calls; after a Dense layer come its norm, activation and dropout."""
    if not isinstance(model, Sequential):
        yield prefix, model
    if isinstance(model, (Sequential, Dense)):
        for name, child in model._children().items():
            yield from _parts(child, f"{prefix}.{name}" if prefix else name)


def _paths(model):
    """A `Path` for each two Dense layers that follow each other."""
    paths: list[Path] = []
    between: list[tuple[str, Layer]] = []
    source = None
    for name, layer in _parts(model):
        if isinstance(layer, Dense):
            if source is not None:
                paths.append(Path(source, between, layer))
            source, between = layer, []
        else:
            between.append((name, layer))
    return paths


def _ranked_norms(model):
    """Pairs of name and layer of all batch norms with gammas but those before the first Dense layer and behind the last."""
    parts = [name for name, _ in _parts(model)]
    inner = {name for path in _paths(model) for name, _ in path.between}
    norms = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, BatchNorm) and layer.weight is not None)
    return [(name, norm) for name, norm in norms if name in inner or name not in parts]


def rank(model: Layer) -> NDArray[np.void]:
    """The channels of all batch norms inside the network, ordered by |gamma|, the smallest first.

    Parameters
    ----------
    model : Layer
        Batch norms before its first Dense layer or behind its last one, whose channels are inputs or outputs of the model, do not count.

    Returns
    -------
    ndarray
        Structured, with the fields "layer" (name of the batch norm as in `state_dict`), "channel" and "gamma" (|gamma|).

    Examples
    --------
    >>> from normfast import pruning
    >>> from normfast.layers import Dense, Sequential
    >>> model = Sequential(Dense(2, 2, norm="batch"), Dense(2, 1))
    >>> model.layers[0].norm.weight.data[:] = [-0.5, 0.25]
    >>> pruning.rank(model).tolist()
    [('0.norm', 1, 0.25), ('0.norm', 0, 0.5)]
    """
    norms = _ranked_norms(model)
    width = max((len(name) for name, _ in norms), default=1)
    channels = [(name, channel, abs(float(gamma))) for name, norm in norms for channel, gamma in enumerate(norm.weight.data)]
    ranked = np.array(channels, [("layer", f"U{width}"), ("channel", np.int64), ("gamma", np.float64)])
    return ranked[np.argsort(ranked["gamma"], kind="stable")]


def threshold(model: Layer, share: float) -> float:
    """The |gamma| up to which channels are cut so that the given share of them goes.

    Parameters
    ----------
    model : Layer
    share : float in [0, 1]
        Of the channels that `rank` lists; the number of channels is rounded.

    Returns
    -------
    float
        -inf where no channel is to go.

    Examples
    --------
    >>> from normfast import pruning
    >>> from normfast.layers import Dense, Sequential
    >>> model = Sequential(Dense(2, 4, norm="batch"), Dense(4, 1))
    >>> model.layers[0].norm.weight.data[:] = [-0.5, 0.25, 2.0, 1.0]
    >>> pruning.threshold(model, 0.5)
    0.5
    """
    ranked = rank(model)
    count = _count(ranked, share)
    return float(ranked["gamma"][count - 1]) if count else -np.inf


def _count(ranked, share):
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    return round(share * len(ranked))


def l1_subgradient(model: Layer, strength: float) -> None:
    """Add the gradient of strength * sum(|gamma|) to the gradients of the gammas that `rank` lists, after a backward pass.

    Parameters
    ----------
    model : Layer
    strength : float
        Of the penalty, which pushes gammas to zero. At 0 its gradient is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import pruning
    >>> from normfast.layers import Dense, Sequential
    >>> model = Sequential(Dense(2, 3, norm="batch"), Dense(3, 1))
    >>> gamma = model.layers[0].norm.weight
    >>> gamma.data[:], gamma.grad = [-0.5, 0.0, 2.0], np.zeros(3, np.float32)
    >>> pruning.l1_subgradient(model, 0.25)
    >>> gamma.grad
    array([-0.25,  0.  ,  0.25], dtype=float32)
    """
    for name, norm in _ranked_norms(model):
        gamma = norm.weight
        if gamma.grad is None:
            raise RuntimeError(f"{name}.weight has no gradient to add to: call backward first")
        gamma.grad = gamma.grad + (strength * np.sign(gamma.data)).astype(gamma.grad.dtype)


def prune(model: Network, *, share: float | None = None, threshold: float | None = None) -> Network:
    """A smaller model without the channels of the smallest |gamma|.

    Parameters
    ----------
    model : Sequential
        It is not changed. Between the Dense layer that makes a channel and the next, which takes it, only batch norms, activations (of
        each element for itself) and dropouts may stand where a channel is cut.
    share : float in [0, 1], optional
        Cut this share of the channels, in the order of `rank`.
    threshold : float, optional
        Cut the channels with |gamma| up to this. One of both must be given.

    Returns
    -------
    Sequential
        Of the same structure. One channel at least is left between two Dense layers, that of the largest |gamma| (the smallest of its
        gammas where it goes through several batch norms).

    Raises
    ------
    ValueError
        Where a norm that mixes channels, or a layer that is not known here, stands in the way of a cut.

    Notes
    -----
    A channel whose gamma is 0 still emits a constant, activation(bias). It moves into the bias of the Dense layer that took it (which
    gets a bias if it had none), so that at inference the outputs stay the same to rounding. A channel of another gamma leaves its
    response to the mean input behind in this way.

    References
    ----------
    Z. Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, arXiv:1708.06519.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import pruning
    >>> from normfast.layers import Dense, Sequential
    >>> model = Sequential(Dense(2, 4, norm="batch"), Dense(4, 1))
    >>> model.layers[0].norm.weight.data[:] = [-0.5, 0.25, 2.0, 1.0]
    >>> smaller = pruning.prune(model, share=0.5)
    >>> smaller.layers[0].norm.weight.data, smaller.layers[1].weight.data.shape
    (array([2., 1.], dtype=float32), (1, 2))
    """
    if (share is None) == (threshold is None):
        raise TypeError("give either share= or threshold=")
    ranked = rank(model)
    cut = ranked[: _count(ranked, share)] if threshold is None else ranked[ranked["gamma"] <= threshold]
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = None
    paths = _paths(model)
    known = {name for path in paths for name, _ in path.between}
    for name in cut["layer"]:
        if name not in known:
            raise ValueError(f"cannot cut channels of {name}: only of batch norms between the Dense layers of a Sequential")
    for path in paths:
        _cut(path, {name: cut["channel"][cut["layer"] == name] for name, _ in path.between})
    return model


def _cut(path, channels):
    """Take channels, given by the batch norms that rank them, out of the layers of a path."""
    drop = np.zeros(len(path.source.weight.data), bool)
    norms = [layer for _, layer in path.between if isinstance(layer, BatchNorm)]
    if not any(chosen.size for chosen in channels.values()):
        return
    for name, layer in path.between:
        if not isinstance(layer, (BatchNorm, Activation, Dropout)):
            raise ValueError(
                f"cannot cut channels that go through {name}, a {type(layer).__name__}: between two Dense layers only BatchNorm, "
                "Activation and Dropout take each channel for itself"
            )
    for norm in norms:
        if norm.running_mean.shape != drop.shape:
            raise ValueError(
                f"a BatchNorm has {norm.running_mean.size} channels and the Dense layer before it {drop.size}: make them the same"
            )
    for chosen in channels.values():
        drop[chosen] = True
    if drop.all():
        drop[np.argmax(np.min([np.abs(norm.weight.data) for norm in norms if norm.weight is not None], axis=0))] = False
    _move_constants(path, channels, drop)
    for layer in (path.source, *norms):
        for parameter in (layer.weight, layer.bias):
            if parameter is not None:
                parameter.data = parameter.data[~drop]
    for norm in norms:
        norm.running_mean, norm.running_var = norm.running_mean[~drop], norm.running_var[~drop]
    path.sink.weight.data = path.sink.weight.data[:, ~drop]


def _move_constants(path, channels, drop):
    """Add what the dropped channels emit where their batch norm sees its mean to the bias of the Dense layer that takes them."""
    values = np.zeros((1, drop.size))
    for name, layer in path.between:
        if isinstance(layer, BatchNorm):
            values[0, channels[name]] = layer.running_mean[channels[name]]
        if not isinstance(layer, Dropout):
            values = copy.deepcopy(layer).eval()(values)
    sink = path.sink
    shift = sink.weight.data[:, drop].astype(np.float64) @ values[0, drop]
    if shift.any():
        bias = 0.0 if sink.bias is None else sink.bias.data
        sink.bias = Parameter((bias + shift).astype(sink.weight.data.dtype))

"""From a model to a plan: its layers as steps, folded into each other in float64."""

from typing import NamedTuple

import numpy as np

from normfast.inference.folding import inverse_deviations, scale_and_shift
from normfast.inference.plans import Plan
from normfast.inference.steps import Activate, Affine, Channels, Groups, RowNorm
from normfast.layers import Activation, BatchNorm, Dense, Dropout, GroupNorm, InstanceNorm, LayerNorm, RMSNorm, Sequential
from normfast.layers.base import Layer
from normfast.ops._arrays import computing

# |mean| / std of a channel up to which a batch norm is folded into the Dense layer behind it. By itself the norm subtracts the mean first,
# folded it comes last, which costs |mean| / std units in the last place of float32: 8 of them are 5e-7.
FARTHEST = 8.0


def freeze(model: Layer, *, ndim: int | None = None) -> Plan:
    """Turn a model into a `Plan` for inference: one that holds weights alone, folded, and calls the engine with next to nothing around it.

    Parameters
    ----------
    model : Dense, Activation, Dropout, a norm, or a Sequential of them
        Its weights and running statistics are copied, 16-bit ones widened to float32; it is not changed.
    ndim : int, optional
        Number of axes of x. Needed only where a `BatchNorm` with axis=1 stands beside a Dense layer of as many features and x has not two
        axes: without it the plan takes (samples, features) then, and says so where x has another shape.

    Returns
    -------
    Plan

    Raises
    ------
    TypeError, ValueError
        For layers that cannot be frozen: those with a `forward` of their own, and a Dropout with always_on=True, whose outputs are random.

    Notes
    -----
    Folded, in float64: a batch norm behind a Dense layer, and one before it where no running mean exceeds 8 standard deviations (else
    float32 would lose what centring first keeps); weight and bias of a layer or RMS norm into the Dense layer behind it. Named activations
    go into the sweep of bias or batch norm. Dropouts vanish.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> from normfast.layers import Dense, Sequential
    >>> model = Sequential(Dense(4, 8, norm="batch", activation="relu", dropout=0.2), Dense(8, 2)).eval()
    >>> x = np.ones((3, 4), np.float32)
    >>> plan = nf.inference.freeze(model)
    >>> bool(np.allclose(plan(x), model(x), atol=1e-6)), plan
    (True, Plan(affine, affine))
    """
    if ndim is not None and (isinstance(ndim, bool) or not hasattr(ndim, "__index__") or ndim.__index__() < 1):
        raise ValueError(f"ndim must be None or the number of axes of x, got {ndim!r}")
    folded = _Folder(None if ndim is None else ndim.__index__())
    for layer in _flat(model):
        for step in _steps_of(layer):
            folded.take(step)
    return Plan([step.narrowed() if isinstance(step, _Sum) else step for step in folded.steps], folded.ndim)


class _Sum(NamedTuple):
    """An `Affine` step while others are folded into it: float64, and the dtype that it will have."""

    weight: np.ndarray
    bias: np.ndarray | None
    activation: str | None
    dtype: np.dtype

    def narrowed(self):
        return Affine(*(None if values is None else values.astype(self.dtype) for values in self[:2]), self.activation)


def _flat(layer):
    """The layers in their order, without Sequentials; raises for those that cannot be frozen."""
    kind = next((kind for kind in (Sequential, Dense, *_STEPS) if isinstance(layer, kind)), None)
    if kind is None or type(layer).forward is not kind.forward:
        known = "only Dense, Activation, Dropout, the norms and Sequential, without a forward of their own"
        raise TypeError(f"cannot freeze {type(layer).__name__}: {known}")
    if kind is Sequential:
        inner = layer.layers
    elif kind is Dense:
        yield layer
        inner = [part for part in (layer.norm, layer.function, layer.dropout) if part is not None]
    else:
        yield layer
        return
    for part in inner:
        yield from _flat(part)


def _steps_of(layer):
    """The steps of one layer by itself."""
    if isinstance(layer, Dense):
        bias = None if layer.bias is None else layer.bias.data.astype(np.float64)
        return [_Sum(layer.weight.data.astype(np.float64), bias, None, computing(layer.weight.data.dtype))]
    kind = next(kind for kind in _STEPS if isinstance(layer, kind))
    return _STEPS[kind](layer)


def _dropout(layer):
    if layer.always_on:
        raise ValueError("cannot freeze a Dropout with always_on=True, whose outputs are random: call mc_predict on the model")
    return []


def _own(values):
    """A copy, of 16-bit values as float32."""
    return None if values is None else np.array(values, computing(values.dtype), order="C")


def _affine(layer):
    return [_own(values) for values in layer._affine()]


def _channels(layer, activation=None):
    """Batch norm by the running statistics; a user's functions come after it."""
    named = None if isinstance(activation, tuple) else activation
    step = Channels(_own(layer.running_mean), _own(layer.running_var), *_affine(layer), int(layer.axis), float(layer.eps), named)
    return [step, *_activate(activation if named is None else None)]


def _activate(activation):
    return [] if activation in (None, "identity") else [Activate(activation)]


def _instance(layer):
    if layer.running_mean is not None:
        return _channels(layer)
    return [Groups(*_affine(layer), 0, int(layer.axis), float(layer.eps))]


_STEPS = {
    BatchNorm: lambda layer: _channels(layer, layer.activation),
    LayerNorm: lambda layer: [RowNorm(*_affine(layer), len(layer.axis), float(layer.eps), True)],
    RMSNorm: lambda layer: [RowNorm(*_affine(layer), len(layer.axis), float(layer.eps), False)],
    GroupNorm: lambda layer: [Groups(*_affine(layer), int(layer.num_groups), int(layer.axis), float(layer.eps))],
    InstanceNorm: _instance,
    Activation: lambda layer: _activate(layer.activation),
    Dropout: _dropout,
}


class _Folder:
    """Takes the steps in their order and folds each into the one before it where that can be done."""

    def __init__(self, ndim):
        self.ndim, self.steps = ndim, []

    def take(self, step):
        """Add a step."""
        both = self._together(self.steps[-1], step) if self.steps else None
        if both is None:
            self.steps.append(step)
            return
        self.steps.pop()
        for part in both:
            self.take(part)

    def _together(self, first, second):
        """What does the same as two steps, folded, or None."""
        if isinstance(second, Activate):
            plain = isinstance(first, (_Sum, Channels)) and first.activation is None and isinstance(second.activation, str)
            return [first._replace(activation=second.activation)] if plain else None
        if (
            isinstance(first, _Sum)
            and isinstance(second, Channels)
            and first.activation is None
            and self._last_axis(second, len(first.weight))
        ):
            a, shift = scale_and_shift(*second[:4], second.eps)
            bias = shift if first.bias is None else first.bias * a + shift
            return [_Sum(first.weight * a[:, None], bias, second.activation, first.dtype)]
        if not isinstance(second, _Sum):
            return None
        if isinstance(first, Channels) and first.activation is None and _near(first) and self._last_axis(first, second.weight.shape[1]):
            return [_of_scaled(second, *scale_and_shift(*first[:4], first.eps))]
        if isinstance(first, RowNorm) and first.weight is not None and first.weight.shape == second.weight.shape[1:]:
            return [first._replace(weight=None, bias=None), _of_scaled(second, first.weight.astype(np.float64), first.bias)]
        return None

    def _last_axis(self, norm, features):
        """Whether a batch norm has the features of a Dense layer as its channels; notes the number of axes that this takes for granted."""
        if len(norm.mean) != features:
            return False
        if norm.axis == -1 or (self.ndim is not None and norm.axis % self.ndim == self.ndim - 1):
            return True
        if norm.axis == 1 and self.ndim is None:
            self.ndim = 2
            return True
        return False


def _near(norm):
    """Whether float32 keeps what a batch norm centres when it is centred last."""
    return not (np.abs(norm.mean) * inverse_deviations(norm.var, norm.eps) > FARTHEST).any()


def _of_scaled(step, a, b):
    """A weighted sum of x * a + b as one of x."""
    bias = step.bias
    if b is not None:
        bias = step.weight @ b.astype(np.float64) + (0 if bias is None else bias)
    return step._replace(weight=step.weight * a, bias=bias)

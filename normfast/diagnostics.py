"""What goes wrong inside a network: variances that differ between training and inference, and units that have no gradient.

>>> import numpy as np
>>> from normfast import diagnostics
>>> from normfast.layers import Dense, Sequential
>>> model = Sequential(Dense(8, 64, activation="tanh", dropout=0.5, rng=0), Dense(64, 64, norm="batch", activation="relu", rng=1))
>>> x = np.random.default_rng(0).standard_normal((1000, 8))
>>> print(diagnostics.saturation(model, 4 * x))
layer       activation  saturated  dead
0.function  tanh        0.197      0
1.norm      relu        0.5        0
>>> print(diagnostics.variance_shift(model, x, rng=0))
layer   kind       training  inference  ratio
1.norm  BatchNorm  0.149     0.0708     2.1
"""

import copy
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from normfast.layers import Activation, BatchNorm, Dropout, Layer
from normfast.layers.norms import Norm
from normfast.ops._arrays import floating
from normfast.ops.activation import activation, activation_backward
from normfast.ops.moments import moments
from normfast.typing import ArrayLike, Rng

__all__ = ["Report", "Saturation", "VarianceShift", "saturation", "variance_shift"]

Row = TypeVar("Row", bound=NamedTuple)


class Report(tuple[Row, ...]):
    """Rows of one kind, one for each layer; printed, they are a table.

    Examples
    --------
    >>> from normfast.diagnostics import Report, Saturation
    >>> report = Report([Saturation("0.function", "tanh", 0.25, 0.0), Saturation("1.function", "relu", 0.5, 0.125)])
    >>> report[1].saturated
    0.5
    >>> print(report)
    layer       activation  saturated  dead
    0.function  tanh        0.25       0
    1.function  relu        0.5        0.125
    """

    def __str__(self) -> str:
        if not self:
            return "(no such layers)"
        cells = [self[0]._fields, *([value if isinstance(value, str) else f"{value:.3g}" for value in row] for row in self)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
        return "\n".join(lines)


class VarianceShift(NamedTuple):
    """The variance of what a norm layer is given, in training and at inference.

    Attributes
    ----------
    layer, kind : str
        Name of the layer as in `state_dict`, and its class.
    training, inference : float
        Variance over the batch, averaged over the channels.
    ratio : float
        training / inference: 1 where nothing shifts.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.diagnostics import variance_shift
    >>> from normfast.layers import BatchNorm, Dropout, Sequential
    >>> x = np.random.default_rng(0).standard_normal((10_000, 2))
    >>> shift = variance_shift(Sequential(Dropout(0.5), BatchNorm(2)), x, rng=0)[0]
    >>> shift.layer, shift.kind, round(shift.ratio, 1)
    ('1', 'BatchNorm', 2.0)
    """

    layer: str
    kind: str
    training: float
    inference: float
    ratio: float


class Saturation(NamedTuple):
    """How many units of an activation have next to no gradient.

    Attributes
    ----------
    layer : str
        Name of the layer that applies the function: an activation, or the batch norm in whose sweep it is.
    activation : str
        Name of the function.
    saturated : float
        Share of the values at which its slope is below the bound.
    dead : float
        Share of the units that are saturated for every sample of the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.diagnostics import saturation
    >>> from normfast.layers import Activation
    >>> row = saturation(Activation("relu"), np.array([[-1.0, 2.0], [-3.0, -4.0]]))[0]
    >>> row.activation, row.saturated, row.dead
    ('relu', 0.75, 0.5)
    """

    layer: str
    activation: str
    saturated: float
    dead: float


def variance_shift(model: Layer, x: ArrayLike, *, rng: Rng = None) -> Report[VarianceShift]:
    """Compare the variance of every norm layer's input in training, with dropout on, and at inference.

    Dropout before a batch norm scales the variance that the norm learns by up to 1 / (1 - p), which is missing at inference.

    Parameters
    ----------
    model : Layer
        It is not changed.
    x : array_like
        A batch, large enough for its variances to be those of the data.
    rng : None, int, SeedSequence or Generator
        Where the masks come from; None leaves that to (copies of) the dropout layers.

    Returns
    -------
    Report of VarianceShift
        A row for each norm layer, in the order of the model.

    References
    ----------
    X. Li et al., Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift, CVPR 2019, arXiv:1801.05134.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.diagnostics import variance_shift
    >>> from normfast.layers import BatchNorm, Dropout, Sequential
    >>> x = np.random.default_rng(0).standard_normal((10_000, 3))
    >>> (shift,) = variance_shift(Sequential(Dropout(0.5), BatchNorm(3)), x, rng=0)
    >>> shift.layer, round(shift.ratio, 1)
    ('1', 2.0)
    """
    model = copy.deepcopy(model)
    generator = None if rng is None else np.random.default_rng(rng)
    seen: dict[tuple[str, str], float] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, Dropout) and generator is not None:
            layer.rng = generator
        elif isinstance(layer, Norm):
            layer.observer = partial(_note_variance, seen, name, layer)
    model.eval()(x)
    inference = dict(seen)
    model.train()(x)
    rows = [(name, kind, seen[name, kind], variance) for (name, kind), variance in inference.items()]
    with np.errstate(divide="ignore", invalid="ignore"):
        return Report(VarianceShift(*row, float(np.divide(*row[2:]))) for row in rows)


def _note_variance(seen, name, norm, x):
    """Keep the variance of x along the axes of the norm's parameters."""
    channels = normalize_axis_tuple(norm.axis, np.ndim(x))
    variances = moments(x, axis=tuple(axis for axis in range(np.ndim(x)) if axis not in channels)).var()
    seen[name, type(norm).__name__] = float(np.mean(variances))


def saturation(model: Layer, x: ArrayLike, *, bound: float = 0.01) -> Report[Saturation]:
    """Share of the units of each activation that have next to no gradient.

    Parameters
    ----------
    model : Layer
        It is not changed, and runs in the mode in which it is: a batch norm uses the statistics of x in training, else the running ones.
    x : array_like
        A batch.
    bound : float
        A unit is saturated for a sample where the slope of its function is below this in absolute value. At 0.01 that is |z| > 4.6 for
        sigmoid and |z| > 3.0 for tanh; for relu it is z <= 0, where its output is 0; a leaky_relu, of slope 0.01, never is.

    Returns
    -------
    Report of Saturation
        A row for each activation, in the order of calls.

    References
    ----------
    X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.diagnostics import saturation
    >>> from normfast.layers import Activation
    >>> saturation(Activation("tanh"), np.array([[0.0, 5.0], [-4.0, 4.0]]))[0]
    Saturation(layer='', activation='tanh', saturated=0.75, dead=0.5)
    """
    model = copy.deepcopy(model)
    rows: dict[str, Saturation] = {}
    for name, layer in model.named_modules():
        function = getattr(layer, "activation", None)
        if function in (None, "identity"):
            continue
        if isinstance(layer, Activation):
            layer.observer = partial(_note_saturation, rows, name, function, bound)
        elif isinstance(layer, BatchNorm):  # takes the function out of the norm's sweep, to see what it is given
            layer.activation = None
            vars(layer)["forward"] = partial(
                _forward_in_two, layer.forward, partial(_note_saturation, rows, name, function, bound), function
            )
    model(x)
    return Report(rows.values())


def _forward_in_two(forward, note, function, x, **options):
    z = forward(x, **options)
    note(z)
    return activation(z, function)


def _note_saturation(rows, name, function, bound, z):
    """Keep the shares of z at which the function is nearly flat."""
    z = floating(z).astype(np.float64)
    flat = np.abs(activation_backward(np.ones_like(z), z, function)) < bound
    label = function if isinstance(function, str) else getattr(function[0], "__name__", "function")
    rows[name] = Saturation(name, label, float(np.mean(flat)), float(np.mean(flat.all(axis=0))))

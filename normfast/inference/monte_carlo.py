"""Monte-Carlo dropout: dropout left on at inference, for a mean and a spread."""

from typing import NamedTuple, SupportsIndex

import numpy as np

from normfast.layers import Dropout
from normfast.layers.base import Layer
from normfast.ops.moments import Moments
from normfast.typing import ArrayLike, Float64Array, Rng


class Prediction(NamedTuple):
    """What `mc_predict` returns.

    Attributes
    ----------
    mean, std : ndarray
        Mean and standard deviation of each output over the passes, float64.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> from normfast.layers import Dropout
    >>> prediction = nf.mc_predict(Dropout(0.5), np.ones((1, 3)), 1000, rng=0)
    >>> prediction.mean.round(1), prediction.std.round(1)
    (array([[1., 1., 1.]]), array([[1., 1., 1.]]))
    """

    mean: Float64Array
    std: Float64Array


def mc_predict(model: Layer, x: ArrayLike, n: SupportsIndex, *, ddof: float = 0, rng: Rng = None) -> Prediction:
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

"""Exact running statistics: those of the inputs that the batch norms meet at inference."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from normfast.layers import BatchNorm
from normfast.layers.base import Layer
from normfast.ops.batch_norm import batch_norm_forward
from normfast.ops.moments import Moments, moments
from normfast.typing import ArrayLike

AnyLayer = TypeVar("AnyLayer", bound=Layer)


def recalibrate(model: AnyLayer, batches: Iterable[ArrayLike], *, ddof: float = 0) -> AnyLayer:
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

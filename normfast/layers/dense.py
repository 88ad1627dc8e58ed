"""The neuron layer: weighted sum, bias, norm, activation and dropout."""

from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from normfast.layers.base import Layer, Parameter
from normfast.layers.dropout import Dropout
from normfast.layers.norms import BatchNorm, LayerNorm, Norm, RMSNorm
from normfast.ops._arrays import floating
from normfast.ops.activation import activation, activation_backward, checked_activation
from normfast.ops.dropout import checked_p
from normfast.typing import Activation as ActivationName
from normfast.typing import Array, ArrayLike, Rng, Writeable

NORMS = {"batch": BatchNorm, "layer": LayerNorm, "rms": RMSNorm}


class Activation(Layer):
    """A non-linear function of each element.

    Parameters
    ----------
    name : str or pair of functions
        As in `activation`: "relu", "gelu", ... or (f, backward) with a = f(z) and dz = backward(da, z).

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import Activation
    >>> Activation("relu")(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def __init__(self, name: ActivationName) -> None:
        checked_activation(name)
        self.activation = name

    @property
    def in_place(self) -> bool:
        """Whether the output may take the place of the input: at inference, and where its sign is all that the backward pass needs."""
        return not self.training or self.activation in ("relu", "leaky_relu")

    def forward(self, x: ArrayLike, *, out: Writeable | None = None) -> Array:
        """f(x)."""
        y = activation(x, self.activation, out=out)
        self._saved = ((y if self.in_place else x),) if self.training else None
        return y

    def backward(self, dy: ArrayLike) -> Array:
        """Gradient of the input, from that of the output."""
        (z,) = self._remembered()
        return activation_backward(dy, z, self.activation)


def wide(array, other):
    """The array in the dtype in which both are multiplied: float32 or wider."""
    return array.astype(np.promote_types(np.promote_types(array.dtype, np.float32), other.dtype), copy=False)


def weighted_sum(x, weight, bias):
    """x @ weight.T + bias."""
    y = wide(x, weight) @ wide(weight, x).T
    if bias is not None:
        y += bias
    return y


def stored_like(y, x):
    """y, in x's dtype where that has 16 bits."""
    return y.astype(x.dtype, copy=False) if x.itemsize == 2 else y


class Dense(Layer):
    """The neuron layer: x @ weight.T + bias, then norm, activation and dropout.

        Parameters
        ----------
        in_features, out_features : int
            Sizes of a sample's input and output, which are the last axis of x and y.
        bias : bool
            Whether a bias is learned.
        norm : {None, "batch", "layer", "rms"} or a norm layer
            The norm between sum and activation, over the last axis: a layer given here needs axis=-1 where x has more than two axes.
        activation : None, str or pair of functions
            The non-linear function, as in `activation`. A batch norm applies it in its own sweep.
        dropout : float or Dropout
            Probability of dropping an output in training, or the layer that drops.
        dtype : dtype
            Of the parameters.
        rng : None, int, SeedSequence or Generator
            Where the initial weights (uniform within 1 / sqrt(in_features), as PyTorch's Linear) and the dropout masks come from.

        Notes
        -----
        With 16-bit x or weights the layer computes in float32; y is of x's dtype where that has 16 bits.

        Examples
        --------
        >>> from typing import Literal

    import numpy as np
    from numpy.typing import DTypeLike
        >>> from normfast.layers import Dense
        >>> layer = Dense(2, 1, activation="relu")
        >>> layer.weight.data[...], layer.bias.data[...] = [[1.0, -1.0]], 0.5
        >>> layer(np.array([[3.0, 1.0], [1.0, 3.0]], np.float32))
        array([[2.5],
               [0. ]], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        norm: Literal["batch", "layer", "rms"] | Norm | None = None,
        activation: ActivationName = None,
        dropout: float | Dropout = 0.0,
        dtype: DTypeLike = np.float32,
        rng: Rng = None,
    ) -> None:
        if not (norm is None or isinstance(norm, Norm)):
            if norm not in tuple(NORMS):
                raise ValueError(f"unknown norm {norm!r}: choose one of {', '.join(map(repr, (None, *NORMS)))}, or give a norm layer")
            norm = NORMS[norm](out_features, dtype=dtype)
            if isinstance(norm, BatchNorm):
                norm.axis = -1
        checked_activation(activation)
        rng = np.random.default_rng(rng)
        bound = in_features**-0.5
        self.weight = Parameter(rng.uniform(-bound, bound, (out_features, in_features)).astype(dtype))
        self.bias = Parameter(rng.uniform(-bound, bound, out_features).astype(dtype)) if bias else None
        self.norm = norm
        self.activation = activation
        self.function = None if activation in (None, "identity") else Activation(activation)
        if isinstance(norm, BatchNorm) and norm.activation is None:
            norm.activation, self.function = activation, None
        self.dropout: Dropout | None = None
        if isinstance(dropout, Dropout):
            self.dropout = dropout
        elif checked_p(dropout):
            self.dropout = Dropout(dropout, rng=rng)

    def forward(self, x: ArrayLike) -> Array:
        """The outputs of the units, of shape (..., out_features)."""
        x, weight = floating(x), self.weight.data
        if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
            raise ValueError(f"x has shape {x.shape}: its last axis must hold the {weight.shape[1]} inputs of the layer")
        y = weighted_sum(x, weight, None if self.bias is None else self.bias.data)
        if self.norm is not None:
            y = self.norm(y, out=None if self.norm.training else y)
        if self.function is not None:
            y = self.function(y, out=y if self.function.in_place else None)
        if self.dropout is not None:
            y = self.dropout(y, out=y if self._drops_in_place() else None)
        self._saved = (x,) if self.training else None
        return stored_like(y, x)

    def _drops_in_place(self):
        """Plain dropout leaves signs or zeros, which is all that a backward pass may look for; a user's function may return its input."""
        return type(self.dropout) is Dropout and not isinstance(self.activation, tuple)

    def backward(self, dy: ArrayLike) -> Array:
        """Gradient of the input, from that of the output."""
        (x,) = self._remembered()
        weight, dy = self.weight.data, floating(dy, "dy")
        if dy.shape != (*x.shape[:-1], len(weight)):
            raise ValueError(f"dy has shape {dy.shape}: an x of shape {x.shape} needs {(*x.shape[:-1], len(weight))}")
        dy = wide(dy, weight)
        for layer in (self.dropout, self.function, self.norm):
            if layer is not None:
                dy = layer.backward(dy)
        rows = dy.reshape(-1, dy.shape[-1])
        self.weight.grad = (rows.T @ wide(x, weight).reshape(-1, x.shape[-1])).astype(weight.dtype, copy=False)
        if self.bias is not None:
            self.bias.grad = rows.sum(axis=0).astype(self.bias.data.dtype, copy=False)
        return stored_like(dy @ wide(weight, dy), x)

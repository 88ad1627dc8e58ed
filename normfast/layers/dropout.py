"""Dropout as layers: what is dropped is drawn anew at each call, and the backward pass drops the same."""

import numpy as np

from normfast.layers.base import Layer
from normfast.ops._foreign import borrowed, writeable
from normfast.ops.alpha_dropout import alpha_dropout_backward, alpha_dropout_forward
from normfast.ops.dropout import DropoutMask, checked_p, dropout_backward, dropout_forward
from normfast.typing import Array, ArrayLike, Axis, Rng, Writeable


class Dropout(Layer):
    """Dropout in training, nothing at inference.

    Parameters
    ----------
    p : float
        Probability of dropping an element.
    always_on : bool
        Whether to drop at inference too (Monte-Carlo dropout, which `mc_predict` turns into a mean and a spread).
    axis : int or tuple of int, optional
        The axes that draw independently, as in `dropout`: axis=(0, 1) drops whole channels of NCHW.
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

    def __init__(self, p: float = 0.5, *, always_on: bool = False, axis: Axis | None = None, rng: Rng = None) -> None:
        self.p, self.always_on, self.axis = checked_p(p), always_on, axis
        self.rng = np.random.default_rng(rng)

    def forward(self, x: ArrayLike, *, out: Writeable | None = None) -> Array:
        """The elements that are kept, scaled; x itself where nothing is dropped."""
        if not (self.training or self.always_on):
            self._saved = (None,)
            values = borrowed(x)
            if out is None or out is x:
                return values
            out = writeable(out)
            out[...] = values
            return out
        y, mask = self._drop(x, out)
        self._saved = (mask,)
        return y

    def backward(self, dy: ArrayLike) -> Array:
        """Gradient of the input, from that of the output."""
        (mask,) = self._remembered()
        return borrowed(dy, "dy") if mask is None else self._drop_backward(dy, mask)

    def _drop(self, x: ArrayLike, out: Writeable | None) -> tuple[Array, DropoutMask]:
        return dropout_forward(x, self.p, rng=self.rng, axis=self.axis, out=out)

    def _drop_backward(self, dy: ArrayLike, mask: DropoutMask) -> Array:
        return dropout_backward(dy, mask)


class AlphaDropout(Dropout):
    """Alpha dropout in training, nothing at inference: it keeps mean 0 and variance 1, for networks of SELU units.

    Parameters
    ----------
    p, always_on, rng
        As in `Dropout`.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import AlphaDropout
    >>> x = np.random.default_rng(0).standard_normal((1000, 1000))
    >>> y = AlphaDropout(0.3, rng=0)(x)
    >>> float(abs(y.mean())) < 0.01, float(abs(y.var() - 1)) < 0.01
    (True, True)
    """

    def __init__(self, p: float = 0.5, *, always_on: bool = False, rng: Rng = None) -> None:
        super().__init__(p, always_on=always_on, rng=rng)

    def _drop(self, x: ArrayLike, out: Writeable | None) -> tuple[Array, DropoutMask]:
        return alpha_dropout_forward(x, self.p, rng=self.rng, out=out)

    def _drop_backward(self, dy: ArrayLike, mask: DropoutMask) -> Array:
        return alpha_dropout_backward(dy, mask)

"""Alpha dropout (Klambauer et al. 2017): dropped elements get SELU's lowest value, and mean 0 and variance 1 are kept."""

from typing import Any, SupportsIndex

import numpy as np

from normfast import engines
from normfast.ops._arrays import DOUBLE, apart, checked_out, floating
from normfast.ops._pieces import Staged, split
from normfast.ops.dropout import DropoutMask, checked_p, dropout_backward, mask_for
from normfast.typing import Array, ArrayLike, Rng, Writeable

LOWEST = -1.7580993408473766  # what SELU tends to, -lambda * alpha
PIECE = 1 << 14  # elements at a time, so that what is in between stays in the cache


def alpha_dropout(
    x: ArrayLike,
    p: float = 0.5,
    *,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    offset: SupportsIndex = 0,
    out: Writeable | None = None,
) -> Array:
    """Set elements to SELU's lowest value with probability p, then scale and shift all so that mean 0 and variance 1 are kept.

    Parameters
    ----------
    x : array_like, float16, bfloat16, float32 or float64
        Of any shape and strides.
    p : float in [0, 1]
        Probability of dropping. 0 returns x bit for bit, 1 zeros, also for infinite x.
    rng, mask, offset
        As in `dropout`: the same key gives the same mask.
    out : ndarray, optional
        Of x's shape and dtype; takes y. It may be x itself or overlap it.

    Returns
    -------
    ndarray
        y, of x's shape and dtype: `out` if that was given. With q = 1 - p and lowest = -1.758 it is a * x + b where x is kept and
        a * lowest + b elsewhere, with a = 1 / sqrt(q + lowest**2 * q * p) and b = -a * p * lowest.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong type, shape or range; nothing is written then.

    References
    ----------
    G. Klambauer et al., Self-Normalizing Neural Networks, NeurIPS 2017, arXiv:1706.02515.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> from normfast.ops.alpha_dropout import alpha_dropout
    >>> alpha_dropout(np.zeros(4), 0.5, mask=[True, True, False, False]).round(4)
    array([ 0.7792,  0.7792, -0.7792, -0.7792])
    """
    return alpha_dropout_forward(x, p, rng=rng, mask=mask, offset=offset, out=out)[0]


def alpha_dropout_forward(
    x: ArrayLike,
    p: float = 0.5,
    *,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    offset: SupportsIndex = 0,
    out: Writeable | None = None,
) -> tuple[Array, DropoutMask]:
    """As `alpha_dropout`, and the mask that `alpha_dropout_backward` needs.

    Returns
    -------
    y : ndarray
    mask : DropoutMask

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.ops.alpha_dropout import alpha_dropout_forward
    >>> x = np.random.default_rng(0).standard_normal(100_000)
    >>> y, mask = alpha_dropout_forward(x, 0.2, rng=0)
    >>> float(abs(y.mean())) < 0.02, float(abs(y.var() - 1)) < 0.02
    (True, True)
    """
    x = floating(x)
    out = checked_out(out, x)
    mask = mask_for(x, checked_p(p), rng, mask, None, offset)
    x = apart(x, out)
    y = np.empty(x.shape, x.dtype) if out is None else out
    _drop(x, mask, y)
    return y, mask


def alpha_dropout_backward(dy: ArrayLike, mask: DropoutMask, *, out: Writeable | None = None) -> Array:
    """Gradient of `alpha_dropout` with respect to x, from the gradient dy of y: a * dy where x was kept, else 0.

    Parameters
    ----------
    dy : array_like, float16, bfloat16, float32 or float64
        Of the shape that was dropped from.
    mask : DropoutMask
        What `alpha_dropout_forward` returned.
    out : ndarray, optional
        Of dy's shape and dtype; takes dx.

    Returns
    -------
    ndarray
        dx, of dy's shape and dtype: `out` if that was given.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.ops.alpha_dropout import alpha_dropout_backward, alpha_dropout_forward
    >>> y, mask = alpha_dropout_forward(np.zeros(2), 0.5, mask=[True, False])
    >>> alpha_dropout_backward(np.ones(2), mask).round(4)
    array([0.8864, 0.    ])
    """
    if not isinstance(mask, DropoutMask):
        raise TypeError(f"mask must be the DropoutMask that alpha_dropout_forward returned, got {type(mask).__name__}")
    return dropout_backward(dy, _ScaledByA(mask.p, mask.shape, key=mask.key, offset=mask.offset, axis=mask.axis, given=mask.given), out=out)


class _ScaledByA(DropoutMask):
    """The mask, whose kept elements are multiplied by a."""

    __slots__ = ()

    @property
    def scale(self):
        return affine(self.p)[0]


def affine(p):
    """The factor a and the shift b of alpha dropout; 0 where all is dropped."""
    if p == 1.0:
        return 0.0, 0.0
    a = ((1.0 - p) * (1.0 + LOWEST**2 * p)) ** -0.5
    return a, -a * p * LOWEST


def _drop(x, mask, y):
    """Fill y from x, in float64, piece by piece."""
    if mask.p == 1.0 or (mask.p == 0.0 and mask.given is None):
        y[...] = x if mask.p == 0.0 else 0.0
        return
    a, b = affine(mask.p)
    drawn = mask.given is None and mask.drawn_shape == mask.shape
    keep: Any = None if drawn else mask.toarray()
    pieces = split(x.shape, PIECE) if x.size else []
    source, target = (Staged(array, range(x.ndim), DOUBLE, pieces) for array in (x, y))
    flags, position = np.empty(min(x.size, PIECE), bool), mask.offset
    for piece in pieces:
        run, result = source.load(piece), target.place(piece)
        kept = flags[: run.size] if drawn else keep[(*piece, ...)].reshape(-1)
        if drawn:
            engines.current().keep(mask.words(), position, mask.threshold, kept)
        with np.errstate(over="ignore"):
            result[...] = np.where(kept, a * run + b, a * LOWEST + b)
            target.keep(piece, result)
        position += run.size

"""What takes each value by itself: activations and dropout; and the residual connection's dropout, sum and norm of a row."""

import math

import numpy as np

from normfast.engines.numba.kernels import activations, residual
from normfast.engines.numba.kernels import dropout as drops
from normfast.engines.numba.primitives import cast, chunk
from normfast.kernels.dropout import DRAWS
from normfast.numba._rows import layer_norm_backward
from normfast.numba._runs import bytes_of, compiled, fits, given, space
from normfast.ops.dropout import scale_of, threshold_of

PART = 1024  # values of a run that are in the first cache for every step of an activation
SPACE = DRAWS + DRAWS // 8 + 64

_scale_of, _threshold_of = compiled(scale_of), compiled(threshold_of)


@compiled
def activation(z, code, a):
    """An activation of a run: a = f(z).

    Parameters
    ----------
    z : 1-D array, float32 or float64
    code : int
        One of this module's RELU, LEAKY_RELU, SIGMOID, TANH, GELU, SILU, SOFTPLUS; IDENTITY copies.
    a : 1-D array of z's size
        Takes the result; it may be z.

    Raises
    ------
    ValueError
        If a has not the size of z; nothing is written then.

    See Also
    --------
    normfast.activation : the same of a whole array, and what the functions are.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> a = np.empty(3)
    >>> nfn.activation(np.array([-2.0, 0.0, 3.0]), nfn.RELU, a)
    >>> a
    array([0., 0., 3.])
    """
    if not fits(z, a):
        raise ValueError("a must have the size of z")
    for lo in range(0, z.size, PART):
        hi = min(lo + PART, z.size)
        activations.activate(chunk(z, lo, hi), hi - lo, code, chunk(a, lo, hi))


@compiled
def activation_backward(da, z, code, dz):
    """Gradient of `activation` of a run: dz = da * f'(z).

    Parameters
    ----------
    da, z : 1-D array, float32 or float64
        Gradient of the loss with respect to a, and the values of the forward call; of the same size.
    code : int
        That of the forward call.
    dz : 1-D array of z's size
        Takes the result; it may be z, not da.

    Raises
    ------
    ValueError
        For arrays of another size than z's; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> dz = np.empty(3)
    >>> nfn.activation_backward(np.ones(3), np.array([-2.0, 0.0, 3.0]), nfn.LEAKY_RELU, dz)
    >>> dz
    array([0.01, 0.01, 1.  ])
    """
    if not (fits(z, da) and fits(z, dz)):
        raise ValueError("da and dz must have the size of z")
    if code == activations.IDENTITY:
        for j in range(z.size):
            dz[j] = da[j]
        return
    for lo in range(0, z.size, PART):
        hi = min(lo + PART, z.size)
        activations.activate_gradient(chunk(da, lo, hi), chunk(z, lo, hi), hi - lo, code, chunk(dz, lo, hi))


@compiled
def dropout(x, p, key, offset, y):
    """Dropout of a run, forward and backward: y = x / (1 - p) where the element is kept, else 0, also for infinite x and NaN.

    Parameters
    ----------
    x : 1-D array, float32 or float64, contiguous
        Values; backward the gradient with respect to y.
    p : float in [0, 1]
        Probability of dropping.
    key : 1-D array of 4 uint64
        `mask.words()` of a `normfast.DropoutMask`; for a seed s, `np.random.SeedSequence(s).generate_state(4).astype(np.uint64)`.
    offset : int
        Position of the first element in the stream of the key, 0 or more: row i of n values begins at i * n.
    y : 1-D array of x's size, contiguous
        Takes the result; it may be x.

    Raises
    ------
    ValueError
        If y has not the size of x, or the key not 4 words; nothing is written then.

    Notes
    -----
    Which elements are kept is what `normfast.dropout` with this key keeps, bit for bit. Draws come by blocks of 4096: a run of 768 values
    makes one or two of them for itself, so it is cheaper to take several rows as one run, `x.reshape(-1)[lo:hi]`.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> from normfast import numba as nfn
    >>> x, y = np.ones(10), np.empty(10)
    >>> nfn.dropout(x, 0.5, np.random.SeedSequence(7).generate_state(4).astype(np.uint64), 0, y)
    >>> bool((y == nf.dropout(x, 0.5, rng=7)).all())
    True
    """
    if not fits(x, y) or key.size != 4:
        raise ValueError("y must have the size of x, and the key 4 words")
    if p >= 1.0:
        for j in range(y.size):
            y[j] = 0.0
    elif x.size > 0:
        draws = space(SPACE, np.uint8(0))
        words = bytes_of(draws, np.uint32(0))
        drops.dropout_run(x, x.size, key, offset, np.uint32(_threshold_of(p)), cast(_scale_of(p), x[0]), words, draws, y, False, y)


@compiled
def dropout_add_layer_norm(x, residual_row, p, key, offset, weight, bias, eps, h, y):
    """A row of h = dropout(x) + residual and y, the layer norm of h.

    Parameters
    ----------
    x, residual_row : 1-D array, float32 or float64, contiguous
        Of the same size.
    p, key, offset
        As in `dropout`.
    weight, bias, eps
        As in `layer_norm`.
    h : 1-D array of x's size, contiguous
        Takes the sum; it may be x or the residual.
    y : 1-D array of x's size, contiguous
        Takes the norm; memory of its own, since it holds bits before.

    Returns
    -------
    mean, rstd : float
        As of `layer_norm`, those of h.

    Raises
    ------
    ValueError
        For arrays of another size than x's, or a key that has not 4 words; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> x, h, y = np.array([1.0, 2.0, 3.0]), np.empty(3), np.empty(3)
    >>> statistics = nfn.dropout_add_layer_norm(x, x, 0.0, np.zeros(4, np.uint64), 0, None, None, 0.0, h, y)
    >>> h, y.round(4)
    (array([2., 4., 6.]), array([-1.2247,  0.    ,  1.2247]))
    """
    if not (fits(x, residual_row) and fits(x, weight) and fits(x, bias) and fits(x, h) and fits(x, y)) or key.size != 4:
        raise ValueError("residual, weight, bias, h and y must have the size of x, and the key 4 words")
    n = x.size
    if n == 0:
        return math.nan, math.nan
    draws, kept = space(SPACE, np.uint8(0)), bytes_of(y, np.uint32(0))
    words = bytes_of(draws, np.uint32(0))
    mean, rstd, var = space(1, np.float64(0.0)), space(1, np.float64(0.0)), space(1, np.float64(0.0))
    like = x[0]
    threshold, scale = np.uint32(_threshold_of(p)), cast(_scale_of(p), like)
    residual.add_norm_rows(
        x, residual_row, p > 0.0, key, offset, threshold, scale, words, draws, kept, given(weight, cast(1.0, like)),
        given(bias, cast(0.0, like)), n, eps, True, h, y, mean, rstd, var, 0, 1, False, y, y,
    )  # fmt: skip
    return mean[0], rstd[0]


@compiled
def dropout_add_layer_norm_backward(dy, h, mean, rstd, p, key, offset, weight, dresidual, dx, dweight, dbias):
    """Gradients of `dropout_add_layer_norm` of a row.

    Parameters
    ----------
    dy, h : 1-D array, float32 or float64, contiguous
        Gradient of the loss with respect to y, and the sum of the forward call; of the same size.
    mean, rstd : float
        What the forward call returned.
    p, key, offset, weight
        Those of the forward call.
    dresidual, dx : 1-D array of dy's size, contiguous
        Take the gradients with respect to the residual and to x.
    dweight, dbias
        As in `layer_norm_backward`: added to.

    Raises
    ------
    ValueError
        For arrays of another size than h's, or a key that has not 4 words; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast import numba as nfn
    >>> h, dh, dx, dweight, dbias = np.array([1.0, 2.0, 4.0]), np.empty(3), np.empty(3), np.zeros(3), np.zeros(3)
    >>> mean, rstd = nfn.layer_norm(h, None, None, 1e-5, np.empty(3))
    >>> dy, key = np.array([1.0, 0.0, 0.0]), np.zeros(4, np.uint64)
    >>> nfn.dropout_add_layer_norm_backward(dy, h, mean, rstd, 0.0, key, 0, None, dh, dx, dweight, dbias)
    >>> dx.round(4)
    array([ 0.2291, -0.3436,  0.1145])
    """
    if not fits(h, dx) or key.size != 4:
        raise ValueError("dx must have the size of h, and the key 4 words")
    layer_norm_backward(dy, h, mean, rstd, weight, dresidual, dweight, dbias)
    dropout(dresidual, p, key, offset, dx)

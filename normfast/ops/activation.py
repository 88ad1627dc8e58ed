"""The non-linear functions of a neuron: relu, leaky_relu, sigmoid, tanh, gelu, silu, softplus, or a user's own pair."""

import numpy as np

from normfast import engines
from normfast.kernels import activations as codes
from normfast.ops._arrays import apart, checked_out, computing, floating, same_shape, shown
from normfast.ops._pieces import Staged, elementwise, split
from normfast.typing import Activation, Array, ArrayLike, Writeable

CODES = {
    "relu": codes.RELU,
    "leaky_relu": codes.LEAKY_RELU,
    "sigmoid": codes.SIGMOID,
    "tanh": codes.TANH,
    "gelu": codes.GELU,
    "silu": codes.SILU,
    "softplus": codes.SOFTPLUS,
}
ACTIVATIONS = (None, "identity", *CODES)


def checked_activation(activation):
    """The code of a named function (None is the identity), or the pair of functions as it is."""
    if activation is None or (isinstance(activation, str) and activation == "identity"):
        return codes.IDENTITY
    if isinstance(activation, tuple) and len(activation) == 2 and all(map(callable, activation)):
        return activation
    if not isinstance(activation, str):
        raise TypeError(f"activation must be a name or a pair of functions (forward, backward), got {shown(activation)}")
    if activation not in CODES:
        raise ValueError(
            f"unknown activation {shown(activation)}: choose one of {', '.join(map(repr, ACTIVATIONS))} or give a pair of functions"
        )
    return CODES[activation]


def activation(z: ArrayLike, name: Activation, *, out: Writeable | None = None) -> Array:
    """Apply an activation function: a = f(z).

    Parameters
    ----------
    z : array_like, float16, bfloat16, float32 or float64
        Of any shape and strides.
    name : str, None or pair of functions
        None or "identity"; "relu"; "leaky_relu" (slope 0.01 below zero); "sigmoid"; "tanh"; "gelu" (z times the normal distribution
        function, by erf); "silu" (z times sigmoid, also called swish); "softplus"; or (f, backward) with a = f(z), dz = backward(da, z).
    out : ndarray, optional
        Of z's shape and dtype; takes a. It may be z itself.

    Returns
    -------
    ndarray
        Of z's shape and dtype: `out` if that was given.

    References
    ----------
    D. Hendrycks, K. Gimpel, Gaussian Error Linear Units, arXiv:1606.08415 (2016); S. Elfwing et al., arXiv:1702.03118 (2017) (silu).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.activation(np.array([-2.0, 0.0, 3.0]), "relu")
    array([0., 0., 3.])
    """
    z, code = floating(z, "z"), checked_activation(name)
    out = checked_out(out, z)
    z = apart(z, out)
    result = np.empty(z.shape, z.dtype) if out is None else out
    if code == codes.IDENTITY:
        result[...] = z
        return result
    pieces = elementwise(z, result)
    source, target = (Staged(array, range(z.ndim), computing(z.dtype), pieces) for array in (z, result))
    for piece in pieces:
        a = target.place(piece)
        run_activation(source.load(piece), code, a)
        target.keep(piece, a)
    return result


def activation_backward(da: ArrayLike, z: ArrayLike, name: Activation, *, out: Writeable | None = None) -> Array:
    """Gradient of `activation` with respect to z, from the gradient da of a: da * f'(z).

    Parameters
    ----------
    da, z : array_like
        Gradient of the loss with respect to a, and the input of the forward call; of the same shape.
    name : str, None or pair of functions
        As in `activation`. The derivative of relu and leaky_relu at 0 is that of the left side.
    out : ndarray, optional
        Of z's shape and dtype; takes dz. It may be da or z themselves or overlap them.

    Returns
    -------
    ndarray
        dz, of z's shape and dtype.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.activation_backward(np.ones(3), np.array([-2.0, 0.0, 3.0]), "leaky_relu")
    array([0.01, 0.01, 1.  ])
    """
    z, code = floating(z, "z"), checked_activation(name)
    da = same_shape(da, z, "da")
    out = checked_out(out, z)
    da, z = apart(da, out), apart(z, out)
    shared = out is not None and np.may_share_memory(da, out)  # a kernel may write dz over z, but not over da
    result = np.empty(z.shape, z.dtype) if out is None else out
    if code == codes.IDENTITY:
        result[...] = da
        return result
    pieces = split(z.shape) if shared and z.size else elementwise(da, z, result)
    gradient, source, target = (Staged(array, range(z.ndim), computing(z.dtype), pieces) for array in (da, z, result))
    for piece in pieces:
        run, dz = source.load(piece, own=shared), target.place(piece)
        run_activation_backward(gradient.load(piece), run, code, run if shared else dz)
        if shared:
            dz[...] = run
        target.keep(piece, dz)
    return result


def code_of(activation):
    """The code that a kernel applies: a pair of functions comes after it."""
    return codes.IDENTITY if isinstance(activation, tuple) else activation


def run_own(activation, run):
    """Apply a user's own function to a run, in place; what has a code a kernel has applied."""
    if isinstance(activation, tuple):
        run[...] = activation[0](run)


def run_activation(z, activation, a):
    """a = f(z) on a run; a may be z."""
    if isinstance(activation, tuple):
        a[...] = activation[0](z)
    else:
        engines.current().activate(z, activation, a)


def run_activation_backward(da, z, activation, dz):
    """dz = da * f'(z) on a run; dz may be z."""
    if isinstance(activation, tuple):
        dz[...] = activation[1](da, z)
    else:
        engines.current().activate_gradient(da, z, activation, dz)

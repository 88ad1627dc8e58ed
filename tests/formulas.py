"""The operations as plain NumPy, for any real or complex dtype: in longdouble they are the exact results of `operations.py`.

They share nothing with the package.
"""

import functools

import numpy as np


def magnitude(x):
    """|x| as an analytic function."""
    return np.where(x.real < 0, -x, x)


@functools.lru_cache(16)
def kummer(values, dtype):
    """erf by Kummer's series, whose terms have one sign, and its derivative; kept: all complex steps of a gradient ask for the same."""
    x, n = np.frombuffer(values, dtype), 0
    term = total = x
    while np.abs(term).max() > 1e-21:
        n += 1
        term = term * 2 * x * x / (2 * n + 1)
        total = total + term
    slope = np.exp(-x * x) * 2 / np.sqrt(np.longdouble("3.14159265358979323846264338327950288"))
    return slope * total, slope


def erf(x):
    """The imaginary part is a complex step's."""
    value, slope = (part.reshape(x.shape) for part in kummer(x.real.tobytes(), x.real.dtype))
    return value + (1j * x.imag * slope if np.iscomplexobj(x) else 0)


ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": lambda z: np.where(z.real > 0, z, 0),
    "leaky_relu": lambda z: np.where(z.real > 0, z, z * np.longdouble(0.01)),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "gelu": lambda z: z * (1 + erf(z * np.sqrt(np.longdouble(0.5)))) / 2,
    "silu": lambda z: z / (1 + np.exp(-z)),
    "softplus": lambda z: np.log(1 + np.exp(z)),
}


def normalized(x, axes, *, eps=1e-5, ord=2, where=True, centred=True):
    """(x - mean) / sqrt(var + eps) over the axes, of the entries where the mask is True."""
    count = np.broadcast_to(where, x.shape).sum(axis=axes, keepdims=True)
    mean = np.where(where, x, 0).sum(axis=axes, keepdims=True) / count if centred else 0
    d = np.where(where, x - mean, 0)
    if ord == 2:
        var = (d * d).sum(axis=axes, keepdims=True) / count
    elif ord == 1:
        var = (magnitude(d).sum(axis=axes, keepdims=True) / count) ** 2
    else:
        var = magnitude(d).max(axis=axes, keepdims=True) ** 2
    return d / np.sqrt(var + np.longdouble(eps))


def along(parameter, x, axes):
    """The parameter in a shape that broadcasts with x."""
    return np.reshape(parameter, [size if axis in axes else 1 for axis, size in enumerate(x.shape)])


def affine(xhat, weight, bias, axes, *, where=True, activation="identity"):
    z = xhat * along(weight, xhat, axes) + (0 if bias is None else along(bias, xhat, axes))
    return np.where(where, ACTIVATIONS[activation](z), 0)


def lp_normalized(x, ord):
    if ord == np.inf:
        return x / magnitude(x).max(axis=-1, keepdims=True)
    return x / (magnitude(x) ** ord).sum(axis=-1, keepdims=True) ** (1 / np.longdouble(ord))


def weighted_moments(x, axis, weights):
    """Mean and variance, where the weights have x's shape."""
    mean = (weights * x).sum(axis=axis, keepdims=True) / weights.sum(axis=axis, keepdims=True)
    return mean.squeeze(axis), (weights * (x - mean) ** 2).sum(axis=axis) / weights.sum(axis=axis)

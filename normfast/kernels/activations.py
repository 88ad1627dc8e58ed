"""The non-linear functions of a neuron and their derivatives, on runs; transcendental ones are computed in float64.

The forms are those that neither cancel nor overflow: erfc in place of 1 + erf, exp(-|z|) in place of exp(z).
"""

from normfast.kernels.primitives import *

RELU = 1
LEAKY_RELU = 2
SIGMOID = 3
TANH = 4
GELU = 5
SILU = 6
SOFTPLUS = 7
SLOPE = 0.01  # of leaky relu below zero, PyTorch's default
ROOT_HALF = 0.7071067811865476
DENSITY = 0.3989422804014327  # of the normal distribution at 0


def activate(z, n, code, a):
    """a = f(z)."""
    if code == RELU:
        for j in range(n):
            a[j] = cast(0.0, z[j]) if z[j] < 0.0 else z[j]
    elif code == LEAKY_RELU:
        slope = cast(SLOPE, z[0])
        for j in range(n):
            a[j] = z[j] * slope if z[j] < 0.0 else z[j]
    elif code == SIGMOID:
        for j in range(n):
            a[j] = sigmoid(1.0 * z[j])
    elif code == TANH:
        for j in range(n):
            a[j] = tanh(1.0 * z[j])
    elif code == GELU:
        for j in range(n):
            a[j] = 0.5 * z[j] * erfc(-ROOT_HALF * z[j])
    elif code == SILU:
        for j in range(n):
            a[j] = z[j] * sigmoid(1.0 * z[j])
    elif code == SOFTPLUS:
        for j in range(n):
            a[j] = max(1.0 * z[j], 0.0) + log1p(exp(-abs(1.0 * z[j]))) if z[j] == z[j] else 1.0 * z[j]


def activate_gradient(da, z, n, code, dz):
    """dz = da * f'(z)."""
    if code == RELU:
        for j in range(n):
            dz[j] = da[j] if z[j] > 0.0 else cast(0.0, z[j])
    elif code == LEAKY_RELU:
        slope = cast(SLOPE, z[0])
        for j in range(n):
            dz[j] = da[j] if z[j] > 0.0 else da[j] * slope
    elif code == SIGMOID:
        for j in range(n):
            dz[j] = da[j] * bell(1.0 * z[j])
    elif code == TANH:
        for j in range(n):
            dz[j] = da[j] * 4.0 * bell(2.0 * z[j])
    elif code == GELU:
        for j in range(n):
            dz[j] = da[j] * (0.5 * erfc(-ROOT_HALF * z[j]) + z[j] * DENSITY * exp(-0.5 * z[j] * z[j]))
    elif code == SILU:
        for j in range(n):
            dz[j] = da[j] * (sigmoid(1.0 * z[j]) + z[j] * bell(1.0 * z[j]))
    elif code == SOFTPLUS:
        for j in range(n):
            dz[j] = da[j] * sigmoid(1.0 * z[j])


def sigmoid(z):
    """1 / (1 + exp(-z))."""
    e = exp(-abs(z))
    return 1.0 / (1.0 + e) if z >= 0.0 else e / (1.0 + e)


def bell(z):
    """The derivative of the sigmoid, sigmoid(z) * (1 - sigmoid(z))."""
    e = exp(-abs(z))
    return e / ((1.0 + e) * (1.0 + e))

"""Networks that the tests of layers and of inference share."""

import numpy as np

from normfast.layers import BatchNorm, Dense, Dropout, LayerNorm, Sequential

SQUARE = (lambda z: z * z, lambda da, z: 2 * da * z)
NAMED = ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "softplus", "identity"]
F64 = {"dtype": np.float64}


def model(dtype=np.float64, dropout=0.0):
    return Sequential(
        Dense(6, 9, norm="batch", activation="relu", dropout=dropout, dtype=dtype, rng=1),
        Dense(9, 7, norm="layer", activation="relu", dtype=dtype, rng=2),
        Dense(7, 5, bias=False, dtype=dtype, rng=3),
        BatchNorm(5, dtype=dtype),
        Dropout(dropout, rng=4),
        LayerNorm(5, dtype=dtype),
        Dense(5, 3, dtype=dtype, rng=5),
    )


def shaken(net, rng):
    """The net with parameters that are neither 0 nor 1."""
    for parameter in net.parameters():
        parameter.data += 0.3 * rng.standard_normal(parameter.data.shape)
    return net

"""Every kernel as a function that your own `@njit` code calls, on a row, a group or a channel, without the GIL.

The arithmetic is that of the engines (`normfast/kernels`), compiled into your function: rows stay in the first cache between your
steps and these. Arrays are float32 or float64; each function says which must be contiguous, all work on what is. Arguments are positional,
in the order of inputs, statistics, parameters, results; `None` stands for a weight or bias that there is none of. Nothing is allocated.

>>> import numpy as np
>>> from numba import njit, prange
>>> from normfast import numba as nfn
>>> @njit(parallel=True, nogil=True)
... def normalized(x, y):
...     for i in prange(len(x)):
...         nfn.layer_norm(nfn.row(x, i), None, None, 1e-5, nfn.row(y, i))
>>> y = np.empty((100, 64), np.float32)
>>> normalized(np.random.default_rng(0).normal(1e4, 1, (100, 64)).astype(np.float32), y)
>>> bool(abs(y.mean()) < 1e-6)
True
"""

from normfast.extras import needed

needed("numba", "numba", "normfast.numba")

from normfast.kernels.activations import GELU, IDENTITY, LEAKY_RELU, RELU, SIGMOID, SILU, SOFTPLUS, TANH
from normfast.numba._channels import (
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
)
from normfast.numba._moments import merge, moments, row
from normfast.numba._rows import layer_norm, layer_norm_backward, lp_norm, lp_norm_backward, rms_norm, rms_norm_backward
from normfast.numba._values import (
    activation,
    activation_backward,
    dropout,
    dropout_add_layer_norm,
    dropout_add_layer_norm_backward,
)

__all__ = [
    "GELU",
    "IDENTITY",
    "LEAKY_RELU",
    "RELU",
    "SIGMOID",
    "SILU",
    "SOFTPLUS",
    "TANH",
    "activation",
    "activation_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "dropout",
    "dropout_add_layer_norm",
    "dropout_add_layer_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "lp_norm",
    "lp_norm_backward",
    "merge",
    "moments",
    "rms_norm",
    "rms_norm_backward",
    "row",
]

"""Layers with state, forward and backward by hand, under PyTorch's names: a PyTorch `state_dict` loads as it is.

A layer is called on a batch and remembers, in training, what its backward pass needs; `backward` takes the gradient of its output, puts
the gradients of its parameters into their `grad` and returns the gradient of its input.

>>> import numpy as np, normfast as nf
>>> from normfast.layers import Dense, Sequential
>>> model = Sequential(Dense(4, 8, norm="batch", activation="relu", rng=0), Dense(8, 2, rng=1))
>>> x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
>>> model(x).shape
(16, 2)
>>> model.backward(np.ones((16, 2), np.float32)).shape
(16, 4)
>>> sorted(model.state_dict())[:4]
['0.bias', '0.norm.bias', '0.norm.num_batches_tracked', '0.norm.running_mean']
"""

from normfast.layers.base import Layer, Parameter, Sequential, load_state
from normfast.layers.dense import Activation, Dense
from normfast.layers.dropout import AlphaDropout, Dropout
from normfast.layers.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm

__all__ = [
    "Activation",
    "AlphaDropout",
    "BatchNorm",
    "Dense",
    "Dropout",
    "GroupNorm",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "Parameter",
    "RMSNorm",
    "Sequential",
    "load_state",
]

"""normfast: the fastest and most accurate normalization and dropout on a CPU, for NumPy arrays.

>>> import numpy as np, normfast as nf
>>> x = np.random.default_rng(0).normal(1e4, 1, (4, 768)).astype(np.float32)
>>> y = nf.layer_norm(x)
>>> bool(abs(y.mean()) < 1e-6)
True
"""

from importlib import import_module

from normfast.config import show_config
from normfast.engines import set_engine, use_engine
from normfast.engines.threads import get_num_threads, set_num_threads, threads
from normfast.ops._stats import NormStats
from normfast.ops.batch_norm import batch_norm, batch_norm_backward, batch_norm_forward, update_running
from normfast.ops.dropout import DropoutMask, dropout, dropout_backward, dropout_forward
from normfast.ops.layer_norm import NormGradients, layer_norm, layer_norm_backward, layer_norm_forward
from normfast.ops.moments import Moments, moments

__all__ = [
    "DropoutMask",
    "Moments",
    "NormGradients",
    "NormStats",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "dropout",
    "dropout_backward",
    "dropout_forward",
    "get_num_threads",
    "inference",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "layers",
    "moments",
    "set_engine",
    "set_num_threads",
    "show_config",
    "threads",
    "update_running",
    "use_engine",
]

__version__ = "0.1.0"


def __getattr__(name):
    if name in ("inference", "layers"):  # imported when first used
        return import_module(f"normfast.{name}")
    raise AttributeError(f"module 'normfast' has no attribute {name!r}")

"""normfast: the fastest and most accurate normalization and dropout on a CPU, for NumPy arrays.

>>> import numpy as np, normfast as nf
>>> x = np.random.default_rng(0).normal(1e4, 1, (4, 768)).astype(np.float32)
>>> y = nf.layer_norm(x)
>>> bool(abs(y.mean()) < 1e-6)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING

from normfast import _interpreter as _interpreter  # before NumPy
from normfast.config import get_include, show_config
from normfast.engines import set_engine, use_engine
from normfast.engines.threads import get_num_threads, set_num_threads, threads
from normfast.ops._stats import InputGradient, NormGradients, NormStats
from normfast.ops.activation import activation, activation_backward
from normfast.ops.alpha_dropout import alpha_dropout, alpha_dropout_backward, alpha_dropout_forward
from normfast.ops.batch_norm import batch_norm, batch_norm_backward, batch_norm_forward, update_running
from normfast.ops.bias_activation_dropout import (
    BiasGradients,
    bias_activation_dropout,
    bias_activation_dropout_backward,
    bias_activation_dropout_forward,
)
from normfast.ops.covariance import Covariance, covariance
from normfast.ops.dropout import DropoutMask, dropout, dropout_backward, dropout_forward
from normfast.ops.fused import (
    AddNorm,
    DropoutAddNorm,
    DropoutAddNormGradients,
    DropoutAddRMSNormGradients,
    add_layer_norm,
    add_layer_norm_backward,
    add_layer_norm_forward,
    add_rms_norm,
    add_rms_norm_backward,
    add_rms_norm_forward,
    dropout_add_layer_norm,
    dropout_add_layer_norm_backward,
    dropout_add_layer_norm_forward,
    dropout_add_rms_norm,
    dropout_add_rms_norm_backward,
    dropout_add_rms_norm_forward,
)
from normfast.ops.group_norm import (
    group_norm,
    group_norm_backward,
    group_norm_forward,
    instance_norm,
    instance_norm_backward,
    instance_norm_forward,
)
from normfast.ops.layer_norm import layer_norm, layer_norm_backward, layer_norm_forward
from normfast.ops.lp_norm import lp_norm, lp_norm_backward, lp_norm_forward
from normfast.ops.mean_variance_norm import (
    mean_variance_norm,
    mean_variance_norm_backward,
    mean_variance_norm_forward,
)
from normfast.ops.moments import Moments, moments
from normfast.ops.rms_norm import RMSNormGradients, rms_norm, rms_norm_backward, rms_norm_forward
from normfast.ops.sequences import sequence_mask

__all__ = [
    "AddNorm",
    "BiasGradients",
    "Covariance",
    "DropoutAddNorm",
    "DropoutAddNormGradients",
    "DropoutAddRMSNormGradients",
    "DropoutMask",
    "InputGradient",
    "Moments",
    "NormGradients",
    "NormStats",
    "RMSNormGradients",
    "activation",
    "activation_backward",
    "add_layer_norm",
    "add_layer_norm_backward",
    "add_layer_norm_forward",
    "add_rms_norm",
    "add_rms_norm_backward",
    "add_rms_norm_forward",
    "alpha_dropout",
    "alpha_dropout_backward",
    "alpha_dropout_forward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "bias_activation_dropout",
    "bias_activation_dropout_backward",
    "bias_activation_dropout_forward",
    "covariance",
    "diagnostics",
    "dropout",
    "dropout_add_layer_norm",
    "dropout_add_layer_norm_backward",
    "dropout_add_layer_norm_forward",
    "dropout_add_rms_norm",
    "dropout_add_rms_norm_backward",
    "dropout_add_rms_norm_forward",
    "dropout_backward",
    "dropout_forward",
    "fuse",
    "get_include",
    "get_num_threads",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "inference",
    "instance_norm",
    "instance_norm_backward",
    "instance_norm_forward",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "layers",
    "lp_norm",
    "lp_norm_backward",
    "lp_norm_forward",
    "mc_predict",
    "mean_variance_norm",
    "mean_variance_norm_backward",
    "mean_variance_norm_forward",
    "moments",
    "preprocessing",
    "pruning",
    "recalibrate",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
    "sequence_mask",
    "set_engine",
    "set_num_threads",
    "show_config",
    "stream",
    "threads",
    "update_running",
    "use_engine",
]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from normfast import diagnostics, inference, layers, preprocessing, pruning, stream
    from normfast.fusing import fuse
    from normfast.inference import mc_predict, recalibrate
else:

    def __getattr__(name):
        if name in ("diagnostics", "inference", "layers", "preprocessing", "pruning", "stream"):  # imported when first used
            return import_module(f"normfast.{name}")
        if name in ("mc_predict", "recalibrate"):
            return getattr(import_module("normfast.inference"), name)
        if name == "fuse":
            return import_module("normfast.fusing").fuse
        raise AttributeError(f"module 'normfast' has no attribute {name!r}")

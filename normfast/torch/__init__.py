"""PyTorch on a CPU with normfast's norms and dropout: functions, modules, and `accelerate`, which swaps those of a whole model.

>>> import torch
>>> from normfast.torch import accelerate
>>> layer = torch.nn.TransformerEncoderLayer(64, 4, batch_first=True)
>>> model = accelerate(torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
>>> y = model(torch.randn(8, 10, 64))
"""

from normfast.extras import needed

needed("torch", "torch", "normfast.torch")

from normfast.torch.accelerate import accelerate, restore  # noqa: E402
from normfast.torch.attention import MultiheadAttention  # noqa: E402
from normfast.torch.dropouts import alpha_dropout, dropout  # noqa: E402
from normfast.torch.fused import dropout_add_layer_norm, dropout_add_rms_norm  # noqa: E402
from normfast.torch.modules import (  # noqa: E402
    AlphaDropout,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Dropout,
    DropoutAddLayerNorm,
    DropoutAddRMSNorm,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from normfast.torch.norms import batch_norm, group_norm, instance_norm, layer_norm, rms_norm  # noqa: E402
from normfast.torch.sync_batch_norm import SyncBatchNorm  # noqa: E402

__all__ = [
    "AlphaDropout",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Dropout",
    "DropoutAddLayerNorm",
    "DropoutAddRMSNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "MultiheadAttention",
    "RMSNorm",
    "SyncBatchNorm",
    "accelerate",
    "alpha_dropout",
    "batch_norm",
    "dropout",
    "dropout_add_layer_norm",
    "dropout_add_rms_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "restore",
    "rms_norm",
]

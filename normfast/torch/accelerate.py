"""A model's modules swapped for normfast's, in place, and back."""

from torch import nn

from normfast.torch import attention, modules

SWAPS = {
    nn.LayerNorm: modules.LayerNorm,
    nn.RMSNorm: modules.RMSNorm,
    nn.GroupNorm: modules.GroupNorm,
    nn.BatchNorm1d: modules.BatchNorm1d,
    nn.BatchNorm2d: modules.BatchNorm2d,
    nn.BatchNorm3d: modules.BatchNorm3d,
    nn.InstanceNorm1d: modules.InstanceNorm1d,
    nn.InstanceNorm2d: modules.InstanceNorm2d,
    nn.InstanceNorm3d: modules.InstanceNorm3d,
    nn.Dropout: modules.Dropout,
    nn.AlphaDropout: modules.AlphaDropout,
    nn.MultiheadAttention: attention.MultiheadAttention,
}


def accelerate(model):
    """Let a model's norms, dropouts and attentions compute by normfast, in place.

    A module's class alone changes: parameters, buffers, hooks, flags and the names in `state_dict` are what they were. Modules of other
    types, also of types derived from PyTorch's, stay as they are, and on a GPU the modules compute as before.

    Parameters
    ----------
    model : torch.nn.Module
        Any model, or a single module.

    Returns
    -------
    torch.nn.Module
        The same model.

    Raises
    ------
    TypeError
        For what is no module.

    See Also
    --------
    restore : the way back.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import accelerate, restore
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Dropout(0.1))
    >>> type(accelerate(model)[1])
    <class 'normfast.torch.modules.LayerNorm'>
    >>> type(restore(model)[1])
    <class 'torch.nn.modules.normalization.LayerNorm'>
    """
    return _swapped(model, SWAPS)


def restore(model):
    """Put PyTorch's own modules back in their places; the inverse of `accelerate`, with the same parameters and buffers.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import Dropout, restore
    >>> restore(Dropout(0.1))
    Dropout(p=0.1, inplace=False)
    """
    return _swapped(model, {ours: theirs for theirs, ours in SWAPS.items()})


def _swapped(model, table):
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model is a torch.nn.Module, got {type(model).__name__}")
    for module in model.modules():
        module.__class__ = table.get(type(module), type(module))
    return model

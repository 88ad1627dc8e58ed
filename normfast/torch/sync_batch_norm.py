"""Batch norm over the samples of all processes of a group, on CPUs, which `torch.nn.SyncBatchNorm` refuses."""

from typing import Any

import torch
import torch.distributed as distributed
from torch import nn
from torch.autograd.function import once_differentiable

from normfast.mpi import steps
from normfast.mpi.communicators import GroupRanks
from normfast.torch import norms
from normfast.torch.arrays import array, result_of, tensor_of
from normfast.torch.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, _BatchNorm

CONVERTED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d)


class SyncBatchNorm(_BatchNorm):
    """`torch.nn.SyncBatchNorm` for tensors on the CPU and process groups of gloo.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype
        As in `torch.nn.BatchNorm1d`.
    process_group : ProcessGroup, optional
        Whose processes hold the batch; None stands for the default group.

    Notes
    -----
    In training a call sends one message and its backward pass another, as `normfast.mpi.SyncBatchNorm` does; every process must make both,
    also one without samples. The gradients of weight and bias are those of the own samples, which `DistributedDataParallel` averages.
    Without a process group, of one process, and in `eval()` it is batch norm of the own samples.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import SyncBatchNorm
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    >>> type(SyncBatchNorm.convert_sync_batchnorm(model)[1])
    <class 'normfast.torch.sync_batch_norm.SyncBatchNorm'>
    """

    def __init__(
        self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, process_group=None, device=None, dtype=None
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.process_group = process_group

    @classmethod
    def convert_sync_batchnorm(cls, module, process_group=None):
        """Let all batch norms of a model, PyTorch's or normfast's, take the samples of all processes, in place; returns the model."""
        for own in module.modules():
            if type(own) in CONVERTED:
                own.__class__, own.process_group = cls, process_group
        return module

    def _check_input_dim(self, input):
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")

    def _normalize(self, input, running_mean, running_var, batch, momentum):
        together = self.training and distributed.is_available() and distributed.is_initialized()
        if not (together and distributed.get_world_size(self.process_group) > 1):
            return super()._normalize(input, running_mean, running_var, batch, momentum)
        group = distributed.group.WORLD if self.process_group is None else self.process_group
        y, mean, var, count = synchronized(input, self.weight, self.bias, GroupRanks(group), self.num_features, self.eps)
        if count < 2:
            raise ValueError(f"expected more than 1 value per channel in training, got {count} on all processes together")
        if running_mean is not None:
            norms.update_running(running_mean, running_var, mean, var, count, momentum)
        return y


@torch.compiler.disable
def synchronized(x, weight, bias, ranks, channels, eps):
    """y, and mean, variance and number of all values of each channel."""
    known: list[Any] = []
    y = Synchronized.apply(x, weight, bias, ranks, channels, eps, known)
    (stats,) = known
    return y, tensor_of(stats.mean), tensor_of(stats.var), int(stats.count[0])


class Synchronized(torch.autograd.Function):
    """The forward and backward pass; the statistics go to the list `known`."""

    @staticmethod
    def forward(ctx, x, weight, bias, ranks, channels, eps, known):
        y = result_of(x, "batch_norm")
        _, stats = steps.forward(ranks, channels, array(x), array(weight), array(bias), eps=eps, out=array(y))
        ctx.save_for_backward(x, weight)
        ctx.ranks, ctx.channels, ctx.stats = ranks, channels, stats
        known.append(stats)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dx = torch.empty_like(x)
        arrays = array(dy), array(x), ctx.stats, array(weight)
        _, dweight, dbias = steps.backward(ctx.ranks, ctx.channels, *arrays, out=array(dx), sum_gradients=False)
        parameters = (tensor_of(dweight), tensor_of(dbias)) if weight is not None else (None, None)
        return dx, *parameters, None, None, None, None

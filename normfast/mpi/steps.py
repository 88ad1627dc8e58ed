"""Batch norm over the samples of all ranks, forward and backward: local sweeps, and one message in between."""

import numpy as np

from normfast.mpi.failures import jointly
from normfast.ops._arrays import checked_eps
from normfast.ops._share import Share


def forward(ranks, channels, x, weight, bias, *, axis=1, eps=1e-5, activation=None, where=None, out=None):
    """y of this rank's samples, and the `NormStats` of those of all ranks."""

    def prepare():
        checked_eps(eps)
        share = Share(x, weight, bias, channels=channels, axis=axis, activation=activation, where=where, out=out)
        return share, share.moments()

    share, moments = jointly(ranks, prepare, ranks.merge, np.tile([0.0, 0.0, 0.0, 1.0], (channels, 1)))
    return share.normalize(moments, eps)


def backward(ranks, channels, dy, x, stats, weight, *, bias=None, axis=1, activation=None, where=None, out=None, sum_gradients=True):
    """The `NormGradients` of this rank's samples; dweight and dbias of those of all ranks, or of its own with sum_gradients=False."""

    def prepare():
        share = Share(x, weight, bias, channels=channels, axis=axis, activation=activation, where=where, out=out, dy=dy)
        sums = share.sums(stats)
        return (share, sums), sums

    (share, own), sums = jointly(ranks, prepare, ranks.add, np.zeros((2, channels)))
    return share.gradient(sums, None if sum_gradients else own)

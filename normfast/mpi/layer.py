"""Batch norm over the samples of all ranks."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from normfast.layers import BatchNorm
from normfast.mpi.communicators import ranks_of
from normfast.mpi.failures import alike
from normfast.mpi.steps import backward, forward
from normfast.ops._stats import NormGradients, NormStats
from normfast.typing import Activation, Array, ArrayLike


class SyncBatchNorm(BatchNorm):
    """Batch normalization of the samples of all ranks as one batch: `normfast.layers.BatchNorm` in a data-parallel job.

    Parameters
    ----------
    num_features : int
        Number of channels.
    comm : None, communicator of mpi4py, process group of torch.distributed or "torch.distributed"
        Whose ranks hold the batch. None stands for `mpi4py.MPI.COMM_WORLD`, the string for PyTorch's default process group (gloo).
    eps, momentum, affine, axis, activation, ddof, dtype
        As in `normfast.layers.BatchNorm`, and the same on all ranks.
    sum_gradients : bool
        Whether the gradients of weight and bias are those of the whole batch, the same on every rank. False leaves each rank its part of
        these sums, as PyTorch does, for a loop that adds up the gradients of all parameters alike.

    Raises
    ------
    ValueError
        On all ranks, if their layers differ.
    ModuleNotFoundError
        For comm=None without mpi4py.

    Notes
    -----
    All ranks construct the layer, call it and its `backward` together, each with its own samples: any number, also none. In training
    a call sends one message, an Allreduce of the moments of the channels, and `backward` another, of the sums of their gradients;
    at inference there is none. Wrong input on one rank raises the same error on all of them. Where PyTorch's `state_dict` fits
    `BatchNorm`, it fits here.

    Examples
    --------
    A program for `mpiexec -n 3 python program.py`, whose ranks have 5, 0 and 11 samples; `docs/mpi.md` has a whole training loop. Here one
    rank runs it:

    >>> import subprocess, sys
    >>> program = '''
    ... from mpi4py import MPI
    ... import numpy as np
    ... from normfast.mpi import SyncBatchNorm
    ...
    ... layer = SyncBatchNorm(64)
    ... x = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
    ... own = np.split(x, [5, 5])[MPI.COMM_WORLD.rank] if MPI.COMM_WORLD.size == 3 else x
    ... y = layer(own)  # as normfast.layers.BatchNorm(64) makes it of all 16
    ... dx = layer.backward(np.ones_like(y))
    ... print(y.shape, dx.shape)
    ... '''
    >>> print(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip())
    (16, 64) (16, 64)
    """

    def __init__(
        self,
        num_features: int,
        comm: Any = None,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        axis: int = 1,
        activation: Activation = None,
        ddof: int = 1,
        dtype: DTypeLike = np.float32,
        sum_gradients: bool = True,
    ) -> None:
        self.ranks = ranks_of(comm)
        super().__init__(num_features, eps=eps, momentum=momentum, affine=affine, axis=axis, activation=activation, ddof=ddof, dtype=dtype)
        self.num_features, self.sum_gradients = num_features, sum_gradients
        own = {name: getattr(self, name) for name in ("num_features", "eps", "momentum", "axis", "ddof", "sum_gradients")}
        named = activation if isinstance(activation, str) else type(activation).__name__
        alike(self.ranks, own | {"affine": affine, "activation": named, "dtype": str(np.dtype(dtype))})

    def _forward(self, x: ArrayLike, weight: Any, bias: Any, *, ord: float, **options: Any) -> tuple[Array, NormStats]:
        return forward(self.ranks, self.num_features, x, weight, bias, **options)

    def _backward(self, dy: ArrayLike, x: ArrayLike, stats: NormStats, weight: Any, *, ord: float, **options: Any) -> NormGradients:
        return backward(self.ranks, self.num_features, dy, x, stats, weight, sum_gradients=self.sum_gradients, **options)

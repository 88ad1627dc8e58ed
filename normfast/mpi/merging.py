"""Moments and covariances of all ranks, merged in a fixed tree."""

from typing import Any, TypeVar

from normfast.mpi.communicators import ranks_of
from normfast.mpi.failures import KINDS, reported
from normfast.ops.covariance import Covariance
from normfast.ops.moments import MAGIC, Moments

Mergeable = TypeVar("Mergeable", Moments, Covariance)


def all_moments(m: Mergeable, comm: Any = None) -> Mergeable:
    """The moments of the values of all ranks together, the same bits on every rank.

    Parameters
    ----------
    m : Moments or Covariance
        Those of this rank's values, which may be none; of the same kind and shape on all ranks.
    comm : None, communicator of mpi4py, process group of torch.distributed or "torch.distributed"
        As in `SyncBatchNorm`.

    Returns
    -------
    Moments or Covariance
        What `Moments.merge` or `Covariance.merge` makes of those of all ranks in their order, to the bit: MPI's own reductions leave
        open how they bracket.

    Raises
    ------
    TypeError, ValueError
        On all ranks, if one has something else than moments or covariances, or their shapes differ.

    Notes
    -----
    All ranks call it together. Neighbours merge, then neighbours of these, and rank 0 passes the result on: log2(ranks) messages each way,
    each as long as `m.to_bytes()`, and never more than two of these in memory.

    Examples
    --------
    A program for `mpiexec -n 3 python program.py`, each of whose ranks has a part of the data; here one rank runs it:

    >>> import subprocess, sys
    >>> program = '''
    ... import numpy as np, normfast as nf
    ... from mpi4py import MPI
    ... from normfast.mpi import all_moments
    ...
    ... x = np.random.default_rng(MPI.COMM_WORLD.rank).normal(size=(1000, 3))
    ... m = all_moments(nf.moments(x, axis=0))  # of the rows of all parts
    ... print(m.count // MPI.COMM_WORLD.size)
    ... '''
    >>> print(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip())
    1000
    """
    ranks, step = ranks_of(comm), 1
    message = _packed(m)
    while step < ranks.size:
        if ranks.rank % (2 * step):
            ranks.send(message, ranks.rank - step)
            break
        if ranks.rank + step < ranks.size:
            message = _together(message, ranks.receive(ranks.rank + step))
        step *= 2
    message = ranks.broadcast(message)
    if not isinstance(message, bytes):
        kind, text = message
        raise KINDS[kind](text)
    return _unpacked(message)


def _packed(m):
    """The bytes of moments; kind and text of an error where there are none."""
    if isinstance(m, (Moments, Covariance)):
        return m.to_bytes()
    return "TypeError", f"m must be Moments or a Covariance on every rank, got {type(m).__name__}"


def _unpacked(message):
    return (Moments if message.startswith(MAGIC) else Covariance).from_bytes(message)


def _together(first, second):
    """Two messages as one: an error stays one, and what does not merge becomes one."""
    for message in (first, second):
        if not isinstance(message, bytes):
            return message
    try:
        return _packed(_unpacked(first) + _unpacked(second))
    except (TypeError, ValueError) as error:
        return reported(error)

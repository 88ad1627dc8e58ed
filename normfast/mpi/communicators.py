"""Who takes part: the ranks of an MPI communicator or of a process group of PyTorch, under one set of methods."""

import sys
import weakref
from collections.abc import Callable
from functools import cache

import numpy as np

from normfast.extras import needed
from normfast.mpi.failures import abort_on_uncaught
from normfast.ops._share import merge_moments
from normfast.ops._statistics import merged_in_a_tree
from normfast.typing import Float64Array

TAG = 28262  # of messages between two ranks, so that none of the program's own is taken for one


class Ranks:
    """What both have: each message ends in a number that tells how many ranks failed before they could send."""

    rank: int
    size: int
    _merge: Callable[[Float64Array], Float64Array]
    _add: Callable[[Float64Array], Float64Array]

    def merge(self, moments, failed):
        """The moments (c, 4) of all ranks together, the same bits on each, and whether a rank failed: one message."""
        total = self._merge(np.vstack([moments, [1.0, failed, 0.0, 1.0]]))
        return total[:-1], total[-1, 1] > 0  # the mean of the flags

    def add(self, sums, failed):
        """The sums of all ranks together, the same bits on each, and whether a rank failed: one message."""
        total = self._add(np.append(sums, float(failed)))
        return total[:-1].reshape(sums.shape), total[-1] > 0


class MPIRanks(Ranks):
    """The ranks of a communicator of mpi4py."""

    def __init__(self, comm):
        if not comm or comm.Is_inter():
            raise ValueError("comm must be an intracommunicator that this rank is in")
        self.comm, self.rank, self.size = comm, comm.Get_rank(), comm.Get_size()
        if self.size > 1:
            abort_on_uncaught()

    def _merge(self, packed):
        unit, operation = _merging()
        self.comm.Allreduce(_mpi().IN_PLACE, [packed, len(packed), unit], op=operation)
        return packed

    def _add(self, packed):
        self.comm.Allreduce(_mpi().IN_PLACE, packed, op=_mpi().SUM)
        return packed

    def gather(self, thing):
        """A thing of every rank, in their order, on every rank."""
        return self.comm.allgather(thing)

    def send(self, thing, rank):
        """To one rank, which receives it."""
        self.comm.send(thing, rank, TAG)

    def receive(self, rank):
        """What one rank sent."""
        return self.comm.recv(source=rank, tag=TAG)

    def broadcast(self, thing):
        """Rank 0's thing, on every rank."""
        return self.comm.bcast(thing)

    def __reduce__(self):
        if self.comm != _mpi().COMM_WORLD:
            raise TypeError("a communicator of your own cannot be pickled: save the layer's state_dict()")
        return ranks_of, (None,)

    def __deepcopy__(self, memo):
        return self


class GroupRanks(Ranks):
    """The ranks of a process group of `torch.distributed`.

    They do not keep it: a group of gloo that outlives `destroy_process_group` ends its process by `terminate called without an active
    exception` at exit, in one run of three.
    """

    def __init__(self, group):
        self._group, self.distributed = weakref.ref(group), _distributed()
        self.rank, self.size = self.distributed.get_rank(group), self.distributed.get_world_size(group)
        if self.distributed.get_backend(group) == "nccl":
            raise ValueError("the process group has the backend nccl, which takes GPU tensors alone: make one with gloo")

    @property
    def group(self):
        """The process group, while there is one."""
        group = self._group()
        if group is None:
            raise RuntimeError("the process group is no more: make the layer anew, after init_process_group")
        return group

    def _merge(self, packed):
        # gloo has no operations of one's own: all parts come here and are merged in the order of the ranks
        torch = sys.modules["torch"]
        parts = torch.empty((self.size, *packed.shape), dtype=torch.float64)
        self.distributed.all_gather(list(parts.unbind()), torch.from_numpy(packed), group=self.group)
        return merged_in_a_tree(list(parts.numpy()), merge_moments)

    def _add(self, packed):
        self.distributed.all_reduce(sys.modules["torch"].from_numpy(packed), group=self.group)
        return packed

    def gather(self, thing):
        """A thing of every rank, in their order, on every rank."""
        things = [None] * self.size
        self.distributed.all_gather_object(things, thing, group=self.group)
        return things

    def send(self, thing, rank):
        """To one rank, which receives it."""
        self.distributed.send_object_list([thing], group=self.group, group_dst=rank)

    def receive(self, rank):
        """What one rank sent."""
        things = [None]
        self.distributed.recv_object_list(things, group=self.group, group_src=rank)
        return things[0]

    def broadcast(self, thing):
        """Rank 0's thing, on every rank."""
        things = [thing]
        self.distributed.broadcast_object_list(things, group=self.group, group_src=0)
        return things[0]

    def __reduce__(self):
        if self.group is not self.distributed.group.WORLD:
            raise TypeError("a process group of your own cannot be pickled: save the layer's state_dict()")
        return ranks_of, ("torch.distributed",)

    def __deepcopy__(self, memo):
        return self


def ranks_of(comm):
    """The ranks of a communicator, by what it is: None stands for `MPI.COMM_WORLD`, "torch.distributed" for the default process group."""
    if comm is None:
        return MPIRanks(_mpi().COMM_WORLD)
    if isinstance(comm, Ranks):
        return comm
    if hasattr(comm, "Allreduce"):
        return MPIRanks(comm)
    if isinstance(comm, str) and comm == "torch.distributed":
        if not _distributed().is_initialized():
            raise ValueError('there is no default process group: call torch.distributed.init_process_group("gloo") first')
        return GroupRanks(_distributed().group.WORLD)
    if "torch" in sys.modules and comm is not None and hasattr(_distributed(), "ProcessGroup"):
        if comm == _distributed().GroupMember.NON_GROUP_MEMBER:
            raise ValueError("this process is not in the process group")
        if isinstance(comm, _distributed().ProcessGroup):
            return GroupRanks(comm)
    kinds = 'a communicator of mpi4py, a process group of torch.distributed, "torch.distributed" or None'
    raise TypeError(f"comm must be {kinds}, got {type(comm).__name__}")


@cache
def _mpi():
    needed("mpi4py", "mpi", "normfast.mpi with comm=None")
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        raise ImportError("mpi4py finds no MPI library: pip install mpich, or install one by your system") from None
    return MPI


def _distributed():
    return needed("torch.distributed", "torch", 'normfast.mpi with comm="torch.distributed"')


@cache
def _merging():
    """The type of the moments of a channel, which MPI never divides, and the operation that merges many of them in the order of ranks."""

    def merge(lower, upper, _):
        lower, upper = (np.frombuffer(memory, np.float64).reshape(-1, 4) for memory in (lower, upper))
        upper[...] = merge_moments(lower, upper)

    return _mpi().DOUBLE.Create_contiguous(4).Commit(), _mpi().Op.Create(merge, commute=False)

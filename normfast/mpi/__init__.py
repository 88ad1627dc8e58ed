"""Batches and data sets that lie in many processes: MPI's, by mpi4py, or those of `torch.distributed`, by gloo.

The library is imported when a communicator of its kind is asked for.
"""

from normfast.mpi.layer import SyncBatchNorm
from normfast.mpi.merging import all_moments

__all__ = ["SyncBatchNorm", "all_moments"]

"""What a synchronized batch norm costs beside a local one, and MPI's own Allreduce of as many bytes: rows for docs/mpi.md.

mpiexec -n 3 python -m normfast.benchmarks.ranks
"""

import time

import numpy as np

import normfast as nf
from normfast.extras import needed
from normfast.layers import BatchNorm
from normfast.mpi import SyncBatchNorm, all_moments

CALLS = 300


def median(call, comm):
    """Microseconds of a call that all ranks make together: the median on rank 0."""
    times = []
    for _ in range(CALLS):
        comm.Barrier()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * np.median(times[CALLS // 10 :])


def row(channels, mpi):
    """The times for 16 samples of so many channels on each rank."""
    comm = mpi.COMM_WORLD
    x = np.random.default_rng(comm.rank).normal(size=(16, channels)).astype(np.float32)
    alone, together = BatchNorm(channels), SyncBatchNorm(channels)
    moments, message = nf.moments(x, axis=0), np.zeros(4 * (channels + 1))
    calls = (
        lambda: (alone(x), alone.backward(x)),
        lambda: (together(x), together.backward(x)),
        lambda: together(x),
        lambda: together.backward(x),
        lambda: comm.Allreduce(mpi.IN_PLACE, message),
        lambda: all_moments(moments),
    )
    return [median(call, comm) for call in calls]


def main():
    nf.set_num_threads(1)
    mpi = needed("mpi4py.MPI", "mpi", "the benchmark of ranks")
    rows = [(channels, *row(channels, mpi)) for channels in (64, 2048)]
    if mpi.COMM_WORLD.rank == 0:
        for channels, *times in rows:
            print(f"| {mpi.COMM_WORLD.size} | {channels} | " + " | ".join(f"{time:.0f} us" for time in times) + " |")


if __name__ == "__main__":
    main()

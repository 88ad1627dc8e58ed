"""Messages between processes on this machine, by MPI: their latency and bandwidth, and moments reduced by the steps of `scale_simulation`.

The processes run this file: `mpiexec -n 2 python -m normfast.benchmarks.scale_mpi`.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

import normfast as nf
from normfast.benchmarks.scale_measures import line
from normfast.benchmarks.scale_simulation import PROGRAMS

SIZES = (8, 1 << 10, 1 << 16, 1 << 20, 1 << 23)  # of messages, in bytes
REDUCED = (64, 1024, 16384)  # columns of moments that are reduced over processes
HOWS = ("doubling", "tree")  # programs that pass whole states on
SUM = "MPI_Allreduce, sum"
SETTINGS = {  # a core for each process, and Open MPI may start more processes than there are cores
    "OMP_NUM_THREADS": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}  # fmt: skip


class Messages(NamedTuple):
    """Of so many processes: fitted latency and bandwidth, seconds of one way by bytes, and of reductions by (how, columns)."""

    ranks: int
    library: str
    latency: float
    bandwidth: float
    one_way: dict
    reduced: dict


def mpiexec():
    """The command that starts processes, beside this Python or on the path; None where it or mpi4py is missing."""
    if find_spec("mpi4py") is None:
        return None
    return shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def messages(ranks, repeats=200, timeout=300):
    """Run this file on so many processes."""
    command = [mpiexec(), "-n", str(ranks), sys.executable, "-m", __spec__.name, str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | SETTINGS)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    one_way = {int(size): value for size, value in found["one_way"].items()}
    reduced = {(how, columns): value for how, columns, value in found["reduced"]}
    latency, slope = line((SIZES[0], one_way[SIZES[0]]), (SIZES[-1], one_way[SIZES[-1]]))
    return Messages(ranks, found["library"], latency, 1 / slope if slope else np.inf, one_way, reduced)


def reduce_moments(comm, m, how):
    """The moments of all ranks by the steps of a program, merged in the order of the ranks: every rank has the same bits."""
    data = m.to_bytes()
    buffer = bytearray(len(data))
    for step in PROGRAMS[how](comm.rank, comm.size, len(data)):
        sending = comm.Isend(m.to_bytes(), step.to) if step.to is not None else None
        if step.source is not None:
            comm.Recv(buffer, step.source)
            other = nf.Moments.from_bytes(bytes(buffer))
            m = other if not step.work else other + m if step.source < comm.rank else m + other
        if sending is not None:
            sending.Wait()
    return m


def shortest(comm, call, repeats):
    """The shortest time of a call until the last process has its result, and that result."""
    best, result = np.inf, None
    for _ in range(repeats):
        comm.Barrier()
        start = time.perf_counter()
        result = call()
        best = min(best, max(comm.allgather(time.perf_counter() - start)))
    return best, result


def ball(comm, buffer):
    """To the other process and back."""
    if comm.rank == 0:
        comm.Send(buffer, 1)
        comm.Recv(buffer, 1)
    elif comm.rank == 1:
        comm.Recv(buffer, 0)
        comm.Send(buffer, 0)


def reductions(comm, columns, repeats):
    """Seconds of each way to reduce moments of so many columns; ArithmeticError unless all ranks have the moments of the whole."""
    x = np.random.default_rng(0).normal(1000, 1, (8 * comm.size, columns))
    own, whole = nf.moments(x[8 * comm.rank : 8 * comm.rank + 8], 0), nf.moments(x, 0)
    for how in HOWS:
        best, result = shortest(comm, functools.partial(reduce_moments, comm, own, how), repeats)
        same = len(set(comm.allgather(result.to_bytes()))) == 1 and result.count == len(x)
        if not (same and np.allclose(result.mean, whole.mean, rtol=1e-14) and np.allclose(result.m2, whole.m2, rtol=1e-9)):
            raise ArithmeticError(f"{how} on {comm.size} ranks: the moments are not those of the whole")
        yield how, columns, best
    packed = np.frombuffer(own.to_bytes())
    yield SUM, columns, shortest(comm, functools.partial(comm.Allreduce, packed, np.empty_like(packed)), repeats)[0]


def on_ranks(repeats):
    """What every process does; the first prints what was measured."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    one_way = {size: shortest(comm, functools.partial(ball, comm, np.zeros(size, np.uint8)), repeats)[0] / 2 for size in SIZES}
    reduced = [row for columns in REDUCED for row in reductions(comm, columns, repeats)]
    if comm.rank == 0:
        print(
            json.dumps(
                {
                    "library": " ".join(MPI.Get_library_version().splitlines()[0].partition(", package")[0].split()),
                    "one_way": one_way,
                    "reduced": reduced,
                }
            )
        )


if __name__ == "__main__":
    on_ranks(int(sys.argv[1]) if len(sys.argv) > 1 else 200)

"""A rank dies between two calls of a layer: `mpiexec -n 3 python tests/mpi_deaths.py mpi exception`, run by test_mpi.py."""

import os
import signal
import sys

import numpy as np
from mpi_cases import started

from normfast.mpi import SyncBatchNorm

WAYS = {
    "exception": lambda: 1 / 0,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "silent": lambda: os._exit(0),
    "sys.exit": lambda: sys.exit(4),
}


def main(kind, way):
    comm = None
    if kind == "gloo":
        started()
        comm = "torch.distributed"
    layer = SyncBatchNorm(3, comm)
    for step in range(1000):
        layer(np.ones((4, 3), np.float32))
        if step == 5 and layer.ranks.rank == layer.ranks.size - 1:
            WAYS[way]()
    print("nobody noticed")


if __name__ == "__main__":
    main(*sys.argv[1:])

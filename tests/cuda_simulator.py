"""The simulator's blocks with threads that take turns, and shared arrays that exist once.

Numba's own gives each thread of a block one of the system's, and looks at every one in turn until all of them wait (a reduction over 64
threads: 0.3 s). Greenlets hand over to one another only at a barrier, at the cost of a call. The order in which they come to it is drawn
anew for every round, so that a kernel that lacks a barrier gives other results.
"""

import random
import sys

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda
from numba.cuda import types
from numba.cuda.np.numpy_support import as_dtype
from numba.cuda.simulator import kernel, kernelapi


class Thread(greenlet):
    """In place of `BlockThread`; `threading.current_thread()` of the simulator's functions is the greenlet that runs."""

    def __init__(self, function, block, point, shape):
        super().__init__(function)
        self.blockIdx, self.threadIdx = kernelapi.Dim3(*block), kernelapi.Dim3(*point)
        self.thread_id = point[0] + shape[0] * (point[1] + shape[1] * point[2])

    def syncthreads(self):
        self.parent.switch()


def run(manager, grid_point, *arguments):
    """In place of `BlockManager.run`."""

    def function():
        with np.errstate(all="ignore"):  # a GPU does not warn
            manager._f(*arguments)

    threads = [Thread(function, grid_point, point, manager._block_dim) for point in np.ndindex(*manager._block_dim)]
    order = random.Random(0)
    while threads:
        order.shuffle(threads)
        for thread in threads:
            thread.switch()  # until it comes to a barrier, or to its end; what it raises is raised here
        threads = [thread for thread in threads if not thread.dead]


def numpy_dtype(dtype):
    return as_dtype(dtype) if isinstance(dtype, types.Type) else dtype


def shared_array(shared, shape, dtype):
    frame = sys._getframe(1)  # one array for each line of the source, as Numba's own
    key = frame.f_code, frame.f_lineno
    if key not in shared._allocations:
        shared._allocations[key] = np.empty(shape, numpy_dtype(dtype))
    return shared._allocations[key]


class Threading:
    """What the simulator's functions ask of the module of this name while a kernel runs."""

    current_thread = staticmethod(getcurrent)


def install():
    """Put these in the place of Numba's."""
    launch, lent = kernel.FakeCUDAKernel.__call__, []

    def call(function, *arguments):
        """In place of `FakeCUDAKernel.__call__`, which takes locks to lend a function's module the kernel's `cuda` for the call alone."""
        running = kernel._kernel_context
        if running:
            scope = function.fn.__globals__
            if scope["cuda"] is not running:
                lent.append(scope)
                scope["cuda"] = running
            return function.fn(*arguments)
        try:
            launch(function, *arguments)
        finally:
            while lent:
                lent.pop()["cuda"] = cuda

    kernelapi.threading = Threading
    kernel.FakeCUDAKernel.__call__ = call
    kernel.BlockManager.run = run
    kernelapi.FakeCUDAShared.array = shared_array

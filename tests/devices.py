"""Arrays on a device for the tests of the cuda engine, on a GPU and in Numba's simulator, which keeps them in the memory of the host."""

import numpy as np
from numba import cuda

from normfast.engines.cuda.arrays import SIMULATED, DeviceArray
from normfast.engines.cuda.callers import Caller, lies_on_device


class Lent:
    """An array of a library that nobody knows, over values that were copied to the device: it has `__cuda_array_interface__` alone."""

    def __init__(self, values, stream=None, read_only=False):
        self.words = np.array(values, order="K").view(np.uint16) if values.dtype.name == "bfloat16" else np.array(values, order="K")
        self.dtype, self.stream, self.read_only = values.dtype, stream, read_only
        self.memory = cuda.to_device(self.words) if not SIMULATED else None

    @property
    def __cuda_array_interface__(self):
        typestr = "<V2" if self.dtype.name == "bfloat16" else self.dtype.str
        memory = self.words.__array_interface__ if SIMULATED else self.memory.__cuda_array_interface__
        address = memory["data"][0]
        strides = self.words.strides if SIMULATED else self.memory.strides
        return {
            "shape": self.words.shape, "typestr": typestr, "data": (address, self.read_only), "strides": strides, "version": 3,
            "stream": self.stream,
        }  # fmt: skip


def put(values):
    """A device array of these values: Numba's, or for bfloat16, which Numba does not have, a `Lent`."""
    values = np.asarray(values)
    return Lent(values) if values.dtype.name == "bfloat16" else cuda.to_device(values)


def got(result):
    """What an operation returned, as NumPy arrays: a device array, or a tuple with some."""
    if isinstance(result, tuple):
        values = [got(value) for value in result]
        return type(result)(*values) if hasattr(result, "_fields") else tuple(values)
    if not isinstance(result, DeviceArray) and not lies_on_device(result):
        return result
    with Caller(result) as caller:
        return caller.to_host(caller.enter(result, "result"))

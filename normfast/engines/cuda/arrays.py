"""An array on a device, as the engine hands it on: its memory as kernels take it, where it lies, and whether it overlaps another.

Numba's arrays are what kernels take. Floats of 16 bits change hands as uint16, since Numba has no bfloat16 everywhere; `dtype` says which
they are.
"""

import ctypes
import math

import numpy as np
from numba import cuda

from normfast.engines.cuda import dlpack
from normfast.engines.cuda.primitives import SIMULATED

HALVES = ("float16", "bfloat16")


class DeviceArray:
    """An array on a device: `memory`, Numba's view of it, as kernels take it; `owner`, what its library calls it.

    Results for callers whose library is not known are of this class: it offers `__cuda_array_interface__` and DLPack.
    """

    __slots__ = ("device", "dtype", "handle", "memory", "owner")

    def __init__(self, memory, dtype, owner=None, device=0, handle=0):
        self.memory, self.dtype, self.device, self.handle = memory, dtype, device, handle
        self.owner = self if owner is None else owner

    @property
    def shape(self):
        return tuple(self.memory.shape)

    @property
    def strides(self):
        """In bytes."""
        return tuple(self.memory.strides)

    @property
    def ndim(self):
        return len(self.memory.shape)

    @property
    def size(self):
        return math.prod(self.memory.shape)

    @property
    def itemsize(self):
        return self.memory.dtype.itemsize

    @property
    def contiguous(self):
        """Whether its elements lie in C order."""
        return self.memory.is_c_contiguous()

    @property
    def address(self):
        return address_of(self.memory)

    def flat(self):
        """The elements of an array in C order as a run, as kernels take them."""
        return self.memory.reshape(self.size)

    def run(self):
        """A run of all memory from the lowest element to the highest, and the place of the first in it."""
        low, high = reach_of(self.shape, self.strides, self.itemsize)
        word = self.memory.dtype
        if any(step % word.itemsize for step in self.strides) or self.address % word.itemsize:
            raise ValueError(f"an array with strides {self.strides} is not aligned to its elements of {word.itemsize} bytes: copy it")
        size = (high - low) // word.itemsize
        return numba_array(self.address + low, (size,), (word.itemsize,), word, self.memory), -low // word.itemsize

    @property
    def __cuda_array_interface__(self):
        typestr = "<V2" if self.dtype == "bfloat16" else np.dtype(self.dtype).str
        return {
            "shape": self.shape,
            "typestr": typestr,
            "data": (self.address, False),
            "strides": self.strides,
            "version": 3,
            "stream": self.handle or None,
        }

    def __dlpack_device__(self):
        return 2, self.device

    def __dlpack__(self, *, stream=None, **_):
        if not SIMULATED:
            cuda.synchronize()  # so that every stream may read it
        strides = [step // self.itemsize for step in self.strides]
        return dlpack.give(self.address, self.shape, strides, self.dtype, self.__dlpack_device__(), self.memory)


def dtype_name(dtype):
    """The name of a dtype of any library."""
    return str(dtype).rpartition(".")[2]


def word_of(dtype):
    """The dtype in which kernels see values of the dtype of that name."""
    return np.dtype(np.uint16) if dtype in HALVES else np.dtype(dtype)


def address_of(memory):
    """Where the elements of an array of Numba's begin."""
    if SIMULATED:
        return memory.ctypes.data
    return memory.device_ctypes_pointer.value or 0


def reach_of(shape, strides, itemsize):
    """The bytes of an array, from and to, counted from its first element."""
    steps = [(n - 1) * step for n, step in zip(shape, strides, strict=True)]
    return sum(step for step in steps if step < 0), sum(step for step in steps if step > 0) + itemsize


def overlap(first, second):
    """Whether two arrays may share memory."""
    if not (first.size and second.size):
        return False
    (a, b), (c, d) = (reach_of(array.shape, array.strides, array.itemsize) for array in (first, second))
    distance = second.address - first.address
    return a < distance + d and distance + c < b


def same_place(first, second):
    """Whether element by element two arrays are the same memory."""
    return first.address == second.address and first.strides == second.strides and first.shape == second.shape


def c_strides(shape, itemsize):
    """The strides of an array in C order."""
    strides = []
    for size in reversed(shape):
        strides.append(itemsize)
        itemsize *= size
    return tuple(reversed(strides))


def numba_array(address, shape, strides, dtype, owner):
    """Numba's array over memory that `owner` keeps."""
    if math.prod(shape) == 0:
        return cuda.device_array(shape, dtype)
    if SIMULATED:
        return _simulated(address, shape, strides, dtype, owner)
    interface = {"shape": shape, "strides": strides, "typestr": dtype.str, "data": (address, False), "version": 3, "stream": None}
    return cuda.from_cuda_array_interface(interface, owner=owner, sync=False)


def _simulated(address, shape, strides, dtype, owner):
    """The same in the simulator, where the memory of the device is the host's."""
    from numba.cuda.cudadrv.devicearray import FakeCUDAArray

    low, high = reach_of(shape, strides, dtype.itemsize)
    memory = (ctypes.c_char * (high - low)).from_address(address + low)
    memory.owner = owner
    return FakeCUDAArray(np.ndarray(shape, dtype, memory, -low, strides))

"""Whose arrays a call was given: the library, device and stream that they name; how arrays enter, and how results leave as that library's.

Nothing that lies on the device is copied on the way.
"""

import math
import sys

import numpy as np
from numba import cuda

from normfast.engines.cuda import dlpack
from normfast.engines.cuda.arrays import (
    DeviceArray,
    address_of,
    c_strides,
    dtype_name,
    numba_array,
    overlap,
    same_place,
    word_of,
)
from normfast.engines.cuda.copies import copy
from normfast.engines.cuda.primitives import SIMULATED
from normfast.extras import needed
from normfast.ops import _arrays as host
from normfast.ops._device import lies_on_device
from normfast.ops._foreign import is_tensor

FLOATS = ("float16", "bfloat16", "float32", "float64")


class Caller:
    """The library, device and stream that a call's arrays name, found by the first of them that lies on a device.

    Used in a `with` block, in which that device is the current one of Numba. Without any such array the caller has NumPy arrays, which are
    copied to the device and back.
    """

    def __init__(self, *arrays):
        self.like = next((x for x in arrays if x is not None and type(x) is not np.ndarray and lies_on_device(x)), None)
        self.library = library_of(self.like)
        self.device = device_of(self.like, self.library)
        self._context = cuda.gpus[self.device]

    def __enter__(self):
        self._context.__enter__()
        self.handle = stream_of(self.like, self.library, self.device)
        self.stream = 0 if SIMULATED or not self.handle else cuda.external_stream(self.handle)
        return self

    def __exit__(self, *error):
        self._context.__exit__(*error)

    # In

    def enter(self, values, name):
        """Any argument as a DeviceArray: what lies on the device as it lies there, what does not as a copy."""
        if isinstance(values, DeviceArray):
            return values
        if not lies_on_device(values):
            return self._uploaded(host.plain(values, name))
        address, shape, strides, dtype, owner = described(values, name, self.handle)
        return DeviceArray(numba_array(address, shape, strides, word_of(dtype), owner), dtype, values, self.device, self.handle)

    def floating(self, values, name="x"):
        """As `ops._arrays.floating`."""
        array = self.enter(values if isinstance(values, DeviceArray) or lies_on_device(values) else host.floating(values, name), name)
        if array.dtype not in FLOATS:
            raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {array.dtype}: convert it with astype(np.float32)")
        return array

    def _uploaded(self, values):
        native = np.ascontiguousarray(values, values.dtype.newbyteorder("=")).reshape(values.shape)
        return DeviceArray(self.upload(native.view(word_of(native.dtype.name))), native.dtype.name, None, self.device, self.handle)

    def upload(self, values):
        """A copy on the device of a NumPy array in C order, as Numba's array."""
        return cuda.to_device(values, stream=self.stream)

    def on_host(self, values, name):
        """What lies on the device as a NumPy array, and everything else as it is."""
        return self.to_host(self.enter(values, name)) if lies_on_device(values) else values

    def dense(self, array, target=None):
        """The array in C order, a copy where it lies otherwise, or where writing the target would change values still to be read."""
        apart = target is None or same_place(array, target) or not overlap(array, target)
        return array if array.contiguous and apart else self.copy(array, self.new(array.shape, array.dtype))

    def dense_target(self, y):
        """Where a result in C order goes that `copy` then takes to y: y itself, if it lies so."""
        return y if y.contiguous else self.new(y.shape, y.dtype)

    def copy(self, source, target):
        """The target, filled with the values of the source."""
        if not same_place(source, target):
            copy(source, target, self.stream)
        return target

    def scratch(self, shape, dtype):
        """Working space, as Numba's array: of the caller's own pool where it has one, since a GPU takes 0.1 ms and more to give memory."""
        if self.library not in ("torch", "cupy"):
            return cuda.device_array(shape, dtype, stream=self.stream)
        shape, dtype = (shape if isinstance(shape, tuple) else (shape,)), np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if self.library == "torch":
            torch = sys.modules["torch"]
            space = torch.empty(size, dtype=torch.uint8, device=self.like.device)
            return numba_array(space.data_ptr(), shape, c_strides(shape, dtype.itemsize), dtype, space)
        space = sys.modules["cupy"].empty(size, "u1")
        return numba_array(space.data.ptr, shape, c_strides(shape, dtype.itemsize), dtype, space)

    def new(self, shape, dtype):
        """An array that no caller will see."""
        return DeviceArray(self.scratch(shape, word_of(dtype)), dtype, None, self.device, self.handle)

    # Out

    def empty(self, shape, dtype):
        """A new array, of the caller's library where that can make one."""
        if self.library == "torch":
            torch = sys.modules["torch"]
            return self.enter(torch.empty(shape, dtype=getattr(torch, dtype), device=self.like.device), "y")
        if self.library == "cupy" and dtype != "bfloat16":
            return self.enter(sys.modules["cupy"].empty(shape, dtype), "y")
        return self.new(shape, dtype)

    def target(self, out, x, name="out"):
        """Where a result of x's shape and dtype goes: `out`, checked as by `ops._arrays.checked_out`, or a new array."""
        if out is None:
            return self.empty(x.shape, x.dtype)
        if self.library == "numpy":
            host.checked_out(out, _Like(x.shape, x.dtype), name)
            return DeviceArray(self.scratch(x.shape, word_of(x.dtype)), x.dtype, out, self.device, self.handle)
        if not lies_on_device(out):
            raise TypeError(f"{name} must lie on the GPU as x does, got {type(out).__name__}")
        y = self.enter(out, name)
        if y.shape != x.shape or y.dtype != x.dtype:
            raise ValueError(f"{name} has shape {y.shape} and dtype {y.dtype}: it needs {x.shape} and {x.dtype}, those of x")
        if read_only(out):
            raise ValueError(f"{name} is read-only: it must be writeable")
        reach = y.itemsize
        for stride, size in sorted((abs(stride), size) for stride, size in zip(y.strides, y.shape, strict=True) if size > 1 and y.size):
            if stride < reach:
                raise ValueError(f"{name} overlaps itself (strides {y.strides}): give an array whose elements lie apart")
            reach += stride * (size - 1)
        return y

    def leave(self, array):
        """What the caller gets: an array of its library over the same memory; of NumPy a copy, in `out` if that was given."""
        if array is None:
            return None
        if self.library == "numpy":
            values = self.to_host(array)
            if array.owner is array:
                return values
            host.writeable(array.owner)[...] = values
            return array.owner
        if array.owner is not array:
            return array.owner
        if self.library == "numba" and array.dtype != "bfloat16":
            return array.memory.view(array.dtype)
        namespace = getattr(self.like, "__array_namespace__", lambda: None)()
        return namespace.from_dlpack(array) if hasattr(namespace, "from_dlpack") else array

    def to_host(self, array):
        """A NumPy array of the values."""
        values = array.memory.copy_to_host(stream=self.stream)
        if self.stream:
            self.stream.synchronize()
        if array.dtype == "bfloat16":
            return values.view(needed("ml_dtypes", "bfloat16", "an array of bfloat16").bfloat16)
        return values.view(array.dtype)


class _Like:
    """What `checked_out` looks at: the shape and dtype that a result must have."""

    def __init__(self, shape, dtype):
        self.shape = shape
        self.dtype = np.dtype(needed("ml_dtypes", "bfloat16", "an array of bfloat16").bfloat16 if dtype == "bfloat16" else dtype)


def library_of(x):
    """The library of an array on a device: "torch", "cupy", "numba", or "other", which takes DLPack; "numpy" for none."""
    if x is None:
        return "numpy"
    if hasattr(type(x), "__cuda_ndarray__"):
        return "numba"
    name = type(x).__module__.partition(".")[0]
    return "torch" if is_tensor(x) else name if name == "cupy" else "other"


def device_of(x, library):
    """The number of the device that x lies on."""
    if SIMULATED or library == "numpy":
        return 0 if SIMULATED else cuda.current_context().device.id
    if library == "torch":
        return x.device.index
    if library == "numba":
        return x.gpu_data.context.device.id
    return int(x.__dlpack_device__()[1]) if hasattr(x, "__dlpack_device__") else cuda.current_context().device.id


def stream_of(x, library, device):
    """The handle of the stream that the caller computes on; 0 where it names none."""
    if isinstance(x, DeviceArray):
        return x.handle
    if library == "torch":
        return sys.modules["torch"].cuda.current_stream(device).cuda_stream
    if library == "cupy":
        return sys.modules["cupy"].cuda.get_current_stream().ptr
    if library == "numba":
        return getattr(x.stream, "handle", 0) if not SIMULATED else 0
    return (getattr(x, "__cuda_array_interface__", None) or {}).get("stream") or 0 if hasattr(type(x), "__cuda_array_interface__") else 0


def described(x, name, handle):
    """Address, shape, strides in bytes, dtype by name, and who keeps the memory of an array on a device."""
    if hasattr(type(x), "__cuda_ndarray__"):
        return address_of(x), tuple(x.shape), tuple(x.strides), x.dtype.name, x
    if is_tensor(x):
        if x.requires_grad:
            raise TypeError(f"{name} is a tensor that records gradients, which would be lost: give {name}.detach(), or use normfast.torch")
        size = x.element_size()
        return x.data_ptr(), tuple(x.shape), tuple(step * size for step in x.stride()), dtype_name(x.dtype), x
    interface = _interface(x)
    if interface is None:
        taken = dlpack.take(x, handle or 1)  # 1: the legacy default stream, on which Numba launches if no other is named
        return taken.address, taken.shape, taken.strides, taken.dtype, taken.owner
    if interface.get("mask") is not None:
        raise TypeError(f"{name} is a masked array, whose mask would be lost: fill it, or select its valid values")
    dtype = np.dtype(interface["typestr"])
    known = "bfloat16" if dtype == "V2" else dtype.name
    shape, strides = tuple(interface["shape"]), interface.get("strides")
    return interface["data"][0], shape, tuple(strides or c_strides(shape, dtype.itemsize)), known, x


def _interface(x):
    """What x says of itself by `__cuda_array_interface__`; None where it does not, or has no word for its dtype there."""
    try:
        return x.__cuda_array_interface__
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None


def read_only(x):
    """Whether x says that it must not be written; JAX's arrays do."""
    interface = None if is_tensor(x) else _interface(x)
    return bool(interface and interface["data"][1])

"""Arrays of other libraries, and data frames, as NumPy arrays: borrowed where they lie on the CPU, refused where they do not."""

import sys
from typing import Any

import numpy as np

from normfast.extras import needed
from normfast.typing import Array

HOST = (1, 3, 11, 13)  # DLPack's numbers of what a CPU can read: its own memory, pinned (CUDA, ROCm) and managed (CUDA) memory


def borrowed(x: Any, name: str = "x") -> Array:
    """x as an ndarray: over the same memory if x offers it by `__array__` or DLPack, else a copy."""
    if type(x) is np.ndarray:
        return x
    if is_tensor(x):
        return _memory_of_tensor(x, name)
    _on_host(x, name)
    try:
        array = np.from_dlpack(x) if hasattr(x, "__dlpack__") and not hasattr(x, "__array__") else np.asarray(x)
    except (BufferError, RuntimeError) as error:
        raise TypeError(f"{name}, a {type(x).__name__}, gives no NumPy array: {_line(error)}") from None
    return _numbers_of_frame(x, array) if array.dtype == object and hasattr(x, "dtypes") else array


def writeable(out: Any, name: str = "out", what: str = "a NumPy array") -> Array:
    """What takes a result as an ndarray over the same memory; whether that may be written its flags tell."""
    if isinstance(out, np.ndarray) and not isinstance(out, np.ma.MaskedArray):
        return out
    if is_tensor(out):
        return _memory_of_tensor(out, name)
    _on_host(out, name)
    if not hasattr(out, "__dlpack__") or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"{name} must be {what}, got {type(out).__name__}: of other arrays those will do that offer DLPack")
    try:
        return np.from_dlpack(out)
    except (BufferError, RuntimeError) as error:
        raise TypeError(f"{name}, a {type(out).__name__}, does not lend its memory: {_line(error)}") from None


def is_tensor(x):
    """Whether x is a tensor of PyTorch, which is not imported to find out."""
    return (torch := sys.modules.get("torch")) is not None and isinstance(x, getattr(torch, "Tensor", ()))


def _memory_of_tensor(x, name):
    """The memory of a tensor. NumPy has no bfloat16 of its own: such words change hands as integers."""
    if x.requires_grad:
        raise TypeError(f"{name} is a tensor that records gradients, which NumPy would lose: give {name}.detach(), or use normfast.torch")
    if x.device.type != "cpu":
        raise _elsewhere(name, x.device)
    torch = sys.modules["torch"]
    try:
        if x.dtype is torch.bfloat16:
            return x.view(torch.int16).numpy().view(needed("ml_dtypes", "bfloat16", "a tensor of bfloat16").bfloat16)
        return x.numpy()
    except RuntimeError as error:
        raise TypeError(f"{name}, a tensor, does not lend its memory: {_line(error)}") from None


def _on_host(x, name):
    """Raise where x says that it lies on a device that the CPU cannot read."""
    try:
        device = x.__dlpack_device__()[0]
    except (AttributeError, BufferError, RuntimeError, ValueError):  # not of DLPack's world, or lies nowhere that it has a number for
        device = 2 if hasattr(x, "__cuda_array_interface__") else HOST[0]
    if device not in HOST:
        raise _elsewhere(name, getattr(x, "device", "a GPU"))


def _elsewhere(name, device):
    return TypeError(f"{name} lies on {device} and this function computes on the CPU: copy it there first, such as by {name}.cpu()")


def _line(error):
    return str(error).strip().partition("\n")[0]


def _numbers_of_frame(frame, array):
    """The numbers of a pandas frame whose columns allow missing values, which become NaN; `array` where there are others than numbers."""
    dtypes = np.ravel(np.asarray(frame.dtypes, object))
    if not all(getattr(dtype, "kind", "O") in "fiub" for dtype in dtypes):
        return array
    common = np.result_type(*(getattr(dtype, "numpy_dtype", dtype) for dtype in dtypes))
    missing = common.kind != "f" and frame.isna().to_numpy().any()
    return frame.to_numpy(dtype=np.float64 if missing else common, **({"na_value": np.nan} if common.kind == "f" or missing else {}))

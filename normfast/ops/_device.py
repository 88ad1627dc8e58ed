"""Which calls belong to the cuda engine: found out without importing anything that could compute there."""

from typing import Any

import numpy as np

from normfast import engines
from normfast.ops._foreign import is_tensor

CUDA = 2  # DLPack's number of it


def on_device(x: Any) -> bool:
    """Whether the cuda engine takes x: an array on a GPU, and any array where that engine is chosen."""
    return (type(x) is not np.ndarray and lies_on_device(x)) or engines.current().name == "cuda"


def lies_on_device(x: Any) -> bool:
    """Whether x is an array in the memory of a CUDA device."""
    if is_tensor(x):
        return x.is_cuda
    if hasattr(type(x), "__cuda_ndarray__"):  # Numba's own, also those of its simulator
        return True
    try:
        return x.__dlpack_device__()[0] == CUDA
    except (AttributeError, BufferError, RuntimeError, ValueError):  # not of DLPack's world
        return hasattr(x, "__cuda_array_interface__")


def device(name: str) -> Any:
    """The operation of that name for arrays on a GPU; ImportError where it has nothing to run on."""
    return getattr(engines.load("cuda").operations, name)

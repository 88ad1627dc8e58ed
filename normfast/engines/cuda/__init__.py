"""The cuda engine: the operations on arrays in the memory of a GPU, by Numba's compiler for CUDA, the package numba-cuda.

It differs from the others in what it takes: not blocks that were checked, but the arguments of the public functions, since what checks and
allocates for NumPy arrays cannot for arrays on a device. `ops/_device.py` sends calls here.
"""

from types import SimpleNamespace

from normfast.engines import load as engine_named
from normfast.extras import needed

needed("numba_cuda", "cuda", "the cuda engine")  # the CUDA target that Numba has of its own is deprecated; this one takes its place


class CudaEngine:
    """`operations` are the functions on device arrays, named as the public ones; whatever else is asked of an engine the CPU's does."""

    name = "cuda"

    def __init__(self, operations):
        self.operations = operations
        self._host = engine_named("auto")

    def __getattr__(self, name):
        """Operations that have no kernels for GPUs, `lp_norm` and whitening among them, and masks as arrays are the CPU's."""
        if name.endswith("_at_once"):  # the short ways of the CPU are no ways to the device
            return lambda *arguments: None
        return getattr(self._host, name)


def load():
    """The engine; ImportError in one line where numba-cuda, a driver or a GPU is missing."""
    from numba import cuda

    if not cuda.is_available():
        raise ImportError(f"the cuda engine needs a GPU with NVIDIA's driver, and {_why(cuda)}: leave the engine to 'auto'")
    from normfast.engines.cuda import add_norms, dropouts, norms

    return CudaEngine(SimpleNamespace(**norms.OPERATIONS, **dropouts.OPERATIONS, **add_norms.OPERATIONS))


def _why(cuda):
    """What Numba found wrong, in a line."""
    reason = cuda.cuda_error() if hasattr(cuda, "cuda_error") else None
    return f"there is none here ({str(reason).strip().splitlines()[0]})" if reason else "there is none here"

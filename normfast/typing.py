"""The types of the public signatures, for code of your own that is checked by mypy or another of its kind.

>>> import numpy as np, normfast as nf
>>> from normfast.typing import Array, ArrayLike
>>> def centred(x: ArrayLike) -> Array:
...     return nf.layer_norm(x, eps=0.0)
>>> centred(np.array([1.0, 3.0]))
array([-1.,  1.])
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike as NumPyArrayLike
from numpy.typing import NDArray

__all__ = [
    "Activation",
    "Array",
    "ArrayLike",
    "Axis",
    "EngineName",
    "Float64Array",
    "Functions",
    "NanPolicy",
    "Rng",
    "SupportsDLPack",
    "Whitening",
    "Writeable",
]


class SupportsDLPack(Protocol):
    """An array of any library that lends its memory by DLPack.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> from normfast.typing import SupportsDLPack
    >>> def centred(x: SupportsDLPack):
    ...     return nf.layer_norm(x, eps=0.0)
    >>> centred(np.array([1.0, 3.0]))  # or a tensor of PyTorch, an array of JAX, ...
    array([-1.,  1.])
    """

    def __dlpack__(self, *, stream: None = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, int]: ...


Array: TypeAlias = NDArray[Any]
"""What comes out: of x's dtype, float16, bfloat16, float32 or float64."""
Float64Array: TypeAlias = NDArray[np.float64]
"""Statistics, whatever the dtype of x."""
ArrayLike: TypeAlias = NumPyArrayLike | SupportsDLPack
"""What is read."""
Writeable: TypeAlias = Array | SupportsDLPack
"""What is written: `out`, running statistics."""
Axis: TypeAlias = int | tuple[int, ...]
"""One axis or several."""
# as text, since numpy.random takes 10 ms to import
Rng: TypeAlias = "int | np.integer[Any] | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator | None"
"""Where random bits come from; None stands for fresh ones."""
NanPolicy: TypeAlias = Literal["propagate", "omit", "raise"]
"""What NaN does to moments."""
Functions: TypeAlias = tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]
"""A function of your own and its gradient: a = f(z) and dz = backward(da, z)."""
Activation: TypeAlias = Literal["identity", "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "softplus"] | Functions | None
"""A function by name, one of your own, or none."""
Whitening: TypeAlias = Literal["zca", "pca", "cholesky"]
"""How a whitening matrix is chosen."""
EngineName: TypeAlias = Literal["auto", "cython", "numba", "numpy", "cuda"]
"""What computes."""

"""What all layers share, and layers one after the other."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from normfast import safetensors
from normfast.ops._foreign import borrowed
from normfast.ops._pickles import Sealed, seal_of
from normfast.typing import Array, ArrayLike


class Parameter(Sealed):
    """A learned array and the gradient of the loss with respect to it.

    Attributes
    ----------
    data : ndarray
        The values, to be changed in place.
    grad : ndarray or None
        Their gradient, of the same shape, from the last backward pass.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import Dense
    >>> layer = Dense(2, 1, rng=0)
    >>> y = layer(np.ones((3, 2), np.float32))
    >>> dx = layer.backward(np.ones_like(y))
    >>> layer.bias.grad
    array([3.], dtype=float32)
    >>> layer.bias.data -= 0.1 * layer.bias.grad  # a step of gradient descent
    """

    def __init__(self, data: Array) -> None:
        self.data = data
        self.grad: Array | None = None

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"Parameter({self.data!r})"


class Layer(Sealed):
    """What all layers share: parameters, buffers, inner layers and the two modes.

    A subclass has `forward(x)`, which a call runs, and `backward(dy)`. In training `forward` keeps what `backward` needs in `_saved`;
    copies and pickles of a layer leave that behind.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.layers import Dense, Layer, Sequential
    >>> class Double(Layer):
    ...     def forward(self, x):
    ...         return 2 * x
    ...
    ...     def backward(self, dy):
    ...         return 2 * dy
    >>> model = Sequential(Dense(2, 3, rng=0), Double())
    >>> model(np.ones((4, 2), np.float32)).shape, model.backward(np.ones((4, 3), np.float32)).shape
    ((4, 3), (4, 2))
    >>> [name for name, layer in model.eval().named_modules() if not layer.training]
    ['', '0', '1']
    """

    training = True
    observer: Callable[[ArrayLike], object] | None = None  # a function that is shown the input of each call
    buffers: tuple[str, ...] = ()
    forward: Callable[..., Array]
    backward: Callable[..., Array]
    _saved: tuple[Any, ...] | None = None

    def __call__(self, x: ArrayLike, **options: Any) -> Array:
        if self.observer is not None:
            self.observer(x)
        return self.forward(x, **options)

    def __getstate__(self) -> dict[str, Any]:
        return seal_of(self, {name: value for name, value in vars(self).items() if name not in ("_saved", "observer")}, Layer)

    def _children(self):
        return {name: value for name, value in vars(self).items() if isinstance(value, Layer)}

    def _arrays(self):
        """The parameters and buffers of this layer alone, by name."""
        arrays = {name: value.data for name, value in vars(self).items() if isinstance(value, Parameter)}
        return arrays | {name: value for name in self.buffers if (value := getattr(self, name)) is not None}

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Layer"]]:
        """Pairs of name and layer: this one, named by the prefix, and all inner ones in their order."""
        yield prefix, self
        for name, child in self._children().items():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or to inference with mode=False; returns the layer."""
        self.training = mode
        for child in self._children().values():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Switch to inference; returns the layer."""
        return self.train(False)

    def parameters(self) -> list[Parameter]:
        """List of the `Parameter`s of the layer and its inner layers."""
        own = [value for value in vars(self).values() if isinstance(value, Parameter)]
        return own + [parameter for child in self._children().values() for parameter in child.parameters()]

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by name, as PyTorch names them."""
        return {name: np.array(array) for name, array in self._targets().items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike] | str | os.PathLike[str]) -> None:
        """Take all parameters and buffers, in place, whatever their dtype.

        Parameters
        ----------
        state : dict or path
            Arrays (or CPU tensors) by name, or the path of a `.safetensors` file that holds them, as PyTorch's `state_dict` was saved.

        Raises
        ------
        ValueError
            If names are missing or left over, a shape differs or the file is damaged; nothing is changed then.
        """
        if isinstance(state, (str, os.PathLike)):
            state = load_state(state)
        targets = self._targets()
        missing, unknown = sorted(targets.keys() - state.keys()), sorted(state.keys() - targets.keys())
        if missing or unknown:
            raise ValueError(f"the state does not fit: missing {missing}, not known here {unknown}")
        values = {name: _array(value, name) for name, value in state.items()}
        for name, target in targets.items():
            if values[name].shape != target.shape:
                raise ValueError(f"{name} has shape {values[name].shape} and the layer needs {target.shape}")
        for name, target in targets.items():
            target[...] = values[name]

    def _targets(self):
        modules = ((f"{prefix}." if prefix else "", module) for prefix, module in self.named_modules())
        return {prefix + name: array for prefix, module in modules for name, array in module._arrays().items()}

    def _remembered(self):
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}.backward needs a forward call in training mode before it")
        return self._saved


def load_state(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of a `.safetensors` file by name, as PyTorch's `state_dict` was saved; bfloat16 as float32.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    dict of str to ndarray
        For `load_state_dict`, which also takes the path itself where all names are the layer's.

    Raises
    ------
    ValueError
        In one line, for a file that is damaged or of another format.

    Examples
    --------
    >>> import os, tempfile, numpy as np
    >>> from normfast.layers import LayerNorm, load_state
    >>> from normfast.safetensors import write
    >>> layer = LayerNorm(2)
    >>> with tempfile.TemporaryDirectory() as folder:  # a part of a larger model, in a file that PyTorch may have written
    ...     path = os.path.join(folder, "encoder.safetensors")
    ...     write(path, {"norm1.weight": np.full(2, 3.0), "norm1.bias": np.ones(2)})
    ...     state = load_state(path)
    >>> layer.load_state_dict({name: state[f"norm1.{name}"] for name in layer.state_dict()})
    >>> layer.weight.data
    array([3., 3.], dtype=float32)
    """
    return safetensors.read(path)[0]


def _array(value, name):
    """A value of a state as an array; a tensor of bfloat16 widened, since NumPy has that type from another package only."""
    return borrowed(value.float() if str(getattr(value, "dtype", None)) == "torch.bfloat16" else value, name)


class Sequential(Layer):
    """Layers one after the other, named by their position.

    Examples
    --------
    >>> from normfast.layers import Dense, Dropout, Sequential
    >>> list(Sequential(Dense(2, 3), Dropout(0.1), Dense(3, 1)).state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    def _children(self):
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def forward(self, x: ArrayLike) -> Array:
        """The output of the last layer."""
        y: Any = x
        for layer in self.layers:
            y = layer(y)
        return y

    def backward(self, dy: ArrayLike) -> Array:
        """Gradient of the input, from that of the output."""
        dx: Any = dy
        for layer in reversed(self.layers):
            dx = layer.backward(dx)
        return dx

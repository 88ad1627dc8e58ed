"""A norm with a user's own function compiled into its sweeps, by Numba: `fuse`."""

import inspect
import types
from functools import lru_cache

from normfast import engines
from normfast.extras import needed
from normfast.ops import _epilogue as gradients
from normfast.ops.batch_norm import batch_norm, batch_norm_forward
from normfast.ops.group_norm import group_norm, group_norm_forward, instance_norm, instance_norm_forward
from normfast.ops.layer_norm import layer_norm, layer_norm_forward
from normfast.ops.rms_norm import rms_norm, rms_norm_forward

NORMS = {  # each with its forward function and the gradient of both
    layer_norm: (layer_norm_forward, gradients.layer_norm_backward),
    rms_norm: (rms_norm_forward, gradients.rms_norm_backward),
    group_norm: (group_norm_forward, gradients.group_norm_backward),
    instance_norm: (instance_norm_forward, gradients.instance_norm_backward),
    batch_norm: (batch_norm_forward, gradients.batch_norm_backward),
}


@lru_cache(maxsize=256)
def fuse(op, *, epilogue, derivative=None):
    """Compile a function of your own into a norm: y = f(norm(x)), with one pass over memory.

    Parameters
    ----------
    op : layer_norm, rms_norm, group_norm, instance_norm or batch_norm
        The norm, as the package exports it.
    epilogue : function of one number
        f: plain Python of the kind that Numba compiles, or jitted already. It is called with values of x's dtype, float32 where x has
        16 bits, and may use constants around it, as they are at the first call.
    derivative : function of one number, optional
        f', which `backward` needs.

    Returns
    -------
    FusedNorm
        Called as op. `forward` and `backward` are those of op, of what f returned; `backward` takes a `bias`, as the forward call had.

    Raises
    ------
    ModuleNotFoundError
        Without Numba.
    TypeError
        For another op, or a function that Numba cannot compile.

    Notes
    -----
    The same op and functions give the same object, compiled at the first call for each dtype, which takes some seconds. Results have the
    same bits for any number of threads. Whatever engine is chosen, these run on Numba.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> def squared_relu(z):
    ...     return max(z, 0 * z) ** 2
    >>> norm = nf.fuse(nf.layer_norm, epilogue=squared_relu, derivative=lambda z: 2 * max(z, 0 * z))
    >>> x = np.array([[1.0, 2.0, 4.0]])
    >>> y, stats = norm.forward(x)
    >>> y.round(4)
    array([[0.    , 0.    , 1.7857]])
    >>> norm.backward(np.ones((1, 3)), x, stats).dx.round(4)
    array([[ 0.3061, -0.4592,  0.1531]])
    """
    needed("numba", "numba", "normfast.fuse")
    if op not in NORMS:
        names = ", ".join(f"nf.{norm.__name__}" for norm in NORMS)
        raise TypeError(f"op must be one of {names}, got {getattr(op, '__name__', repr(op))}")
    return FusedNorm(op, *NORMS[op], _engine(_jitted(epilogue, "epilogue"), _jitted(derivative, "derivative")))


class FusedNorm:
    """A norm with a function compiled into it: what `fuse` returns."""

    def __init__(self, op, forward, backward, engine):
        self._op, self._forward, self._backward, self._engine = op, forward, backward, engine
        self.__name__, self.__doc__, self.__signature__ = f"fused_{op.__name__}", op.__doc__, inspect.signature(op)

    def __call__(self, x, *arguments, **options):
        """As op, with f applied to what it returns."""
        return self._run(self._op, x, arguments, options)

    def forward(self, x, *arguments, **options):
        """As op's forward function, with f applied to y; the statistics are those of op."""
        return self._run(self._forward, x, arguments, options)

    def backward(self, dy, x, stats, weight=None, bias=None, **options):
        """As op's backward function, from the gradient dy of what f returned; weight, bias and options are those of the forward call."""
        if not self._engine.differentiable:
            raise TypeError(f"{self.__name__} was made without a derivative: nf.fuse(..., epilogue=f, derivative=df) has a backward")
        self._refuse_activation(options)
        return self._backward(self._engine, dy, x, stats, weight, bias, **options)

    def _run(self, function, x, arguments, options):
        self._refuse_activation(options)
        with engines.using(self._engine):
            return function(x, *arguments, **options)

    def _refuse_activation(self, options):
        if options.get("activation") is not None:
            raise TypeError(
                f"{self.__name__} applies its epilogue in place of an activation: leave activation={options['activation']!r} out"
            )

    def __repr__(self):
        return f"<{self.__name__} by normfast.fuse>"


@lru_cache(maxsize=64)
def _engine(epilogue, derivative):
    from normfast.engines.numba.fused import FusedEngine

    return FusedEngine(epilogue, derivative)


@lru_cache(maxsize=256)
def _jitted(function, name):
    """The function as Numba calls it, compiled once to see that it can be."""
    import numba

    if function is None and name == "derivative":
        return None
    called = getattr(function, "__name__", repr(function))
    if not callable(function):
        raise TypeError(f"{name} must be a function of one number, got {type(function).__name__}")
    if isinstance(function, types.FunctionType):
        function = numba.njit(nogil=True, error_model="numpy")(function)

    def applied(z):
        z[0] = function(z[0])

    for dtype in (numba.float32, numba.float64):
        try:
            numba.njit(applied).compile((dtype[::1],))
        except Exception as error:  # Numba raises what its passes do: TypingError, UnsupportedError, NotImplementedError, ...
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = next((line for line in lines if "pipeline" not in line), type(error).__name__)
            raise TypeError(f"{name} {called!r} does not compile under Numba for {dtype}: {reason}") from None
    return function

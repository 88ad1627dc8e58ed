"""The kernels' own text for the GPU: the formulas of `normfast/kernels/`, which every engine shares, as device functions.

The simulator runs them as they stand: their primitives have a plain meaning. Only a rounded number is one of Python's there, which NumPy
does not round again when it is compared with a larger one.
"""

import types as python

from numba import cuda

from normfast.engines.cuda.primitives import SIMULATED
from normfast.kernels import activations, factors, moments, normalize, primitives

if SIMULATED:

    def on_device(function):
        return function

    known = {primitives.cast: lambda value, like: float(type(like)(value))}
else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def _cast(typing_context, value, like):
        def convert(context, builder, signature, arguments):
            return context.cast(builder, arguments[0], signature.args[0], signature.return_type)

        return like(value, like), convert

    @intrinsic
    def _power_of_two(typing_context, t):
        def shift(context, builder, signature, arguments):
            i64 = ir.IntType(64)
            bits = builder.add(builder.bitcast(arguments[0], i64), i64(1023))
            return builder.bitcast(builder.shl(bits, i64(52)), ir.DoubleType())

        return types.float64(types.float64), shift

    on_device = cuda.jit(device=True)
    known = {primitives.cast: _cast, primitives.power_of_two: _power_of_two}


def compiled(source):
    """What the functions of a module are on the GPU, by their names."""
    module = python.ModuleType(source.__name__)
    scope = vars(module)
    scope.update(vars(source))
    for name, f in vars(source).items():
        if isinstance(f, python.FunctionType) and f not in known:
            known[f] = on_device(python.FunctionType(f.__code__, scope, name))
    for name, value in vars(source).items():
        if isinstance(value, python.FunctionType):
            scope[name] = known.get(value, value)
    return module


moments = compiled(moments)
factors = compiled(factors)
activations = compiled(activations)
normalize = compiled(normalize)

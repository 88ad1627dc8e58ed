"""The kernels as Numba functions: each file's functions, with the kernels and primitives that they name compiled in their place."""

import types

import numpy as np
from numba import njit

from normfast.engines.numba import IN_ORDER, REORDERED
from normfast.engines.numba.primitives import cast, chunk, equal_bytes, large_bytes, lead, lowest_bit, power_of_two, prefetch, row, stream
from normfast.kernels import (
    activations,
    bias_activation,
    columns,
    deviations,
    dropout,
    factors,
    group_norm,
    half_rows,
    half_slabs,
    halves,
    layer_norm,
    lp_norm,
    moments,
    normalize,
    philox,
    primitives,
    residual,
    rows,
    slabs,
    sums,
)

NOT_FROM_PYTHON = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # which took a sixth of the time of compiling

known = {
    primitives.row: row,
    primitives.chunk: chunk,
    primitives.cast: cast,
    primitives.power_of_two: power_of_two,
    primitives.stream: stream,
    primitives.lead: lead,
    primitives.prefetch: prefetch,
    primitives.equal_bytes: equal_bytes,
    primitives.large_bytes: large_bytes,
    primitives.lowest_bit: lowest_bit,
    primitives.philox_lanes: njit(primitives.philox_lanes),
    primitives.bfloat16_lanes: njit(primitives.bfloat16_lanes),
    primitives.dropout_lanes: njit(primitives.dropout_lanes),
    primitives.select_lanes: njit(primitives.select_lanes),
    primitives.add_lanes: njit(primitives.add_lanes),
    primitives.gradient_lanes: njit(primitives.gradient_lanes),
    primitives.uint32: np.uint32,
    primitives.uint64: np.uint64,
}


def compiled(source, known=known):
    """A module like the source, in which every kernel and primitive is compiled; what is in `known` stands there, the others go there."""
    module = types.ModuleType(source.__name__)
    scope = vars(module)
    scope.update(vars(source))
    for name, f in vars(source).items():
        if isinstance(f, types.FunctionType) and f not in known:
            own = types.FunctionType(f.__code__, scope, name)
            inline = "always" if f is INLINED else "never"
            fastmath = REORDERED if source is SUMS else IN_ORDER
            known[f] = njit(nogil=True, error_model="numpy", inline=inline, fastmath=fastmath, **NOT_FROM_PYTHON)(own)
    for name, value in vars(source).items():
        if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
            scope[name] = known.get(value, value)
    return module


SUMS = sums
INLINED = philox.philox4x32  # by LLVM its rounds would be unrolled too late to take counters side by side: 2.4 ns a word, 0.42 so
sums = compiled(sums)
moments = compiled(moments)
rows = compiled(rows)
factors = compiled(factors)
activations = compiled(activations)
normalize = compiled(normalize)
layer_norm = compiled(layer_norm)
slabs = compiled(slabs)
group_norm = compiled(group_norm)
columns = compiled(columns)
philox = compiled(philox)
lp_norm = compiled(lp_norm)
deviations = compiled(deviations)
halves = compiled(halves)
half_rows = compiled(half_rows)
half_slabs = compiled(half_slabs)
dropout = compiled(dropout)
residual = compiled(residual)
bias_activation = compiled(bias_activation)

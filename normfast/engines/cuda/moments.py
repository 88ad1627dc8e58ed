"""Moments of an array on a device: they come back to the host, since they are few and merge there."""

import math

import numpy as np

from normfast.engines.cuda.callers import Caller
from normfast.engines.cuda.cells import measure
from normfast.engines.cuda.parameters import transposed
from normfast.engines.cuda.places import Results, aligned
from normfast.engines.cuda.primitives import KINDS
from normfast.ops._arrays import layout_of, plain
from normfast.ops._device import lies_on_device
from normfast.ops.moments import Moments


def moments(x, axis=None):
    """As the public function, of floating-point numbers without masks and weights."""
    if not lies_on_device(x) and (x := plain(x, "x")).dtype.kind in "iub":
        x = x.astype(np.float64)
    with Caller(x) as caller:
        x = caller.floating(x)
        layout = layout_of(x, tuple(range(x.ndim)) if axis is None else axis)
        count = math.prod(layout.reduced_shape)
        if x.size == 0:
            return Moments(count, np.full(layout.kept_shape, np.nan), np.zeros(layout.kept_shape))
        mean, rstd, var = (Results(caller, layout, layout.kept, "float64") for _ in range(3))
        source = caller.dense(transposed(x, layout.order))
        block, run = layout.block, source.flat()
        measure(caller, KINDS[x.dtype], block, 1, True, run, 0.0, mean.run, rstd.run, var.run, aligned(source))
        mean, var = (caller.to_host(values.done()) for values in (mean, var))
        return Moments(count, mean, var * count)

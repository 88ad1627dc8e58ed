"""Arrays on a device in the order of a block, and what small results become once they leave it."""

import numpy as np

from normfast.engines.cuda.arrays import DeviceArray
from normfast.engines.cuda.parameters import transposed


def ordered(array, order):
    """The array with its axes in the order of a block."""
    return array if tuple(order) == tuple(range(array.ndim)) else transposed(array, order)


def source_of(caller, array, order, target):
    """The values of an array as a contiguous block, which writing the target leaves alone."""
    return caller.dense(ordered(array, order), ordered(target, order))


def filled(caller, shape, dtype, value):
    """A new array of one value."""
    result = caller.empty(shape, dtype)
    if result.size:
        caller.copy(caller.enter(np.full(shape, value, dtype), "values"), result)
    return result


class Results:
    """Small results, which kernels write as runs in the order of a block and callers get in the order of the axes."""

    def __init__(self, caller, layout, axes, dtype):
        self.caller, self.result = caller, caller.empty(layout.along(axes), dtype)
        self.own = [axis for axis in layout.order if axis in axes]
        self.place = [sorted(axes).index(axis) for axis in self.own]
        apart = self.place != sorted(self.place)
        self.made = caller.new(layout.along(tuple(self.own)), dtype) if apart else self.result

    @property
    def run(self):
        return self.made.flat()

    def done(self):
        """The result, once the kernels have been started."""
        if self.made is not self.result:
            self.caller.copy(self.made, transposed(self.result, self.place))
        return self.result


def aligned(*arrays):
    """Whether loads of 16 bytes may start where the arrays do; of Numba's arrays, DeviceArrays or None."""
    return all(array is None or DeviceArray(getattr(array, "memory", array), "").address % 16 == 0 for array in arrays)


def gradient_dtype(caller, x, weight):
    """As `ops._arrays.gradient_dtype`, by name."""
    return x.dtype if weight is None or x.itemsize > 2 else caller.enter(weight, "weight").dtype


def beside(caller, run, target, dtype):
    """A run of parameters or statistics, copied where writing the target would change it."""
    return None if run is None else caller.dense(DeviceArray(run, dtype), target).flat()

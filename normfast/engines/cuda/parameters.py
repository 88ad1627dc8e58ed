"""What comes beside x on a device, in the dtype and order that kernels take: `ops/_arrays.py` for device arrays."""

from normfast.engines.cuda.arrays import DeviceArray, numba_array, overlap
from normfast.engines.cuda.copies import cast
from normfast.engines.cuda.primitives import KINDS, wide_kind


def same_shape(caller, values, x, name):
    """As `ops._arrays.same_shape`: dy, or whatever else must have x's shape, in x's dtype and C order."""
    array = caller.floating(values, name)
    if array.shape != x.shape:
        raise ValueError(f"{name} has shape {array.shape} and x has {x.shape}: they must be the same")
    return converted(caller, array, x.dtype)


def converted(caller, array, dtype):
    """The array in that dtype: itself, or a copy in C order."""
    if array.dtype == dtype:
        return array
    result = caller.new(array.shape, dtype)
    cast(caller.dense(array), result, caller.stream)
    return result


def transposed(array, order):
    """A view with the axes in that order."""
    shape, strides = (tuple(values[axis] for axis in order) for values in (array.shape, array.strides))
    memory = numba_array(array.address, shape, strides, array.memory.dtype, array.memory)
    return DeviceArray(memory, array.dtype, device=array.device, handle=array.handle)


def zero_centered(caller, weight, x):
    """weight + 1 in the type that x is computed in; None stays None."""
    if weight is None:
        return None
    array = caller.dense(caller.floating(weight, "weight"))
    result = caller.new(array.shape, wide_kind(KINDS[x.dtype]).name)
    cast(array, result, caller.stream, more=True)
    return result


def parameter(caller, values, layout, axes, dtype, name, targets=()):
    """As `ops._arrays.parameter`: a run in the order of the block, on the device, apart from the targets; None for None."""
    if values is None:
        return None
    array, shape = caller.floating(values, name), layout.along(axes)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}: an x of shape {layout.shape} needs {shape}, its shape along the axes {axes}")
    if not layout.natural and len(axes) > 1:
        array = transposed(array, [axes.index(axis) for axis in layout.order if axis in axes])
    array = caller.dense(converted(caller, array, dtype))
    if any(overlap(array, target) for target in targets):
        array = caller.copy(array, caller.new(array.shape, dtype))
    return array.flat()


def statistics(caller, stats, layout, fields=("mean", "rstd"), targets=()):
    """As `ops._arrays.statistics`: float64 runs on the device."""
    for field in fields:
        if not hasattr(stats, field):
            raise TypeError(f"stats must be what the forward call returned, with fields mean and rstd, got {type(stats).__name__}")
        if getattr(stats, field) is None:
            raise TypeError(f"stats.{field} is needed, got None")
    return [parameter(caller, getattr(stats, field), layout, layout.kept, "float64", f"stats.{field}", targets) for field in fields]

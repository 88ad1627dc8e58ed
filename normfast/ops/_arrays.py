"""The only code that knows shapes, dtypes, strides, `out` and aliasing.

A `Layout` says how an array of any strides lies in memory as a C-contiguous block (a, r, c, s), kept along a and c and reduced along r
and s. Rows, NCHW, NHWC, Fortran order and most transposed views are such blocks as they are; what is not is copied.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from normfast.engines.compiled import constant
from normfast.ops._foreign import borrowed, writeable
from normfast.typing import Array, ArrayLike, Axis, Float64Array, Writeable

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
DOUBLE = FLOATS[1]
HALVES = ("float16", "bfloat16")  # by name: the dtype bfloat16 belongs to the package ml_dtypes, which need not be installed


class Layout(NamedTuple):
    """How the axes of an array are ordered and grouped to a block."""

    shape: tuple[int, ...]  # of the array
    order: tuple[int, ...]  # the axes of the array in the order of the block
    natural: bool  # whether that is their own order
    block: tuple[int, ...]  # (a, r, c, s)
    kept: tuple[int, ...]  # axes of the array, in their own order
    reduced: tuple[int, ...]
    kept_shape: tuple[int, ...]  # of the array along the axes kept: that of a statistic
    reduced_shape: tuple[int, ...]

    def view(self, x: Array, shape: tuple[int, ...] | None = None) -> Array | None:
        """The array as a block, or in another shape, without a copy; None where its strides or alignment forbid it."""
        if not self.natural:
            x = x.transpose(self.order)
        return x.reshape(shape or self.block) if x.flags.c_contiguous and x.flags.aligned else None

    def pack(self, values: Array, axes: tuple[int, ...]) -> Array:
        """An array over some axes (in their own order) as a run in the order of the block."""
        if not self.natural and len(axes) > 1:
            values = values.transpose([axes.index(axis) for axis in self.order if axis in axes])
        return values.ravel()

    def unpack(self, run: Array, axes: tuple[int, ...]) -> Array:
        """Inverse of `pack`, a view."""
        if self.natural or len(axes) == 1:
            return run.reshape(self.along(axes))
        order = [axis for axis in self.order if axis in axes]
        return run.reshape(self.along(order)).transpose([order.index(axis) for axis in axes])

    def along(self, axes):
        """The shape of the array along some axes."""
        if axes == self.kept:
            return self.kept_shape
        return self.reduced_shape if axes == self.reduced else _along(self.shape, axes)


def _along(shape, axes):
    return tuple([shape[axis] for axis in axes])


@lru_cache(maxsize=1024)
def _layout(shape, strides, itemsize, axes, kept, rows):
    axes = tuple(sorted(axes_of(axes, len(shape))))
    others = tuple(axis for axis in range(len(shape)) if axis not in axes)
    kept, reduced = (axes, others) if kept else (others, axes)
    natural = tuple(range(len(shape)))
    by_stride = tuple(sorted(natural, key=lambda axis: (shape[axis] > 1, -strides[axis])))
    order = next((order for order in (natural, by_stride) if _dense(shape, strides, itemsize, order)), natural)
    block = grouped(shape, order, reduced)
    if block is None or (rows and block[:2] != (1, 1)):
        order = kept + reduced
        block = grouped(shape, order, reduced)
    return Layout(shape, order, order == natural, block, kept, reduced, _along(shape, kept), _along(shape, reduced))


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Axes as integers of 0 or more, in the order in which they were named."""
    try:
        return tuple(normalize_axis_tuple(axis, ndim, "axis"))
    except OverflowError:
        raise ValueError(f"axis {shown(axis)} is out of bounds for array of dimension {ndim}") from None


def _dense(shape, strides, itemsize, order):
    """Whether an array is C-contiguous once its axes stand in this order."""
    for axis in reversed(order):
        if shape[axis] != 1:
            if strides[axis] != itemsize:
                return False
            itemsize *= shape[axis]
    return True


def grouped(shape, order, reduced):
    """Sizes (a, r, c, s) of the block, or None if the axes change sides too often."""
    sizes = [1, 1, 1, 1]
    slot = 3
    for axis in reversed(order):
        if shape[axis] != 1:
            if slot % 2 != (axis in reduced):
                slot -= 1
            if slot < 0:
                return None
            sizes[slot] *= shape[axis]
    return tuple(sizes)


def layout_of(x: Array, axes: Axis, *, kept: bool = False, rows: bool = False) -> Layout:
    """The layout of x whose `axes` are reduced, or kept; with rows=True as rows to reduce, (1, 1, c, s)."""
    axes = axes if isinstance(axes, tuple) else (axes,)
    try:
        return _layout(x.shape, x.strides, x.itemsize, axes, kept, rows)
    except TypeError:
        raise TypeError(f"axis must be an integer or a tuple of integers, got {shown(axes if len(axes) > 1 else axes[0])}") from None


def shown(value: Any) -> str:
    """An argument in an error, which is one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def number(value: Any, name: str) -> float:
    """The argument as a float; texts are no numbers."""
    if type(value) is not float:
        if isinstance(value, (str, bytes)) or np.ndim(value) != 0:
            raise TypeError(f"{name} must be a number, got {type(value).__name__}")
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a number, got {type(value).__name__}") from None
        except OverflowError:
            raise ValueError(f"{name} must be a number that a float holds, got {shown(value)}") from None
    return value


def floating(x: ArrayLike, name: str = "x") -> Array:
    """The argument as an aligned array of native float16, bfloat16, float32 or float64."""
    if type(x) is np.ndarray and x.dtype in FLOATS and x.flags.aligned:
        return x
    array = plain(x, name)
    native = array.dtype.newbyteorder("=")
    if native not in FLOATS and native.name not in HALVES:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {array.dtype}: convert it with astype(np.float32)")
    return array.astype(native, copy=not array.flags.aligned)


def computing(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that values of a dtype are computed in: float32 for floats of 16 bits; flags stay."""
    return dtype if dtype in FLOATS or dtype.kind == "b" else FLOATS[0]


def plain(x: ArrayLike, name: str) -> Array:
    """The argument as an ndarray; masked arrays and what is no array of numbers raise."""
    if type(x) is np.ndarray and x.dtype in FLOATS:
        return x
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost: fill it, or select its valid values")
    array = borrowed(x, name)
    if array.dtype == object or (array.dtype.kind not in "fiubc" and array.dtype.name not in HALVES):
        raise TypeError(f"{name} must be an array of floating-point numbers, got dtype {array.dtype}")
    return array


def same_shape(array: ArrayLike, x: Array, name: str) -> Array:
    """dy, or whatever else must have x's shape, in x's dtype."""
    array = floating(array, name)
    if array.shape != x.shape:
        raise ValueError(f"{name} has shape {array.shape} and x has {x.shape}: they must be the same")
    return array if array.dtype == x.dtype else array.astype(x.dtype)


def parameter(
    values: ArrayLike | None,
    layout: Layout,
    axes: tuple[int, ...],
    dtype: np.dtype[Any],
    name: str,
    default: float | None = None,
    out: Array | None = None,
) -> Array:
    """A weight, bias or statistic over the axes as a run in the order of the block, apart from `out`; None stands for the default."""
    shape = layout.along(axes)
    if values is None and default is not None:
        return constant(math.prod(shape), dtype, default)
    if values is None:
        raise TypeError(f"{name} is needed, got None")
    array = floating(values, name)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}: an x of shape {layout.shape} needs {shape}, its shape along the axes {axes}")
    run = layout.pack(array if array.dtype == dtype else array.astype(dtype), axes)
    return run if out is None else apart(run, out)


def statistics(stats: Any, layout: Layout, fields: tuple[str, ...] = ("mean", "rstd"), out: Array | None = None) -> list[Array]:
    """Statistics of a forward call as float64 runs in the order of the block, apart from `out`."""
    for field in fields:
        if not hasattr(stats, field):
            raise TypeError(f"stats must be what the forward call returned, with fields mean and rstd, got {type(stats).__name__}")
    return [parameter(getattr(stats, field), layout, layout.kept, DOUBLE, f"stats.{field}", None, out) for field in fields]


def unset_statistics(x: Array, *shape: int) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Arrays for mean, rstd and var; NaN where x has no values."""
    values = np.empty((3, *shape))
    if x.size == 0:
        values.fill(np.nan)
    return values[0], values[1], values[2]  # 0.5 us less than to iterate over them


def gradient_dtype(x: Array, weight: ArrayLike | None) -> np.dtype[Any]:
    """The dtype of dweight and dbias: x's, but that of a wider weight where x has 16 bits."""
    return x.dtype if weight is None or x.dtype in FLOATS else borrowed(weight, "weight").dtype


def direct(layout: Layout, *arrays: Array, shape: tuple[int, ...] | None = None, halves: bool = False) -> list[Array] | None:
    """The arrays as blocks, or in another shape, where a compiled kernel takes all of them as they lie, float32 or float64; else None.

    halves: the kernel takes 16-bit values too.
    """
    blocks = []
    for array in arrays:
        block = layout.view(array, shape) if halves or array.dtype in FLOATS else None
        if block is None:
            return None
        blocks.append(block)
    return blocks


@overload
def checked_where(where: ArrayLike, x: Array) -> Array: ...
@overload
def checked_where(where: ArrayLike | None, x: Array) -> Array | None: ...
def checked_where(where: ArrayLike | None, x: Array) -> Array | None:
    """A boolean mask as an array of x's shape (a view), or None."""
    if where is None:
        return None
    mask = borrowed(where, "where")
    if mask.dtype != bool:
        raise TypeError(f"where must be boolean (True takes part), got {mask.dtype}")
    try:
        return np.broadcast_to(mask, x.shape)
    except ValueError:
        raise ValueError(f"where has shape {mask.shape}, which does not broadcast to {x.shape}, that of x") from None


def checked_out(out: Writeable | None, x: Array, name: str = "out") -> Array | None:
    """`out` as an ndarray, a view where it is an array of another library; raises unless it can take a result of x's shape and dtype."""
    if out is None:
        return None
    out = writeable(out, name)
    if out.shape != x.shape or out.dtype != x.dtype:
        raise ValueError(f"{name} has shape {out.shape} and dtype {out.dtype}: it needs {x.shape} and {x.dtype}, those of x")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only: it must be writeable")
    if out.flags.c_contiguous:
        return out
    reach = out.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(out.strides, out.shape, strict=True) if size > 1):
        if stride < reach:
            raise ValueError(f"{name} overlaps itself (strides {out.strides}): give an array whose elements lie apart")
        reach += stride * (size - 1)
    return out


@overload
def apart(array: Array, out: Array | None) -> Array: ...
@overload
def apart(array: Array | None, out: Array | None) -> Array | None: ...
def apart(array: Array | None, out: Array | None) -> Array | None:
    """The array, copied if writing `out` would change values of it that are still to be read."""
    if out is None or array is None or out is array or not np.may_share_memory(array, out):
        return array
    same = array.shape == out.shape and array.strides == out.strides
    return array if same and array.__array_interface__["data"] == out.__array_interface__["data"] else array.copy(order="K")


def checked_eps(eps: float) -> float:
    """eps as a float that is 0 or more."""
    value = number(eps, "eps")
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"eps must be a finite number of 0 or more, got {eps}")
    return value

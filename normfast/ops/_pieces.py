"""Arrays taken in pieces that stay in the cache: what no kernel takes as it lies, or what needs several kernels one after the other.

A piece of an array whose axes stand in the order of a block is loaded as one contiguous run of the type that is computed in: a view where
the array is such already, else a copy in a buffer that every piece uses again (strides brought in line, 16 bits widened). So a call
needs buffers of LIMIT values, never a second array of x's size.
"""

import math

import numpy as np

from normfast import engines
from normfast.ops._arrays import computing, direct

BESIDE = 256  # values of a part that lie side by side at least: 6138 rows of 42 columns of bfloat16 take 1.5 times their course in pieces
LIMIT = 1 << 18  # values of a piece: 1 MB of float32, which two sweeps find in the second or third cache


def split(shape, limit=None, whole=0):
    """Cut an array into contiguous pieces of at most `limit` values (LIMIT), tuples of slices; the last `whole` axes are not cut."""
    limit = limit or LIMIT
    axis, size = len(shape), 1
    while axis > 0 and (axis > len(shape) - whole or size * shape[axis - 1] <= limit):
        axis -= 1
        size *= shape[axis]
    rest = tuple(slice(0, n) for n in shape[axis:])
    if axis == 0:
        return [rest]
    step = max(1, limit // max(size, 1))
    cuts = [slice(lo, min(lo + step, shape[axis - 1])) for lo in range(0, shape[axis - 1], step)]
    return [(*(slice(i, i + 1) for i in index), cut, *rest) for index in np.ndindex(*shape[: axis - 1]) for cut in cuts]


def elementwise(*arrays):
    """The pieces of arrays of one shape, for what takes each value by itself: one where they need no buffers, none without values."""
    whole = all(array.dtype.itemsize > 2 and array.flags.c_contiguous and array.flags.aligned for array in arrays)
    return split(arrays[0].shape, arrays[0].size if whole else None) if arrays[0].size else []


def size_of(piece):
    """How many values a piece holds."""
    return math.prod(cut.stop - cut.start for cut in piece)


def shape_of(piece):
    """The shape of a piece."""
    return tuple([cut.stop - cut.start for cut in piece])


def part(values, piece):
    """The part of an array that belongs to a piece; axes of length 1 are shared by all."""
    return values[(*(slice(None) if n == 1 else cut for n, cut in zip(values.shape, piece, strict=True)), ...)]  # a view without axes too


class Staged:
    """An array in the order of its block, loaded and kept piece by piece."""

    def __init__(self, array, order, dtype, pieces):
        self.view = array.transpose(order)
        self.dtype = dtype
        self._largest = max(map(size_of, pieces), default=0)
        self._buffer = None

    def buffer(self, piece):
        """A run for the piece that is nobody else's."""
        if self._buffer is None:
            self._buffer = np.empty(self._largest, self.dtype)
        return self._buffer[: size_of(piece)]

    def load(self, piece, own=False):
        """The piece as a run of `dtype`; own: in the buffer in any case, to be written."""
        source = self.view[(*piece, ...)]
        if not own and self._fits(source):
            return source.reshape(-1)
        run = self.buffer(piece)
        if source.dtype.itemsize == 2 and source.dtype.isnative and self.dtype == np.float32:
            engines.current().widen((np.ascontiguousarray(source) if source.flags.aligned else source.copy()).reshape(-1), run)
        else:
            np.copyto(run.reshape(source.shape), source)
        return run

    def place(self, piece):
        """Where the piece's result is to be written, before `keep`."""
        target = self.view[(*piece, ...)]
        return target.reshape(-1) if self._fits(target) else self.buffer(piece)

    def keep(self, piece, run):
        """Bring a result to the array, where it is not already."""
        target = self.view[(*piece, ...)]
        if self._fits(target):
            return
        if target.dtype.itemsize == 2 and self.dtype == np.float32:
            narrow = target if target.flags.c_contiguous and target.flags.aligned else np.empty(target.shape, target.dtype)
            engines.current().narrow(run, narrow.reshape(-1))
            run = narrow
        if run is not target:
            target[...] = run.reshape(target.shape)

    def _fits(self, view):
        return view.dtype == self.dtype and view.flags.c_contiguous and view.flags.aligned


def parts_along(layout, axis, *arrays, halves=False):
    """Parts of the arrays along an axis, which have nothing to do with each other, each for one call of a kernel; or None.

    Yields which part it is, and its runs, the last of which is to be written. What a kernel takes as it lies (`direct`), `halves` too if
    so, is one part. Else parts of at most LIMIT values are staged, if BESIDE of them lie side by side; axis None is not cut. A
    course costs more: bfloat16 batch norm of 24 x 32 x 4 x 4 values 530 us and so 170, of 32 x 1024 x 7 x 7 on one core 7.7 ms and so 2.8.
    """
    blocks = direct(layout, *arrays, halves=halves)
    if blocks is not None:
        return iter([(slice(None), *(block.reshape(-1) for block in blocks))])
    lengths = [layout.shape[i] for i in layout.order]
    if arrays[0].size <= LIMIT:
        return _staged_parts(layout, arrays, [slice(None)], [tuple(slice(0, n) for n in lengths)])
    if axis is None:
        return None
    place = layout.order.index(axis)
    n, outer, inner = lengths[place], lengths[:place], lengths[place + 1 :]
    step = LIMIT * n // arrays[0].size
    if step * math.prod(inner) < BESIDE:
        return None
    owns = [slice(lo, min(lo + step, n)) for lo in range(0, n, step)]
    pieces = [(*(slice(0, m) for m in outer), own, *(slice(0, m) for m in inner)) for own in owns]
    return _staged_parts(layout, arrays, owns, pieces)


def _staged_parts(layout, arrays, owns, pieces):
    """The parts of arrays that are brought in order: which one each is along the axis, and its piece of the arrays."""
    *sources, target = (Staged(array, layout.order, computing(array.dtype), pieces) for array in arrays)
    shared = [np.may_share_memory(source.view, target.view) for source in sources]
    for own, piece in zip(owns, pieces, strict=True):
        result = target.place(piece)
        yield own, *(source.load(piece, again) for source, again in zip(sources, shared, strict=True)), result
        target.keep(piece, result)

"""How an array that is larger than memory is cut into blocks.

The cuts depend on the shape, the type, the order in which values are stored and the axes alone: so the bits of a result depend neither
on threads nor on speed nor on where a pass was interrupted.
"""

import math

BLOCK = 4 << 20  # bytes of a block: statistics and result are computed while it is in the caches
MANY = 1 << 17  # statistics from which on they are, if possible, not all held at once


class Grid:
    """Blocks of an array, tuples of slices, in the order in which they are stored.

    Parameters
    ----------
    shape, block : tuple of int
        Of the array and of its blocks; the last ones of an axis may be shorter.
    order : tuple of int
        The axes, the one along which values lie next to each other last.
    whole : bool
        Whether each block holds all values of its statistics.
    many : bool
        Whether there are so many statistics that they are better not kept.
    """

    def __init__(self, shape, block, order, whole=False, many=False):
        self.shape, self.block, self.order, self.whole, self.many = shape, block, order, whole, many
        self._counts = [-(-n // step) if n else 0 for n, step in zip(shape, block, strict=True)]

    def __len__(self):
        return math.prod(self._counts)

    def __getitem__(self, k):
        slices = [slice(0, 0)] * len(self.shape)
        for axis in reversed(self.order):
            k, i = divmod(k, self._counts[axis])
            low = i * self.block[axis]
            slices[axis] = slice(low, min(low + self.block[axis], self.shape[axis]))
        return tuple(slices)


def grown(shape, unit, order, limit):
    """The shape of a block of at most `limit` values: a unit repeated along the axes, the last of the order first."""
    block = [min(max(n, 1), length) for n, length in zip(shape, unit, strict=True)]
    for axis in reversed(order):
        others = math.prod(block) // block[axis]
        block[axis] = min(max(shape[axis], 1), block[axis] * max(1, limit // (others * block[axis])))
        if block[axis] < shape[axis]:
            break
    return tuple(block)


def grid_for(source, reduced):
    """The blocks in which a source is read for statistics over the axes `reduced`."""
    shape, order, limit = source.shape, source.order, max(1, BLOCK // source.dtype.itemsize)
    block = grown(shape, source.unit, order, limit)
    many = math.prod(n for axis, n in enumerate(shape) if axis not in reduced) > MANY
    if all(block[axis] >= shape[axis] for axis in reduced):
        return Grid(shape, block, order, True, many)
    # a hundred million short columns: whole columns at a time, though their values lie apart
    if many and math.prod(shape[axis] for axis in reduced) <= limit and not source.sequential:
        unit = tuple(n if axis in reduced else source.unit[axis] for axis, n in enumerate(shape))
        return Grid(shape, grown(shape, unit, order, limit), order, True, many)
    return Grid(shape, block, order, False, many)


def rows_for(source):
    """The blocks in which samples in rows are read: whole rows."""
    unit = source.unit[0], max(1, source.shape[1])
    if source.sequential and source.order != (0, 1):
        raise ValueError(f"{source.name} holds columns, compressed: whitening needs rows, so extract it first")
    return Grid(source.shape, grown(source.shape, unit, source.order, max(1, BLOCK // source.dtype.itemsize)), source.order)

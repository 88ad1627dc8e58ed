"""Statistics of an array that is seen block by block: measured by `ops`, merged in a fixed order, kept as bytes between two runs."""

import io

import numpy as np

from normfast.ops.covariance import MAGIC as COVARIANCE
from normfast.ops.covariance import Covariance, covariance
from normfast.ops.moments import MAGIC as MOMENTS
from normfast.ops.moments import Moments, moments
from normfast.ops.scaling import merged_in_units, moments_in_units, real


class MomentsOf:
    """Moments, as `normfast.moments` takes them."""

    compensated = False

    def __init__(self, axis, nan_policy="propagate"):
        self.axis, self.nan_policy = axis, nan_policy

    def measure(self, values):
        """The statistics of a block: a tuple."""
        return (moments(values, self.axis, nan_policy=self.nan_policy),)

    def merge(self, a, b):
        """Those of two blocks together."""
        return (a[0] + b[0],)

    def fields(self, part):
        """Arrays of the shape of a statistic, and numbers that all share."""
        return part[0].count, part[0].mean, part[0].m2

    def whole(self, count, mean, m2):
        """What the fields of all blocks together make."""
        return (Moments(count, mean, m2),)


class MomentsInUnits(MomentsOf):
    """Moments without NaN, in the units that keep squares within reach, as `standardize` takes them."""

    def measure(self, values):
        return moments_in_units(real(values), self.axis)

    def merge(self, a, b):
        return merged_in_units(*a, *b)

    def fields(self, part):
        return (*super().fields(part), part[1])

    def whole(self, count, mean, m2, unit):
        return Moments(count, mean, m2), unit


class Extremes:
    """The smallest and the largest value that is no NaN."""

    compensated = False

    def __init__(self, axis):
        self.axis = axis

    def measure(self, values):
        if not values.size:
            nothing = np.full([n for axis, n in enumerate(values.shape) if axis not in self.axis], np.nan)
            return nothing, nothing
        return tuple(np.asarray(extreme.reduce(values, axis=self.axis), np.float64) for extreme in (np.fmin, np.fmax))

    def merge(self, a, b):
        return np.fmin(a[0], b[0]), np.fmax(a[1], b[1])

    def fields(self, part):
        return part

    def whole(self, *part):
        return part


class Summary:
    """Moments and extremes."""

    compensated = False

    def __init__(self, axis, nan_policy):
        self.axis, self.nan_policy = axis, nan_policy
        self._moments, self._extremes = MomentsOf(axis, nan_policy), Extremes(axis)

    def measure(self, values):
        return self._moments.measure(values) + self._extremes.measure(values)

    def merge(self, a, b):
        return self._moments.merge(a[:1], b[:1]) + self._extremes.merge(a[1:], b[1:])

    def fields(self, part):
        return (*self._moments.fields(part), *part[1:])

    def whole(self, count, mean, m2, smallest, largest):
        return Moments(count, mean, m2), smallest, largest


class CovarianceOf:
    """Covariance of samples in rows."""

    compensated = True  # merging carries what rounding takes from the mean

    def __init__(self, nan_policy="propagate"):
        self.axis, self.nan_policy = (0,), nan_policy

    def measure(self, values):
        return (covariance(values, nan_policy=self.nan_policy),)

    def merge(self, a, b):
        return (a[0] + b[0],)

    def fields(self, part):
        return part

    def whole(self, part):
        return (part,)


class Collector:
    """The statistics of the blocks so far.

    Blocks of the same columns are merged two by two, then two such pairs, and so on: the mean is rounded as often as the tree is high, and
    the order depends on the number of blocks alone. What belongs to other columns is kept apart.
    """

    def __init__(self, kind, shape):
        self.kind = kind
        self.shape = shape
        self._kept = [axis for axis in range(len(shape)) if axis not in kind.axis]
        self._trees = {}  # (low, high) along each kept axis: [how many blocks, their statistics], the larger first

    def add(self, block, values):
        """Take the values of the next block."""
        tree, size, part = self._trees.setdefault(self._cell(block), []), 1, self.kind.measure(values)
        while tree and (tree[-1][0] == size or self.kind.compensated):
            other, earlier = tree.pop()
            size, part = size + other, self.kind.merge(earlier, part)
        tree.append([size, part])

    def put(self, block, part):
        """Take the statistics of a block that holds all values of its columns, also once more."""
        self._trees[self._cell(block)] = [[1, part]]

    def _cell(self, block):
        return tuple((block[axis].start, block[axis].stop) for axis in self._kept)

    def result(self):
        """The statistics of all that was seen."""
        parts = {cell: self._merged(tree) for cell, tree in self._trees.items()}
        if not parts:
            return self.kind.measure(np.empty(self.shape))
        if len(parts) == 1:
            return self.kind.whole(*self.kind.fields(*parts.values()))
        columns = zip(*(self.kind.fields(part) for part in parts.values()), strict=True)
        return self.kind.whole(*(self._assembled(list(values), list(parts)) for values in columns))

    def _merged(self, tree):
        part = tree[-1][1]
        for _, earlier in reversed(tree[:-1]):
            part = self.kind.merge(earlier, part)
        return part

    def _assembled(self, values, cells):
        if not isinstance(values[0], np.ndarray):
            return values[0]  # a count, the same for all
        whole = np.empty([self.shape[axis] for axis in self._kept], values[0].dtype)
        for cell, part in zip(cells, values, strict=True):
            whole[tuple(slice(*ends) for ends in cell)] = part
        return whole

    def snapshot(self):
        """The state, which later blocks do not change: for `packed`."""
        return [(cell, size, part) for cell, tree in list(self._trees.items()) for size, part in tree]

    def restore(self, description, blobs):
        """Go on from what `packed` gave."""
        self._trees, blobs = {}, iter(blobs)
        for cell, size, count in description:
            part = tuple(_unpacked(next(blobs)) for _ in range(count))
            self._trees.setdefault(tuple(map(tuple, cell)), []).append([size, part])


def packed(snapshot):
    """A snapshot as a list for JSON and a list of bytes."""
    return [[cell, size, len(part)] for cell, size, part in snapshot], [_packed(value) for _, _, part in snapshot for value in part]


def _packed(value):
    if isinstance(value, (Moments, Covariance)):
        return value.to_bytes()
    file = io.BytesIO()
    np.save(file, np.asarray(value), allow_pickle=False)
    return file.getvalue()


def _unpacked(data):
    if data.startswith(MOMENTS):
        return Moments.from_bytes(data)
    if data.startswith(COVARIANCE):
        return Covariance.from_bytes(data)
    return np.load(io.BytesIO(data), allow_pickle=False)

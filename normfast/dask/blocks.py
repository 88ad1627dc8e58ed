"""What all functions of the bridge share: checks, functions on blocks, the tree in which statistics merge, and lazy results.

Statistics travel between tasks as arrays of records, of length 1 along the reduced axes: so they are Dask arrays like any other, whose
chunks are as long as they say.
"""

from functools import wraps
from math import isnan

import dask.array as da
import numpy as np
from dask.base import DaskMethodsMixin, tokenize
from dask.graph_manipulation import clone

from normfast.engines.threads import threads
from normfast.ops._arrays import layout_of

TOGETHER = 8  # blocks whose statistics merge in one task: a power of two, so that the tree is that of `nf.Moments.merge`


def on_blocks(function):
    """A function of blocks as a task runs it: on one thread, since Dask runs a block on each core already, and on blocks in C order, since
    they come so from other processes and the order of memory is the order of sums."""

    @wraps(function)
    def task(*arguments, **options):
        blocks = [np.asanyarray(value, order="C") if isinstance(value, np.ndarray) else value for value in arguments]
        with threads(1):
            return function(*blocks, **options)

    return task


def checked(x, name="x"):
    """x, which must be a Dask array."""
    if not isinstance(x, da.Array):
        raise TypeError(f"{name} must be a Dask array, got {type(x).__name__}: dask.array.from_array makes one")
    return x


def lazily(values):
    """Values as a Dask array."""
    return values if isinstance(values, da.Array) else da.from_array(np.asarray(values))


def fits(n, size):
    """Whether two lengths are the same, as far as they are known."""
    return n == size or isnan(n) or isnan(size)


def sample(x):
    """An array of the kind of x's blocks with hardly a value, on which the checks of an operation are run before any task is."""
    return np.zeros_like(x._meta, shape=(0,) * x.ndim)


def reduced_axes(x, axis):
    """The axes as a tuple of numbers of 0 or more, in ascending order; None stands for all."""
    return layout_of(sample(x), tuple(range(x.ndim)) if axis is None else axis).reduced


def along(x, axes):
    """The chunks of statistics over these axes: one value for each block along them."""
    return tuple((1,) * len(sizes) if axis in axes else sizes for axis, sizes in enumerate(x.chunks))


def mapped(function, x, *others, dtype, chunks=None, name=None, **options):
    """The function of each block of x and of the blocks beside it; arrays of one block are beside all."""
    chunks = x.chunks if chunks is None else chunks
    name = name or f"normfast-{function.__name__.strip('_')}"
    name = f"{name}-{tokenize(function, x, others, chunks, dtype, options)}"  # whole, since Dask's words for a prefix have changed
    meta = np.empty((0,) * len(chunks), dtype)
    return da.map_blocks(function, x, *others, chunks=chunks, dtype=dtype, meta=meta, name=name, **options)


def beside(values, x, axes, name):
    """A Dask array whose axes are those of x from `axes` on, or 1 long, in chunks that lie beside those of x."""
    sizes = {}
    for own, axis in enumerate(axes):
        if values.shape[own] == 1 and x.shape[axis] != 1:
            sizes[own] = (1,)  # beside all of them
            continue
        unknown = any(map(isnan, (*x.chunks[axis], *values.chunks[own])))
        if unknown and values.numblocks[own] != x.numblocks[axis]:
            raise ValueError(f"{name} and x have chunks of unknown size and not as many: call compute_chunk_sizes() on both first")
        if not unknown:
            sizes[own] = x.chunks[axis]
    return values.rechunk(sizes) if sizes else values


def _as_they_are(records, axis, keepdims):
    return records


def tree(merge, records, axes):
    """Records of blocks merged along axes by Dask's tree reduction, along the last one first; the axes stay, 1 long."""
    for axis in reversed(axes):
        if records.numblocks[axis] > 1:
            records = da.reduction(
                records, _as_they_are, merge, axis=axis, keepdims=True, dtype=records.dtype, split_every=TOGETHER,
                meta=records._meta, name=f"normfast-{merge.__name__}",
            )  # fmt: skip
    return records


def again(x, reread):
    """x for its second use: by a graph of its own, whose blocks are read anew, or the same, whose blocks wait in memory meanwhile."""
    return clone(x, seed="normfast") if reread else x


class Lazy(DaskMethodsMixin):
    """Statistics that `compute()` brings into memory: a Dask collection over one array of records."""

    __slots__ = ("_records",)
    __dask_scheduler__ = staticmethod(da.Array.__dask_scheduler__)

    def __init__(self, records: da.Array) -> None:
        self._records = records

    def _arguments(self):
        """What the constructor needs beside the records."""
        return ()

    def _result(self, records):
        """The statistics that the computed records stand for."""
        raise TypeError(f"{type(self).__name__} is abstract")

    @property
    def __dask_optimize__(self):
        return self._records.__dask_optimize__

    def __dask_graph__(self):
        return self._records.__dask_graph__()

    def __dask_keys__(self):
        return self._records.__dask_keys__()

    def __dask_layers__(self):
        return self._records.__dask_layers__()

    def __dask_tokenize__(self):
        return type(self).__name__, self._records.name, self._arguments()

    def __dask_postcompute__(self):
        finalize, arguments = self._records.__dask_postcompute__()
        return _computed, (self, finalize, arguments)

    def __dask_postpersist__(self):
        rebuild, arguments = self._records.__dask_postpersist__()
        return _persisted, (type(self), rebuild, arguments, self._arguments())


def _computed(results, lazy, finalize, arguments):
    return lazy._result(finalize(results, *arguments))


def _persisted(graph, kind, rebuild, arguments, own, **options):
    return kind(rebuild(graph, *arguments, **options), *own)

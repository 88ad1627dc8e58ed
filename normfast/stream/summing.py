"""`moments` and `covariance` of what is larger than memory: files, arrays with slices, and arrays that come one after the other."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from normfast.ops.covariance import Covariance
from normfast.ops.moments import POLICIES, Moments
from normfast.stream.grid import grid_for, rows_for
from normfast.stream.passes import statistics_pass
from normfast.stream.progress import Progress
from normfast.stream.sources import checked_dtype, open_source
from normfast.stream.state import State
from normfast.stream.statistics import Collector, CovarianceOf, MomentsOf, Summary
from normfast.typing import Axis, NanPolicy


def moments(
    source: Any,
    axis: Axis | None = None,
    *,
    nan_policy: NanPolicy = "propagate",
    member: str | None = None,
    columns: list[str] | None = None,
    state: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Moments:
    """Count, mean and sum of squared deviations of what is larger than memory, in one pass.

    Parameters
    ----------
    source : path, array with slices, or iterable of arrays
        A file .npy, .npz (`member`), .zarr or .parquet, what `raw` gives, an array of any library that gives slices by `[...]`, or arrays
        that follow each other along axis 0.
    axis : None, int or tuple of int
        Axes over which to take the moments; None takes all.
    nan_policy : {"propagate", "omit", "raise"}
        As in `normfast.moments`.
    member : str, optional
        Of a .npz or of a group of Zarr; "file.npz:member" says the same.
    columns : list of str, optional
        Those of a Parquet table that take part, by default all.
    state : path, optional
        A file that keeps how far the pass is. A call that finds it goes on from there; when the pass is over it is deleted.
    progress : bool
        Show on stderr how far it is.

    Returns
    -------
    Moments
        As those of the array in memory: to rounding, since blocks are merged in another order, which depends on the shape alone.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, and a NaN under nan_policy="raise"; a `FileError` for a file that is damaged or changes meanwhile.

    Examples
    --------
    >>> import os, tempfile, numpy as np, normfast as nf
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "x.npy")
    ...     np.save(path, np.array([[1.0, 2.0], [3.0, 6.0]]))
    ...     m = nf.stream.moments(path, axis=0)
    >>> m.count, m.mean, m.std()
    (2, array([2., 4.]), array([1., 2.]))
    >>> nf.stream.moments(np.full(1000, i) for i in range(3)).mean
    array(1.)
    """
    if nan_policy not in POLICIES:
        raise ValueError(f"nan_policy must be one of {', '.join(POLICIES)}, got {nan_policy!r}")
    if _follow_each_other(source):
        return _of_arrays(source, axis, lambda reduced: MomentsOf(reduced, nan_policy))
    return _of_source(source, axis, lambda reduced: MomentsOf(reduced, nan_policy), member, columns, state, progress)[0]


def covariance(
    source: Any,
    *,
    nan_policy: NanPolicy = "propagate",
    member: str | None = None,
    columns: list[str] | None = None,
    state: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Covariance:
    """Count, mean and co-moment matrix of the rows of what is larger than memory, in one pass.

    Parameters
    ----------
    source : path, array with slices, or iterable of arrays
        As in `moments`, of shape (n, d).
    nan_policy : {"propagate", "omit", "raise"}
        As in `normfast.covariance`.
    member, columns, state, progress
        As in `moments`.

    Returns
    -------
    Covariance
        As that of the array in memory, to rounding.

    Raises
    ------
    TypeError, ValueError
        As `moments`, and for a source that is not 2-D.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 6.0], [4.0, 5.0]])
    >>> nf.stream.covariance([x[:3], x[3:]]).cov()
    array([[1.25, 1.75],
           [1.75, 4.25]])
    """
    if nan_policy not in POLICIES:
        raise ValueError(f"nan_policy must be one of {', '.join(POLICIES)}, got {nan_policy!r}")
    if _follow_each_other(source):
        return _of_arrays(source, 0, lambda _: CovarianceOf(nan_policy))
    return _of_source(source, None, lambda _: CovarianceOf(nan_policy), member, columns, state, progress)[0]


def summary(source, axis, nan_policy, state, progress):
    """Moments, smallest and largest values."""
    return _of_source(source, axis, lambda reduced: Summary(reduced, nan_policy), None, None, state, progress)


def _of_source(source, axis, kind, member, columns, state, show):
    source = open_source(source, member=member, columns=columns)
    try:
        ndim = len(source.shape)
        kind = kind(tuple(range(ndim)) if axis is None else tuple(sorted(normalize_axis_tuple(axis, ndim, "axis"))))
        samples = isinstance(kind, CovarianceOf)
        if samples and ndim != 2:
            raise ValueError(f"{source.name} has shape {source.shape}: a covariance needs (n, d), samples in rows")
        grid = rows_for(source) if samples else grid_for(source, kind.axis)
        run = {"source": source.fingerprint(), "kind": type(kind).__name__, "axis": list(kind.axis), "nan_policy": kind.nan_policy}
        state = State(os.fspath(state) if state is not None else None, run | {"block": list(grid.block)})
        try:
            _, start, description, blobs = state.read() or ("", 0, [], [])
            collector = Collector(kind, source.shape)
            collector.restore(description, blobs)
            with Progress(source.nbytes, show) as progress:
                progress.start("statistics", source.nbytes * start // max(1, len(grid)))
                found = statistics_pass(source, grid, collector, start, state, progress)
            source.fingerprint()  # nobody has written to it
            state.remove()
        finally:
            state.close()
    finally:
        source.close()
    return found


def _follow_each_other(source):
    return isinstance(source, Iterable) and not isinstance(source, (str, os.PathLike)) and not hasattr(source, "shape")


def _of_arrays(arrays, axis, kind):
    """The same of arrays that follow each other along axis 0: blocks as they come."""
    collector, position, shape, measured = None, 0, (), None
    for array in arrays:
        array = np.asarray(array)
        checked_dtype(array.dtype, "an array")
        if collector is None:
            if array.ndim == 0:
                raise ValueError("the arrays must follow each other along axis 0, got one without axes")
            shape, ndim = array.shape, array.ndim
            measured = kind(tuple(range(ndim)) if axis is None else tuple(sorted(normalize_axis_tuple(axis, ndim, "axis"))))
            collector = Collector(measured, shape)
        if array.shape[1:] != shape[1:] or array.ndim != len(shape):
            raise ValueError(f"array of shape {array.shape} after one of {shape}: all axes but the first must be the same")
        block = slice(position, position := position + len(array)), *(slice(0, n) for n in shape[1:])
        collector.add(block, array)
    if collector is None:
        raise ValueError("there are no arrays to take statistics of: give one or more")
    collector.shape = (position, *shape[1:])
    return collector.result()[0]

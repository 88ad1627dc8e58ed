"""`transform`: a source larger than memory brought to a target, which gets its name when it is whole."""

import errno
import math
import os
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import DTypeLike

from normfast.stream.checking import checked
from normfast.stream.errors import FileError
from normfast.stream.grid import grid_for, rows_for
from normfast.stream.methods import METHODS
from normfast.stream.passes import result_pass, statistics_pass
from normfast.stream.progress import Progress
from normfast.stream.sources import open_source
from normfast.stream.state import State
from normfast.stream.statistics import Collector
from normfast.stream.targets import TABLES, Claim, ending_of, open_target, put_in_place, refuse
from normfast.typing import Axis

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Transformed(NamedTuple):
    """What `transform` has done.

    `statistics` are those of the source: `Moments` for "standardize", (smallest, largest) for "minmax", a `Covariance` for "whiten"; None
    where there are more than a hundred thousand and each block held whole ones, which are not kept, and where there are no values.

    Examples
    --------
    >>> import os, tempfile, numpy as np, normfast as nf
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(os.path.join(folder, "x.npy"), np.array([[1.0, 2.0], [3.0, 6.0]]))
    ...     done = nf.stream.transform(os.path.join(folder, "x.npy"), os.path.join(folder, "y.npy"))
    >>> done.shape, done.dtype, done.statistics.mean
    ((2, 2), dtype('float64'), array([2., 4.]))
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    statistics: Any


def transform(
    source: Any,
    target: str | os.PathLike[str],
    *,
    method: Literal["standardize", "minmax", "whiten"] = "standardize",
    axis: Axis | None = 0,
    ddof: float = 0,
    feature_range: tuple[float, float] = (0, 1),
    dtype: DTypeLike | None = None,
    member: str | None = None,
    columns: list[str] | None = None,
    resume: bool = False,
    force: bool = False,
    check: bool = False,
    progress: bool = False,
) -> Transformed:
    """Standardize, scale or whiten what is larger than memory: one pass for the statistics, one for the result.

    Parameters
    ----------
    source : path, or array with slices
        A file .npy, .npz (`member`), .zarr or .parquet, what `raw` gives, or an array of any library that gives slices by `[...]`.
    target : path
        Its ending tells the format: .npy, .zarr, .parquet (tables), or .raw, .bin, .dat for values alone.
    method : {"standardize", "minmax", "whiten"}
        As `preprocessing.standardize`, `minmax_scale` and `whiten` (ZCA; samples in rows, finite).
    axis : None, int or tuple of int
        Axes over which statistics are taken; None takes all. Whitening has 0.
    ddof : int or float
        The variance is m2 / (count - ddof).
    feature_range : (float, float)
        Of "minmax": the ends, in ascending order.
    dtype : dtype, optional
        float16, float32 or float64 of the result; by default the source's, and float64 for integers. Values are computed in the wider of
        both and rounded once.
    member : str, optional
        Of a .npz or of a group of Zarr; "file.npz:member" says the same.
    columns : list of str, optional
        Those of a Parquet table that take part, by default all.
    resume : bool
        Go on from where an interrupted call with the same arguments was; one that left nothing begins anew.
    force : bool
        Replace what has the target's name, when the result is whole.
    check : bool
        Read the result and the source once more, before the result gets its name: each value must be the transform of its source, mean and
        deviation 0 and 1 within their error.
    progress : bool
        Show on stderr how far it is.

    Returns
    -------
    Transformed
        (path, shape, dtype, statistics).

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; nothing is written then.
    FileError
        A ValueError: for a source that is damaged, too short or changes meanwhile, and a result that fails its check.
    OSError
        For a full disk, a missing permission and what else a system refuses. What is done is kept for `resume`.

    Notes
    -----
    The result grows as `target` + ".partial", beside its state, `target` + ".resume"; both are gone when the result has its name.
    Blocks of 4 MB are read, computed and written at the same time. Memory beyond them is that of the statistics.

    Examples
    --------
    >>> import os, tempfile, numpy as np, normfast as nf
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     x, y = os.path.join(folder, "x.npy"), os.path.join(folder, "y.npy")
    ...     np.save(x, np.array([[1.0, 5.0], [3.0, 5.0]]))
    ...     done = nf.stream.transform(x, y, check=True)
    ...     np.load(y)
    array([[-1.,  0.],
           [ 1.,  0.]])
    >>> done.statistics.mean
    array([2., 5.])
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    path = os.fspath(target)
    ending_of(path)
    source = open_source(source, member=member, columns=columns)
    try:
        return _Run(source, path, method, axis, ddof, feature_range, dtype).run(resume, force, check, progress)
    finally:
        source.close()


class _Run:
    """One call of `transform`."""

    def __init__(self, source, path, method, axis, ddof, feature_range, dtype):
        self.source, self.path, self.ending = source, path, ending_of(path)
        self.partial, self.state_path = f"{path}.partial", f"{path}.resume"
        shape, ndim = source.shape, len(source.shape)
        natural = source.dtype.newbyteorder("=") if source.dtype.kind == "f" else np.dtype(np.float64)
        self.dtype = natural if dtype is None else np.dtype(dtype)
        if self.dtype not in (np.float16, np.float32, np.float64):
            raise TypeError(f"dtype must be float16, float32 or float64, got {self.dtype}")
        if not math.isfinite(ddof):
            raise ValueError(f"ddof must be a finite number, got {ddof}")
        reduced = tuple(range(ndim)) if axis is None else tuple(sorted(normalize_axis_tuple(axis, ndim, "axis")))
        if method == "whiten" and (ndim != 2 or reduced != (0,)):
            raise ValueError(f"whitening takes samples in rows, shape (n, d) and axis 0, got shape {shape} and axis {axis}")
        options: dict[str, Any] = {"feature_range": list(feature_range)} if method == "minmax" else {"ddof": ddof}
        self.grid = rows_for(source) if method == "whiten" else grid_for(source, reduced)
        self.method = METHODS[method](shape, reduced, np.result_type(natural, self.dtype), self.dtype, **options)
        self.fortran = source.order != tuple(range(ndim)) and method != "whiten"
        self.options = {"method": method, "axis": list(reduced), "dtype": self.dtype.str, "block": list(self.grid.block), **options}

    def run(self, resume, force, check, show):
        """All of it; what goes wrong with a file leaves nothing, what may be mended leaves what `resume` needs."""
        state = State(self.state_path, {"source": self.source.fingerprint(), **self.options})
        try:
            found = state.read() if resume else None
            whole = found and found[:2] == ("result", len(self.grid)) and not os.path.exists(self.partial) and os.path.exists(self.path)
            refuse(self.path, (self.partial, self.state_path), self.source.paths(), force or whole)
            if whole:  # it was killed between its last two steps
                state.remove()
                state.close()
                return self._told(self._collector(found))
            claim = Claim(self.partial, self.ending == ".zarr")
        except BaseException:
            state.close()
            raise
        try:
            told = self._told(self._grow(found, claim, state, check, show))
            put_in_place(self.partial, self.path)
            state.remove()
        except (FileError, TypeError, ValueError):
            state.remove()
            claim.remove()
            raise
        except OSError as error:
            if error.errno in FULL:
                if not os.path.exists(self.state_path):
                    claim.remove()
                    raise
                raise OSError(error.errno, f"{os.strerror(error.errno)}: make room and resume, or delete {self.partial}") from None
            raise
        finally:
            claim.close()
            state.close()
        return told

    def _grow(self, found, claim, state, check, show):
        """The passes, from where they were."""
        name, start = found[:2] if found else ("statistics", 0)
        new = claim.new or name == "statistics" or self.ending in TABLES
        if new:
            if not found:
                state.remove()
            claim.clear()
        layout = self.source.shape, self.dtype, self.fortran, self.grid, self.source
        target = open_target(self.partial, self.ending, *layout, new)
        try:
            with Progress(self.source.nbytes * ((1 if self.grid.whole else 2) + check), show) as progress:
                collector = self._collector(found)
                if not self.grid.whole:
                    begin = start if name == "statistics" else len(self.grid)
                    progress.start("statistics", self._bytes(begin))
                    self.method.learn(*statistics_pass(self.source, self.grid, collector, begin, state, progress))
                    transformed = partial(self.method.apply, own=not self.source.lent)
                else:
                    transformed = partial(self._learned, collector)
                begin = 0 if new else start
                state.save("result", begin, collector.snapshot(), target.sync)
                progress.start("result", self._bytes(begin))
                result_pass(self.source, self.grid, target, transformed, begin, state, collector, progress)
                target.finish()
                self.source.fingerprint()
                if check:
                    progress.start("check")
                    result = target.reread()
                    try:
                        checked(self.source, result, self.grid, self.method, progress)
                    finally:
                        result.close()
                state.save("result", len(self.grid), collector.snapshot())
                state.settle()
        finally:
            target.close()
        return collector

    def _collector(self, found):
        """The statistics so far."""
        collector = Collector(self.method.kind, self.source.shape)
        if found:
            collector.restore(*found[2:])
        return collector

    def _told(self, collector):
        """What is returned."""
        statistics = None
        if len(self.grid) and not (self.grid.whole and self.grid.many):
            self.method.learn(*collector.result())
            statistics = self.method.found
        return Transformed(self.path, self.source.shape, self.dtype, statistics)

    def _learned(self, collector, block, values):
        """The transform of a block that holds whole statistics."""
        part = self.method.kind.measure(values)
        if not self.grid.many:
            collector.put(block, part)
        self.method.learn(*part)
        return self.method.apply(None, values, not self.source.lent)

    def _bytes(self, blocks):
        """About so many bytes are in that many blocks."""
        return self.source.nbytes * blocks // max(1, len(self.grid))

"""The check of a result, read again beside its input."""

import numpy as np

from normfast.engines.threads import threads
from normfast.stream.errors import FileError
from normfast.stream.passes import read_ahead
from normfast.stream.statistics import Collector


@threads(1)
def checked(source, result, grid, method, progress):
    """Raise a `FileError` unless each value is the transform of its source and the statistics of the result are as promised."""
    collector = Collector(method.kind, source.shape)
    written = read_ahead(result, grid, 0)
    for (_, block, values), (_, _, y) in zip(read_ahead(source, grid, 0), written, strict=True):
        progress.add(values.nbytes)
        if grid.whole:
            method.learn(*method.kind.measure(values))
        again = method.apply(None if grid.whole else block, values, False)
        if not method.same(y, again):
            worst = np.argwhere(~((y == again) | (np.isnan(y) & np.isnan(again))))
            at = tuple(int(i + cut.start) for i, cut in zip(worst[0], block, strict=True)) if len(worst) else block
            raise FileError(f"the check failed: the result at {at} is not the transform of its source")
        if grid.whole:
            _bounded(method.deviation(*method.kind.measure(y)))
        else:
            collector.add(block, y)
    if not grid.whole and len(grid):
        _bounded(method.deviation(*collector.result()))


def _bounded(deviation):
    if not deviation <= 1:
        raise FileError(f"the check failed: statistics of the result are off by {deviation:.2g} of what rounding explains")

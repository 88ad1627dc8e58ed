"""The two passes over an array, for the statistics and for the result. The next blocks are read and the last ones written meanwhile.

The kernels take one thread, since others read and write: 1 GB of float32 in files in memory, on 2 cores, is standardized in 0.74 s so and
in 2.0 s with two threads, who wait for cores that are taken. One thread computes 14 GB/s.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from normfast.engines.threads import threads
from normfast.stream.sources import Space

AHEAD = 2  # blocks that are being read while one is computed, and as many that are being written


def read_ahead(source, grid, start):
    """(number, block, values) of the blocks in their order, from one on; values may be overwritten, and hold until AHEAD blocks later."""
    spaces = [Space() for _ in range(2 * AHEAD + 2)]
    with ThreadPoolExecutor(1) as reader:
        pending: deque[Any] = deque()
        try:
            for k in range(start, len(grid) + AHEAD):
                if k < len(grid):
                    pending.append((k, block := grid[k], reader.submit(source.read, block, spaces[k % len(spaces)])))
                if k >= start + AHEAD and pending:
                    number, block, values = pending.popleft()
                    yield number, block, values.result()
        finally:
            for _, _, values in pending:
                values.cancel()


@threads(1)
def statistics_pass(source, grid, collector, start, state, progress):
    """Give all blocks from `start` on to the collector."""
    done = start
    try:
        for k, block, values in read_ahead(source, grid, start):
            collector.add(block, values)
            done = k + 1
            progress.add(values.nbytes)
            if state.due():
                state.save("statistics", done, collector.snapshot())
    except KeyboardInterrupt:
        state.save("statistics", done, collector.snapshot())
        raise
    return collector.result()


@threads(1)
def result_pass(source, grid, target, transform, start, state, collector, progress):
    """Write the transform of all blocks from `start` on; the collector goes into the state."""
    done = start
    with ThreadPoolExecutor(1) as writer:
        pending: deque[Any] = deque()
        try:
            for k, block, values in read_ahead(source, grid, start):
                while len(pending) >= AHEAD:
                    done = _written(pending)
                size = values.nbytes
                pending.append((k, writer.submit(target.write, block, transform(block, values))))
                progress.add(size)
                if state.due():
                    state.save("result", done, collector.snapshot(), target.sync)
            while pending:
                done = _written(pending)
        except (KeyboardInterrupt, OSError):
            for _, written in pending:
                written.cancel()
            with suppress(OSError):  # a full disk may have no room for it either: then the one before holds
                state.save("result", done, collector.snapshot(), target.sync)
                state.settle()
            raise


def _written(pending):
    """Wait for the oldest block; the number of the next one."""
    k, written = pending[0]
    written.result()
    pending.popleft()
    return k + 1

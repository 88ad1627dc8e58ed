"""Sums over tiles: what blocks leave of dweight and dbias, added down the columns in a fixed order and float64."""

from functools import cache

from numba import cuda
from numba.cuda import types

from normfast.engines.cuda.primitives import launch, loader, storer

COLUMNS = 32  # whose tiles a block adds


@cache
def sum_kernel(source, target, rows):
    """Sums down the columns of tiles, in a fixed order and float64."""
    load, store = loader(source, 1), storer(target, 1)
    wide = target.wide

    @cuda.jit
    def kernel(tiles, count, n, total):
        sums = cuda.shared.array((rows, COLUMNS), types.float64)
        value = cuda.local.array(1, source.wide)
        result = cuda.local.array(1, wide)
        column = cuda.threadIdx.x % COLUMNS
        own = cuda.threadIdx.x // COLUMNS
        j = cuda.blockIdx.x * COLUMNS + column
        a = 0.0
        if j < n:
            i = own
            while i < count:
                load(tiles, i * n + j, value, 0)
                a += types.float64(value[0])
                i += rows
        sums[own, column] = a
        cuda.syncthreads()
        if own == 0 and j < n:
            for k in range(1, rows):
                a += sums[k, column]
            result[0] = wide(a)
            store(result, 0, total, j)

    return kernel


def sum_tiles(source, tiles, count, n, target, total, stream):
    """total[j] = the sum over i of tiles[i, j], rounded to the kind `target`."""
    rows = min(8, 1 << (count - 1).bit_length())
    launch(sum_kernel(source, target, rows), -(-n // COLUMNS), COLUMNS * rows, stream, tiles, count, n, total)

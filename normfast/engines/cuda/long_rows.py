"""Layer and RMS norm of rows too long for the registers of a block: several blocks take a row, in two sweeps.

Statistics are those of `slabs.py`, a row being a cell of one run. The second sweep finds the row in the second cache, where few rows are
under way. dweight and dbias have a sweep of their own, down the columns.
"""

from functools import cache

from numba import cuda
from numba.cuda import types

from normfast.engines.cuda import slabs
from normfast.engines.cuda.primitives import launch, loader, resident, storer, wide_kind, width_of
from normfast.engines.cuda.teams import adder
from normfast.engines.cuda.text import factors, normalize

THREADS = 256
STEPS = 4  # loads of a thread that are under way together
PIECE = 16384  # values of a row that a block takes, about
TILES = 64  # of rows, whose shares of dweight and dbias are added apart

centre = factors.centre
weighted_run, weighted_gradient_run = normalize.weighted_run, normalize.weighted_gradient_run
part_of = slabs.part_of


def parts_of(n):
    """Parts of a row, each for a block."""
    return max(1, min(256, n // PIECE))


@cache
def affine_kernel(kind, width, threads, weighted, biased):
    """y of rows whose statistics are known."""
    wide, size = kind.wide, STEPS * width
    load, store, load_parameter = loader(kind, width), storer(kind, width), loader(wide_kind(kind), width)

    @resident(threads, 512)
    def kernel(x, weight, bias, n, parts, mean, rstd, y):
        held = cuda.local.array(size, wide)
        part = cuda.local.array(width, wide)
        w = cuda.local.array(width, wide)
        b = cuda.local.array(width, wide)
        for m in range(width):
            w[m] = wide(1)
            b[m] = wide(0)
        row = cuda.blockIdx.x // parts
        hi = part_of(n, cuda.blockIdx.x % parts + 1, parts, width)
        j = part_of(n, cuda.blockIdx.x % parts, parts, width) + cuda.threadIdx.x * width
        scale, high, r, low = centre(mean[row], rstd[row], wide(0))
        rounded = wide(r)
        while j < hi:
            for k in range(STEPS):
                at = j + k * threads * width
                if at < hi:
                    load(x, row * n + at, held, k * width)
            for k in range(STEPS):
                at = j + k * threads * width
                if at < hi:
                    for m in range(width):
                        part[m] = held[k * width + m]
                    if weighted:
                        load_parameter(weight, at, w, 0)
                    if biased:
                        load_parameter(bias, at, b, 0)
                    weighted_run(part, width, wide(scale), wide(high), rounded, wide(r - rounded), wide(low), w, b, part)
                    store(part, 0, y, row * n + at)
            j += STEPS * threads * width

    return kernel


@cache
def sums_kernel(kind, width, threads, centred, weighted):
    """Partial sums of dy * weight and dy * weight * xhat of each part of each row."""
    wide = kind.wide
    load, load_parameter, add = loader(kind, width), loader(wide_kind(kind), width), adder(threads, threads)

    @resident(threads, 512)
    def kernel(dy, x, mean, rstd, weight, n, parts, sum_g, sum_g_xhat):
        g = cuda.local.array(width, wide)
        v = cuda.local.array(width, wide)
        w = cuda.local.array(width, wide)
        for m in range(width):
            w[m] = wide(1)
        row = cuda.blockIdx.x // parts
        hi = part_of(n, cuda.blockIdx.x % parts + 1, parts, width)
        j = part_of(n, cuda.blockIdx.x % parts, parts, width) + cuda.threadIdx.x * width
        scale, high, r, low = centre(mean[row] if centred else 0.0, rstd[row], wide(0))
        total = 0.0
        total_xhat = 0.0
        while j < hi:
            load(dy, row * n + j, g, 0)
            load(x, row * n + j, v, 0)
            if weighted:
                load_parameter(weight, j, w, 0)
            s = wide(0)
            t = wide(0)
            for m in range(width):
                own = g[m] * w[m]
                s += own
                t += own * ((v[m] * wide(scale) - wide(high)) * wide(r) + wide(low))
            total += types.float64(s)
            total_xhat += types.float64(t)
            j += threads * width
        total, total_xhat = add(total, total_xhat)
        if cuda.threadIdx.x == 0:
            sum_g[cuda.blockIdx.x] = total
            sum_g_xhat[cuda.blockIdx.x] = total_xhat

    return kernel


@cache
def gradient_kernel(kind, width, threads, centred, weighted):
    """dx of rows from the partial sums."""
    wide = kind.wide
    load, store, load_parameter = loader(kind, width), storer(kind, width), loader(wide_kind(kind), width)

    @resident(threads, 512)
    def kernel(dy, x, mean, rstd, weight, n, parts, sum_g, sum_g_xhat, dx):
        g = cuda.local.array(width, wide)
        v = cuda.local.array(width, wide)
        w = cuda.local.array(width, wide)
        for m in range(width):
            w[m] = wide(1)
        row = cuda.blockIdx.x // parts
        hi = part_of(n, cuda.blockIdx.x % parts + 1, parts, width)
        j = part_of(n, cuda.blockIdx.x % parts, parts, width) + cuda.threadIdx.x * width
        c1 = 0.0
        c2 = 0.0
        for k in range(parts):
            c1 += sum_g[row * parts + k]
            c2 += sum_g_xhat[row * parts + k]
        c1 = c1 / n if centred else 0.0
        c2 /= n
        scale, high, r, low = centre(mean[row] if centred else 0.0, rstd[row], wide(0))
        p = wide(-rstd[row] * c2 * r)
        rest = wide(-rstd[row] * (c1 + c2 * low))
        while j < hi:
            load(dy, row * n + j, g, 0)
            load(x, row * n + j, v, 0)
            if weighted:
                load_parameter(weight, j, w, 0)
            weighted_gradient_run(g, v, w, width, wide(scale), wide(high), wide(rstd[row]), p, rest, g)
            store(g, 0, dx, row * n + j)
            j += threads * width

    return kernel


@cache
def shares_kernel(kind, width, threads, centred):
    """The shares of some rows in dweight and dbias, column by column."""
    wide = kind.wide
    load, store = loader(kind, width), storer(wide_kind(kind), width)

    @resident(threads, 512)
    def kernel(dy, x, mean, rstd, rows, n, tiles, dweight, dbias):
        g = cuda.local.array(width, wide)
        v = cuda.local.array(width, wide)
        share_w = cuda.local.array(width, wide)
        share_b = cuda.local.array(width, wide)
        across = -(-n // (width * cuda.blockDim.x))
        tile = cuda.blockIdx.x // across
        j = (cuda.blockIdx.x % across * cuda.blockDim.x + cuda.threadIdx.x) * width
        if j < n:
            for m in range(width):
                share_w[m] = wide(0)
                share_b[m] = wide(0)
            for row in range(rows * tile // tiles, rows * (tile + 1) // tiles):
                load(dy, row * n + j, g, 0)
                load(x, row * n + j, v, 0)
                scale, high, r, low = centre(mean[row] if centred else 0.0, rstd[row], wide(0))
                for m in range(width):
                    share_w[m] += g[m] * ((v[m] * wide(scale) - wide(high)) * wide(r) + wide(low))
                    share_b[m] += g[m]
            store(share_w, 0, dweight, tile * n + j)
            if centred:
                store(share_b, 0, dbias, tile * n + j)

    return kernel


def write(kind, x, weight, bias, rows, n, mean, rstd, y, aligned, stream):
    """y of rows by their mean and rstd; weight and bias are runs in the type that is computed in, or None."""
    kernel = affine_kernel(kind, width_of(kind, n, aligned), THREADS, weight is not None, bias is not None)
    weight, bias = (mean if values is None else values for values in (weight, bias))
    launch(kernel, rows * parts_of(n), THREADS, stream, x, weight, bias, n, parts_of(n), mean, rstd, y)


def tiles_of(rows):
    """How many partial tiles of dweight and dbias `backward` writes."""
    return max(1, min(TILES, rows // 8), -(-rows // 512))


def backward(kind, dy, x, mean, rstd, weight, rows, n, centred, sums, dx, tiles_dweight, tiles_dbias, tiles, aligned, stream):
    """dx of rows, and `tiles` partial sums of dweight and (centred) dbias, in the type that is computed in; dx comes last."""
    width, parts, weighted = width_of(kind, n, aligned), parts_of(n), weight is not None
    weight = mean if weight is None else weight
    shares, across = shares_kernel(kind, width, THREADS, centred), -(-n // (width * THREADS))
    launch(shares, across * tiles, THREADS, stream, dy, x, mean, rstd, rows, n, tiles, tiles_dweight, tiles_dbias)
    kernel = sums_kernel(kind, width, THREADS, centred, weighted)
    launch(kernel, rows * parts, THREADS, stream, dy, x, mean, rstd, weight, n, parts, *sums)
    kernel = gradient_kernel(kind, width, THREADS, centred, weighted)
    launch(kernel, rows * parts, THREADS, stream, dy, x, mean, rstd, weight, n, parts, *sums, dx)

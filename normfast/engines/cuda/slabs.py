"""Sweeps over the runs of channels that lie apart, as those of NCHW do: a block (a, r, c, s), kept along a and c, reduced along r and s.

Cell q = ia * c + ic has r runs of s values. A team of threads takes a run, or a part of one, several 16-byte pieces of it at once; a block
has the pieces of one cell. Statistics leave here as partial moments, `pieces` for each cell, a number that depends on the shape alone, side
by side; `channels.py` merges them, and makes the factors of the sweeps that write.
"""

from functools import cache
from typing import NamedTuple

from numba import cuda
from numba.cuda import types

from normfast.engines.cuda.channels import chunk_moments, epilogue, slope
from normfast.engines.cuda.primitives import launch, loader, resident, storer, width_of
from normfast.engines.cuda.teams import adder, greatest, merged, merger
from normfast.engines.cuda.text import normalize

THREADS = 256  # of a block
STEPS = 4  # loads of a thread that are under way together
PIECE = 16384  # values of a piece of a cell, about
PIECES = 2048  # of all cells together, about

affine_run, gradient_run = normalize.affine_run, normalize.gradient_run


class Plan(NamedTuple):
    """How runs are given to threads."""

    width: int
    team: int
    threads: int
    splits_r: int  # parts of the runs of a cell, in number
    splits_s: int  # and in length

    @property
    def pieces(self):
        return self.splits_r * self.splits_s


def plan_of(kind, block, aligned):
    """The plan for a block."""
    a, r, c, s = block
    width = width_of(kind, s, aligned)
    team = min(THREADS, max(4, 1 << (-(-s // (width * STEPS)) - 1).bit_length()))
    wanted = min(-(-r * s // PIECE), max(1, PIECES // (a * c)))
    splits_r = min(r, wanted)
    threads = min(THREADS, max(32, team << (-(-r // splits_r) - 1).bit_length()))
    return Plan(width, team, threads, splits_r, max(1, min(wanted // splits_r, s // PIECE)))


@cuda.jit(device=True)
def run_of(q, i, r, c):
    """Position of the i-th run of cell q among all runs."""
    return ((q // c) * r + i) * c + q % c


@cuda.jit(device=True)
def part_of(n, p, parts, width):
    """Where part p of n values begins: a multiple of the width."""
    return n // width * p // parts * width if p < parts else n


@cache
def moments_kernel(kind, plan, centred):
    """Partial moments: count, mean, m2 and the largest magnitude of each piece of each cell."""
    width, team, threads, splits_r, splits_s = plan
    wide, size, teams, pieces = kind.wide, STEPS * plan.width, plan.threads // plan.team, plan.pieces
    load, merge, most = loader(kind, width), merger(threads), greatest(threads, threads)
    measure = chunk_moments(wide, size, centred)

    @resident(plan.threads, 512)
    def kernel(x, r, c, s, counts, means, m2s, largest):
        held = cuda.local.array(size, wide)
        lane = cuda.threadIdx.x % team
        cell = cuda.blockIdx.x // pieces
        piece = cuda.blockIdx.x % pieces
        lo = part_of(s, piece % splits_s, splits_s, width)
        hi = part_of(s, piece % splits_s + 1, splits_s, width)
        i = r * (piece // splits_s) // splits_r + cuda.threadIdx.x // team
        stop = r * (piece // splits_s + 1) // splits_r
        count = 0.0
        mean = 0.0
        m2 = 0.0
        a = wide(0)
        while i < stop:
            start = run_of(cell, i, r, c) * s
            j = lo + lane * width
            while j < hi:
                valid = 0
                for k in range(STEPS):
                    at = j + k * team * width
                    if at < hi:
                        load(x, start + at, held, k * width)
                        valid += width
                own_mean, own_m2, a = measure(held, 0, 1, valid, a)
                count, mean, m2 = merged(count, mean, m2, types.float64(valid), own_mean, own_m2)
                j += STEPS * team * width
            i += teams
        count, mean, m2 = merge(count, mean, m2)
        found = most(types.float64(a))
        if cuda.threadIdx.x == 0:
            counts[cuda.blockIdx.x] = count
            means[cuda.blockIdx.x] = mean
            m2s[cuda.blockIdx.x] = m2
            largest[cuda.blockIdx.x] = found

    return kernel


@cache
def affine_kernel(kind, plan, code):
    """y = f(d * (a + a_low) + b), with d = x * scale - high; the factors are those of the cells."""
    width, team, wide = plan.width, plan.team, kind.wide
    teams, size = plan.threads // plan.team, STEPS * plan.width
    load, store = loader(kind, width), storer(kind, width)
    finish = epilogue(wide, width, code)

    @resident(plan.threads, 512)
    def kernel(x, runs, r, c, s, splits, scale, high, a, a_low, b, y):
        held = cuda.local.array(size, wide)
        part = cuda.local.array(width, wide)
        unit = cuda.blockIdx.x * teams + cuda.threadIdx.x // team
        run = unit // splits
        if run < runs:
            lo = part_of(s, unit % splits, splits, width)
            hi = part_of(s, unit % splits + 1, splits, width)
            q = run // (r * c) * c + run % c
            own_scale, own_high, own_a, own_a_low, own_b = scale[q], high[q], a[q], a_low[q], b[q]
            j = lo + cuda.threadIdx.x % team * width
            while j < hi:
                for k in range(STEPS):
                    at = j + k * team * width
                    if at < hi:
                        load(x, run * s + at, held, k * width)
                for k in range(STEPS):
                    at = j + k * team * width
                    if at < hi:
                        for m in range(width):
                            part[m] = held[k * width + m]
                        affine_run(part, width, own_scale, own_high, own_a, own_a_low, own_b, part)
                        finish(part)
                        store(part, 0, y, run * s + at)
                j += STEPS * team * width

    return kernel


@cache
def sums_kernel(kind, plan, code):
    """Partial sums of dy and dy * d, d = x * scale - high, in each piece of each cell; dy times f' of the affine sweep's result."""
    width, team, threads, splits_r, splits_s = plan
    wide, size, teams, pieces = kind.wide, STEPS * plan.width, plan.threads // plan.team, plan.pieces
    load, add = loader(kind, width), adder(threads, threads)
    turn = slope(wide, width, code)

    @resident(plan.threads, 512)
    def kernel(dy, x, r, c, s, scale, high, a, a_low, b, sum_dy, sum_dy_d):
        held_dy = cuda.local.array(size, wide)
        held_x = cuda.local.array(size, wide)
        g = cuda.local.array(width, wide)
        d = cuda.local.array(width, wide)
        lane = cuda.threadIdx.x % team
        q = cuda.blockIdx.x // pieces
        piece = cuda.blockIdx.x % pieces
        lo = part_of(s, piece % splits_s, splits_s, width)
        hi = part_of(s, piece % splits_s + 1, splits_s, width)
        i = r * (piece // splits_s) // splits_r + cuda.threadIdx.x // team
        stop = r * (piece // splits_s + 1) // splits_r
        own_scale, own_high, own_a, own_a_low, own_b = scale[q], high[q], a[q], a_low[q], b[q]
        total = 0.0
        total_d = 0.0
        while i < stop:
            start = run_of(q, i, r, c) * s
            j = lo + lane * width
            while j < hi:
                for k in range(STEPS):
                    at = j + k * team * width
                    if at < hi:
                        load(dy, start + at, held_dy, k * width)
                        load(x, start + at, held_x, k * width)
                t = wide(0)
                t_d = wide(0)
                for k in range(STEPS):
                    if j + k * team * width < hi:
                        for m in range(width):
                            g[m] = held_dy[k * width + m]
                            d[m] = held_x[k * width + m] * own_scale - own_high
                        turn(g, d, own_a, own_a_low, own_b)
                        for m in range(width):
                            t += g[m]
                            t_d += g[m] * d[m]
                total += types.float64(t)
                total_d += types.float64(t_d)
                j += STEPS * team * width
            i += teams
        total, total_d = add(total, total_d)
        if cuda.threadIdx.x == 0:
            sum_dy[cuda.blockIdx.x] = total
            sum_dy_d[cuda.blockIdx.x] = total_d

    return kernel


@cache
def gradient_kernel(kind, plan, code):
    """dx = dy * f' * own + d * p + q; the factors are those of the cells."""
    width, team, wide = plan.width, plan.team, kind.wide
    teams, size = plan.threads // plan.team, STEPS * plan.width
    load, store = loader(kind, width), storer(kind, width)
    turn = slope(wide, width, code)

    @resident(plan.threads, 512)
    def kernel(dy, x, runs, r, c, s, splits, scale, high, a, a_low, b, own, p, rest, dx):
        held_dy = cuda.local.array(size, wide)
        held_x = cuda.local.array(size, wide)
        g = cuda.local.array(width, wide)
        v = cuda.local.array(width, wide)
        d = cuda.local.array(width, wide)
        unit = cuda.blockIdx.x * teams + cuda.threadIdx.x // team
        run = unit // splits
        if run < runs:
            lo = part_of(s, unit % splits, splits, width)
            hi = part_of(s, unit % splits + 1, splits, width)
            q = run // (r * c) * c + run % c
            own_scale, own_high, own_a, own_a_low, own_b = scale[q], high[q], a[q], a_low[q], b[q]
            own_factor, own_p, own_rest = own[q], p[q], rest[q]
            j = lo + cuda.threadIdx.x % team * width
            while j < hi:
                for k in range(STEPS):
                    at = j + k * team * width
                    if at < hi:
                        load(dy, run * s + at, held_dy, k * width)
                        load(x, run * s + at, held_x, k * width)
                for k in range(STEPS):
                    at = j + k * team * width
                    if at < hi:
                        for m in range(width):
                            g[m] = held_dy[k * width + m]
                            v[m] = held_x[k * width + m]
                            d[m] = v[m] * own_scale - own_high
                        turn(g, d, own_a, own_a_low, own_b)
                        gradient_run(g, v, width, own_scale, own_high, own_factor, own_p, own_rest, g)
                        store(g, 0, dx, run * s + at)
                j += STEPS * team * width

    return kernel


# Launches. `lane_factors` are the arrays (scale, high, a, a_low, b) of the cells


def measure(kind, plan, block, centred, x, partial, stream):
    """Partial moments of the cells, `plan.pieces` for each."""
    a, r, c, s = block
    launch(moments_kernel(kind, plan, centred), a * c * plan.pieces, plan.threads, stream, x, r, c, s, *partial)


def _units(plan, block):
    """Parts of each run, and blocks that take them all."""
    a, r, c, s = block
    splits = max(1, s // PIECE)
    return splits, -(-a * r * c * splits // (plan.threads // plan.team))


def normalize_runs(kind, plan, block, code, x, lane_factors, y, stream):
    """y from x."""
    a, r, c, s = block
    splits, blocks = _units(plan, block)
    launch(affine_kernel(kind, plan, code), blocks, plan.threads, stream, x, a * r * c, r, c, s, splits, *lane_factors, y)


def gradient_sums(kind, plan, block, code, dy, x, lane_factors, sums, stream):
    """Partial sums of the cells."""
    a, r, c, s = block
    launch(sums_kernel(kind, plan, code), a * c * plan.pieces, plan.threads, stream, dy, x, r, c, s, *lane_factors, *sums)


def gradient(kind, plan, block, code, dy, x, lane_factors, own_factors, dx, stream):
    """dx from dy and x."""
    a, r, c, s = block
    splits, blocks = _units(plan, block)
    kernel = gradient_kernel(kind, plan, code)
    launch(kernel, blocks, plan.threads, stream, dy, x, a * r * c, r, c, s, splits, *lane_factors, *own_factors, dx)

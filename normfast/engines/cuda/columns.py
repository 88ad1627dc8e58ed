"""Sweeps down columns, as the channels of NHWC and of (N, C) lie: a block (a, r, c, s) as a * r rows of c * s columns.

A thread has one 16-byte piece of columns and takes every few rows of its part, several at once. Its partial results are those of its own
rows: there are `pieces` of them for each column, and s columns make a cell. Where they lie and who goes on is as in `slabs.py`.
"""

from functools import cache
from typing import NamedTuple

from numba import cuda
from numba.cuda import types

from normfast.engines.cuda.channels import chunk_moments, epilogue, slope
from normfast.engines.cuda.primitives import launch, loader, resident, storer, width_of
from normfast.engines.cuda.teams import merged

THREADS = 256  # of a block
HELD = 16  # values of a thread that are under way together
ROWS = 64  # of a thread, about
PARTS = 512  # of the rows at most


class Plan(NamedTuple):
    """How columns are given to threads: `beside` threads for neighbouring columns, `down` for the rows of a part."""

    width: int
    beside: int
    down: int
    parts: int

    @property
    def threads(self):
        return self.beside * self.down

    @property
    def steps(self):
        """Rows of a thread that are under way together."""
        return min(4, HELD // self.width)

    @property
    def pieces(self):
        """Partial results of a column."""
        return self.parts * self.down

    def across(self, block):
        """Blocks of threads beside each other."""
        return -(-block[2] * block[3] // (self.width * self.beside))


def plan_of(kind, block, aligned):
    """The plan for a block."""
    _, r, c, s = block
    width = width_of(kind, c * s, aligned)
    beside = min(32, 1 << (-(-c * s // width) - 1).bit_length())
    down = min(THREADS // beside, 1 << max(0, (r - 1).bit_length()))
    return Plan(width, beside, max(down, -(-32 // beside)), max(1, min(PARTS, r // (down * ROWS))))


@cache
def place_of(plan):
    """place(r, n): where a thread stands: its block of rows, part, first column, first row and the end of its rows."""
    width, beside, _, parts = plan

    @cuda.jit(device=True)
    def place(r, n):
        across = -(-n // (width * beside))
        column = (cuda.blockIdx.x % across * beside + cuda.threadIdx.x % beside) * width
        part = cuda.blockIdx.x // across % parts
        sample = cuda.blockIdx.x // across // parts
        return sample, part, column, r * part // parts + cuda.threadIdx.x // beside, r * (part + 1) // parts

    return place


@cache
def moments_kernel(kind, plan, centred):
    """Partial moments of each column: count, mean, m2 and the largest magnitude of each thread's rows."""
    width, _, down, parts = plan
    wide, steps, size = kind.wide, plan.steps, plan.steps * width
    load, place = loader(kind, width), place_of(plan)
    measure = chunk_moments(wide, steps, centred)

    @resident(plan.threads, 512)
    def kernel(x, r, c, s, counts, means, m2s, largest):
        held = cuda.local.array(size, wide)
        mean = cuda.local.array(width, types.float64)
        m2 = cuda.local.array(width, types.float64)
        a = cuda.local.array(width, wide)
        n = c * s
        sample, part, column, i, stop = place(r, n)
        if column < n:
            count = 0.0
            for k in range(width):
                mean[k] = 0.0
                m2[k] = 0.0
                a[k] = wide(0)
            while i < stop:
                valid = 0
                for k in range(steps):
                    if i + k * down < stop:
                        load(x, (sample * r + i + k * down) * n + column, held, k * width)
                        valid += 1
                for k in range(width):
                    own_mean, own_m2, a[k] = measure(held, k, width, valid, a[k])
                    _, mean[k], m2[k] = merged(count, mean[k], m2[k], types.float64(valid), own_mean, own_m2)
                count += valid
                i += steps * down
            for k in range(width):
                cell = sample * c + (column + k) // s
                own = ((cell * s + (column + k) % s) * parts + part) * down + cuda.threadIdx.x // (cuda.blockDim.x // down)
                counts[own] = count
                means[own] = mean[k]
                m2s[own] = m2[k]
                largest[own] = a[k]

    return kernel


@cache
def affine_kernel(kind, plan, code):
    """y = f(d * (a + a_low) + b), with d = x * scale - high; the factors are those of the cells."""
    width, _, down, _ = plan
    wide, steps, size = kind.wide, plan.steps, plan.steps * width
    load, store, place = loader(kind, width), storer(kind, width), place_of(plan)
    finish = epilogue(wide, width, code)

    @resident(plan.threads, 512)
    def kernel(x, r, c, s, scale, high, a, a_low, b, y):
        held = cuda.local.array(size, wide)
        part = cuda.local.array(width, wide)
        own_scale = cuda.local.array(width, wide)
        own_high = cuda.local.array(width, wide)
        own_a = cuda.local.array(width, wide)
        own_a_low = cuda.local.array(width, wide)
        own_b = cuda.local.array(width, wide)
        n = c * s
        sample, _, column, i, stop = place(r, n)
        if column < n:
            for k in range(width):
                q = sample * c + (column + k) // s
                own_scale[k] = scale[q]
                own_high[k] = high[q]
                own_a[k] = a[q]
                own_a_low[k] = a_low[q]
                own_b[k] = b[q]
            while i < stop:
                for k in range(steps):
                    if i + k * down < stop:
                        load(x, (sample * r + i + k * down) * n + column, held, k * width)
                for k in range(steps):
                    if i + k * down < stop:
                        for m in range(width):
                            part[m] = held[k * width + m] * own_scale[m] - own_high[m]
                            part[m] = part[m] * own_a[m] + (part[m] * own_a_low[m] + own_b[m])
                        finish(part)
                        store(part, 0, y, (sample * r + i + k * down) * n + column)
                i += steps * down

    return kernel


@cache
def sums_kernel(kind, plan, code):
    """Partial sums of dy and dy * d, d = x * scale - high, of each thread's rows; dy times f' of the affine sweep's result."""
    width, _, down, parts = plan
    wide, steps, size = kind.wide, plan.steps, plan.steps * width
    load, place = loader(kind, width), place_of(plan)
    turn = slope_of_columns(wide, width, code)

    @resident(plan.threads, 512)
    def kernel(dy, x, r, c, s, scale, high, a, a_low, b, sum_dy, sum_dy_d):
        held_dy = cuda.local.array(size, wide)
        held_x = cuda.local.array(size, wide)
        g = cuda.local.array(width, wide)
        d = cuda.local.array(width, wide)
        t = cuda.local.array(width, wide)
        t_d = cuda.local.array(width, wide)
        own_scale = cuda.local.array(width, wide)
        own_high = cuda.local.array(width, wide)
        total = cuda.local.array(width, types.float64)
        total_d = cuda.local.array(width, types.float64)
        n = c * s
        sample, part, column, i, stop = place(r, n)
        if column < n:
            for k in range(width):
                q = sample * c + (column + k) // s
                own_scale[k] = scale[q]
                own_high[k] = high[q]
                total[k] = 0.0
                total_d[k] = 0.0
            while i < stop:
                for k in range(steps):
                    if i + k * down < stop:
                        load(dy, (sample * r + i + k * down) * n + column, held_dy, k * width)
                        load(x, (sample * r + i + k * down) * n + column, held_x, k * width)
                for m in range(width):
                    t[m] = wide(0)
                    t_d[m] = wide(0)
                for k in range(steps):
                    if i + k * down < stop:
                        for m in range(width):
                            g[m] = held_dy[k * width + m]
                            d[m] = held_x[k * width + m] * own_scale[m] - own_high[m]
                        turn(g, d, a, a_low, b, sample * c, column, s)
                        for m in range(width):
                            t[m] += g[m]
                            t_d[m] += g[m] * d[m]
                for m in range(width):
                    total[m] += types.float64(t[m])
                    total_d[m] += types.float64(t_d[m])
                i += steps * down
            for k in range(width):
                cell = sample * c + (column + k) // s
                own = ((cell * s + (column + k) % s) * parts + part) * down + cuda.threadIdx.x // (cuda.blockDim.x // down)
                sum_dy[own] = total[k]
                sum_dy_d[own] = total_d[k]

    return kernel


@cache
def slope_of_columns(wide, width, code):
    """As `channels.slope`, each value with the factors of its own cell."""
    turn_one = slope(wide, 1, code)

    @cuda.jit(device=True)
    def turn(g, d, a, a_low, b, first, column, s):
        if code != 0:
            one_g = cuda.local.array(1, wide)
            one_d = cuda.local.array(1, wide)
            for m in range(width):
                q = first + (column + m) // s
                one_g[0] = g[m]
                one_d[0] = d[m]
                turn_one(one_g, one_d, a[q], a_low[q], b[q])
                g[m] = one_g[0]

    return turn


@cache
def gradient_kernel(kind, plan, code):
    """dx = dy * f' * own + d * p + q; the factors are those of the cells."""
    width, _, down, _ = plan
    wide, steps, size = kind.wide, plan.steps, plan.steps * width
    load, store, place = loader(kind, width), storer(kind, width), place_of(plan)
    turn = slope_of_columns(wide, width, code)

    @resident(plan.threads, 512)
    def kernel(dy, x, r, c, s, scale, high, a, a_low, b, own, p, rest, dx):
        held_dy = cuda.local.array(size, wide)
        held_x = cuda.local.array(size, wide)
        g = cuda.local.array(width, wide)
        d = cuda.local.array(width, wide)
        own_scale = cuda.local.array(width, wide)
        own_high = cuda.local.array(width, wide)
        own_own = cuda.local.array(width, wide)
        own_p = cuda.local.array(width, wide)
        own_rest = cuda.local.array(width, wide)
        n = c * s
        sample, _, column, i, stop = place(r, n)
        if column < n:
            for k in range(width):
                q = sample * c + (column + k) // s
                own_scale[k] = scale[q]
                own_high[k] = high[q]
                own_own[k] = own[q]
                own_p[k] = p[q]
                own_rest[k] = rest[q]
            while i < stop:
                for k in range(steps):
                    if i + k * down < stop:
                        load(dy, (sample * r + i + k * down) * n + column, held_dy, k * width)
                        load(x, (sample * r + i + k * down) * n + column, held_x, k * width)
                for k in range(steps):
                    if i + k * down < stop:
                        for m in range(width):
                            g[m] = held_dy[k * width + m]
                            d[m] = held_x[k * width + m] * own_scale[m] - own_high[m]
                        turn(g, d, a, a_low, b, sample * c, column, s)
                        for m in range(width):
                            g[m] = g[m] * own_own[m] + (d[m] * own_p[m] + own_rest[m])
                        store(g, 0, dx, (sample * r + i + k * down) * n + column)
                i += steps * down

    return kernel


# Launches, as those of `slabs.py`


def _blocks(plan, block):
    return block[0] * plan.parts * plan.across(block)


def measure(kind, plan, block, centred, x, partial, stream):
    """Partial moments of the cells, `plan.pieces * s` for each."""
    _, r, c, s = block
    launch(moments_kernel(kind, plan, centred), _blocks(plan, block), plan.threads, stream, x, r, c, s, *partial)


def normalize_runs(kind, plan, block, code, x, lane_factors, y, stream):
    """y from x."""
    _, r, c, s = block
    launch(affine_kernel(kind, plan, code), _blocks(plan, block), plan.threads, stream, x, r, c, s, *lane_factors, y)


def gradient_sums(kind, plan, block, code, dy, x, lane_factors, sums, stream):
    """Partial sums of the cells."""
    _, r, c, s = block
    launch(sums_kernel(kind, plan, code), _blocks(plan, block), plan.threads, stream, dy, x, r, c, s, *lane_factors, *sums)


def gradient(kind, plan, block, code, dy, x, lane_factors, own_factors, dx, stream):
    """dx from dy and x."""
    _, r, c, s = block
    kernel = gradient_kernel(kind, plan, code)
    launch(kernel, _blocks(plan, block), plan.threads, stream, dy, x, r, c, s, *lane_factors, *own_factors, dx)

"""Layer norm and, without centring, RMS norm of rows that fit the registers of a team: each is read once and written once.

A row belongs to a team of threads, from 4 neighbours of a warp to a whole block, each of which holds some 16-byte pieces of it.
Statistics are two sums over the held values: of x - x[0], which gives the mean, and of the deviations from it and their squares. What a
thread adds up, 32 values at most, it adds in x's type; the team adds in float64. Rows that do not fit are `long_rows.py`'s.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda
from numba.cuda import types

from normfast.engines.cuda.primitives import adder, greatest, launch, leader, loader, resident, storer, wide_kind
from normfast.engines.cuda.text import factors, moments, normalize

FORWARD = (128, 64, 1024)  # bytes of a row, as computed, that a thread holds of a warp's row and of a block's; threads of a block at most
BACKWARD = (64, 64, 512)  # the same where two arrays and their sums are held
THREADS = 128  # of a block whose rows belong to warps or less
TILES = 512  # blocks that collect dweight and dbias; from the shape alone, so that the bits are the same on every GPU
CHAIN = 512  # rows whose shares a thread adds in the type that is computed in

centre, within_reach, larger, unit_scale, inverse_deviation = (
    factors.centre, moments.within_reach, moments.larger, moments.unit_scale, moments.inverse_deviation,
)  # fmt: skip
weighted_run, weighted_gradient_run = normalize.weighted_run, normalize.weighted_gradient_run


class Plan(NamedTuple):
    """How rows are given to threads: `steps` pieces of `width` values for each thread of a team; `threads` in a block."""

    width: int
    steps: int
    team: int
    threads: int

    @property
    def teams(self):
        return self.threads // self.team


def plan_of(kind, n, aligned, limits):
    """The plan for rows of n values within the limits FORWARD or BACKWARD; None where they do not fit."""
    width = kind.lanes if aligned and n % kind.lanes == 0 else 1
    pieces = -(-n // width)
    in_warp, in_block = (held // np.dtype(kind.wide).itemsize // width for held in limits[:2])
    if pieces <= 32 * in_warp:
        team = min(32, max(4, 1 << (pieces - 1).bit_length()))
        return Plan(width, -(-pieces // team), team, max(THREADS, team))
    team = 64
    while team <= limits[2]:
        if pieces <= team * in_block:
            return Plan(width, -(-pieces // team), team, team)
        team *= 2
    return None


@cache
def row_statistics(kind, plan, centred):
    """statistics(held, first, lane, n): mean and m2 of a row times a scale, and that scale, as `kernels/moments.row_moments`."""
    width, steps, team, threads = plan
    wide = kind.wide
    add, most = adder(team, threads), greatest(team, threads)

    @cuda.jit(device=True)
    def measured(held, first, lane, n, factor):
        shift = factor * first
        s = wide(0)
        high = wide(0)
        if centred:
            for i in range(steps):
                if (i * team + lane) * width < n:
                    for k in range(width):
                        s += held[i * width + k] * factor - shift
            total, _ = add(types.float64(s), 0.0)
            high = wide(types.float64(shift) + total / n)
        d = wide(0)
        dd = wide(0)
        for i in range(steps):
            if (i * team + lane) * width < n:
                for k in range(width):
                    e = held[i * width + k] * factor - high
                    d += e
                    dd += e * e
        d, dd = add(types.float64(d), types.float64(dd))
        if not centred:
            return 0.0, dd
        m2 = dd - d * d / n
        return types.float64(high) + d / n, 0.0 if m2 < 0.0 else m2

    @cuda.jit(device=True)
    def statistics(held, first, lane, n):
        mean, m2 = measured(held, first, lane, n, wide(1))
        scale = 1.0
        if not within_reach(m2, n):
            a = wide(0)
            for i in range(steps):
                if (i * team + lane) * width < n:
                    for k in range(width):
                        a = larger(a, abs(held[i * width + k]))
            scale = unit_scale(most(types.float64(a)), wide(0))
            if scale != 1.0:
                mean, m2 = measured(held, first, lane, n, wide(scale))
        return mean, m2, scale

    return statistics


@cache
def reader(kind, width):
    """take(x, i, held, at, write): `width` values of x, which need not be kept anywhere."""
    load = loader(kind, width)

    @cuda.jit(device=True)
    def take(x, i, held, at, write):
        load(x, i, held, at)

    return take


@cache
def writer(kind, width):
    """give(part, dx, i): `width` values to dx."""
    store = storer(kind, width)

    @cuda.jit(device=True)
    def give(part, dx, i):
        store(part, 0, dx, i)

    return give


@cache
def forward_kernel(kind, plan, centred, weighted, biased, take):
    """y and the statistics of rows, whose values `take` brings; those that it makes are shared, where others are read."""
    width, steps, team, threads = plan
    wide, size = kind.wide, plan.steps * plan.width
    teams = plan.teams
    load_first, store = loader(kind, 1), storer(kind, width)
    load_parameter = loader(wide_kind(kind), width)
    statistics, first = row_statistics(kind, plan, centred), leader(team, threads)
    if take is reader(kind, width):

        @cuda.jit(device=True)
        def first_of(x, start, held, lane):
            one = cuda.local.array(1, wide)
            load_first(x, start, one, 0)
            return one[0]

    else:

        @cuda.jit(device=True)
        def first_of(x, start, held, lane):
            return wide(first(types.float64(held[0])))

    @resident(threads, 1024)
    def kernel(x, weight, bias, rows, n, eps, y, mean, rstd, var):
        held = cuda.local.array(size, wide)
        part = cuda.local.array(width, wide)
        w = cuda.local.array(width, wide)
        b = cuda.local.array(width, wide)
        lane = cuda.threadIdx.x % team
        i_row = cuda.blockIdx.x * teams + cuda.threadIdx.x // team
        own = min(i_row, rows - 1)  # teams past the last row take it too, and write nothing
        start = own * n
        # the row
        for i in range(steps):
            j = (i * team + lane) * width
            if j < n:
                take(x, start + j, held, i * width, i_row < rows)
        shift = first_of(x, start, held, lane)
        # its statistics
        m, m2, scale = statistics(held, shift, lane, n)
        v, r = inverse_deviation(m2, n, scale, eps)
        m = m / scale
        if i_row < rows:
            if lane == 0:
                mean[own] = m
                rstd[own] = r
                var[own] = v
            # y
            scale, high, factor, low = centre(m, r, shift)
            rounded = wide(factor)
            for k in range(width):
                w[k] = wide(1)
                b[k] = wide(0)
            for i in range(steps):
                j = (i * team + lane) * width
                if j < n:
                    for k in range(width):
                        part[k] = held[i * width + k]
                    if weighted:
                        load_parameter(weight, j, w, 0)
                    if biased:
                        load_parameter(bias, j, b, 0)
                    weighted_run(part, width, wide(scale), wide(high), rounded, wide(factor - rounded), wide(low), w, b, part)
                    store(part, 0, y, start + j)

    return kernel


def forward(kind, x, weight, bias, rows, n, eps, centred, y, mean, rstd, var, aligned, stream, take=reader):
    """y, mean, rstd, var of rows; weight and bias are runs in the type that is computed in, or None. False where rows do not fit.

    What x is, `take(kind, width)` knows: an array, if it is `reader`.
    """
    plan = plan_of(kind, n, aligned, FORWARD)
    if plan is None:
        return False
    kernel = forward_kernel(kind, plan, centred, weight is not None, bias is not None, take(kind, plan.width))
    weight, bias = (mean if values is None else values for values in (weight, bias))
    launch(kernel, -(-rows // plan.teams), plan.threads, stream, x, weight, bias, rows, n, eps, y, mean, rstd, var)
    return True


@cache
def backward_kernel(kind, plan, centred, weighted, give):
    """dx of rows, which `give` takes, and the shares that the rows of each block have in dweight and dbias."""
    width, steps, team, threads = plan
    wide, size, teams, columns = kind.wide, plan.steps * plan.width, plan.teams, plan.steps * plan.width * plan.team
    load, load_parameter = loader(kind, width), loader(wide_kind(kind), width)
    add = adder(team, threads)

    @resident(threads, 512)
    def kernel(dy, x, mean, rstd, weight, rows, n, dx, dweight, dbias):
        held_dy = cuda.local.array(size, wide)
        held_x = cuda.local.array(size, wide)
        share_w = cuda.local.array(size, wide)
        share_b = cuda.local.array(size, wide)
        part_dy = cuda.local.array(width, wide)
        part_x = cuda.local.array(width, wide)
        w = cuda.local.array(width, wide)
        lane = cuda.threadIdx.x % team
        mine = cuda.threadIdx.x // team
        for k in range(size):
            share_w[k] = wide(0)
            share_b[k] = wide(0)
        for k in range(width):
            w[k] = wide(1)
        first = cuda.blockIdx.x * teams
        while first < rows:
            real = first + mine < rows
            own = min(first + mine, rows - 1)
            start = own * n
            for i in range(steps):
                j = (i * team + lane) * width
                if j < n:
                    load(dy, start + j, held_dy, i * width)
                    load(x, start + j, held_x, i * width)
            # c1 = mean(dy * weight), c2 = mean(dy * weight * xhat)
            scale, high, r, low = centre(mean[own] if centred else 0.0, rstd[own], wide(0))
            scale_x, high_x, r_x, low_x = wide(scale), wide(high), wide(r), wide(low)
            s = wide(0)
            q = wide(0)
            for i in range(steps):
                j = (i * team + lane) * width
                if j < n:
                    if weighted:
                        load_parameter(weight, j, w, 0)
                    for k in range(width):
                        g = held_dy[i * width + k]
                        t = g * ((held_x[i * width + k] * scale_x - high_x) * r_x + low_x)
                        s += g * w[k]
                        q += t * w[k]
                        if real:
                            share_w[i * width + k] += t
                            share_b[i * width + k] += g
            c1, c2 = add(types.float64(s), types.float64(q))
            c1 = c1 / n if centred else 0.0
            c2 /= n
            # dx = rstd * (dy * weight - c1 - xhat * c2)
            if real:
                p = wide(-rstd[own] * c2 * r)
                rest = wide(-rstd[own] * (c1 + c2 * low))
                for i in range(steps):
                    j = (i * team + lane) * width
                    if j < n:
                        for k in range(width):
                            part_dy[k] = held_dy[i * width + k]
                            part_x[k] = held_x[i * width + k]
                        if weighted:
                            load_parameter(weight, j, w, 0)
                        weighted_gradient_run(part_dy, part_x, w, width, scale_x, high_x, wide(rstd[own]), p, rest, part_dy)
                        if centred and n == 1:  # y is the bias whatever x
                            part_dy[0] *= wide(0)
                        give(part_dy, dx, start + j)
            first += cuda.gridDim.x * teams
        # the shares of the block's teams, one team after the other
        if teams > 1:
            sum_w = cuda.shared.array(columns, wide)
            sum_b = cuda.shared.array(columns, wide)
            for turn in range(teams):
                if turn == mine:
                    for i in range(steps):
                        for k in range(width):
                            j = (i * team + lane) * width + k
                            sum_w[j] = share_w[i * width + k] + (sum_w[j] if turn > 0 else wide(0))
                            sum_b[j] = share_b[i * width + k] + (sum_b[j] if turn > 0 else wide(0))
                cuda.syncthreads()
            if mine == 0:
                for i in range(steps):
                    for k in range(width):
                        j = (i * team + lane) * width + k
                        share_w[i * width + k] = sum_w[j]
                        share_b[i * width + k] = sum_b[j]
        if mine == 0:
            for i in range(steps):
                for k in range(width):
                    j = (i * team + lane) * width + k
                    if j < n:
                        dweight[cuda.blockIdx.x * n + j] = share_w[i * width + k]
                        if centred:
                            dbias[cuda.blockIdx.x * n + j] = share_b[i * width + k]

    return kernel


def backward_tiles(kind, rows, n, aligned):
    """How many partial tiles of dweight and dbias `backward` writes; 0 where rows do not fit."""
    plan = plan_of(kind, n, aligned, BACKWARD)
    return 0 if plan is None else max(min(TILES, -(-rows // plan.teams)), -(-rows // (plan.teams * CHAIN)))


def backward(kind, dy, x, mean, rstd, weight, rows, n, centred, dx, tiles_dweight, tiles_dbias, tiles, aligned, stream, give=writer):
    """dx of rows, and `tiles` partial sums of dweight and (centred) dbias, in the type that is computed in."""
    plan = plan_of(kind, n, aligned, BACKWARD)
    kernel = backward_kernel(kind, plan, centred, weight is not None, give(kind, plan.width))
    weight = mean if weight is None else weight
    launch(kernel, tiles, plan.threads, stream, dy, x, mean, rstd, weight, rows, n, dx, tiles_dweight, tiles_dbias)


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

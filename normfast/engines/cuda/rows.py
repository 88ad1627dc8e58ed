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

from normfast.engines.cuda.primitives import launch, loader, resident, storer, wide_kind, width_of
from normfast.engines.cuda.teams import adder, greatest, leader
from normfast.engines.cuda.text import factors, moments, normalize

FORWARD = (128, 64, 1024)  # bytes of a row, as computed, that a thread holds of a warp's row and of a block's; threads of a block at most
THREADS = 128  # of a block whose rows belong to warps or less

centre, within_reach, larger, unit_scale, inverse_deviation = (
    factors.centre, moments.within_reach, moments.larger, moments.unit_scale, moments.inverse_deviation,
)  # fmt: skip
weighted_run = normalize.weighted_run


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
    width = width_of(kind, n, aligned)
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

"""The gradients of rows that fit the registers of a team: dx, and the shares of each block in dweight and dbias.

The shares are tiles whose number depends on the shape alone, for `tiles.py` to add: no atomics, the same bits on every run.
"""

from functools import cache

from numba import cuda
from numba.cuda import types

from normfast.engines.cuda.primitives import launch, loader, resident, storer, wide_kind
from normfast.engines.cuda.rows import centre, plan_of
from normfast.engines.cuda.teams import adder
from normfast.engines.cuda.text import normalize

BACKWARD = (64, 64, 512)  # as `rows.FORWARD`, where two arrays and their sums are held
TILES = 512  # blocks that collect dweight and dbias; from the shape alone, so that the bits are the same on every GPU
CHAIN = 512  # rows whose shares a thread adds in the type that is computed in

weighted_gradient_run = normalize.weighted_gradient_run


@cache
def writer(kind, width):
    """give(part, dx, i): `width` values to dx."""
    store = storer(kind, width)

    @cuda.jit(device=True)
    def give(part, dx, i):
        store(part, 0, dx, i)

    return give


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


def tiles_of(kind, rows, n, aligned):
    """How many partial tiles of dweight and dbias `backward` writes; 0 where rows do not fit."""
    plan = plan_of(kind, n, aligned, BACKWARD)
    return 0 if plan is None else max(min(TILES, -(-rows // plan.teams)), -(-rows // (plan.teams * CHAIN)))


def backward(kind, dy, x, mean, rstd, weight, rows, n, centred, dx, tiles_dweight, tiles_dbias, tiles, aligned, stream, give=writer):
    """dx of rows, and `tiles` partial sums of dweight and (centred) dbias, in the type that is computed in."""
    plan = plan_of(kind, n, aligned, BACKWARD)
    kernel = backward_kernel(kind, plan, centred, weight is not None, give(kind, plan.width))
    weight = mean if weight is None else weight
    launch(kernel, tiles, plan.threads, stream, dy, x, mean, rstd, weight, rows, n, dx, tiles_dweight, tiles_dbias)

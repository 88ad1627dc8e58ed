"""Reductions over a team: the threads that share a row, 1 to 32 neighbours in a warp, or a whole block. All of them get the result.

All are taken in float64 and in a fixed order: lanes by shuffles; a block's warps leave their results in shared memory, from where each
thread takes them in their order. A kernel must come to each of them on one way only: NVVM finds the shared memory of what two functions
call defined twice. Numba's simulator has no shuffles: there lanes change their values by shared memory too.
"""

from functools import cache

from numba import cuda
from numba.cuda import types

from normfast.engines.cuda.primitives import SIMULATED

WARP = 32
EVERY = 0xFFFFFFFF  # lanes of a warp
BLOCK = 1024  # threads of a block at most

if SIMULATED:

    @cuda.jit(device=True)
    def shuffled(value, mask):
        """The value of the thread whose number differs in the bits of the mask."""
        slots = cuda.shared.array(BLOCK, types.float64)
        slots[cuda.threadIdx.x] = value
        cuda.syncthreads()
        other = slots[cuda.threadIdx.x ^ mask]
        cuda.syncthreads()
        return other

else:

    @cuda.jit(device=True)
    def shuffled(value, mask):
        """The value of the lane whose number differs in the bits of the mask."""
        return cuda.shfl_xor_sync(EVERY, value, mask)


@cache
def adder(team, threads):
    """add(a, b): both sums over the team."""
    warp, warps = min(team, WARP), max(team // WARP, 1)

    @cuda.jit(device=True)
    def add(a, b):
        mask = warp // 2
        while mask > 0:
            a += shuffled(a, mask)
            b += shuffled(b, mask)
            mask //= 2
        if warps > 1:
            sums = cuda.shared.array((2, 32), types.float64)
            cuda.syncthreads()
            if cuda.threadIdx.x % 32 == 0:
                sums[0, cuda.threadIdx.x // 32] = a
                sums[1, cuda.threadIdx.x // 32] = b
            cuda.syncthreads()
            a = sums[0, 0]
            b = sums[1, 0]
            for i in range(1, warps):
                a += sums[0, i]
                b += sums[1, i]
        return a, b

    return add


@cache
def leader(team, threads):
    """first(value): that of the team's first thread, in each of them."""
    warp, warps = min(team, WARP), max(team // WARP, 1)

    @cuda.jit(device=True)
    def first(value):
        value = value if cuda.threadIdx.x % team == 0 else 0.0
        mask = warp // 2
        while mask > 0:
            value += shuffled(value, mask)
            mask //= 2
        if warps > 1:
            found = cuda.shared.array(1, types.float64)
            cuda.syncthreads()
            if cuda.threadIdx.x == 0:
                found[0] = value
            cuda.syncthreads()
            value = found[0]
        return value

    return first


@cache
def greatest(team, threads):
    """most(a): the largest over the team of values of 0 or more, NaN if one is NaN."""
    warp, warps = min(team, WARP), max(team // WARP, 1)

    @cuda.jit(device=True)
    def most(a):
        mask = warp // 2
        while mask > 0:
            b = shuffled(a, mask)
            a = a if b <= a or a != a else b
            mask //= 2
        if warps > 1:
            found = cuda.shared.array(32, types.float64)
            cuda.syncthreads()
            if cuda.threadIdx.x % 32 == 0:
                found[cuda.threadIdx.x // 32] = a
            cuda.syncthreads()
            a = found[0]
            for i in range(1, warps):
                b = found[i]
                a = a if b <= a or a != a else b
        return a

    return most


@cuda.jit(device=True)
def merged(count_a, mean_a, m2_a, count_b, mean_b, m2_b):
    """Chan's formula, also for sets without values."""
    if count_b == 0.0:
        return count_a, mean_a, m2_a
    if count_a == 0.0:
        return count_b, mean_b, m2_b
    count = count_a + count_b
    d = mean_b - mean_a
    share = count_b / count
    return count, mean_a + d * share, m2_a + m2_b + d * d * (count_a * share)


@cache
def merger(threads):
    """merge(count, mean, m2): the moments of a block's threads together."""
    warp, warps = min(threads, WARP), max(threads // WARP, 1)

    @cuda.jit(device=True)
    def merge(count, mean, m2):
        mask = 1
        while mask < warp:  # lower lanes first, so that a pair's two lanes merge in one order and get the same bits
            count_b = shuffled(count, mask)
            mean_b = shuffled(mean, mask)
            m2_b = shuffled(m2, mask)
            if cuda.threadIdx.x & mask:
                count, mean, m2 = merged(count_b, mean_b, m2_b, count, mean, m2)
            else:
                count, mean, m2 = merged(count, mean, m2, count_b, mean_b, m2_b)
            mask *= 2
        if warps > 1:
            parts = cuda.shared.array((3, 32), types.float64)
            cuda.syncthreads()
            if cuda.threadIdx.x % 32 == 0:
                parts[0, cuda.threadIdx.x // 32] = count
                parts[1, cuda.threadIdx.x // 32] = mean
                parts[2, cuda.threadIdx.x // 32] = m2
            cuda.syncthreads()
            count = parts[0, 0]
            mean = parts[1, 0]
            m2 = parts[2, 0]
            for i in range(1, warps):
                count, mean, m2 = merged(count, mean, m2, parts[0, i], parts[1, i], parts[2, i])
        return count, mean, m2

    return merge

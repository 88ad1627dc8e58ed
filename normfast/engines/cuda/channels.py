"""Norms whose statistics belong to channels or groups of them: from partial results of the sweeps to the factors of the next sweep.

A cell is one channel of one sample (group and instance norm) or of all of them (batch norm); `together` neighbouring cells are a group with
one mean and one deviation. Cell q has parameter q % channels. Cells' partial results lie side by side, so those of a group do too.
"""

from functools import cache

from numba import cuda
from numba.cuda import types

from normfast.engines.cuda.primitives import launch, loader, storer
from normfast.engines.cuda.teams import adder, greatest, merged, merger
from normfast.engines.cuda.text import activations, factors, moments
from normfast.kernels.activations import IDENTITY

THREADS = 128  # of a block that has one group

centre, within_reach, larger, unit_scale, inverse_deviation = (
    factors.centre, moments.within_reach, moments.larger, moments.unit_scale, moments.inverse_deviation,
)  # fmt: skip
activate, activate_gradient = activations.activate, activations.activate_gradient
LARGEST = moments.LARGEST


# What the sweeps call


@cache
def chunk_moments(wide, size, centred):
    """measure(held, at, step, valid, a): mean and m2 of some values, and the larger of a and their magnitudes.

    Their first mean is taken from the first of them, and deviations from it: nothing cancels, whatever the order of the values.
    """

    @cuda.jit(device=True)
    def measure(held, at, step, valid, a):
        m = wide(0)
        if centred:
            s = wide(0)
            for k in range(size):
                if k < valid:
                    s += held[at + k * step] - held[at]
            m = held[at] + s / wide(valid)
        d = wide(0)
        dd = wide(0)
        for k in range(size):
            if k < valid:
                e = held[at + k * step] - m
                d += e
                dd += e * e
                a = larger(a, abs(held[at + k * step]))
        if not centred:
            return 0.0, types.float64(dd), a
        rest = types.float64(d) / valid
        m2 = types.float64(dd) - types.float64(d) * rest
        return types.float64(m) + rest, 0.0 if m2 < 0.0 else m2, a

    return measure


@cache
def epilogue(wide, width, code):
    """finish(part): the activation of that code, on values in place; computed in float64."""

    @cuda.jit(device=True)
    def finish(part):
        if code != IDENTITY:
            z = cuda.local.array(width, types.float64)
            for m in range(width):
                z[m] = part[m]
            activate(z, width, code, z)
            for m in range(width):
                part[m] = wide(z[m])

    return finish


@cache
def slope(wide, width, code):
    """turn(g, d, a, a_low, b): g times the activation's derivative at d * (a + a_low) + b, in place."""

    @cuda.jit(device=True)
    def turn(g, d, a, a_low, b):
        if code != IDENTITY:
            z = cuda.local.array(width, types.float64)
            dz = cuda.local.array(width, types.float64)
            for m in range(width):
                z[m] = d[m] * a + (d[m] * a_low + b)
                dz[m] = g[m]
            activate_gradient(dz, z, width, code, z)
            for m in range(width):
                g[m] = wide(z[m])

    return turn


# Between the sweeps


@cuda.jit(device=True)
def lost(m2, count, a):
    """Whether squares were lost that a scale would save; values of usual size whose deviations are all 0 are constant."""
    return not within_reach(m2, count) and 0.0 < a <= LARGEST and not (m2 == 0.0 and 1e-10 < a < 1e18)


@cache
def statistics_kernel(kind, centred, threads):
    """Mean, rstd and var of each group from the partial moments of its cells; sums again where squares were lost."""
    wide = kind.wide
    merge, most, add, load = merger(threads), greatest(threads, threads), adder(threads, threads), loader(kind, 1)

    @cuda.jit(device=True)
    def place(q, e, r, c, s):
        return ((q // c * r + e // s) * c + q % c) * s + e % s

    @cuda.jit
    def kernel(x, r, c, s, together, pieces, counts, means, m2s, largest, eps, mean, rstd, var):
        one = cuda.local.array(1, wide)
        group = cuda.blockIdx.x
        lo = group * together * pieces
        count = 0.0
        m = 0.0
        m2 = 0.0
        a = 0.0
        i = lo + cuda.threadIdx.x
        while i < lo + together * pieces:
            count, m, m2 = merged(count, m, m2, counts[i], means[i], m2s[i])
            a = larger(a, largest[i])
            i += threads
        count, m, m2 = merge(count, m, m2)
        a = most(a)
        scale = 1.0
        if lost(m2, count, a):
            scale = unit_scale(a, wide(0))
        if scale != 1.0:
            values = together * r * s
            load(x, place(group * together, 0, r, c, s), one, 0)
            shift = types.float64(one[0]) * scale if centred else 0.0
            total = 0.0
            for sweep in range(2):  # the mean, then the deviations from it
                d = 0.0
                dd = 0.0
                e = types.int64(cuda.threadIdx.x)
                while e < values:
                    load(x, place(group * together + e // (r * s), e % (r * s), r, c, s), one, 0)
                    t = types.float64(one[0]) * scale - shift
                    d += t
                    dd += t * t
                    e += threads
                d, dd = add(d, dd)
                total = d / values
                if centred and sweep == 0:
                    shift += total
            m = shift + total if centred else 0.0
            m2 = max(dd - d * total, 0.0) if centred else dd
        v, f = inverse_deviation(m2, count, scale, eps)
        if cuda.threadIdx.x == 0:
            mean[group] = m / scale
            rstd[group] = f
            var[group] = v

    return kernel


def statistics(kind, block, together, pieces, centred, x, partial, eps, mean, rstd, var, stream):
    """mean, rstd, var of the groups of `together` cells."""
    a, r, c, s = block
    kernel = statistics_kernel(kind, centred, THREADS)
    launch(kernel, a * c // together, THREADS, stream, x, r, c, s, together, pieces, *partial, eps, mean, rstd, var)


@cache
def factors_kernel(wide, given, weighted, biased):
    """Factors of y = (x * scale - high) * (a + a_low) + b for each cell; given: by var and eps in place of rstd, as at inference."""

    @cuda.jit
    def kernel(cells, together, channels, mean, rstd, eps, weight, bias, scale, high, a, a_low, b):
        q = cuda.grid(1)
        if q < cells:
            m = mean[q // together]
            f = rstd[q // together]
            if given:
                f = 0.0 if f + eps == 0.0 else 1.0 / (f + eps) ** 0.5
            w = weight[q % channels] if weighted else 1.0
            own_scale, own_high, r, low = centre(m, f, wide(0))
            f = r * w
            scale[q] = wide(own_scale)
            high[q] = wide(own_high)
            a[q] = wide(f)
            a_low[q] = wide(f - wide(f))
            b[q] = wide(low * w + (bias[q % channels] if biased else 0.0))

    return kernel


def make_factors(kind, given, cells, together, channels, mean, rstd, eps, weight, bias, lane_factors, stream):
    """The five arrays of factors of the cells; weight and bias are float64 or None."""
    kernel = factors_kernel(kind.wide, given, weight is not None, bias is not None)
    weight, bias = (mean if values is None else values for values in (weight, bias))
    launch(kernel, -(-cells // THREADS), THREADS, stream, cells, together, channels, mean, rstd, eps, weight, bias, *lane_factors)


@cache
def gradient_factors_kernel(wide, threads, weighted):
    """From partial sums: those of each cell, of dy and dy * xhat, and the factors of dx = dy * own + (x * scale - high) * p + rest."""
    add = adder(threads, threads)

    @cuda.jit
    def kernel(together, channels, values, pieces, part_dy, part_dy_d, mean, rstd, weight, sum_dy, sum_dy_xhat, own, p, rest):
        group = cuda.blockIdx.x
        _, _, r, low = centre(mean[group], rstd[group], wide(0))
        c1 = 0.0
        c2 = 0.0
        for k in range(together):
            q = group * together + k
            d = 0.0
            dd = 0.0
            i = q * pieces + cuda.threadIdx.x
            while i < (q + 1) * pieces:
                d += part_dy[i]
                dd += part_dy_d[i]
                i += threads
            d, dd = add(d, dd)
            dd = dd * r + d * low
            w = weight[q % channels] if weighted else 1.0
            c1 += w * d
            c2 += w * dd
            if cuda.threadIdx.x == 0:
                sum_dy[q] = d
                sum_dy_xhat[q] = dd
        c1 /= values
        c2 /= values
        alive = 0.0 if values == 1 else 1.0  # of one value y is the bias whatever x
        k = cuda.threadIdx.x
        while k < together:
            q = group * together + k
            own[q] = wide(alive * (weight[q % channels] if weighted else 1.0) * rstd[group])
            p[q] = wide(alive * -rstd[group] * c2 * r)
            rest[q] = wide(alive * -rstd[group] * (c1 + c2 * low))
            k += threads

    return kernel


def make_gradient_factors(kind, groups, together, channels, values, pieces, partial, mean, rstd, weight, sums, own_factors, stream):
    """The sums of the cells and the three arrays of factors."""
    kernel = gradient_factors_kernel(kind.wide, THREADS, weight is not None)
    weight = mean if weight is None else weight
    launch(kernel, groups, THREADS, stream, together, channels, values, pieces, *partial, mean, rstd, weight, *sums, *own_factors)


@cache
def running_kernel(kind):
    """Running statistics of the channels, in place."""
    load, store = loader(kind, 1), storer(kind, 1)

    @cuda.jit
    def kernel(running, batch, channels, momentum, factor):
        one = cuda.local.array(1, kind.wide)
        q = cuda.grid(1)
        if q < channels:
            load(running, q, one, 0)
            before = types.float64(one[0])
            one[0] = kind.wide(before + momentum * (batch[q] * factor - before))
            store(one, 0, running, q)

    return kernel


def update_running(kind, running, batch, channels, momentum, factor, stream):
    """running += momentum * (batch * factor - running)."""
    launch(running_kernel(kind), -(-channels // THREADS), THREADS, stream, running, batch, channels, momentum, factor)

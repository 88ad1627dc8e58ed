"""The sweeps that write: each value from its own inputs, in the order given (compiled without reassociation).

`high` is the mean in x's type; `low` carries what its rounding lost and `r_low` what the rounding of 1/std lost, which alone costs 6e-8
of y. `scale` is a power of two, 1 but for values near the ends of the type: x * scale is exact, and costs nothing in a fused multiply-add.

A store to memory that is in no cache reads it first. So outputs larger than the caches go past them, a few lines at a time: that leaves the
queues of the processor room to read on (on one core 16 MB of rows took 1.33 ms by 64 values at a time, 1.72 ms by 512; a copy 1.22 ms).
"""

from normfast.kernels.activations import *
from normfast.kernels.primitives import *

LINES = 64  # values written past the caches at once
PART = 1024  # values written at once where a function follows; of a buffer
SHORT = 256  # values of a run that goes past the caches with its neighbours


def affine_run(x, n, scale, high, a, a_low, b, y):
    """y = d * a + b, with d = x * scale - high: one channel."""
    for j in range(n):
        d = x[j] * scale - high
        y[j] = d * a + (d * a_low + b)


def weighted_run(x, n, scale, high, r, r_low, low, weight, bias, y):
    """y = xhat * weight + bias, with a weight and a bias for each value of the run."""
    for j in range(n):
        d = x[j] * scale - high
        y[j] = (d * r + (d * r_low + low)) * weight[j] + bias[j]


def affine_columns(x, n, high, a, a_low, b, y):
    """As `affine_run`, with factors of their own for each column and no scale."""
    for j in range(n):
        d = x[j] - high[j]
        y[j] = d * a[j] + (d * a_low[j] + b[j])


def gradient_run(dy, x, n, scale, high, a, p, q, dx):
    """dx = dy * a + d * p + q, with d = x * scale - high; dx may be dy."""
    for j in range(n):
        dx[j] = dy[j] * a + ((x[j] * scale - high) * p + q)


def weighted_gradient_run(dy, x, weight, n, scale, high, r, p, q, dx):
    """dx = dy * weight * r + d * p + q, with a weight for each value."""
    for j in range(n):
        dx[j] = dy[j] * weight[j] * r + ((x[j] * scale - high) * p + q)


def gradient_columns(dy, x, n, high, a, p, q, dx):
    """As `gradient_run`, with factors of their own for each column and no scale."""
    for j in range(n):
        dx[j] = dy[j] * a[j] + ((x[j] - high[j]) * p[j] + q[j])


def scaled_gradient_columns(dy, x, n, scale, high, a, p, q, dx):
    """As `gradient_columns`, with d = x * scale - high."""
    for j in range(n):
        dx[j] = dy[j] * a[j] + ((x[j] * scale[j] - high[j]) * p[j] + q[j])


def multiply_columns(x, n, factor, y):
    """y = x * factor, with a factor for each column."""
    for j in range(n):
        y[j] = x[j] * factor[j]


# Past the caches where an output is larger than they are


def affine_sweep(x, n, scale, high, a, a_low, b, code, following, y, streamed, buffer):
    """`affine_run`, then the activation of that code; past the caches, through the buffer, if `streamed`.

    The values of the run `following` are asked for then, since reading and storing past the caches take turns otherwise.
    """
    part = LINES if streamed and code <= RELU else PART
    left = 0
    m = lead(y, n) if streamed else min(n, part)
    while left < n:
        target = buffer if streamed else chunk(y, left, left + m)
        affine_run(chunk(x, left, left + m), m, scale, high, a, a_low, b, target)
        if code != IDENTITY:
            activate(target, m, code, target)
        if streamed:
            prefetch(chunk(following, left, left + m), m)
            stream(buffer, m, chunk(y, left, left + m))
        left += m
        m = min(n - left, part)


def weighted_sweep(x, n, scale, high, r, r_low, low, weight, bias, following, y, streamed, buffer):
    """`weighted_run` in the same way; the values of the run `following` are asked for."""
    left = 0
    m = lead(y, n) if streamed else n
    while left < n:
        target = buffer if streamed else y
        if streamed:
            prefetch(chunk(following, left, left + m), m)
        weighted_run(
            chunk(x, left, left + m), m, scale, high, r, r_low, low, chunk(weight, left, left + m), chunk(bias, left, left + m), target
        )
        if streamed:
            stream(buffer, m, chunk(y, left, left + m))
        left += m
        m = min(n - left, LINES)


def gradient_sweep(dy, x, n, scale, high, a, p, q, dx, streamed, buffer):
    """`gradient_run` in the same way."""
    left = 0
    m = lead(dx, n) if streamed else n
    while left < n:
        target = buffer if streamed else dx
        gradient_run(chunk(dy, left, left + m), chunk(x, left, left + m), m, scale, high, a, p, q, target)
        if streamed:
            stream(buffer, m, chunk(dx, left, left + m))
        left += m
        m = min(n - left, LINES)


def weighted_gradient_sweep(dy, x, weight, n, scale, high, r, p, q, dx, streamed, buffer):
    """`weighted_gradient_run` in the same way."""
    left = 0
    m = lead(dx, n) if streamed else n
    while left < n:
        target = buffer if streamed else dx
        weighted_gradient_run(
            chunk(dy, left, left + m), chunk(x, left, left + m), chunk(weight, left, left + m), m, scale, high, r, p, q, target
        )
        if streamed:
            stream(buffer, m, chunk(dx, left, left + m))
        left += m
        m = min(n - left, LINES)


def affine_runs(x, lo, hi, r, c, s, splits, scale, high, a, a_low, b, code, y, streamed, buffer):
    """`affine_sweep` on the parts lo..hi of the runs of a block (a, r, c, s), `splits` of each, in the order of memory.

    The factors are those of the channels. Short runs go past the caches together, since they end within a cache line.
    """
    group = PART // s if streamed and s <= SHORT else 0
    past = streamed and group <= 1
    run = lo // splits
    part = lo % splits
    channel = run % c
    sample = run // c % r
    q = run // (r * c) * c
    beside = 0
    for i in range(lo, hi):
        left = s * part // splits if splits > 1 else 0
        right = s * (part + 1) // splits if splits > 1 else s
        k = q + channel
        target = chunk(buffer, beside * s, PART) if group > 1 else chunk(row(y, run, s), left, right)
        own = chunk(row(x, run, s), left, right)
        if code == IDENTITY and not past:
            affine_run(own, right - left, scale[k], high[k], a[k], a_low[k], b[k], target)
        else:
            affine_sweep(
                own, right - left, scale[k], high[k], a[k], a_low[k], b[k], code, own, target, past, buffer,
            )  # fmt: skip
        beside += 1
        if group > 1 and (beside == group or i + 1 == hi):
            stream(buffer, beside * s, row(y, run + 1 - beside, s))
            beside = 0
        part += 1
        if part == splits:
            part = 0
            run += 1
            channel += 1
            if channel == c:
                channel = 0
                sample += 1
                if sample == r:
                    sample = 0
                    q += c


def gradient_runs(dy, x, lo, hi, r, c, s, splits, scale, high, a, p, q, dx, streamed, buffer):
    """`gradient_sweep` in the same way."""
    group = PART // s if streamed and s <= SHORT else 0
    run = lo // splits
    part = lo % splits
    beside = 0
    for i in range(lo, hi):
        left = s * part // splits if splits > 1 else 0
        right = s * (part + 1) // splits if splits > 1 else s
        k = run // (r * c) * c + run % c
        target = chunk(buffer, beside * s, PART) if group > 1 else chunk(row(dx, run, s), left, right)
        gradient_sweep(
            chunk(row(dy, run, s), left, right), chunk(row(x, run, s), left, right), right - left, scale[k], high[k], a[k], p[k], q[k],
            target, streamed and group <= 1, buffer,
        )  # fmt: skip
        beside += 1
        if group > 1 and (beside == group or i + 1 == hi):
            stream(buffer, beside * s, row(dx, run + 1 - beside, s))
            beside = 0
        part += 1
        if part == splits:
            part = 0
            run += 1


def columns_sweep(x, n, scaled, scale, high, a, a_low, b, code, y, streamed, buffer):
    """`affine_columns`, of x * scale if `scaled`, then the activation, as `affine_sweep`."""
    part = LINES if streamed and code == IDENTITY and not scaled else PART
    left = 0
    m = lead(y, n) if streamed else min(n, part)
    while left < n:
        target = buffer if streamed else chunk(y, left, left + m)
        source = chunk(x, left, left + m)
        if scaled:
            multiply_columns(source, m, chunk(scale, left, left + m), target)
            source = target
        affine_columns(
            source, m, chunk(high, left, left + m), chunk(a, left, left + m), chunk(a_low, left, left + m), chunk(b, left, left + m), target
        )
        if code != IDENTITY:
            activate(target, m, code, target)
        if streamed:
            stream(buffer, m, chunk(y, left, left + m))
        left += m
        m = min(n - left, part)


def gradient_columns_sweep(dy, x, n, scaled, scale, high, a, p, q, dx, streamed, buffer):
    """`gradient_columns`, of x * scale if `scaled`, in the same way."""
    left = 0
    m = lead(dx, n) if streamed else n
    while left < n:
        right = left + m
        target = buffer if streamed else dx
        if scaled:
            scaled_gradient_columns(
                chunk(dy, left, right), chunk(x, left, right), m, chunk(scale, left, right), chunk(high, left, right),
                chunk(a, left, right), chunk(p, left, right), chunk(q, left, right), target,
            )  # fmt: skip
        else:
            gradient_columns(
                chunk(dy, left, right), chunk(x, left, right), m, chunk(high, left, right), chunk(a, left, right), chunk(p, left, right),
                chunk(q, left, right), target,
            )  # fmt: skip
        if streamed:
            stream(buffer, m, chunk(dx, left, right))
        left = right
        m = min(n - left, LINES)

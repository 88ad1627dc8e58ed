"""The sweeps that write: each value from its own inputs, in the order given (compiled without reassociation).

`high` is the mean in x's type; `low` carries what its rounding lost and `r_low` what the rounding of 1/std lost, which alone costs 6e-8
of y. `scale` is a power of two, 1 but for values near the ends of the type: x * scale is exact, and costs nothing in a fused multiply-add.

A store to memory that is in no cache reads it first. So outputs larger than the caches go past them, a few lines at a time: that leaves the
queues of the processor room to read on (on one core 16 MB of rows took 1.33 ms by 64 values at a time, 1.72 ms by 512; a copy 1.22 ms).
"""

from normfast.kernels.activations import *
from normfast.kernels.primitives import *

PART = 1024  # values written at once where a function follows; of a buffer
DISTANCE = 1024  # values ahead of a sweep, in the order of memory, that it asks for: batch norm by given statistics 0.89 of the time
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


def affine_sweep(x, n, scale, high, a, a_low, b, code, ahead, y, streamed, buffer):
    """`affine_run`, then the activation of that code; past the caches, through the buffer, if `streamed`.

    The values that stand so far ahead are asked for then, since reading and storing past the caches take turns otherwise.
    """
    left = 0
    if streamed:
        left = lead(y, n)
        affine_lines(x, left, scale, high, a, a_low, b, code, ahead, y, buffer)
        while code <= RELU and left + LINES <= n:
            affine_lines(chunk(x, left, n), LINES, scale, high, a, a_low, b, code, ahead, chunk(y, left, n), buffer)
            left += LINES
    while left < n:
        m = min(n - left, PART)
        if streamed:
            affine_lines(chunk(x, left, n), m, scale, high, a, a_low, b, code, ahead, chunk(y, left, n), buffer)
        else:
            affine_active(chunk(x, left, n), m, scale, high, a, a_low, b, code, chunk(y, left, n))
        left += m


def affine_active(x, n, scale, high, a, a_low, b, code, y):
    """`affine_run`, then the activation of that code."""
    affine_run(x, n, scale, high, a, a_low, b, y)
    if code != IDENTITY:
        activate(y, n, code, y)


def affine_lines(x, n, scale, high, a, a_low, b, code, ahead, y, buffer):
    """The same past the caches."""
    affine_active(x, n, scale, high, a, a_low, b, code, buffer)
    prefetch(chunk(x, ahead, ahead + n), n)
    stream(buffer, n, y)


def weighted_sweep(x, n, scale, high, r, r_low, low, weight, bias, ahead, y, streamed, buffer):
    """`weighted_run` in the same way."""
    if streamed:
        left = lead(y, n)
        weighted_lines(x, left, scale, high, r, r_low, low, weight, bias, ahead, y, buffer)
        while left + LINES <= n:
            weighted_lines(
                chunk(x, left, n), LINES, scale, high, r, r_low, low, chunk(weight, left, n), chunk(bias, left, n),
                ahead, chunk(y, left, n), buffer,
            )  # fmt: skip
            left += LINES
        weighted_lines(
            chunk(x, left, n), n - left, scale, high, r, r_low, low, chunk(weight, left, n), chunk(bias, left, n),
            ahead, chunk(y, left, n), buffer,
        )  # fmt: skip
    else:
        weighted_run(x, n, scale, high, r, r_low, low, weight, bias, y)


def weighted_lines(x, n, scale, high, r, r_low, low, weight, bias, ahead, y, buffer):
    """`weighted_run` past the caches."""
    prefetch(chunk(x, ahead, ahead + n), n)
    weighted_run(x, n, scale, high, r, r_low, low, weight, bias, buffer)
    stream(buffer, n, y)


def gradient_sweep(dy, x, n, scale, high, a, p, q, dx, streamed, buffer):
    """`gradient_run` in the same way."""
    if streamed:
        left = lead(dx, n)
        gradient_lines(dy, x, left, scale, high, a, p, q, dx, buffer)
        while left + LINES <= n:
            gradient_lines(chunk(dy, left, n), chunk(x, left, n), LINES, scale, high, a, p, q, chunk(dx, left, n), buffer)
            left += LINES
        gradient_lines(chunk(dy, left, n), chunk(x, left, n), n - left, scale, high, a, p, q, chunk(dx, left, n), buffer)
    else:
        gradient_run(dy, x, n, scale, high, a, p, q, dx)


def gradient_lines(dy, x, n, scale, high, a, p, q, dx, buffer):
    """`gradient_run` past the caches."""
    gradient_run(dy, x, n, scale, high, a, p, q, buffer)
    stream(buffer, n, dx)


def weighted_gradient_sweep(dy, x, weight, n, scale, high, r, p, q, dx, streamed, buffer):
    """`weighted_gradient_run` in the same way."""
    if streamed:
        left = lead(dx, n)
        weighted_gradient_lines(dy, x, weight, left, scale, high, r, p, q, dx, buffer)
        while left + LINES <= n:
            weighted_gradient_lines(
                chunk(dy, left, n), chunk(x, left, n), chunk(weight, left, n), LINES, scale, high, r, p, q, chunk(dx, left, n), buffer
            )
            left += LINES
        weighted_gradient_lines(
            chunk(dy, left, n), chunk(x, left, n), chunk(weight, left, n), n - left, scale, high, r, p, q, chunk(dx, left, n), buffer
        )
    else:
        weighted_gradient_run(dy, x, weight, n, scale, high, r, p, q, dx)


def weighted_gradient_lines(dy, x, weight, n, scale, high, r, p, q, dx, buffer):
    """`weighted_gradient_run` past the caches."""
    weighted_gradient_run(dy, x, weight, n, scale, high, r, p, q, buffer)
    stream(buffer, n, dx)


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
                own, right - left, scale[k], high[k], a[k], a_low[k], b[k], code, DISTANCE, target, past, buffer,
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
    left = 0
    m = lead(y, n) if streamed else min(n, PART)
    while left < n:
        columns_part(
            chunk(x, left, n), m, scaled, chunk(scale, left, n), chunk(high, left, n), chunk(a, left, n), chunk(a_low, left, n),
            chunk(b, left, n), code, chunk(y, left, n), streamed, buffer,
        )  # fmt: skip
        left += m
        while streamed and code == IDENTITY and not scaled and left + LINES <= n:
            columns_part(
                chunk(x, left, n), LINES, False, scale, chunk(high, left, n), chunk(a, left, n), chunk(a_low, left, n),
                chunk(b, left, n), IDENTITY, chunk(y, left, n), True, buffer,
            )  # fmt: skip
            left += LINES
        m = min(n - left, PART)


def columns_part(x, n, scaled, scale, high, a, a_low, b, code, y, streamed, buffer):
    """The same of n values at once."""
    target = buffer if streamed else y
    source = x
    if scaled:
        multiply_columns(x, n, scale, target)
        source = target
    affine_columns(source, n, high, a, a_low, b, target)
    if code != IDENTITY:
        activate(target, n, code, target)
    if streamed:
        stream(buffer, n, y)


def gradient_columns_sweep(dy, x, n, scaled, scale, high, a, p, q, dx, streamed, buffer):
    """`gradient_columns`, of x * scale if `scaled`, in the same way."""
    left = 0
    m = lead(dx, n) if streamed else n
    while left < n:
        gradient_columns_part(
            chunk(dy, left, n), chunk(x, left, n), m, scaled, chunk(scale, left, n), chunk(high, left, n), chunk(a, left, n),
            chunk(p, left, n), chunk(q, left, n), chunk(dx, left, n), streamed, buffer,
        )  # fmt: skip
        left += m
        while streamed and not scaled and left + LINES <= n:
            gradient_columns_part(
                chunk(dy, left, n), chunk(x, left, n), LINES, False, scale, chunk(high, left, n), chunk(a, left, n), chunk(p, left, n),
                chunk(q, left, n), chunk(dx, left, n), True, buffer,
            )  # fmt: skip
            left += LINES
        m = min(n - left, LINES)


def gradient_columns_part(dy, x, n, scaled, scale, high, a, p, q, dx, streamed, buffer):
    """The same of n values at once."""
    target = buffer if streamed else dx
    if scaled:
        scaled_gradient_columns(dy, x, n, scale, high, a, p, q, target)
    else:
        gradient_columns(dy, x, n, high, a, p, q, target)
    if streamed:
        stream(buffer, n, dx)

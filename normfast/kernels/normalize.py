"""The sweeps that write: each value from its own inputs, in the order given (compiled without reassociation).

`high` is the mean in x's type; `low` carries what its rounding lost and `r_low` what the rounding of 1/std lost, which alone costs 6e-8
of y. `scale` is a power of two, 1 but for values near the ends of the type: x * scale is exact, and costs nothing in a fused multiply-add.
"""


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

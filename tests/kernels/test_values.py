"""p-norms, 16-bit floats, Philox, dropout and what is fused with it."""

import kernels_in_python
import numpy as np
import pytest
from kernels_in_python import EXTREMES, NUMPY, PYTHON, data, judge, module, plain, store_past_caches

KEY = np.array([0x12345678, 0x9ABCDEF0, 0xFFFFFFFF, 3], np.uint64)
HALVES = ("float16", "bfloat16")
EDGES = [1, 0x3FF, 0x400, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x7F7F, 0x7F80, 0x7F81, 0xFC00, 0xFF80]  # of the ranges of 16-bit floats
NEAR = [65519.996, 65520.0, 65535.0, 3.4e38, 1e-45, 2.0**-14, 2.0**-25, 2.0**-24]  # the ends of float16
ORDERS = (0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -2.5, np.inf, -np.inf)


@pytest.fixture(params=[False, True], ids=["text", "by hand"])
def hand(request, monkeypatch):
    monkeypatch.setattr(kernels_in_python, "by_hand", request.param)


@pytest.fixture(params=[(0, 0, np.float64), (0, 1, np.float32), (1, 1, np.float64)], ids=["text", "past the caches", "by hand"])
def dtype(request, monkeypatch):
    """With the way that results take."""
    hand, streamed, dtype = request.param
    monkeypatch.setattr(kernels_in_python, "by_hand", bool(hand))
    store_past_caches(monkeypatch, streamed)
    return dtype


def draws(position, p, dtype):
    return KEY, position, int(p * 2**32), dtype(1 / (1 - p))


def lp_norm(x, p, eps):
    def call(engine, new):
        y, norm = new(*x.shape), np.empty(len(x))
        engine.lp_norm_forward(x, p, eps, y, norm)
        return y, norm

    return call


def lp_gradient(dy, x, p, norm, eps):
    def call(engine, new):
        dx = new(*x.shape)
        engine.lp_gradient(dy, x, p, norm, eps, dx)
        return dx

    return call


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 400), (1, 1030)])
def test_lp_norm(dtype, p, shape, rng):
    x, dy = data(rng, shape, dtype, 0.2), data(rng, shape, dtype)
    if shape == (7, 3):
        x[1, 0], x[2], x[3], x[4] = 0, 0, [2, -2, 2], 1e-6
    norm = np.empty(len(x))
    for eps in (1e-12, 0.5, 0.0) if shape == (7, 3) else (1e-12,):
        judge(lp_norm(x, p, eps), dtype, 64)
        NUMPY.lp_norm_forward(x, p, eps, np.empty(shape), norm)
        judge(lp_gradient(dy, x, p, norm, eps), dtype, 16 * (1 + abs(p) if np.isfinite(p) else 1), terms_of(dy, x, p, norm, eps))


def terms_of(dy, x, p, norm, eps):
    """The magnitudes that the gradient of a row is the sum of."""
    with np.errstate(all="ignore"):
        divisor = np.maximum(norm, eps)[:, None]
        t = np.abs(x) / divisor
        slope = np.where(t > 0, t ** (p - 1), 0) if np.isfinite(p) and p else 1.0
        size = (np.abs(dy) + np.abs(dy * t).sum(axis=1, keepdims=True) * slope) / divisor
    return np.where(np.isfinite(size), size, 1.0)


NUMBERS = [(p, *case) for p in ORDERS for case in EXTREMES]
OTHERS = [(p, np.float64, bad) for p in (1.0, 2.0, 3.0, np.inf) for bad in (np.nan, np.inf)]  # below 1 each engine has its own


@pytest.mark.parametrize(("p", "dtype", "size"), [*NUMBERS, *OTHERS])
def test_lp_norm_of_extremes(dtype, size, p, rng):
    x, dy = data(rng, (5, 7), dtype, 0.5), data(rng, (5, 7), dtype)
    if np.isfinite(size):
        x *= dtype(size)
        x[2] = 0
    else:
        x[1, 3] = x[3, 0] = size
        size = 1.0
    norm = np.empty(5)
    NUMPY.lp_norm_forward(x, p, 0.0, np.empty(x.shape), norm)

    def call(engine, new):
        y, own = lp_norm(x, p, 0.0)(engine, new)
        dx = lp_gradient(dy, x, p, norm, 0.0)(engine, new)
        return y, own / (size if p else 1.0), dx * dtype(size)

    judge(call, dtype, 256)


@pytest.mark.parametrize("half", HALVES)
def test_conversions(hand, half, rng):
    """Exact one way, to the nearest and ties to even the other, also of numbers halfway and of what is no number."""
    bits = np.concatenate([np.arange(0, 2**16, 251), EDGES])
    short = bits.astype(np.uint16).view(half)
    wide = np.empty(short.size, np.float32)
    PYTHON.widen(short, wide)
    assert np.array_equal(wide, short.astype(np.float32), equal_nan=True)
    finite = wide[np.abs(wide) < 60000]
    step = np.abs(np.spacing(finite.astype(half)).astype(np.float32)) / 2
    beside = [finite + step * np.float32(share) for share in (0.0, 0.999, 1.0, 1.001)]
    near = np.concatenate([*beside, -finite, wide[~np.isfinite(wide)], np.float32(NEAR)])
    result = np.empty(near.size, half)
    PYTHON.narrow(near, result)
    with np.errstate(all="ignore"):
        expected = near.astype(half)
    assert np.array_equal(result.view(np.uint16)[~np.isnan(near)], expected.view(np.uint16)[~np.isnan(near)])
    assert np.isnan(result[np.isnan(near)]).all()


WAYS = pytest.mark.parametrize(("half", "streamed"), [("float16", True), ("bfloat16", False)], indirect=["streamed"])


@WAYS
@pytest.mark.parametrize("shape", [(1, 3), (5, 33), (70, 3), (3, 1500)])
def test_rows_of_16_bits(streamed, half, shape, rng):
    """float32 arithmetic, rounded once: half an eps of a value, and what float32 takes."""
    x, dy, (weight, bias) = data(rng, shape, half), data(rng, shape, half, 0.5), data(rng, (2, shape[1]), np.float32)

    def forward(engine, new):
        y, statistics = new(*shape), np.empty((3, shape[0]))
        engine.layer_norm_forward(x, weight, bias, 1e-3, True, y, *statistics)
        return y.astype(np.float64), statistics * 1e-5  # float32 ones

    judge(forward, half, 0.52)
    statistics = np.empty((3, shape[0]))
    NUMPY.layer_norm_forward(x, weight, bias, 1e-3, True, np.empty(shape), *statistics)

    def backward(engine, new):
        dx = new(*shape)
        return dx.astype(np.float64), *engine.layer_norm_backward(dy, x, *statistics[[0, 2]][:, :], weight, True, dx), dx

    judge(backward, half, 0.55)


@WAYS
@pytest.mark.parametrize("shape", [(1, 2, 3, 64), (2, 3, 2, 5), (1, 1, 1, 2100)])
def test_slabs_of_16_bits(streamed, half, shape, rng):
    a, r, c, s = shape
    x, dy, (weight, bias) = data(rng, shape, half), data(rng, shape, half, 0.5), data(rng, (2, a, c), np.float64)
    statistics = np.empty((3, a, c))

    def forward(engine, new):
        y, z, own = new(*shape), new(*shape), np.empty((3, a, c))
        engine.batch_norm_forward(x, weight, bias, 1e-3, 6, y, *own)
        engine.batch_norm(x, own[0], own[1], weight, bias, 0, z)
        statistics[:] = own
        return y, z, own * 1e-5

    def backward(engine, new):
        dx = new(*shape)
        return dx, *engine.batch_norm_backward(dy, x, *statistics[:2], weight, bias, 0, dx)

    judge(forward, half, 0.55)
    judge(backward, half, 0.55)
    rows, channels = x.reshape(a * r, c * s), data(rng, (2 - a * r % 2, c), np.float64)  # of two groups where the rows can be

    def groups(engine, new):
        y, dx, own = new(*rows.shape), new(*rows.shape), np.empty((3, a * r))
        engine.group_norm_forward(rows, channels, channels, s, 1e-3, y, *own)
        return y, dx, *engine.group_norm_backward(dy.reshape(rows.shape), rows, *own[:2], channels, s, dx), dx, own * 1e-5

    judge(groups, half, 0.55)


@pytest.mark.parametrize("position", [0, 1, 63, 2**40 + 77])
@pytest.mark.parametrize("n", [1, 64, 130])
def test_random_words(hand, position, n):
    words, expected = np.empty((2, n), np.uint32)
    PYTHON.random_words(KEY, position, words)
    NUMPY.random_words(KEY, position, expected)
    assert (words == expected).all()


@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize(("position", "n"), [(0, 1), (31, 2), (4032, 100), (2**34 + 100, 200)])
def test_dropout(dtype, position, n, p, rng):
    """Bit for bit, and of every type."""
    x, dropping = data(rng, n, dtype), draws(position, p, dtype)
    x[0] = np.inf

    def call(engine, new):
        y, kept = new(n), np.empty(n, bool)
        engine.dropout(x, *dropping, y)
        engine.keep(*dropping[:3], kept)
        packed = np.packbits(kept, bitorder="little")
        bits, z = np.zeros(-(-n // 32) * 4, np.uint8), new(n)
        bits[: packed.size] = packed
        engine.drop_given(x, bits.view(np.uint32), dropping[3], z)
        return y, kept, z

    judge(call, dtype, 1)
    if dtype == np.float32:
        for half in HALVES:
            short = x.astype(half)

            def call(engine, new, short=short, half=half):
                y = np.full(n, 7, half)
                engine.dropout(short, *dropping, y)
                return y

            judge(call, half, 0.0)


@pytest.mark.parametrize("drops", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("shape", [(6, 5), (67, 3), (3, 64), (2, 1100)])
def test_sums_and_norms(dtype, shape, drops, rng):
    rows, n = shape
    x, residual, dy, dh = data(rng, (4, *shape), dtype, 0.5)
    weight, bias = data(rng, (2, n), dtype)
    drawn = draws(64, 0.3, dtype) if drops else None

    def forward(engine, new):
        h, y, statistics = new(*shape), new(*shape), np.empty((3, rows))
        engine.add_norm_forward(x, residual, drawn, weight, bias, 1e-3, drops, h, y, *statistics)
        return h, y, *statistics

    judge(forward, dtype, 512)
    h, _, mean, rstd, _ = forward(NUMPY, plain)
    h = h.astype(dtype)
    term = 2 * np.abs(dy * weight).max() * rstd.max() + 4

    for more in (None, dh):

        def backward(engine, new, more=more):
            dresidual, dx = new(*shape), new(*shape)
            shares = engine.add_norm_backward(dy, h, more, mean, rstd, drawn, weight, drops, dresidual, dx)
            return dresidual, dx, *shares

        judge(backward, dtype, 512, [term, term, None, None])


@pytest.mark.parametrize("drops", [False, True], ids=["", "dropout"])
@WAYS
@pytest.mark.parametrize("shape", [(6, 5), (67, 3), (2, 1100)])
def test_sums_and_norms_of_16_bits(streamed, half, shape, drops, rng):
    rows, n = shape
    x, residual, dy, dh = (data(rng, shape, half, 0.5) for _ in range(4))
    weight, bias = data(rng, (2, n), np.float32)
    drawn = draws(64, 0.5, np.float32) if drops else None
    own = np.empty((3, rows))

    def forward(engine, new):
        h, y = np.full((2, *shape), 7, half)
        engine.add_norm_forward(x, residual, drawn, weight, bias, 1e-3, drops, h, y, *own)
        own[:, 0] *= 1
        return h, y

    judge(forward, half, 1.0)  # y is of what h is rounded to: half an eps each way
    h = forward(NUMPY, plain)[0]

    for more in (None, dh):

        def backward(engine, new, more=more):
            dresidual, dx = np.full((2, *shape), 7, half)
            shares = engine.add_norm_backward(dy, h, more, own[0], own[1], drawn, weight, drops, dresidual, dx)
            return dresidual, dx, *shares

        judge(backward, half, 1.0)


@pytest.mark.parametrize("drops", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize(("shape", "code"), [((6, 5), 6), ((67, 3), 0), ((3, 64), 1), ((2, 1100), 1)])
def test_bias_activation(dtype, shape, code, drops, rng):
    x, dy, bias = data(rng, shape, dtype, 0.0), data(rng, shape, dtype), data(rng, shape[1], dtype)

    def call(engine, new):
        y, dx = new(*shape), new(*shape)
        engine.bias_activation(x, bias, code, drawn, y)
        return y, engine.bias_activation_backward(dy, x, bias, code, drawn, dx), dx

    for position in (4090, 4100) if drops else (0,):  # from the first block of draws into the second, and within the second
        drawn = draws(position, 0.3, dtype) if drops else None
        judge(call, dtype, 64)


def test_sums_of_parameters_end_with_a_tile(rng):
    """Sums in the type of x are moved into float64 ones after 64 rows, 32 down columns: there 2**25 + 3 is no float32."""
    rows = 67
    dy = np.zeros((rows, 2), np.float32)
    dy[0], dy[64:] = 2.0**25, 1.0
    x, one, (mean, rstd) = data(rng, (rows, 2), np.float32), np.ones(2, np.float32), np.stack([np.zeros(rows), np.ones(rows)])
    dx, total = np.empty((rows, 2), np.float32), 2.0**25 + 3
    assert (PYTHON.layer_norm_backward(dy, x, mean, rstd, one, True, dx)[1] == total).all()
    assert (PYTHON.add_norm_backward(dy, x, None, mean, rstd, None, one, True, dx, dx)[1] == total).all()
    assert (PYTHON.bias_activation_backward(dy, x, one, 0, None, dx) == total).all()
    block, ones = (1, rows, 2, 1), np.ones((1, 2))
    assert (PYTHON.batch_norm_backward(dy.reshape(block), x.reshape(block), 0 * ones, *[ones] * 3, 0, dx.reshape(block))[1] == total).all()
    dy[0], dy[1], dy[64:] = 2.0**15, 2.0**-10, 2.0**-10  # the second is lost beside the first
    total = 2.0**15 + 3 * 2.0**-10
    small, short, result = dy.astype("float16"), x.astype("float16"), np.empty((rows, 2), "float16")
    assert (PYTHON.layer_norm_backward(small, short, mean, rstd, one, True, result)[1] == total).all()
    assert (PYTHON.add_norm_backward(small, short, None, mean, rstd, None, one, True, result, result)[1] == total).all()


def test_what_only_functions_of_rows_call(dtype, rng):
    """Chan's formula and its inverse, the 2-norm of one row, the identity, and a row of parameters of extreme size."""
    moments = module("moments")
    x = rng.standard_normal(50) + 3
    parts = [(float(part.size), part.mean(), part.size * part.var()) for part in (x[:20], x[20:], x)]
    assert np.allclose(moments.merge(*parts[0], *parts[1]), parts[2], rtol=1e-14, atol=0)
    assert np.allclose(moments.unmerge(*parts[2], *parts[1]), parts[0], rtol=1e-13, atol=0)
    assert moments.split_sum(1.0, 2.0**-60) == (1.0, 2.0**-60)
    for size in (1.0, 1e-25, 1e25):
        z = (x * size).astype(dtype)
        with np.errstate(over="ignore"):
            norm = module("lp_norm").row_norm(z, 50, 2.0)
        assert abs(norm / np.sqrt(np.square(z.astype(np.longdouble)).sum()) - 1) < 64 * np.finfo(dtype).eps
    z, dz = data(rng, (2, 5), dtype)
    module("activations").activate_gradient(x, z, 5, 0, dz)
    assert (dz == z).all()
    module("activations").activate(z, 5, 0, dz)
    assert (dz == z).all()


@pytest.mark.parametrize("size", [1e-30, 1e30, np.nan])
def test_extremes_of_slabs_of_16_bits(size, rng):
    x, (one, zero) = data(rng, (1, 1, 3, 2060), "float32"), (np.ones((1, 3)), np.zeros((1, 3)))
    x[:, :, 1] *= size
    x[:, :, 2] = 3.0
    x = x.astype("bfloat16")

    def call(engine, new):
        y, (mean, rstd, var) = new(*x.shape), np.empty((3, 1, 3))
        engine.batch_norm_forward(x, one, zero, 0.0, 0, y, mean, rstd, var)
        return y, mean[:, [0, 2]], mean[:, 1] / size, rstd[:, [0, 2]], rstd[:, 1] * size, np.sqrt(var[:, 1]) / size

    judge(call, "bfloat16", 0.55)

"""Moments, layer, RMS and group norm of rows, forward and backward, at the ends of blocks and of the types."""

import numpy as np
import pytest
from kernels_in_python import BAD, EXTREMES, NUMPY, PYTHON, data, judge, plain

SHAPES = [(1, 1), (5, 2), (3, 31), (2, 33), (5, 70), (6, 257), (1, 1024), (1, 1025), (1, 2600), (67, 3), (40, 60)]  # rows of n values


def units(n):
    """The longest chain, doubled, for a row of n values."""
    return 16 if n <= 33 else 512


def norm(x, weight, bias, eps, centred, statistics=True):
    def call(engine, new):
        y, (mean, rstd, var) = new(*x.shape), np.empty((3, len(x)))
        engine.layer_norm_forward(x, weight, bias, eps, centred, y, mean, rstd, var)
        return (y, mean, rstd, var) if statistics else y

    return call


def norm_gradients(dy, x, mean, rstd, weight, centred):
    def call(engine, new):
        dx = new(*x.shape)
        return dx, *engine.layer_norm_backward(dy, x, mean, rstd, weight, centred, dx)

    return call


@pytest.mark.parametrize("centred", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize("shape", SHAPES)
def test_norms(streamed, dtype, shape, centred, rng):
    x, dy, (weight, bias) = data(rng, shape, dtype), data(rng, shape, dtype, 0.5), data(rng, (2, shape[1]), dtype)
    forward = norm(x, weight, bias, 1e-3, centred)
    judge(forward, dtype, units(shape[1]))
    _, mean, rstd, _ = forward(NUMPY, plain)
    term = np.abs(dy * weight).max() * rstd.max()  # which dx is the rest of
    judge(norm_gradients(dy, x, mean, rstd, weight, centred), dtype, units(shape[1]), [term, None, None])


@pytest.mark.parametrize("n", [7, 40, 1100])
def test_a_mean_far_from_zero(n, rng):
    """y keeps its digits: the mean in two parts, and sums about a value of the row."""
    x, one, zero = data(rng, (3, n), np.float32, 1e4), np.ones(n, np.float32), np.zeros(n, np.float32)
    judge(norm(x, one, zero, 1e-5, True), np.float32, 8, 1.0)
    mean, rstd, var = np.empty((3, 3))
    NUMPY.layer_norm_forward(x, one, zero, 1e-5, True, np.empty(x.shape), mean, rstd, var)
    judge(norm_gradients(data(rng, x.shape, np.float32), x, mean, rstd, one, True), np.float32, 16)


@pytest.mark.parametrize("centred", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize(("dtype", "size", "streamed"), [(*case, i % 2) for i, case in enumerate(EXTREMES)], indirect=["streamed"])
@pytest.mark.parametrize("n", [9, 1030])
def test_extremes(streamed, dtype, size, n, centred, rng):
    x = data(rng, (5 if n < 1024 else 1, n), dtype) * dtype(size)
    weight, bias = data(rng, (2, n), dtype)
    judge(norm(x, weight, bias, 0.0, centred, False), dtype, units(n))
    forward = norm(x, weight, bias, 0.0, centred)
    _, mean, rstd, _ = forward(NUMPY, plain)
    for i in (1, 2, 3):
        judge(lambda engine, new, i=i: forward(engine, new)[i], dtype, units(n))
    judge(norm_gradients(data(rng, x.shape, dtype), x, mean, rstd, weight, centred), dtype, units(n))


@pytest.mark.parametrize("eps", [0.0, 1e-5])
@pytest.mark.parametrize("n", [1, 5])
def test_constants_and_what_is_no_number(dtype, n, eps, rng):
    """A constant has variance 0 and gives the bias; NaN and infinity stay in their row."""
    x = data(rng, (9, n), dtype)
    x[0], x[1], x[2], x[3] = 0, 1.1, 1e30, 1e-40
    for row, bad in zip(x[5:8], BAD, strict=True):
        row[-1] = bad
    weight, bias = data(rng, (2, n), dtype)
    for centred in (True, False):
        judge(norm(x, weight, bias, eps, centred, False), dtype, units(n), 8.0)
    y, _, _, var = norm(x, weight, bias, eps, True)(PYTHON, lambda *shape: np.empty(shape, dtype))
    assert (var[:4] == 0).all()
    assert (y[:4] == bias).all()


ROWS = [(1, 1, 6, 33), (1, 1, 2, 1024), (1, 1, 3, 1025), (1, 1, 1, 2)]


@pytest.mark.parametrize("shape", [*ROWS, (2, 3, 2, 5), (2, 9, 3, 6), (1, 100, 3, 1), (2, 3, 515, 1)])
def test_moments(shape, dtype, pieces, rng):
    a, _, c, _ = shape

    def call(engine, new):
        mean, m2 = np.empty((2, a, c))
        engine.moments(x, mean, m2)
        return mean, m2

    for offset in (0.5, 1e6):  # summed in float64 whatever the type, about a value near the mean
        x = data(rng, shape, dtype, offset)
        judge(call, np.float64, 64 if offset < 1 else 1e6)
    for bad in BAD:
        x[-1, 0, 0, 0] = bad
        judge(call, np.float64, 1e6)


@pytest.mark.parametrize(("dtype", "size"), EXTREMES)
@pytest.mark.parametrize("shape", [(2, 3, 2, 5), (2, 9, 3, 6), (2, 40, 3, 1)])
def test_moments_of_extremes(dtype, size, shape, pieces, rng):
    """Of x times a power of two, which brings the largest value near 1."""
    x = data(rng, shape, dtype, 1.5) * dtype(size)
    x[:, :, 0] = data(rng, x[:, :, 0].shape, dtype)  # a statistic that needs none

    def call(engine, new):
        mean, m2, scale = np.empty((3, shape[0], shape[2]))
        engine.scaled_moments(x, x.dtype, mean, m2, scale)
        m2[:] = np.sqrt(m2) / scale / size
        mean[:] = mean / scale / size
        return mean[:, 1:], m2[:, 1:], mean[:, 0] * size, m2[:, 0] * size

    judge(call, dtype, 64)


@pytest.mark.parametrize("shape", [(2, 1, 3, 7), (3, 2, 2, 35), (2, 3, 2, 600), (2, 1, 1, 1100)])  # samples, groups, channels, values
def test_group_norm(streamed, dtype, shape, rng):
    samples, groups, channels, s = shape
    x, dy = data(rng, (samples * groups, channels * s), dtype), data(rng, (samples * groups, channels * s), dtype, 0.5)
    weight, bias = data(rng, (2, groups, channels), np.float64)

    def forward(engine, new):
        y, (mean, rstd, var) = new(*x.shape), np.empty((3, len(x)))
        engine.group_norm_forward(x, weight, bias, s, 1e-3, y, mean, rstd, var)
        return y, mean, rstd, var

    def backward(engine, new):
        dx = new(*x.shape)
        return dx, *engine.group_norm_backward(dy, x, mean, rstd, weight, s, dx)

    judge(forward, dtype, units(channels * s))
    _, mean, rstd, _ = forward(NUMPY, plain)
    judge(backward, dtype, units(channels * s))
    x = data(rng, x.shape, np.float32, 1e4)
    judge(lambda *arguments: forward(*arguments)[0], np.float32, 24, 3.0)

"""Batch norm of channels, as slabs and as columns, with deviations of other orders, forward and backward."""

import numpy as np
import pytest
from kernels_in_python import BAD, EXTREMES, NUMPY, data, judge, plain

BLOCKS = [  # (a, r, c, s), kept along a and c
    (1, 3, 2, 7), (2, 2, 5, 3), (1, 9, 3, 6), (1, 1, 2, 2100), (1, 1, 1, 300),  # slabs, of which the third are measured as columns
    (1, 5, 3, 1), (2, 37, 4, 1), (1, 70, 2, 1), (1, 2, 515, 1), (2, 2, 512, 1), (1, 3, 5, 1),  # columns
]  # fmt: skip


def parameters(rng, a, c):
    return data(rng, (2, a, c), np.float64)


def training(x, weight, bias, eps, code=0):
    def call(engine, new):
        y, (mean, rstd, var) = new(*x.shape), np.empty((3, *weight.shape))
        engine.batch_norm_forward(x, weight, bias, eps, code, y, mean, rstd, var)
        return y, mean, rstd, var

    return call


def inference(x, mean, rstd, weight, bias, code=0):
    def call(engine, new):
        y = new(*x.shape)
        engine.batch_norm(x, mean, rstd, weight, bias, code, y)
        return y

    return call


def backward(dy, x, mean, rstd, weight, bias=None, code=0):
    def call(engine, new):
        dx = new(*x.shape)
        return dx, *engine.batch_norm_backward(dy, x, mean, rstd, weight, weight if bias is None else bias, code, dx)

    return call


def by_steps(dy, x, mean, rstd, weight):
    """The gradient in its two steps, as pieces take them."""

    def call(engine, new):
        dx, sums = new(*x.shape), np.empty((2, *weight.shape))
        engine.gradient_sums(dy, x, mean, rstd, *sums)
        c1, c2 = sums * weight / (x.size / weight.size)
        engine.gradient(dy, x, mean, rstd, weight, c1, c2, dx)
        return dx, *sums

    return call


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "in pieces"])
@pytest.mark.parametrize("shape", BLOCKS)
def test_batch_norm(streamed, dtype, shape, cut, rng, request):
    if cut:
        request.getfixturevalue("pieces")
    a, r, c, s = shape
    x, dy, (weight, bias) = data(rng, shape, dtype), data(rng, shape, dtype, 0.5), parameters(rng, a, c)
    units = 32 if r * s <= 100 else 512
    judge(training(x, weight, bias, 1e-3, code=5 * cut), dtype, units)
    _, mean, rstd, _ = training(x, weight, bias, 1e-3)(NUMPY, plain)
    judge(inference(x, mean, rstd, weight, bias, code=3 * cut), dtype, 8)
    term = np.abs(dy).max() * np.abs(weight).max() * rstd.max()
    for gradient in (backward, by_steps):
        judge(gradient(dy, x, mean, rstd, weight), dtype, units, [term, None, None])
    judge(backward(dy, x, mean, rstd, weight, bias, code=6), dtype, units, [term, None, None])


@pytest.mark.parametrize("shape", [(1, 3, 2, 7), (2, 9, 3, 6), (2, 37, 4, 1)])
def test_a_mean_far_from_zero(streamed, pieces, shape, rng):
    a, _, c, _ = shape
    x, (one, zero) = data(rng, shape, np.float32, 1e4), (np.ones((a, c)), np.zeros((a, c)))
    judge(training(x, one, zero, 1e-5), np.float32, 8, [1.0, 1e4, 1.0, 4.0])
    _, mean, rstd, _ = training(x, one, zero, 1e-5)(NUMPY, plain)
    judge(inference(x, mean, rstd, one, zero), np.float32, 3)
    judge(backward(data(rng, shape, np.float32), x, mean, rstd, one), np.float32, 32)


@pytest.mark.parametrize("shape", [(1, 3, 2, 7), (2, 9, 3, 6), (2, 37, 4, 1), (8, 3, 2, 7)])
@pytest.mark.parametrize(("dtype", "size", "streamed"), [(*case, i % 2) for i, case in enumerate(EXTREMES)], indirect=["streamed"])
def test_extremes(streamed, pieces, dtype, size, shape, rng):
    """One statistic needs a power of two, one does not."""
    a, _, c, _ = shape
    x, dy, (weight, bias) = data(rng, shape, dtype), data(rng, shape, dtype), parameters(rng, a, c)
    x[:, :, -1] *= dtype(size)
    forward = training(x, weight, bias, 0.0)
    _, mean, rstd, _ = forward(NUMPY, plain)

    def relative(engine, new):
        y, mean, rstd, var = forward(engine, new)
        return y, mean[:, :-1], mean[:, -1] / size, rstd[:, :-1], rstd[:, -1] * size, np.sqrt(var[:, -1]) / size, var[:, :-1]

    judge(relative, dtype, 32)
    judge(inference(x, mean, rstd, weight, bias), dtype, 32)
    for gradient in (backward, by_steps):

        def relative(engine, new, gradient=gradient):
            dx, *sums = gradient(dy, x, mean, rstd, weight)(engine, new)
            return dx[:, :, :-1], dx[:, :, -1] * dtype(size), *sums

        judge(relative, dtype, 32)


@pytest.mark.parametrize("shape", [(1, 3, 2, 7), (1, 9, 3, 6), (1, 37, 4, 1)])
def test_constants_and_what_is_no_number(dtype, shape, rng):
    a, _, c, _ = shape
    for bad in (*BAD, 1e30, 0.0):
        x, (weight, bias) = data(rng, shape, dtype), parameters(rng, a, c)
        if np.isfinite(bad):
            x[:, :, 1] = bad
        else:
            x[0, 0, 1, 0] = bad
        for code in (0, 4):
            forward = training(x, weight, bias, 0.0, code)
            judge(lambda *arguments, forward=forward: forward(*arguments)[0], dtype, 64)


@pytest.mark.parametrize("code", range(1, 8))
def test_activations(dtype, code, rng):
    """To a few eps of each value, and z**2 of them, which exp(-z**2 / 2) makes of one of z; also where exp vanishes."""
    z = np.concatenate([np.linspace(-40, 40, 161), np.geomspace(1e-30, 800, 60), -np.geomspace(1e-30, 800, 60), [0.0, -0.0, *BAD]])
    z, da = z.astype(dtype), data(rng, z.size, dtype)
    finite = np.isfinite(z)

    def call(engine, new):
        a, dz = new(z.size), new(z.size)
        engine.activate(z, code, a)
        engine.activate_gradient(da, z, code, dz)
        return a, dz

    lost = np.finfo(dtype).tiny / np.finfo(dtype).eps
    sizes = [np.maximum(np.abs(value[finite]) * (1.0 + np.square(z[finite], dtype=np.float64)), lost) for value in call(NUMPY, plain)]
    judge(lambda *arguments: [value[finite] for value in call(*arguments)], dtype, 16, sizes)
    judge(lambda *arguments: [value[~finite] for value in call(*arguments)], dtype, 8)


@pytest.mark.parametrize("shape", [(5, 1), (3, 33)])
def test_absolute_deviations(dtype, shape, rng):
    x, mean = data(rng, shape, dtype), np.full(shape[0], 3.0)
    x[0, 0], x[1, 0], x[2, 0] = np.nan, 3.0, 5.0
    if shape[1] > 1:
        x[2, 1] = 1.0
    limit = np.array([0.5, 0.0, 2.0, 1.0, 0.3][: shape[0]])

    def call(engine, new):
        total, most, count, signs = np.empty((4, shape[0]))
        engine.absolute_deviations(x, mean, total, most)
        engine.count_signs(x, mean, limit, count, signs)
        dx = new(*shape)
        engine.add_signs(x, mean, limit, np.arange(1.0, shape[0] + 1), dx)
        return total, most, count, signs, dx

    judge(call, dtype, 16)

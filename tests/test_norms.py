"""layer_norm and batch_norm, forward and backward, on every engine against the oracle."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import agree, exact, exact_gradients

import normfast as nf
from normfast.engines.numpy import lp_gradient

OFFSETS = [(0.0, 1.0), (1e4, 1.0), (1e5, 1.0), (-3e-4, 1e-6), (0.0, 1e30), (0.0, 1e-30)]  # mean, standard deviation
ROWS = [(1, 1), (3, 2), (5, 31), (4, 64), (7, 1023), (3, 2500), (700, 33)]
CHANNELS = [
    ((6, 3), 1), ((500, 40), 1), ((3000, 7), 1), ((9, 700), 1), ((4, 3, 5, 6), 1), ((4, 5, 6, 3), -1), ((2, 3, 40, 33), 1),
    ((5, 2, 70000), 1), ((3, 40, 50), 0), ((3, 4, 5, 2), (0, 3)), ((2, 3, 4, 5), (1, 2)), ((6,), 0),
]  # fmt: skip


def spread(shape, offset, dtype, rng):
    mean, std = offset
    return (mean + std * rng.standard_normal(shape)).astype(dtype)


def channel_axes(shape, axis):
    kept = tuple(sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))))
    reduced = tuple(a for a in range(len(shape)) if a not in kept)
    return kept, reduced, [size if a in kept else 1 for a, size in enumerate(shape)]


def bound(x, axes, dtype):
    """Error allowed in y, in eps of the largest value: float64 statistics hold the mean to half a unit, so |mean|/std enters there."""
    if dtype == np.float32:
        return 6.0
    _, mean, var, _ = exact(x, axes, 0)
    std = np.sqrt(np.where(var == 0, np.inf, var))
    return 16.0 + 4.0 * float((np.abs(mean) / std).max())


@pytest.mark.parametrize("offset", OFFSETS, ids=str)
def test_layer_norm(engine, dtype, offset, rng):
    for shape in ROWS:
        x, dy = spread(shape, offset, dtype, rng), rng.standard_normal(shape).astype(dtype)
        weight, bias = rng.standard_normal((2, shape[1])).astype(dtype)
        units = bound(x, (1,), dtype)
        for eps in (1e-5, 0.0):
            if eps == 0.0 and shape[1] < 3:
                continue
            y, stats = nf.layer_norm_forward(x, weight, bias, eps=eps)
            expected, mean, var, rstd = exact(x, (1,), eps, weight, bias)
            agree(y, expected, f"layer_norm {offset} eps={eps}", units=units, scale=max(1.0, float(np.abs(expected).max())))
            lanes = np.finfo(dtype).eps / np.finfo(np.float64).eps  # float32 rows are summed in float32, 32 terms at a time
            agree(stats.mean, mean[:, 0], "mean", units=8 + lanes, scale=float(np.abs(x).max()))
            agree(stats.var, var[:, 0], "var", units=8 * lanes + (units if dtype == np.float64 else 0))
            assert stats.count == shape[1]
            dx, dxhat, db = exact_gradients(dy, x, (1,), eps, weight)
            gradients = nf.layer_norm_backward(dy, x, stats, weight)
            scale = float((np.abs(rstd) * np.abs(dy * weight).max()).max())
            agree(gradients.dx, dx, "dx", units=4 * units, scale=scale)
            agree(gradients.dweight, dxhat.sum(axis=0), "dweight", units=4 * units, scale=float(np.abs(dxhat).sum(axis=0).max()))
            agree(gradients.dbias, db.sum(axis=0), "dbias", units=4, scale=float(np.abs(db).sum(axis=0).max()))


@pytest.mark.parametrize("offset", OFFSETS, ids=str)
def test_batch_norm(engine, dtype, offset, rng):
    for shape, axis in CHANNELS:
        kept, reduced, broadcast = channel_axes(shape, axis)
        x, dy = spread(shape, offset, dtype, rng), rng.standard_normal(shape).astype(dtype)
        weight, bias = rng.standard_normal((2, *(shape[a] for a in kept))).astype(dtype)
        wide_weight, wide_bias = weight.reshape(broadcast), bias.reshape(broadcast)
        units = bound(x, reduced, dtype) if reduced else 6.0
        y, stats = nf.batch_norm_forward(x, weight, bias, axis=axis)
        expected, mean, _, rstd = exact(x, reduced, 1e-5, wide_weight, wide_bias)
        agree(y, expected, f"batch_norm {axis} {offset}", units=units, scale=max(1.0, float(np.abs(expected).max())))
        lanes = np.finfo(dtype).eps / np.finfo(np.float64).eps
        agree(stats.mean, mean.reshape(stats.mean.shape), "mean", units=16 + lanes, scale=float(np.abs(x).max()))
        again = nf.batch_norm(x, stats.mean, stats.var, weight, bias, axis=axis)
        agree(again, expected, "batch_norm inference", units=units, scale=max(1.0, float(np.abs(expected).max())))
        dx, dxhat, db = exact_gradients(dy, x, reduced, 1e-5, wide_weight)
        gradients = nf.batch_norm_backward(dy, x, stats, weight, axis=axis)
        agree(gradients.dx, dx, "dx", units=4 * units, scale=float((rstd * np.abs(dy * wide_weight).max()).max()))
        for name, actual, terms in (("dweight", gradients.dweight, dxhat), ("dbias", gradients.dbias, db)):
            sums = terms.sum(axis=reduced)
            agree(actual, sums.reshape(actual.shape), name, units=4 * units, scale=float(np.abs(terms).sum(axis=reduced).max()))


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4, 1e5])
def test_float32_error_stays_below_1e_6(engine, mean, rng):
    """The promise of the README: whatever the offset, y is within 1e-6 and gradients within 1e-5 of the exact ones."""
    x = (mean + rng.standard_normal((256, 1000))).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    for forward, backward, axes in (
        (nf.layer_norm_forward, nf.layer_norm_backward, (1,)),
        (nf.batch_norm_forward, nf.batch_norm_backward, (0,)),
    ):
        y, stats = forward(x)
        assert np.abs(y - exact(x, axes)[0]).max() < 1e-6
        gradients = backward(dy, x, stats)
        dx, dxhat, db = exact_gradients(dy, x, axes)
        for actual, expected in zip(gradients, (dx, dxhat.sum(axis=0), db.sum(axis=0)), strict=True):
            assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


def test_extremes_do_not_overflow(engine, dtype, rng):
    """PyTorch gives NaN or 0 here."""
    info = np.finfo(dtype)
    rows = rng.standard_normal((6, 200))
    rows /= np.abs(rows).max()
    for size in (info.max, info.max / 1e10, info.max**0.5 * 4, info.tiny**0.5 / 4, info.tiny * 1e10):
        x = (rows * float(size)).astype(dtype)
        agree(nf.layer_norm(x, eps=0), exact(x, (1,), 0)[0], f"rows of {size:g}", units=64, scale=1)
        agree(nf.batch_norm_forward(x, axis=0, eps=0)[0], exact(x, (1,), 0)[0], f"slabs of {size:g}", units=64, scale=1)
        agree(nf.batch_norm_forward(x.T.copy(), eps=0)[0], exact(x, (1,), 0)[0].T, f"columns of {size:g}", units=64, scale=1)


def test_constant_gives_the_bias(engine, dtype):
    for value in (0.0, 0.1, -1e30, 3e38, 1e-40, float(np.finfo(dtype).max)):
        for n in (1, 5, 40, 3000):
            x = np.full((4, n), value, dtype)
            bias = np.arange(n, dtype=dtype)
            for eps in (1e-5, 0.0):
                y, stats = nf.layer_norm_forward(x, bias=bias, eps=eps)
                assert (y == bias).all()
                assert (stats.var == 0).all()
                assert (stats.mean == x[:, 0]).all()
                y, stats = nf.batch_norm_forward(x.T.copy(), eps=eps)
                assert (y == 0).all()
                assert (stats.var == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_stay_in_their_row_and_channel(engine, dtype, bad, rng):
    x, dy = rng.standard_normal((2, 9, 70)).astype(dtype)
    clean = nf.layer_norm(x), nf.batch_norm_forward(x)[0], nf.batch_norm_forward(x, axis=0)[0]
    x[4, 33] = bad
    y, stats = nf.layer_norm_forward(x)
    dx = nf.layer_norm_backward(dy, x, stats).dx
    others = np.arange(9) != 4
    assert np.isnan(y[4]).all()
    assert (y[others] == clean[0][others]).all()
    assert np.isfinite(dx[others]).all()
    for axis, clean_y in ((1, clean[1]), (0, clean[2])):
        y, stats = nf.batch_norm_forward(x, axis=axis)
        gradients = nf.batch_norm_backward(dy, x, stats, axis=axis)
        rest = np.arange(x.shape[axis]) != (33 if axis else 4)
        assert np.isnan(y.compress(~rest, axis)).all()
        assert (y.compress(rest, axis) == clean_y.compress(rest, axis)).all()
        assert np.isfinite(gradients.dx.compress(rest, axis)).all()
        assert np.isfinite(gradients.dweight[rest]).all()


@pytest.mark.parametrize("axis", [0, 1, (0, 2), (1, 2), (-1, 0), (0, 1, 2)])
def test_layer_norm_over_any_axes(engine, axis, rng):
    x, dy = rng.standard_normal((2, 4, 5, 6))
    axes = tuple(sorted(a % 3 for a in (axis if isinstance(axis, tuple) else (axis,))))
    weight, bias = rng.standard_normal((2, *(x.shape[a] for a in axes)))
    broadcast = [size if a in axes else 1 for a, size in enumerate(x.shape)]
    y, stats = nf.layer_norm_forward(x, weight, bias, axis=axis)
    expected, mean, _, _ = exact(x, axes, 1e-5, weight.reshape(broadcast), bias.reshape(broadcast))
    agree(y, expected, "layer_norm", units=32)
    agree(stats.mean, mean.reshape(stats.mean.shape), "mean", units=32, scale=float(np.abs(x).max()))
    dx, dxhat, db = exact_gradients(dy, x, axes, 1e-5, weight.reshape(broadcast))
    gradients = nf.layer_norm_backward(dy, x, stats, weight, axis=axis)
    rest = tuple(a for a in range(3) if a not in axes)
    agree(gradients.dx, dx, "dx", units=64)
    agree(gradients.dweight, dxhat.sum(axis=rest), "dweight", units=64)
    agree(gradients.dbias, db.sum(axis=rest), "dbias", units=64)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 9), n=st.integers(3, 200), shift=st.integers(-20, 20), seed=st.integers(0, 2**32 - 1))
def test_invariances(engine, rows, n, shift, seed):
    """A power of two times x has the same y; dx sums to 0 and is orthogonal to xhat; a row's place does not matter."""
    x, dy = np.random.default_rng(seed).standard_normal((2, rows, n))
    y, stats = nf.layer_norm_forward(x, eps=0)
    assert (nf.layer_norm(x * 2.0**shift, eps=0) == y).all()
    assert (nf.layer_norm(x[::-1].copy(), eps=0) == y[::-1]).all()
    agree((y * y).mean(axis=1), np.ones(rows), "variance of y", units=64)
    dx = nf.layer_norm_backward(dy, x, stats).dx
    size = float(np.abs(stats.rstd).max() * np.abs(dy).max() * n)
    agree(dx.sum(axis=1), np.zeros(rows), "sum of dx", units=64, scale=size)
    agree((dx * y).sum(axis=1), np.zeros(rows), "dx on xhat", units=256, scale=size)


def test_adjoint(engine, rng):
    """<v, J u> = <J^T v, u>, with J u by central differences of 4th order."""
    for forward, backward in ((nf.layer_norm_forward, nf.layer_norm_backward), (nf.batch_norm_forward, nf.batch_norm_backward)):
        x, u, v = rng.standard_normal((3, 12, 15))
        h = 1e-3
        along = sum(c * forward(x + k * h * u)[0] for k, c in ((-2, 1), (-1, -8), (1, 8), (2, -1))) / (12 * h)
        _, stats = forward(x)
        left, right = (v * along).sum(), (backward(v, x, stats).dx * u).sum()
        assert abs(left - right) < 1e-7 * np.abs(v * along).sum()


def test_empty_arrays(engine, dtype):
    for shape in ((0, 4), (4, 0), (0, 0), (2, 0, 3)):
        x = np.empty(shape, dtype)
        y, stats = nf.layer_norm_forward(x)
        assert y.shape == shape
        assert stats.mean.shape == shape[:-1]
        assert nf.layer_norm_backward(x, x, stats).dx.shape == shape
        y, stats = nf.batch_norm_forward(x)
        assert y.shape == shape
        gradients = nf.batch_norm_backward(x, x, stats)
        assert (gradients.dbias == 0).all()
        assert nf.batch_norm(x, np.zeros(shape[1]), np.ones(shape[1])).shape == shape


def test_running_statistics(rng):
    batches = rng.normal(3, 2, (7, 50, 4))
    stats = [nf.batch_norm_forward(batch)[1] for batch in batches]
    mean, var = np.zeros(4), np.ones(4)
    for one in stats:
        nf.update_running(mean, var, one)  # PyTorch: 0.9 * old + 0.1 * new, unbiased
    keras_mean, keras_var, torch_mean, torch_var = np.zeros(4), np.ones(4), np.zeros(4), np.ones(4)
    for batch in batches:
        torch_mean, torch_var = 0.9 * torch_mean + 0.1 * batch.mean(axis=0), 0.9 * torch_var + 0.1 * batch.var(axis=0, ddof=1)
        keras_mean, keras_var = 0.99 * keras_mean + 0.01 * batch.mean(axis=0), 0.99 * keras_var + 0.01 * batch.var(axis=0)
    agree(mean, torch_mean, "PyTorch mean", units=16)
    agree(var, torch_var, "PyTorch var", units=16)
    mean, var = np.zeros(4), np.ones(4)
    for one in stats:
        nf.update_running(mean, var, one, momentum=1 - 0.99, ddof=0)
    agree(mean, keras_mean, "Keras mean", units=64)
    agree(var, keras_var, "Keras var", units=64)
    mean, var = np.zeros(4), np.ones(4)
    for k, one in enumerate(stats):
        nf.update_running(mean, var, one, momentum=None, num_batches=k)
    agree(mean, batches.mean(axis=(0, 1)), "population mean", units=16)
    agree(var, batches.var(axis=1, ddof=1).mean(axis=0), "population var", units=16)


def test_rows_without_centring(engine, dtype, rng):
    """RMS and p-norms of rows of any length, where new memory holds NaN."""
    for rows, n in ROWS:
        x = (3 + rng.standard_normal((rows, n))).astype(dtype)
        wide = x.astype(np.longdouble)
        for name, function, expected in (
            ("rms_norm", nf.rms_norm, wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + np.longdouble(1e-5))),
            ("lp_norm", nf.lp_norm, wide / np.sqrt((wide**2).sum(axis=1, keepdims=True))),
        ):
            for _ in range(4):  # freed at once: NumPy hands the same memory out again
                np.full((3, rows), np.nan), np.full(rows, np.nan)
            agree(function(x), expected, f"{name} {rows} x {n}", units=6.0)


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, 3e38), (np.float64, -1.7e308)])
def test_constants_near_the_end_of_the_type(engine, dtype, value):
    """y is the bias and dx is 0 also where mean / sqrt(eps) is beyond the type."""
    x, dy = np.full((6, 4, 10), value, dtype), np.ones((6, 4, 10), dtype)
    for eps in (1e-30, 0.0):
        for name in ("layer", "batch", "group", "instance"):
            options = {"num_groups": 2} if name == "group" else {}
            y, stats = getattr(nf, f"{name}_norm_forward")(x, **options, eps=eps)
            assert (y == 0).all(), name
            assert (getattr(nf, f"{name}_norm_backward")(dy, x, stats, **options).dx == 0).all(), name
        columns, stats = nf.batch_norm_forward(x.reshape(-1, 10), eps=eps)
        assert (columns == 0).all()


@pytest.mark.parametrize("ord", [2, 1, np.inf, -np.inf, 0, 3])
def test_lp_gradients(engine, dtype, ord, rng, monkeypatch):
    """Against the formula, in new memory and in place, past the caches and through them; extreme, empty and NaN rows among the others."""
    for (rows, n), streamed in itertools.product([(700, 33), (66, 16), (3, 2500), (1, 1)], [0, 1 << 30]):
        monkeypatch.setattr("normfast.engines.compiled.STREAMED", streamed)
        x = np.rint(rng.normal(0, 3, (rows, n))) if np.isinf(ord) else rng.standard_normal((rows, n))  # whole numbers have ties
        x[1::7], x[2::7] = x[1::7] * 1e-30, x[2::7] * (1e30 if dtype == np.float32 else 1e200)
        x[3::7] = 0
        x, dy = x.astype(dtype), rng.standard_normal((rows, n)).astype(dtype)
        dy[::5] = 0
        x[4::70, -1] = np.nan
        _, saved = nf.lp_norm_forward(x, ord)
        with np.errstate(all="ignore"):
            exact = lp_gradient(dy.astype(np.longdouble), x.astype(np.longdouble), ord, saved[:, None].astype(np.longdouble), 1e-12)
        nans = np.isnan(x).any(axis=1)
        for out, gradient, values in ((None, dy, x), ((g := dy.copy()), g, x), ((v := x.copy()), dy, v)):
            dx = nf.lp_norm_backward(gradient, values, saved, ord=ord, out=out).dx
            assert ord == 0 or np.isnan(dx[nans]).all()
            for actual, expected in zip(dx[~nans], exact[~nans], strict=True):
                scale = max(float(np.abs(expected).max()), np.finfo(dtype).tiny)
                agree(actual, expected, f"{ord} {rows} x {n}", units=8.0 if dtype == np.float32 else 64.0, scale=scale)  # sums are float64

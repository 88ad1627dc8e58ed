"""normfast.numba: the kernels as functions of a user's own jitted code, against the package's operations and the oracle."""

import doctest
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracle import agree, exact, exact_gradients

import normfast as nf

numba = pytest.importorskip("numba", reason="normfast.numba needs Numba, which is not installed")
nfn = importlib.import_module("normfast.numba")

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "numba"
FUNCTIONS = [name for name in nfn.__all__ if not name.isupper()]
SIZES = (1, 2, 7, 64, 1023, 2500)
OFFSETS = [(0.0, 1.0), (1e5, 1.0), (0.0, 1e30), (0.0, 1e-30)]  # mean, standard deviation


@pytest.mark.parametrize(("mean", "std"), OFFSETS)
def test_rows(dtype, mean, std, rng):
    for n in SIZES:
        x = (mean + std * rng.standard_normal(n)).astype(dtype)
        dy, weight, bias = rng.standard_normal((3, n)).astype(dtype)
        for w, b in ((weight, bias), (None, None), (weight, None), (None, bias)):
            y, dx, dweight, dbias = np.empty(n, dtype), np.empty(n, dtype), np.ones(n), np.ones(n)
            centre, rstd = nfn.layer_norm(x, w, b, 1e-5, y)
            expected, stats = nf.layer_norm_forward(x, w, b)
            what = f"layer_norm of {n}, {mean} {std}"
            scale = max(1.0, float(np.abs(exact(x, (0,), 1e-5, w, b)[0]).max()))
            units = 6.0 if dtype == np.float32 else 16.0 + 4.0 * abs(mean)
            agree(y, exact(x, (0,), 1e-5, w, b)[0], what, units=units, scale=scale)
            agree(y, expected, what, units=units, scale=scale)
            nfn.layer_norm_backward(dy, x, centre, rstd, w, dx, dweight, dbias)
            xhat_dy, scale = (
                exact_gradients(dy, x, (0,), 1e-5, w)[1],
                float(rstd * np.abs(dy).max() * (1 if w is None else np.abs(w).max())),
            )
            agree(dx, exact_gradients(dy, x, (0,), 1e-5, w)[0] if n > 1 else [0.0], what, units=4 * units, scale=max(scale, 1e-30))
            agree(dweight.astype(dtype), 1 + xhat_dy, what, units=4 * units, scale=1 + float(np.abs(xhat_dy).max()))
            agree(dbias.astype(dtype), np.float64(1) + dy, what, units=4)
        y, dx, dweight = np.empty(n, dtype), np.empty(n, dtype), np.zeros(n)
        rstd = nfn.rms_norm(x, weight, 1e-5, y)
        expected, stats = nf.rms_norm_forward(x, weight)
        agree(y, expected, "rms_norm", units=6)
        nfn.rms_norm_backward(dy, x, rstd, weight, dx, dweight)
        gradients = nf.rms_norm_backward(dy, x, stats, weight)
        agree(dx, gradients.dx, "rms_norm, dx", units=16, scale=max(float(stats.rstd * np.abs(dy * weight).max()), 1e-30))
        agree(dweight.astype(dtype), gradients.dweight, "rms_norm, dweight", units=8)
        for p in (2.0, 1.0, 3.0, np.inf):
            norm = nfn.lp_norm(x, p, 1e-300, y)
            expected, saved = nf.lp_norm_forward(x, p, eps=1e-300)
            agree(y, expected, f"lp_norm {p}", units=4)
            assert norm == pytest.approx(float(saved), rel=1e-6)
            nfn.lp_norm_backward(dy, x, p, norm, 1e-300, dx)
            expected = nf.lp_norm_backward(dy, x, saved, ord=p, eps=1e-300).dx
            agree(dx, expected, f"lp_norm {p}, dx", units=8, scale=float(np.abs(dy).sum() / saved))  # a sum over the row


def test_moments(dtype, rng):
    for n in (0, *SIZES):
        x = (1e4 + rng.standard_normal(n)).astype(dtype)
        count, mean, m2 = nfn.moments(x)
        expected = nf.moments(x)
        assert count == n
        assert (mean, m2) == pytest.approx((float(expected.mean), float(expected.m2)), rel=1e-12, nan_ok=n == 0)
        halves = nfn.merge(*nfn.moments(x[: n // 3]), *nfn.moments(x[n // 3 :]))
        assert halves == pytest.approx((count, mean, m2), rel=1e-11, nan_ok=n == 0)


def test_channels(dtype, rng):
    x, dy = rng.standard_normal((2, 4, 6, 50)).astype(dtype)
    weight, bias = rng.standard_normal((2, 6)).astype(dtype)
    for w, b in ((weight, bias), (None, None), (weight, None)):
        y, stats = nf.batch_norm_forward(x, w, b)
        gradients = nf.batch_norm_backward(dy, x, stats, w)
        own, dx = np.empty_like(x), np.empty_like(x)
        for c in range(6):
            mean, rstd, var = nfn.batch_norm_forward(x, c, w, b, 1e-5, own)
            assert (mean, rstd, var) == pytest.approx((stats.mean[c], stats.rstd[c], stats.var[c]), rel=1e-6, abs=1e-7)
            sums = nfn.batch_norm_backward(dy, x, c, mean, rstd, w, dx)
            assert sums == pytest.approx((gradients.dweight[c], gradients.dbias[c]), rel=1e-5, abs=1e-5)
        agree(own, y, "batch_norm_forward", units=4)
        agree(dx, gradients.dx, "batch_norm_backward", units=8)
        y, stats = nf.group_norm_forward(x, 2, w, b)
        gradients = nf.group_norm_backward(dy, x, stats, w, num_groups=2)
        dweight, dbias = np.empty((2, 4, 6))
        for i, g in np.ndindex(4, 2):
            k = slice(3 * g, 3 * g + 3)
            mean, rstd = nfn.group_norm(x[i, k], None if w is None else w[k], None if b is None else b[k], 1e-5, own[i, k])
            nfn.group_norm_backward(dy[i, k], x[i, k], mean, rstd, None if w is None else w[k], dx[i, k], dweight[i, k], dbias[i, k])
        agree(own, y, "group_norm", units=4)
        agree(dx, gradients.dx, "group_norm_backward", units=8)
        agree(dweight.sum(axis=0).astype(dtype), gradients.dweight, "dweight", units=8)
        agree(dbias.sum(axis=0).astype(dtype), gradients.dbias, "dbias", units=8)
    run, result = x[0, 0], np.empty_like(x[0, 0])
    mean, rstd = nfn.instance_norm(run, 2.0, None, 1e-5, result)
    agree(result, 2 * nf.instance_norm(x)[0, 0], "instance_norm", units=4)
    stats = nf.NormStats(np.array([[mean]]), np.array([[rstd]]), np.array([[rstd**-2 - 1e-5]]), run.size)
    expected = nf.instance_norm_backward(dy[:1, :1], x[:1, :1], stats, np.full(1, 2, dtype))
    assert nfn.instance_norm_backward(dy[0, 0], run, mean, rstd, 2.0, result) == pytest.approx(
        (float(expected.dweight[0]), float(expected.dbias[0])), rel=1e-5, abs=1e-5
    )
    agree(result, expected.dx[0, 0], "instance_norm_backward", units=8)
    nfn.batch_norm(run, 1.5, 4.0, 2.0, 0.5, 1e-5, result)
    agree(result, nf.batch_norm(run[None, None], [1.5], [4.0], [2.0], [0.5])[0, 0], "batch_norm", units=2)


def test_dropout_keeps_what_the_package_keeps(dtype, rng):
    x = rng.standard_normal((7, 1500)).astype(dtype)
    x[0, :3] = np.inf, -np.inf, np.nan
    for p in (0.0, 0.3, 0.5, 1.0):
        y, mask = nf.dropout_forward(x, p, rng=5, offset=11)
        own = np.empty_like(x)
        for i in range(7):
            nfn.dropout(x[i], p, mask.words(), 11 + 1500 * i, own[i])
        assert own.tobytes() == y.tobytes(), p
    x[0, :3] = 0
    residual, dy = rng.standard_normal((2, *x.shape)).astype(dtype)
    y, h, stats, mask = nf.dropout_add_layer_norm_forward(x, residual, p=0.25, rng=3)
    gradients = nf.dropout_add_layer_norm_backward(dy, h, stats, mask)
    own_h, own_y, dresidual, dx, dweight, dbias = *np.empty((4, *x.shape), dtype), *np.zeros((2, 1500))
    for i in range(7):
        key, offset = mask.words(), 1500 * i
        mean, rstd = nfn.dropout_add_layer_norm(x[i], residual[i], 0.25, key, offset, None, None, 1e-5, own_h[i], own_y[i])
        nfn.dropout_add_layer_norm_backward(dy[i], own_h[i], mean, rstd, 0.25, key, offset, None, dresidual[i], dx[i], dweight, dbias)
    agree(own_h, h, "h", units=1)
    agree(own_y, y, "y", units=4)
    agree(dresidual, gradients.dresidual, "dresidual", units=8)
    agree(dx, gradients.dx, "dx", units=8)
    agree(dweight.astype(dtype), gradients.dweight, "dweight", units=8)


def test_activations(dtype, rng):
    z, da = rng.standard_normal((2, 2500)).astype(dtype)
    for name in nfn.__all__:
        if name.isupper():
            a, dz = np.empty_like(z), np.empty_like(z)
            nfn.activation(z, getattr(nfn, name), a)
            nfn.activation_backward(da, z, getattr(nfn, name), dz)
            agree(a, nf.activation(z, name.lower()), name, units=1)
            agree(dz, nf.activation_backward(da, z, name.lower()), name, units=2)


@numba.njit(parallel=True, nogil=True)
def loop(x, weight, y, means):
    for i in numba.prange(len(x)):
        means[i] = nfn.layer_norm(nfn.row(x, i), weight, None, 1e-5, nfn.row(y, i))[0]


@numba.guvectorize(["void(float64[:], float64, float64[:])"], "(n),()->(n)", nopython=True)
def generalized(x, eps, y):
    nfn.layer_norm(x, None, None, eps, y)


def test_in_a_users_own_code(rng):
    x = rng.standard_normal((300, 65))
    weight, y, means = rng.standard_normal(65), np.empty_like(x), np.empty(300)
    loop(x, weight, y, means)
    agree(y, nf.layer_norm(x, weight), "prange", units=8)
    assert np.abs(means - x.mean(axis=1)).max() < 1e-14
    for rows in (x, x.T, x[:, ::-2]):  # the loop of a ufunc takes strides
        agree(generalized(rows, 1e-5), nf.layer_norm(rows), "guvectorize", units=16)
    column = np.empty_like(x)
    nfn.layer_norm(x[:, 3], None, None, 1e-5, column[:, 3])
    agree(column[:, 3], nf.layer_norm(x[:, 3]), "a column", units=16)


def test_edges():
    empty, one = np.empty(0), np.array([5.0])
    assert np.isnan(nfn.layer_norm(empty, None, None, 1e-5, empty)).all()
    assert np.isnan(nfn.rms_norm(empty, None, 1e-5, empty))
    assert nfn.lp_norm(empty, 2.0, 1e-12, empty) == 0
    assert nfn.dropout(empty, 0.5, np.zeros(4, np.uint64), 0, empty) is None
    block = np.empty((3, 2, 0))
    assert np.isnan(nfn.batch_norm_forward(block, 0, None, None, 1e-5, block)).all()
    assert nfn.batch_norm_backward(block, block, 0, 0.0, 1.0, None, block) == (0, 0)
    y = np.empty(1)
    assert nfn.layer_norm(one, None, np.array([3.0]), 0.0, y) == (5, 0)
    assert y == 3
    bad, good = np.array([np.nan, 1.0]), np.empty(2)
    assert np.isnan(nfn.layer_norm(bad, None, None, 1e-5, good)).any()
    frozen = np.arange(4.0)
    frozen.flags.writeable = False
    y = np.empty(4)
    assert nfn.layer_norm(frozen, None, None, 1e-5, y)[0] == 1.5
    own = frozen.copy()
    nfn.layer_norm(own, None, None, 1e-5, own)
    assert (own == y).all()


def test_wrong_arguments():
    x, y, key = np.ones(4), np.full(3, 7.0), np.zeros(4, np.uint64)
    for call in (
        lambda: nfn.layer_norm(x, None, None, 1e-5, y),
        lambda: nfn.layer_norm(x, y, None, 1e-5, x),
        lambda: nfn.layer_norm_backward(y, x, 0.0, 1.0, None, x, x, x),
        lambda: nfn.rms_norm(x, None, 1e-5, y),
        lambda: nfn.dropout(x, 0.5, key, 0, y),
        lambda: nfn.dropout(y, 0.5, key[:3], 0, y),
        lambda: nfn.instance_norm(x, 1.0, 0.0, 1e-5, y),
        lambda: nfn.batch_norm_forward(np.ones((2, 3, 4)), 3, None, None, 1e-5, np.ones((2, 3, 4))),
    ):
        with pytest.raises(ValueError, match=r"must have the s|one"):
            call()
    assert (y == 7).all()
    with pytest.raises(numba.core.errors.TypingError, match="must be a float32 or float64 array"):
        nfn.layer_norm(np.ones(4, int), None, None, 1e-5, np.ones(4, int))
    with pytest.raises(numba.core.errors.TypingError, match="C-contiguous"):
        nfn.group_norm(np.ones((4, 3)).T, None, None, 1e-5, np.ones((3, 4)))


def test_a_cached_function_works_in_the_next_process(tmp_path):
    source = tmp_path / "own.py"
    source.write_text(
        "import numpy as np\nfrom numba import njit\nfrom normfast import numba as nfn\n"
        "@njit(cache=True, nogil=True)\n"
        "def own(x, y, key):\n"
        "    nfn.layer_norm(x, None, None, 0.0, y)\n"
        "    nfn.dropout(y, 0.5, key, 0, y)\n"
        "    return nfn.moments(x)\n"
        "y = np.empty(3)\n"
        "print(own(np.array([1.0, 2.0, 6.0]), y, np.arange(4, dtype=np.uint64)), y.tolist(), sum(own.stats.cache_hits.values()))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    runs = [
        subprocess.run([sys.executable, "-W", "error", str(source)], capture_output=True, text=True, env=environment, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0].startswith("(3, 3.0, 14.0) [")
    assert [run.split()[-1] for run in runs] == ["0", "1"]
    assert runs[0].split()[:-1] == runs[1].split()[:-1]


def test_every_function_has_a_signature_and_an_example_that_runs():
    found = set()
    for module in {inspect.getmodule(getattr(nfn, name).py_func) for name in FUNCTIONS}:
        found |= {test.name.rsplit(".", 1)[-1] for test in doctest.DocTestFinder().find(module) if test.examples}
    assert set(FUNCTIONS) <= found
    for name in FUNCTIONS:
        function = getattr(nfn, name)
        assert "Parameters" in function.__doc__, name
        for argument in inspect.signature(function.py_func).parameters:
            assert argument in function.__doc__, (name, argument)
        assert function.targetoptions["nopython"], name
        assert function.targetoptions["nogil"], name


def test_the_example():
    done = subprocess.run([sys.executable, "-W", "error", "check.py"], cwd=EXAMPLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "agrees" in done.stdout

"""The error bounds of docs/numerics.md hold for random and adversarial rows: against exact results, and how much of each bound is used."""

import bounds
import numpy as np
import pytest
from accuracy import OPERATIONS, measure
from profiles import LONG, cases

import normfast as nf

ENGINES = "auto", "numpy", *(["numba"] if LONG else [])
DTYPES = ("float32", "float64", *(["float16", "bfloat16"] if LONG else []))
IDLE = 1e-4  # a bound of which no error of thousands of rows uses so much would prove little


def skip_what_cannot_be_measured(name, dtype):
    if (dtype == "float64" or name == "moments") and not bounds.WIDE:
        pytest.skip("longdouble is float64 here: nothing is exact enough to measure float64 by")
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 is the dtype of ml_dtypes")


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # of gradients that are no float16
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_bounds_hold(name, engine, dtype, rng, tried):
    skip_what_cannot_be_measured(name, dtype)
    if engine == "numba":
        pytest.importorskip("numba", reason="Numba is not installed")
    with nf.use_engine(engine):
        worst, rows = measure(name, dtype, cases(48, 2400 if engine == "auto" else 480), rng)
    told = ", ".join(f"{result} {used:.3g} (n={n})" for result, (used, n) in worst.items())
    print(f"{name}, {dtype}, {engine}: {rows} rows, largest error over its bound: {told}")
    assert all(used <= 1 for used, _ in worst.values()), told
    assert rows < 2400 or all(used > IDLE for used, _ in worst.values()), told
    tried(rows)


def perturbed(function, place, by):
    """The function, one of whose results is off by so much of the largest value of its row."""

    def call(*arguments, **options):
        results = list(function(*arguments, **options))
        wrong = np.array(results[place])
        wrong += by * np.abs(wrong).max(axis=-1, keepdims=True)
        results[place] = wrong
        return results

    return call


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_errors_are_seen(direction, rng, monkeypatch):
    """Results that are off by 2e-4 break the bounds, so these can fail."""
    name = f"layer_norm_{direction}"
    monkeypatch.setattr(nf, name, perturbed(getattr(nf, name), 0, 2e-4))
    worst, _ = measure("layer_norm", "float32", 160, rng)
    assert worst["y" if direction == "forward" else "dx"][0] > 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constants_are_exact(dtype, rng, tried):
    """Whatever the constant: variance 0, and y the bias, with eps = 0 too."""
    lengths = [1, 2, 31, 33, 255, 1023, 1025, 4097, *rng.integers(1, 5001, cases(4, 200))]
    for n in lengths:
        x = np.repeat((rng.standard_normal((16, 1)) * 10.0 ** rng.uniform(-30, 30, (16, 1))).astype(dtype), n, axis=1)
        bias = rng.standard_normal(n).astype(dtype)
        for eps in (0.0, 1e-5):
            y, stats = nf.layer_norm_forward(x, None, bias, eps=eps)
            assert (y == bias).all(), n
            assert (stats.var == 0).all(), n
            z, batch = nf.batch_norm_forward(np.ascontiguousarray(x.T), None, bias[: len(x)] if n >= len(x) else None, eps=eps)
            assert (z == (bias[: len(x)] if n >= len(x) else 0)).all(), n
            assert (batch.var == 0).all(), n
    tried(4 * 16 * len(lengths))


@pytest.mark.skipif(not bounds.WIDE, reason="longdouble is float64 here: nothing is exact enough to measure float64 by")
def test_covariance(rng, tried):
    """(B + 6) 2^-53 sqrt(M_ii M_jj) for blocks of B rows, at most 2^15."""
    for _ in range(cases(8, 100)):
        n, features = int(rng.integers(2, 3000)), int(rng.integers(1, 9))
        x = rng.standard_normal((n, features)) * 10.0 ** rng.uniform(-9, 9, features) + 10.0 ** rng.uniform(-9, 12, features)
        d = x.astype(np.longdouble) - x[0]
        d -= d.mean(axis=0)
        d -= d.mean(axis=0)
        exact = d.T @ d
        size = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        known = np.abs(x).max(axis=0) * np.longdouble(2.0) ** -52  # the mean that the deviations are taken from is a float64
        bound = (n + 6) * np.longdouble(2.0) ** -53 * size + n * np.outer(known, known)
        assert (np.abs(nf.covariance(x).m2 - exact) <= bound).all(), (n, features)
    tried(cases(8, 100))

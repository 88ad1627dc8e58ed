"""Calls in rounds: the bits of calls in one piece; sums over rows agree to rounding and are the same for any number of threads."""

import numpy as np
import pytest
from operations import cases as operations
from operations import several

import normfast as nf
from normfast.engines import policy, rounds

CASES = operations()
SHAPES = [((30, 7, 5, 13), 1), ((3, 40, 9, 11), 1), ((1, 64, 700), 1), ((400, 5, 3), -1), ((2000, 8), 1), ((9, 4000), 0), ((40_000,), 0)]


def results(case, kind):
    """What an operation returns forward and backward, of multiples of 1/128, and the gradients of what all rows share apart."""
    rng = np.random.default_rng(0)
    arrays = {name: (rng.integers(-500, 500, shape) / 128).astype(kind) for name, shape in case.shapes.items()}
    dy = (rng.integers(-500, 500, case.shapes["x"]) / 128).astype(kind)
    y, saved = case.forward(**arrays)
    gradients = case.backward(dy, saved, **arrays) if case.backward else []
    shared = [gradient for gradient in gradients if gradient.shape != dy.shape]
    return [*several(y), *(gradient for gradient in gradients if gradient.shape == dy.shape)], shared


def equal(some, others):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("name", ["cython", "numpy", pytest.param("numba", marks=pytest.mark.long)])  # which compiles for minutes
def test_every_operation(name, monkeypatch, tried):
    try:
        with nf.use_engine(name):
            all_equal(monkeypatch, tried)
    except ImportError as error:
        pytest.skip(f"the {name} engine is not installed here: {error}")


def all_equal(monkeypatch, tried):
    kinds, sizes = ("float16", "float32", "float64"), (32, 1024)
    for kind in kinds:
        for case in CASES:
            monkeypatch.setattr(rounds, "ROUND", 1 << 24)
            expected, expected_sums = results(case, kind)
            for size in sizes:
                monkeypatch.setattr(rounds, "ROUND", size)
                values, sums = results(case, kind)
                assert equal(expected, values), (case.name, kind, size)
                for a, b in zip(expected_sums, sums, strict=True):
                    assert (np.abs(a.astype(np.float64) - b) <= rounding(case, kind, a)).all(), (case.name, kind, size)
    tried(len(kinds) * len(sizes) * len(CASES))


def rounding(case, kind, total):
    """What the order of a sum over rows changes: 69 u of its terms' sizes (docs/numerics.md), twice, and its rounding to the type of x.

    Inputs are below 4, weights and so dy * f' below 16, |xhat| below the root of the values of its statistic.
    """
    size = np.prod(case.shapes["x"])
    u = np.finfo(np.float64 if kind == "float64" else np.float32).eps
    return 2 * 69 * u * size * 16 * size**0.5 + 2 * np.finfo(kind).eps * np.abs(total)


def every_way(x, dy, axis):
    """Bytes of results for which no sum runs over rows: statistics of channels, samples and groups, and sweeps."""
    y, stats = nf.batch_norm_forward(x, axis=axis)
    some = [y, *stats[:3], *nf.batch_norm_backward(dy, x, stats, axis=axis), nf.batch_norm(x, stats.mean, stats.var, axis=axis)]
    y, mask = nf.dropout_forward(x, 0.3, rng=5)
    some += [y, nf.dropout_backward(dy, mask), nf.dropout_forward(x, 0.3, mask=mask.toarray())[0], mask.toarray()]
    some += [nf.activation(x, "gelu"), nf.activation_backward(dy, x, "gelu")]
    y, stats = nf.layer_norm_forward(x)
    some += [y, *stats[:3], nf.layer_norm_backward(dy, x, stats).dx]
    for axes in (None, 0, axis, -1):
        m = nf.moments(x, axes)
        some += [m.mean, m.m2]
    y, norm = nf.lp_norm_forward(x, 3, axis=axis)
    some += [y, norm, *nf.lp_norm_backward(dy, x, norm, ord=3, axis=axis)]
    if x.ndim > 2:
        y, stats = nf.instance_norm_forward(x)
        some += [y, *stats[:3], nf.instance_norm_backward(dy, x, stats).dx]
    return [np.asarray(values).tobytes() for values in some]


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_every_way_through_a_block(shape, axis, kind, rng, monkeypatch, tried):
    x, dy = (3 + rng.standard_normal((2, *shape))).astype(kind)
    expected = every_way(x, dy, axis)
    monkeypatch.setattr(policy, "SERIAL", 512)
    for size in (96, 4096):
        monkeypatch.setattr(rounds, "ROUND", size)
        for threads in (1, 3):
            with nf.threads(threads):
                assert every_way(x, dy, axis) == expected, (size, threads)
    tried(4)


def test_sums_over_rows_do_not_depend_on_threads(rng, monkeypatch):
    x, dy = rng.standard_normal((2, 5000, 70)).astype(np.float32)
    monkeypatch.setattr(policy, "SERIAL", 512)
    monkeypatch.setattr(rounds, "ROUND", 70 * 900)
    stats = nf.layer_norm_forward(x)[1]
    found = set()
    for threads in (1, 2, 5):
        with nf.threads(threads):
            found.add(b"".join(values.tobytes() for values in nf.layer_norm_backward(dy, x, stats)))
    assert len(found) == 1


def test_rounds_are_whole_and_in_order(monkeypatch):
    """Parts of so many values, the largest multiple of a unit within a round, or one unit where that is more than a round."""
    monkeypatch.setattr(rounds, "ROUND", 1000)
    assert [rounds.steps(1), rounds.steps(300), rounds.steps(300, 2), rounds.steps(300, 5), rounds.steps(5000)] == [1000, 3, 2, 5, 1]

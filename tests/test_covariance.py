"""Covariance against longdouble; merging, taking out, weights, missing values, bytes."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import agree

from normfast.ops.covariance import HEADER, Covariance, covariance


def exact(x, weights=None):
    """Mean and co-moment matrix of the rows in longdouble."""
    wide = np.asarray(x, np.longdouble)
    w = np.ones(len(wide), np.longdouble) if weights is None else np.asarray(weights, np.longdouble)
    mean = (w[:, None] * wide).sum(axis=0) / w.sum()
    d = wide - mean
    return mean, (w[:, None] * d).T @ d


def check(c, x, weights=None, *, units=32, scale=None):
    """Assert that c is the covariance of x to `units` eps of the size of its m2, or of `scale`."""
    mean, m2 = exact(x, weights)
    size = np.sqrt(np.outer(m2.diagonal(), m2.diagonal())).max() if scale is None else scale
    agree(c.mean, mean, "mean", units=2, scale=float(np.abs(x).max()))
    agree(c.m2, m2, "m2", units=units, scale=float(size))
    assert (c.m2 == c.m2.T).all()


LAYOUTS = {
    "rows": lambda x: x,
    "fortran": np.asfortranarray,
    "backwards": lambda x: x[::-1, ::-1][::-1, ::-1],
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": lambda x: np.frombuffer(b"-" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
}


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8])
@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (7, 5), (1023, 4), (300_001, 2), (9000, 64), (130, 300)])
def test_accuracy(shape, offset, dtype, rng):
    """|mean| / std = 1e8 costs no digits."""
    x = (offset + rng.standard_normal(shape) * rng.uniform(0.5, 2, shape[1])).astype(dtype)
    c = covariance(x)
    assert c.count == shape[0]
    check(c, x, units=256, scale=4 * shape[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_bits(layout, dtype, rng):
    x = (1e3 + rng.standard_normal((500, 6))).astype(dtype)
    x.flags.writeable = False
    assert covariance(LAYOUTS[layout](x)).to_bytes() == covariance(x).to_bytes()


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.int64, np.float16, np.longdouble])
def test_other_types(dtype):
    x = np.array([[1, 0], [0, 1], [1, 1], [1, 0]]).astype(dtype)
    check(covariance(x), x.astype(np.float64), units=1)
    assert covariance(x.tolist()).m2.dtype == np.float64


def test_outliers_drift_and_jumps():
    """The first row, the order of the rows and the size of a block must not matter."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((300_000, 3))
    outlier = np.concatenate([np.full((1, 3), 1e8), x])
    check(covariance(outlier), outlier)
    check(covariance(outlier[::-1]), outlier[::-1])
    drift = x + np.linspace(-1e8, 1e8, len(x))[:, None]
    check(covariance(drift), drift, units=256)
    jump = x + 1e8 * (np.arange(len(x)) > 250_000)[:, None]
    check(covariance(jump), jump, units=256)


def test_rows_one_at_a_time():
    """5,000 rows of 1e8, then 5,000 of log(1e-5)."""
    x = np.concatenate([np.full((5000, 2), 1e8), np.full((5000, 2), np.log(1e-5))])
    c = covariance(x[:0])
    for row in x:
        c += covariance(row[None])
    _, m2 = exact(x)
    assert float(np.abs(c.m2 / m2 - 1).max()) < 1e-13
    rng = np.random.default_rng(6)
    x = 1e8 + rng.standard_normal((3000, 3))
    c = covariance(x[:0])
    for row in x:
        c += covariance(row[None])
    check(c, x, units=1000)


def test_constants_are_exact(rng):
    """Alone, with others, in several blocks and merged."""
    x = np.column_stack([np.full(300_000, 0.1), rng.standard_normal(300_000)])
    parts = covariance(x[:7]) + covariance(x[7:])
    for c in (covariance(x), parts, covariance(x, weights=rng.uniform(0, 1, len(x)))):
        assert c.mean[0] == 0.1
        assert c.m2[0].tolist() == c.m2[:, 0].tolist() == [0.0, 0.0]
        assert c.m2[1, 1] > 0


def test_no_temporary_of_the_size_of_x():
    x = np.ones((400_000, 16), np.float32)
    covariance(x[:10])
    tracemalloc.start()
    try:
        covariance(x, where=np.ones(len(x), bool))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.4 * x.nbytes, f"{peak / 1e6:.1f} MB beside an x of {x.nbytes / 1e6:.1f} MB"


def test_where_and_weights(rng):
    x = 1e6 + rng.standard_normal((700, 4))
    where = rng.random(700) < 0.5
    assert covariance(x, where=where).to_bytes() == covariance(x[where]).to_bytes()
    times = rng.integers(0, 4, 700)
    c = covariance(x, weights=times)
    assert isinstance(c.count, float)
    assert c.count == times.sum()
    check(c, np.repeat(x, times, axis=0), units=64)
    weights = rng.uniform(0, 1e-3, 700)
    check(covariance(x, weights=weights), x, weights, units=64)
    assert covariance(x, weights=times, where=where).to_bytes() == covariance(x[where], weights=times[where]).to_bytes()
    x[times == 0] = np.nan
    assert covariance(x, weights=times).to_bytes() == c.to_bytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_missing_values(dtype, rng):
    x = rng.standard_normal((50, 3)).astype(dtype)
    x[[3, 20], 1] = np.nan
    whole = ~np.isnan(x).any(axis=1)
    c = covariance(x)
    assert np.isnan(c.mean).tolist() == [False, True, False]
    assert np.isnan(c.m2).tolist() == [[False, True, False], [True, True, True], [False, True, False]]
    agree(c.m2[::2, ::2], exact(x[:, ::2])[1], "m2 beside NaN", units=32)
    assert covariance(x, nan_policy="omit").to_bytes() == covariance(x[whole]).to_bytes()
    weights = rng.uniform(0.5, 2, 50)
    assert covariance(x, nan_policy="omit", weights=weights).to_bytes() == covariance(x[whole], weights=weights[whole]).to_bytes()
    with pytest.raises(ValueError, match="x has NaN in 2 of the rows from 0 on"):
        covariance(x, nan_policy="raise")
    assert covariance(x, nan_policy="raise", where=whole).to_bytes() == covariance(x[whole]).to_bytes()
    assert covariance(np.full((3, 2), np.nan), nan_policy="omit").count == 0


def test_nothing():
    c = covariance(np.empty((0, 3)))
    assert c.count == 0
    assert np.isnan(c.mean).all()
    assert np.isnan(c.cov()).all()
    some = covariance(np.eye(3))
    for both in (c + some, some + c, some - c, some + c - c):
        assert both.to_bytes() == some.to_bytes()
    assert (some - some).count == 0
    assert covariance(np.empty((4, 0))).m2.shape == (0, 0)


def test_results(rng):
    x = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 3))
    c = covariance(x)
    agree(c.cov(), np.cov(x, rowvar=False, ddof=0), "cov")
    agree(c.cov(ddof=1), np.cov(x, rowvar=False), "cov, ddof 1")
    agree(c.var(ddof=1.5), exact(x)[1].diagonal() / 38.5, "var, ddof 1.5")
    agree(c.std(), x.std(axis=0), "std")
    agree(c.corr(), np.corrcoef(x, rowvar=False), "corr", units=8)
    assert c.corr().diagonal().tolist() == [1.0, 1.0, 1.0]
    assert (c.corr() == c.corr().T).all()
    assert (c.moments.count, c.moments.var().tolist()) == (40, c.var().tolist())
    assert np.isinf(c.cov(ddof=40)).all()
    assert np.isinf(covariance(x[:1]).var(ddof=1)).all()
    assert covariance(x[:1]).cov().tolist() == np.zeros((3, 3)).tolist()
    x[:, 1] = 7.0
    assert np.isnan(covariance(x).corr()).tolist() == [[False, True, False], [True, True, True], [False, True, False]]


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8), offset=st.sampled_from([0.0, 1e4, 1e8]), seed=st.integers(0, 2**32 - 1))
def test_merge_and_take_out(sizes, offset, seed):
    parts = [offset + np.random.default_rng(seed + i).standard_normal((n, 3)) for i, n in enumerate(sizes)]
    covariances = [covariance(part) for part in parts]
    whole = Covariance.merge(covariances)
    everything = np.concatenate(parts)
    assert whole.count == len(everything)
    if len(everything):
        check(whole, everything, scale=4 * len(everything))
        assert Covariance.merge(covariances).to_bytes() == whole.to_bytes()
    rest = whole - covariances[0]
    assert rest.count == len(everything) - sizes[0]
    assert (rest.m2.diagonal() >= 0).all()
    if rest.count:
        left = everything[sizes[0] :]
        agree(rest.mean, exact(left)[0], "mean after", units=64 * len(everything), scale=max(1.0, offset))
        agree(rest.m2, exact(left)[1], "m2 after", units=64 * len(everything), scale=4.0 * len(everything))


def test_bytes_and_pickles(rng):
    x = 1e8 + rng.standard_normal((30, 4))
    for c in (covariance(x), covariance(x, weights=rng.uniform(0, 1, 30)), covariance(x[:0])):
        data = c.to_bytes()
        assert len(data) == HEADER.size + 8 * (1 + 4 + 4 + 16)
        for twin in (Covariance.from_bytes(data), Covariance.from_bytes(memoryview(data)), pickle.loads(pickle.dumps(c))):
            assert twin.to_bytes() == data
            assert type(twin.count) is type(c.count)
            assert (twin + covariance(x)).to_bytes() == (c + covariance(x)).to_bytes()
    integers, floats = "0100000000000000" * 2, "0000000000000040" + "000000000000f03f" + "0000000000000000" + "000000000000e03f"
    assert Covariance(2, [1.0], [[0.5]]).to_bytes() == b"nf-cov\0\1" + bytes.fromhex(integers + floats)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda b: b[:10], "these 10 bytes are no covariance"),
        (lambda b: b"nf-cov\0\2" + b[8:], "no covariance of this version"),
        (lambda b: b[:-8], "a covariance of 3 features has 152 bytes, got 144"),
        (lambda b: b + b"\0", "got 153"),
        (lambda b: b[: HEADER.size] + np.float64(-1).tobytes() + b[HEADER.size + 8 :], "the count must be 0 or more, got -1.0"),
        (lambda b: b[: HEADER.size] + np.float64(np.nan).tobytes() + b[HEADER.size + 8 :], "the count must be 0 or more, got nan"),
    ],
)
def test_damaged_bytes(damage, text):
    with pytest.raises(ValueError, match=text):
        Covariance.from_bytes(damage(covariance(np.eye(3)).to_bytes()))


X = np.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: covariance(X[0]), ValueError, r"x has shape \(2,\): it must be \(n, d\)"),
        (lambda: covariance(X * 1j), TypeError, "x must be real, got complex128"),
        (lambda: covariance(X.astype(object)), TypeError, "got dtype object"),
        (lambda: covariance(np.ma.masked_array(X)), TypeError, "x is a masked array"),
        (lambda: covariance(X, where=np.ones(6)), TypeError, "where must be an array of bool, got float64"),
        (lambda: covariance(X, where=np.ones(2, bool)), ValueError, r"where has shape \(2,\): x with 6 rows needs \(6,\)"),
        (lambda: covariance(X, weights=np.ones((6, 1))), ValueError, r"weights has shape \(6, 1\)"),
        (lambda: covariance(X, weights=-np.ones(6)), ValueError, "weights must be finite and 0 or more"),
        (lambda: covariance(X, weights=np.full(6, np.nan)), ValueError, "weights must be finite"),
        (lambda: covariance(X, nan_policy="ignore"), ValueError, "nan_policy must be one of propagate, omit, raise, got 'ignore'"),
        (lambda: Covariance(1, [1.0], [1.0]), ValueError, r"mean \(1,\), m2 \(1,\) and rest \(1,\)"),
        (lambda: covariance(X) + covariance(X[:, :1]), ValueError, "covariances of 2 and 1 features do not merge"),
        (lambda: covariance(X) - covariance(X[:, :1]), ValueError, "a covariance of 1 features is no part of one of 2"),
        (lambda: covariance(X[:2]) - covariance(X), ValueError, "cannot take 6 samples out of 2"),
        (lambda: covariance(X) + 1.0, TypeError, "unsupported operand"),
        (lambda: X - covariance(X), TypeError, "unsupported operand"),
        (lambda: Covariance.merge([]), ValueError, "no covariances to merge"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()

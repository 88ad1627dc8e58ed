"""Moments against exact rational arithmetic, NIST's data and NumPy; merging and taking out."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import agree

import normfast as nf


def exact_moments(values):
    """Mean and standard deviation (ddof 1) of float64 values, computed in rationals."""
    values = [Fraction(float(v)) for v in values]
    mean = sum(values) / len(values)
    var = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return float(mean), float(np.sqrt(np.longdouble(var.numerator) / np.longdouble(var.denominator)))


# NIST StRD, univariate summary statistics, NumAcc1-4: defined by their formulas (www.itl.nist.gov/div898/strd)
NIST = {
    "NumAcc1": [10000001, 10000003, 10000002],
    "NumAcc2": [1.2, *[1.1, 1.3] * 500],
    "NumAcc3": [1000000.2, *[1000000.1, 1000000.3] * 500],
    "NumAcc4": [10000000.2, *[10000000.1, 10000000.3] * 500],
}


@pytest.mark.parametrize("name", NIST)
def test_nist(engine, name):
    """Mean and standard deviation to 15 digits of the exact value of the data as stored."""
    values = np.array(NIST[name], np.float64)
    mean, std = exact_moments(values)
    for x, axis in ((values, None), (np.tile(values, (3, 1)), 1), (np.tile(values[:, None], (1, 3)), 0)):
        m = nf.moments(x, axis)
        assert np.abs(m.mean / mean - 1).max() < 1e-15
        assert np.abs(m.std(ddof=1) / std - 1).max() < 1e-15


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, (0, 1), (0, 2), (1, 2), (0, 1, 2), ()])
@pytest.mark.parametrize("shape", [(5, 6, 7), (40, 3, 500), (300, 2, 2), (1, 1, 9)])
def test_axes(engine, dtype, axis, shape, rng):
    x = (1e3 + rng.standard_normal(shape)).astype(dtype)
    wide = x.astype(np.longdouble)
    m = nf.moments(x, axis)
    agree(m.mean, wide.mean(axis=axis), "mean", units=16)
    size = max(1, m.count)
    agree(m.m2, ((wide - wide.mean(axis=axis, keepdims=True)) ** 2).sum(axis=axis), "m2", units=64 + size / 4, scale=size)
    assert m.count == x.size // max(1, m.mean.size)


def test_large_arrays_are_cut_in_pieces(engine, rng):
    for shape, axis in (((400_000,), None), ((3, 200_000), 1), ((20_000, 30), 0), ((2, 50, 9000), (0, 2))):
        x = rng.normal(1e4, 1, shape).astype(np.float32)
        wide = x.astype(np.longdouble)
        m = nf.moments(x, axis)
        agree(m.mean, wide.mean(axis=axis), "mean", units=16)
        agree(m.var(), wide.var(axis=axis), "var", units=1000)


def test_types():
    agree(nf.moments([1, 2, 4]).mean, np.float64(7 / 3), "mean of integers", units=1)
    assert float(nf.moments(np.array([True, False])).mean) == 0.5
    assert float(nf.moments(np.array([1, 2], np.float16)).mean) == 1.5
    assert nf.moments(np.zeros((2, 3))[:, ::2].astype(">f8"), axis=0).mean.tolist() == [0.0, 0.0]
    assert nf.moments(3.0).count == 1


def test_ddof():
    m = nf.moments([1.0, 3.0])
    assert m.var() == 1.0
    assert m.var(ddof=1) == 2.0
    assert m.var(ddof=2) == np.inf
    assert m.std(ddof=1) == 2**0.5
    assert np.isnan(nf.moments(np.empty(0)).var())


def test_huge_values_have_infinite_variance_but_a_mean(engine):
    m = nf.moments(np.array([1e200, 3e200]))
    assert m.mean == 2e200
    assert m.var() == np.inf
    assert nf.moments(np.array([1e300, 1e308, -1e308])).mean == pytest.approx(1e300 / 3)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8), offset=st.sampled_from([0.0, 1e4, 1e8]), seed=st.integers(0, 2**32 - 1))
def test_merge_and_take_out(sizes, offset, seed):
    parts = [offset + np.random.default_rng(seed + i).standard_normal((n, 3)) for i, n in enumerate(sizes)]
    everything = np.concatenate(parts)
    moments = [nf.moments(part, axis=0) for part in parts]
    whole = nf.Moments.merge(moments)
    assert whole.count == len(everything)
    if not len(everything):
        return
    wide = everything.astype(np.longdouble)
    agree(whole.mean, wide.mean(axis=0), "mean", units=16, scale=max(1.0, offset))
    slack = 16 + offset  # offset and deviations of order 1: eps * offset enters each of them
    agree(whole.m2, ((wide - wide.mean(axis=0)) ** 2).sum(axis=0), "m2", units=slack, scale=4.0 * len(everything))
    rest = whole - moments[0]
    assert rest.count == len(everything) - sizes[0]
    if rest.count:
        left = wide[sizes[0] :]
        agree(rest.mean, left.mean(axis=0), "mean after", units=64 * len(everything), scale=max(1.0, offset))
        agree(rest.m2, ((left - left.mean(axis=0)) ** 2).sum(axis=0), "m2 after", units=64 * slack, scale=4.0 * len(everything))


def test_merging_equal_constants_is_exact():
    parts = [nf.moments(np.full(n, 0.1)) for n in (1, 10, 333)]
    whole = nf.Moments.merge(parts)
    assert whole.mean == 0.1
    assert whole.m2 == 0.0


def test_what_does_not_merge():
    a, b = nf.moments(np.zeros((2, 3)), axis=0), nf.moments(np.zeros(2))
    with pytest.raises(ValueError, match="do not merge"):
        a + b
    with pytest.raises(ValueError, match="cannot take 2 values out of 1"):
        nf.moments([1.0]) - b
    with pytest.raises(TypeError):
        b + 1.0
    with pytest.raises(ValueError, match="no moments to merge"):
        nf.Moments.merge([])


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_masks_and_nan(engine, axis, offset, rng):
    """As the values that are left do alone, column by column, whatever stands in the others."""
    x = offset + rng.standard_normal((30, 4, 5))
    mask = rng.random(x.shape) < 0.7
    mask[:, 0] = True
    spoilt = np.where(mask, x, rng.choice([np.nan, np.inf, 1e300], x.shape))
    omitted = np.where(mask, x, np.nan)
    wide = x.astype(np.longdouble)
    count = mask.sum(axis=axis)
    mean = wide.mean(axis=axis, where=mask, keepdims=True)
    m2 = ((wide - mean) ** 2).sum(axis=axis, where=mask)
    for m in (nf.moments(spoilt, axis, where=mask), nf.moments(omitted, axis, nan_policy="omit")):
        assert np.array_equal(m.count, count)
        agree(m.mean, mean.reshape(m.mean.shape), "mean", units=8, scale=max(1.0, offset))
        agree(m.m2, m2, "m2", units=64 + offset / 16, scale=float(np.max(count)))
    assert np.isnan(nf.moments(omitted, axis).mean).any()
    clean = nf.moments(x, axis, nan_policy="omit")
    assert np.array_equal(clean.count, np.full(clean.mean.shape, x.size // clean.mean.size))
    agree(clean.m2, nf.moments(x, axis).m2, "m2 of clean data", units=0.0)


def test_columns_without_values(engine):
    m = nf.moments(np.array([[1.0, np.nan], [3.0, np.nan]]), axis=0, nan_policy="omit")
    assert m.count.tolist() == [2, 0]
    assert (m.mean[0], m.m2.tolist()) == (2.0, [2.0, 0.0])
    assert np.isnan([m.mean[1], m.var()[1], m.std(ddof=1)[1]]).all()
    assert m.var(ddof=2).tolist()[0] == np.inf
    more = m + nf.moments(np.array([[5.0, 7.0]]), axis=0)
    assert more.count.tolist() == [3, 1]
    assert more.mean.tolist() == [3.0, 7.0]
    back = more - m
    assert back.count.tolist() == [1, 1]
    assert back.mean.tolist() == [5.0, 7.0]


def test_weights_count_repetitions(engine, rng):
    """A weight of k is k copies of the value; 0 leaves it out, also where it is NaN."""
    x, weights = 1e6 + rng.standard_normal((40, 3)), rng.integers(0, 4, 40)
    x[weights == 0] = np.nan
    m, copies = nf.moments(x, 0, weights=weights), nf.moments(np.repeat(x, weights, axis=0), 0)
    assert m.count == copies.count
    agree(m.mean, copies.mean, "mean", units=4)
    agree(m.m2, copies.m2, "m2", units=256)
    agree(m.var(ddof=1), copies.var(ddof=1), "var", units=256)
    masked = nf.moments(x, 0, weights=weights, where=np.array([True, False, True]))
    assert masked.count.tolist() == [copies.count, 0, copies.count]
    assert masked.m2[1] == 0
    scaled = nf.moments(x * 2.0**900, 0, weights=weights)
    agree(scaled.mean, m.mean * 2.0**900, "huge mean", units=4)


def test_a_stream_of_single_rows():
    """5,000 rows of 1e8, then 5,000 of log(1e-5), one at a time: the variance to 1e-13."""
    values = [1e8] * 5000 + [float(np.log(1e-5))] * 5000
    m = nf.moments([values[0]], axis=0)
    for value in values[1:]:
        m += nf.moments([value], axis=0)
    exact = ((Fraction(values[0]) - Fraction(values[-1])) / 2) ** 2
    assert m.count == 10_000
    assert abs(Fraction(float(m.var())) / exact - 1) < 1e-13


def test_real_ddof():
    m = nf.moments([1.0, 3.0, 8.0])
    assert m.var(ddof=1.5) == pytest.approx(26 / 1.5, rel=1e-15)
    assert m.var(ddof=-1) == 6.5
    assert m.var(ddof=3.5) == np.inf


def test_bytes_and_pickles():
    import pickle

    for m in (
        nf.moments([1.0, 2.0, 4.0]),
        nf.moments(np.arange(12.0).reshape(3, 4), axis=0),
        nf.moments(np.array([[1.0, np.nan], [2.0, 3.0]]), axis=0, nan_policy="omit"),
        nf.moments(np.arange(6.0).reshape(3, 2), axis=0, weights=[0.5, 1.0, 2.0]),
        nf.moments(np.empty((0, 2)), axis=0),
    ):
        for copy in (nf.Moments.from_bytes(m.to_bytes()), pickle.loads(pickle.dumps(m))):
            assert np.array_equal(copy.count, m.count)
            assert np.asarray(copy.count).dtype == np.asarray(m.count).dtype
            assert copy.mean.tobytes() == m.mean.tobytes()
            assert copy.m2.tobytes() == m.m2.tobytes()
    assert nf.moments([1.0, 3.0]).to_bytes() == b"nf-mom\0\x01" + bytes(16) + b"\x01" + bytes(7) + np.array([2.0, 2.0, 2.0]).tobytes()


@pytest.mark.parametrize(("place", "number"), [(0, -1.0), (0, -0.5), (0, 2.0**63), (0, np.nan), (2, -1e-300)])
def test_bytes_that_no_moments_have(place, number):
    data = nf.moments([1.0, 3.0]).to_bytes()
    values = np.frombuffer(data, "<f8", offset=32).copy()
    values[place] = number
    with pytest.raises(ValueError, match="counts and squares must be 0 or more"):
        nf.Moments.from_bytes(data[:32] + values.tobytes())


def test_bytes_of_another_length():
    with pytest.raises(ValueError, match=r"moments of shape \(4,\) have 112 bytes, got 111"):
        nf.Moments.from_bytes(nf.moments(np.zeros((3, 4)), 0).to_bytes()[:-1])

"""Standardizing and min-max scaling against longdouble and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import agree

from normfast.preprocessing import MinMaxScaler, Standardizer, minmax_scale, standardize, whiten


def exact_standardized(x, axis=0, ddof=0):
    """In longdouble, without NaN, of data with variance."""
    wide = np.asarray(x, np.longdouble)
    d = wide - np.nanmean(wide, axis=axis, keepdims=True)
    count = (~np.isnan(wide)).sum(axis=axis, keepdims=True)
    return d / np.sqrt(np.nansum(d * d, axis=axis, keepdims=True) / (count - ddof))


def same(a, b, what, units=4.0, scale=None):
    """`agree` where NaN must be at the same places."""
    assert (np.isnan(a) == np.isnan(b)).all(), f"{what}: NaN at other places"
    agree(np.nan_to_num(a), np.nan_to_num(b), what, units=units, scale=scale)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5, 1e8])
@pytest.mark.parametrize(("shape", "axis"), [((1000, 7), 0), ((7, 1000), 1), ((20, 3, 30), (0, 2)), ((500,), 0), ((30, 40), None)])
def test_standardize(engine, shape, axis, offset, dtype, rng):
    """float32 within 1e-6 up to |mean| / std = 1e5, where its digits end; float64 as far as the mean is a float64."""
    offset = min(offset, 1e5) if dtype == np.float32 else offset
    x = (offset + rng.standard_normal(shape)).astype(dtype)
    before = x.copy()
    for ddof in (0, 1):
        y = standardize(x, axis=axis, ddof=ddof)
        assert y.dtype == dtype
        agree(y, exact_standardized(x, axis, ddof), f"standardize {engine}", units=8 if dtype == np.float32 else 16 + 2 * offset, scale=1.0)
    assert (x == before).all()


@pytest.mark.parametrize("ddof", [0, 1])
def test_standardizer_is_standard_scaler(engine, ddof, dtype, rng):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = (rng.standard_normal((200, 6)) * [1, 10, 1e-3, 5, 1, 1] + [0, 1e3, 1, -5, 3, 7]).astype(dtype)
    x[:, 4] = 3.0
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 5] = 0.25 * np.arange(200)
    weights = rng.uniform(0, 3, 200)
    wide = x.astype(np.float64)
    for options in ({}, {"with_mean": False}, {"with_std": False}):
        for w in (None, weights):
            with np.errstate(invalid="ignore"):  # theirs takes the root of a variance just below 0
                theirs, full = (preprocessing.StandardScaler(**kw).fit(wide, sample_weight=w) for kw in (options, {}))
            ours = Standardizer(**options, ddof=ddof).fit(x, sample_weight=w)
            agree(ours.mean_, full.mean_, "mean_", units=8)
            assert np.ndim(ours.n_samples_seen_) == np.ndim(theirs.n_samples_seen_) == 1
            agree(ours.n_samples_seen_.astype(float), full.n_samples_seen_, "n_samples_seen_")
            if ddof == 0:
                y = theirs.transform(wide)
                units = 8 if dtype == np.float32 else 4096  # |mean| / std = 1e3
                same(ours.transform(x), y, f"Standardizer {options}", units=units, scale=float(np.nanmax(np.abs(y))))
            same(ours.inverse_transform(ours.transform(x)), x, "inverse", units=8)


def test_constants_are_centred_only(engine, dtype, rng):
    x = rng.standard_normal((1000, 5)).astype(dtype)
    x[:, 0] = 0.1
    x[:, 1] = 1e8
    x[:, 2] = 0
    scaler = Standardizer(ddof=1).fit(x)
    y = scaler.transform(x)
    assert scaler.scale_[:3].tolist() == [1.0, 1.0, 1.0]
    assert scaler.mean_[:3].tolist() == [float(dtype(0.1)), 1e8, 0.0]
    assert not y[:, :3].any()
    agree(y[:, 3:], exact_standardized(x[:, 3:], ddof=1), "beside constants", units=16, scale=1.0)
    # by rounding alone, and just not
    ulp = np.spacing(1e8)
    x = 1e8 + np.column_stack([ulp * (np.arange(1000) % 2), rng.standard_normal(1000)])
    assert Standardizer().fit(x).scale_[0] == 1.0
    assert 0.9 < Standardizer().fit(x).scale_[1] < 1.1
    assert np.abs(standardize(x)[:, 0]).max() <= ulp


def test_one_row(engine):
    x = np.array([[3.0, -1e300, np.nan]])
    for ddof in (0, 1):
        scaler = Standardizer(ddof=ddof).fit(x)
        assert scaler.scale_[:2].tolist() == [1.0, 1.0]
        assert scaler.transform(x)[0, :2].tolist() == [0.0, 0.0]
        assert np.isnan(scaler.transform(x)[0, 2])
    assert Standardizer(ddof=2).fit([[1.0], [2.0]]).scale_.tolist() == [1.0]
    assert minmax_scale(x, feature_range=(2, 5))[0, :2].tolist() == [2.0, 2.0]
    assert whiten(x[:, :2]).tolist() == [[0.0, 0.0]]
    assert whiten(x[:, :2], method="pca").shape == (1, 0)
    with pytest.raises(ValueError, match="1 samples have no covariance with ddof=1"):
        whiten(x[:, :2], ddof=1)


@pytest.mark.parametrize("exponent", [1000, 1010, -1000, -1015])
def test_extremes(engine, exponent, rng):
    """Values whose squares overflow or vanish: exactly those of values times a power of two."""
    x = rng.standard_normal((300, 3))
    x[:, 1] += 1e3
    far = np.ldexp(x, exponent)
    near = np.ldexp(far, -exponent)  # without the digits that a subnormal far has lost
    both = np.column_stack([near, far])
    agree(standardize(far), exact_standardized(near), "extremes", units=4096, scale=1.0)
    scaler = Standardizer().fit(both)
    agree(scaler.transform(both), exact_standardized(np.column_stack([near, near])), "extremes beside others", units=4096, scale=1.0)
    agree(np.ldexp(scaler.scale_[3:], -exponent), scaler.scale_[:3], "scale_", units=4)
    agree(np.ldexp(scaler.inverse_transform(scaler.transform(both))[:, 3:], -exponent), near, "inverse", units=8)
    chunks = Standardizer()
    for chunk in (np.zeros((7, 6)), both[:100], np.zeros((1, 6)), both[100:]):
        chunks.partial_fit(chunk)
    whole = Standardizer().fit(np.concatenate([np.zeros((8, 6)), both]))
    agree(chunks.scale_ / whole.scale_, np.ones(6), "scale_ of chunks", units=16)
    agree(minmax_scale(far), minmax_scale(near), "minmax of extremes")


def test_the_whole_range():
    top = np.finfo(np.float64).max
    x = np.array([[-top, 5e-324], [0.0, 0.0], [top, 1.5e-323]])
    assert minmax_scale(x).tolist() == [[0.0, 1 / 3], [0.5, 0.0], [1.0, 1.0]]
    scaler = MinMaxScaler((-1, 1)).fit(x)
    assert scaler.transform(x)[:, 0].tolist() == [-1.0, 0.0, 1.0]
    assert scaler.inverse_transform(scaler.transform(x))[:, 0].tolist() == x[:, 0].tolist()
    agree(standardize(x), exact_standardized(x * np.array([0.5**600, 2.0**600])), "the whole range", scale=1.0)
    x = np.array([[-3e38], [3e38]], np.float32)
    assert standardize(x).tolist() == [[-1.0], [1.0]]
    assert minmax_scale(x).tolist() == [[0.0], [1.0]]


def test_columns_of_nan(engine, dtype, rng):
    x = rng.standard_normal((40, 3)).astype(dtype)
    x[:, 1] = np.nan
    x[5, 2] = np.nan
    for y, expected in ((standardize(x), exact_standardized(x[:, [0]])), (minmax_scale(x), minmax_scale(x[:, [0]]))):
        assert (np.isnan(y) == np.isnan(x)).all()
        agree(y[:, [0]], expected, "beside NaN", units=16, scale=1.0)
    scaler = Standardizer().fit(x)
    assert np.asarray(scaler.n_samples_seen_).tolist() == [40, 0, 39]
    scaler.partial_fit(np.nan_to_num(x))
    assert np.asarray(scaler.n_samples_seen_).tolist() == [80, 40, 79]
    assert scaler.mean_[1] == 0.0


def test_minmax_scaler_is_theirs(dtype, rng):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = (rng.standard_normal((100, 4)) * [1, 100, 1e-3, 1] + 5).astype(dtype)
    x[:, 3] = 2.0
    x[rng.random(x.shape) < 0.1] = np.nan
    new = (3 * x + 1)[:20]
    for ends in ((0, 1), (-1, 1), (2.5, 7)):
        for clip in (False, True):
            theirs = preprocessing.MinMaxScaler(ends, clip=clip).fit(x.astype(np.float64))
            ours = MinMaxScaler(ends, clip=clip).fit(x)
            for name in ("data_min_", "data_max_", "data_range_"):
                assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
            for data in (x, new):
                y = theirs.transform(data.astype(np.float64))
                same(ours.transform(data), y, f"{ends}", units=4 if dtype == np.float32 else 5e4)  # theirs cancels: 1e-3 beside 5
            same(ours.inverse_transform(ours.transform(x)), x, "inverse", units=4)
            if not clip:
                same(ours.inverse_transform(ours.transform(new)), new, "inverse beyond the range and of a constant", units=64)
            y = ours.transform(x)
            assert (np.nanmin(y[:, :3], axis=0) == dtype(ends[0])).all()
            assert (np.nanmax(y[:, :3], axis=0) == dtype(ends[1])).all()


@settings(deadline=None, max_examples=100)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=20, unique=True),
    ends=st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (-0.1, 0.3), (1e5, 1e5 + 1)]),
)
def test_both_ends_are_exact(values, ends):
    x = np.array(values)
    y = minmax_scale(x, feature_range=ends)
    if x.max() > x.min():  # 0.0 and -0.0 are one value
        assert y[x.argmin()] == ends[0]
        assert y[x.argmax()] == ends[1]
    assert (np.diff(y[np.argsort(x)]) >= -np.spacing(max(ends))).all()


def test_axes_of_minmax(rng):
    x = rng.standard_normal((3, 200, 5))
    for axis in (0, 1, -1, (0, 2), None):
        low, high = x.min(axis=axis, keepdims=True), x.max(axis=axis, keepdims=True)
        agree(minmax_scale(x, axis=axis), (x - low) / (high - low), f"axis {axis}")

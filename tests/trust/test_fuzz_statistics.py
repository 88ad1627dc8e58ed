"""Fuzzing: moments, covariance and scaling of any array, with masks, weights and NaN, judged by the oracle."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import strategies as st
from trust.arrays import DTYPES, KINDS, LAYOUTS, Output, laid_out, shapes, values_of
from trust.judging import Normalized, Precision, near, wide
from trust.test_fuzz_norms import ENGINES, fuzz

import normfast as nf

V = np.longdouble(2.0) ** -53
DOUBLE = Precision(np.float64)
INTEGERS = ["int8", "uint16", "int64", "bool"]
KINDS = [kind for kind in KINDS if kind != "large"]  # whose squares no float64 holds, see test_fuzz_norms.py for what does


@st.composite
def statistics_cases(draw, least=0):
    c = SimpleNamespace(shape=draw(shapes(least=least)), dtype=draw(st.sampled_from(DTYPES + INTEGERS)))
    c.kind, c.layout, c.engine = (draw(st.sampled_from(choice)) for choice in (KINDS, LAYOUTS, ENGINES))
    c.axis = draw(st.one_of(st.none(), st.sets(st.integers(0, max(0, len(c.shape) - 1))).map(lambda s: tuple(sorted(s)))))
    c.axis = None if not c.shape else c.axis
    c.policy, c.given = draw(st.sampled_from(["propagate", "omit"])), draw(st.sampled_from([None, None, "where", "weights"]))
    c.edges, c.seed, c.ddof = draw(st.integers(0, 5)) == 0, draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0, 0, 1, 0.5]))
    return c


def array_of(c, rng):
    """The array of a case, and its values."""
    if c.dtype in INTEGERS:
        x = laid_out(rng.integers(0, 2 if c.dtype == "bool" else 100, c.shape).astype(c.dtype), c.layout, rng)
    else:
        x = laid_out(values_of(c.kind, c.shape, c.dtype, rng, c.edges), c.layout, rng)
    return x, np.array(x)


def judge_moments(c):
    rng = np.random.default_rng(c.seed)
    x, values = array_of(c, rng)
    axes = tuple(range(len(c.shape))) if c.axis is None else c.axis
    options, mask, weights = {"nan_policy": c.policy}, np.ones(c.shape, bool), np.ones(c.shape, np.longdouble)
    if c.given == "where":
        options["where"] = rng.random(c.shape) < 0.7
        mask &= options["where"]
    elif c.given == "weights" and len(axes) == 1:
        own = options["weights"] = rng.random(c.shape[axes[0]]).round(2)
        weights = wide(own.reshape([-1 if i == axes[0] else 1 for i in range(len(c.shape))]), c.shape)
    if c.policy == "omit":
        mask &= ~np.isnan(values)
    m = nf.moments(x, c.axis, **options)
    w = weights * mask
    count = w.sum(axis=axes, keepdims=True)
    with np.errstate(all="ignore"):
        exact = np.where(w > 0, wide(values), 0)
        mean = (w * exact).sum(axis=axes, keepdims=True) / count
        d = np.where(w > 0, exact - mean, 0)
        m2, far = (w * d * d).sum(axis=axes), np.abs(d).max(axis=axes, initial=0)
        sigma, count, mean = np.sqrt(m2 / count.squeeze(axes)), count.squeeze(axes), mean.squeeze(axes)
        clean = np.isfinite(exact).all(axis=axes) & (count > 0)
        of_mean = (DOUBLE.k + 2) * V * (sigma + far) + 4 * V * np.abs(mean) + 4 * DOUBLE.tiny
        of_m2 = (
            4 * (DOUBLE.k + 3) * V * count * (sigma**2 + far**2) + 2 * count * far * (4 * V * np.abs(mean)) + 8 * DOUBLE.tiny * (1 + count)
        )
    assert m.mean.shape == m.m2.shape == mean.shape
    assert m.mean.dtype == m.m2.dtype == np.float64
    near(m.mean, mean, of_mean, "mean", DOUBLE, clean)
    near(m.m2, m2, of_m2, "m2", DOUBLE, clean)
    near(np.broadcast_to(m.count, mean.shape), count, count * 16 * V * len(values.shape), "count")
    assert np.isnan(m.mean[np.broadcast_to(count, mean.shape) == 0]).all()
    assert (m.m2[clean] >= 0).all()


def judge_covariance(c):
    rng = np.random.default_rng(c.seed)
    c.shape = (c.shape[0], max(1, min(8, int(np.prod(c.shape[1:]))))) if c.shape else (1, 1)
    x, values = array_of(c, rng)
    kept = ~np.isnan(values).any(axis=1) if c.policy == "omit" and values.dtype.kind != "b" else np.ones(len(values), bool)
    weights = rng.random(len(values)).round(2) if c.given == "weights" else None
    found = nf.covariance(x, weights=weights, nan_policy=c.policy)
    w = wide(np.ones(len(values)) if weights is None else weights) * kept
    rows = np.where((w > 0)[:, None], wide(values), 0)
    count = w.sum()
    near(found.count, count, 32 * V * count, "count")
    if not count > 0 or not np.isfinite(rows).all():
        return
    mean = (w[:, None] * rows).sum(axis=0) / count
    d = (rows - mean) * np.sqrt(w)[:, None]
    exact, size = d.T @ d, np.abs(d).T @ np.abs(d)
    far = np.abs(np.where((w > 0)[:, None], rows - mean, 0)).max(axis=0, initial=0)
    off = (len(rows) + 8) * V * (far + DOUBLE.tiny) + 2.0**-60 * np.abs(mean)  # of the mean, from which deviations are taken
    of_means = np.outer(off, far) + np.outer(far, off) + np.outer(off, off)
    bound = (len(rows) + 16) * V * size + count * of_means + 32 * DOUBLE.tiny * (1 + count)
    near(found.mean, mean, off + V * np.abs(mean) + DOUBLE.tiny, "mean", DOUBLE)
    near(found.m2, exact, bound, "co-moments", DOUBLE)
    assert (found.m2 == found.m2.T).all()


def judge_scaling(c):
    """standardize and minmax_scale over some axes."""
    rng = np.random.default_rng(c.seed)
    x, values = array_of(c, rng)
    axes = tuple(range(len(c.shape))) if c.axis is None else c.axis
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        return
    precision = Precision(values.dtype.newbyteorder("="))
    exact = Normalized(values, axes, DOUBLE, mask=~np.isnan(values))
    output = Output(None, x, rng)
    y = nf.preprocessing.standardize(x, axis=c.axis, ddof=0, out=output.given)
    assert y.shape == c.shape
    with np.errstate(all="ignore"):
        far_mean = np.abs(exact.mean) * exact.r
        of_y = exact.forward()[1] + 16 * V * far_mean + 8 * precision.u * np.abs(exact.xhat) + 2 * precision.least
        of_y = np.where((far_mean < 1e9) & (exact.r < 1e300), precision.kept(exact.xhat, of_y), np.inf)  # else it counts as constant
    near(y, exact.xhat, of_y, "standardize", precision, exact.clean & (exact.count > 0) & exact.mask)
    low, high = sorted(rng.normal(0, 3, 2))
    if low < high and c.kind != "mixed":
        y = nf.preprocessing.minmax_scale(x, axis=c.axis, feature_range=(low, high))
        with np.errstate(all="ignore"):
            spread = np.where(exact.mask, exact.x, np.nan)
            inside = (y.astype(np.longdouble) >= low - precision.u * 8 * (abs(low) + precision.rounding * 2**24 * abs(low))) | np.isnan(y)
        if spread.size and exact.clean.all():
            assert inside.all(), "minmax_scale lies below its range"
            nan = np.isnan(values)
            assert (np.isnan(y) == nan).all()


def run(judge):
    def checked(c):
        with nf.use_engine(c.engine), warnings.catch_warnings():
            warnings.simplefilter("error")
            judge(c)

    return checked


moments, covariance, scaling = run(judge_moments), run(judge_covariance), run(judge_scaling)


@pytest.mark.parametrize("engine", ["auto", "numpy"])
@pytest.mark.parametrize("x", [np.array(3.0), np.array(3, np.int16), np.array(3.0, ">f4"), np.float16(3)], ids=repr)
def test_arrays_without_axes(engine, x):
    """One value without an axis is a set of one value."""
    with nf.use_engine(engine):
        check_without_axes(x)


def check_without_axes(x):
    for options in ({}, {"nan_policy": "omit"}, {"where": np.array(True)}, {"nan_policy": "raise"}):
        m = nf.moments(x, **options)
        assert (m.count, m.mean, m.m2) == (1, 3.0, 0.0)
    assert np.isnan(nf.moments(x, where=np.array(False)).mean)
    assert nf.preprocessing.standardize(x, axis=None) == 0
    assert nf.preprocessing.minmax_scale(x, axis=None, feature_range=(1, 2)) == 1
    if x.dtype.kind == "f":
        y, stats = nf.mean_variance_norm_forward(x)
        assert (y, stats.mean, stats.var) == (0, 3.0, 0.0)
        assert nf.mean_variance_norm_backward(x, x, stats).dx == 0


def test_moments(tried):
    fuzz(tried, statistics_cases(), moments, 200, 4000)


def test_covariance(tried):
    fuzz(tried, statistics_cases(least=1), covariance, 100, 2000)


def test_scaling(tried):
    fuzz(tried, statistics_cases(), scaling, 100, 2000)

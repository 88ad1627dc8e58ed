"""Whitening: the identity as covariance, in any units, of any rank; scikit-learn's PCA and shrinkage."""

import numpy as np
import pytest
from oracle import agree

from normfast.preprocessing import Whitener, whiten

METHODS = ("zca", "pca", "cholesky")
UNITS = 1024  # of eps: 2e-13


def mixed(rng, n, d):
    """Samples of which the widest direction is 9 times as wide as the narrowest."""
    rotation, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return rng.standard_normal((n, d)) * np.geomspace(1, 9, d) @ rotation


def covariance_of(y, ddof=0):
    wide = y.astype(np.longdouble)
    d = wide - wide.mean(axis=0)
    return (d.T @ d / (len(y) - ddof)).astype(y.dtype)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "d"), [(50, 1), (200, 3), (3000, 40)])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e8])
def test_whitening(method, n, d, offset, rng):
    """Mean 0 and the identity as covariance, to rounding: whatever the means and the units of the columns."""
    x = offset + mixed(rng, n, d)
    for units in (np.ones(d), 10.0 ** rng.integers(-12, 12, d), np.ldexp(1.0, rng.integers(-300, 300, d))):
        for ddof in (0, 1):
            whitener = Whitener(method, ddof=ddof).fit(x * units)
            y = whitener.transform(x * units)
            agree(covariance_of(y, ddof), np.eye(d), f"covariance {method}", units=UNITS)
            agree(y.mean(axis=0), np.zeros(d), "mean", units=UNITS)
            agree(whitener.inverse_transform(y) / units, x, "inverse", units=UNITS)
            assert whiten(x * units, method=method, ddof=ddof).tolist() == y.tolist()


def test_what_each_method_means(rng):
    x = mixed(rng, 500, 5) + 3
    cov = np.cov(x, rowvar=False, ddof=0)
    zca, pca, cholesky = (Whitener(method).fit(x).whitening_ for method in METHODS)
    values, vectors = np.linalg.eigh(cov)
    agree(zca, (vectors / np.sqrt(values)) @ vectors.T, "zca is the inverse root", units=UNITS)
    agree(1 / np.linalg.norm(pca, axis=1), np.sqrt(values[::-1]), "pca: the widest first", units=UNITS)
    agree(cholesky, np.linalg.inv(np.linalg.cholesky(cov)), "cholesky", units=UNITS)
    assert not np.triu(cholesky, 1).any()


@pytest.mark.parametrize("k", [None, 1, 3])
def test_pca_is_theirs(k, dtype, rng):
    x = (mixed(rng, 300, 6) + 10).astype(dtype)
    theirs = pytest.importorskip("sklearn.decomposition").PCA(k, whiten=True, svd_solver="full").fit(x.astype(np.float64))
    ours = Whitener("pca", n_components=k, ddof=1).fit(x)
    y = theirs.transform(x.astype(np.float64))
    agree(ours.transform(x), y, "pca", units=2 if dtype == np.float32 else UNITS)
    agree(ours.inverse_transform(y), theirs.inverse_transform(y), "inverse", units=UNITS)


@pytest.mark.parametrize("k", [1, 3])
def test_fewer_directions(k, rng):
    x = mixed(rng, 300, 6)
    zca, pca, cholesky = (Whitener(method, n_components=k).fit(x).transform(x) for method in METHODS)
    agree(np.trace(covariance_of(zca)), np.float64(k), "rank of zca", units=UNITS)
    agree(pca @ (pca.T @ zca / 300), zca, "the span of zca is that of pca", units=UNITS)
    agree(cholesky, whiten(x, method="cholesky")[:, :k], "the first of cholesky", units=8)


def deficient(rng, kind):
    x = mixed(rng, 200, 4) + 1e3
    if kind == "twice":
        return np.column_stack([x, x[:, 0]]), 4
    if kind == "sum":
        return np.column_stack([x[:, 0] + 1e-3 * x[:, 1], x]), 4
    if kind == "constant":
        rounding = 1e8 + np.spacing(1e8) * (np.arange(200) % 2)
        return np.column_stack([np.full(200, 0.1), x, rounding]), 4
    if kind == "few rows":
        return mixed(rng, 6, 20), 5
    return np.ones((10, 3)), 0


@pytest.mark.parametrize("kind", ["twice", "sum", "constant", "few rows", "nothing"])
@pytest.mark.parametrize("method", METHODS)
def test_rank_deficient(method, kind, rng):
    """The span of the data is whitened and comes back; what is beside it is dropped."""
    x, rank = deficient(rng, kind)
    whitener = Whitener(method).fit(x)
    y = whitener.transform(x)
    assert y.shape[1] == (x.shape[1] if method == "zca" else rank)
    cov = covariance_of(y)
    agree(cov @ cov, cov, "a projector", units=UNITS, scale=1.0)
    agree(np.trace(cov), np.float64(rank), "of the rank", units=UNITS, scale=1.0)
    if method != "zca":
        agree(cov, np.eye(rank), "covariance", units=UNITS)
    agree(whitener.inverse_transform(y), x, "inverse", units=UNITS)
    far = x + 0.5  # may leave the span
    once = whitener.inverse_transform(whitener.transform(far))
    agree(whitener.inverse_transform(whitener.transform(once)), once, "inverse of what lies in the span", units=UNITS)


def test_shrinkage(rng):
    x = mixed(rng, 30, 20)
    x[:, 3] = x[:, 4]
    cov = np.cov(x, rowvar=False, ddof=0)
    identity = np.trace(cov) / 20 * np.eye(20)
    their_cov, share = pytest.importorskip("sklearn.covariance").oas(x)
    agree((1 - share) * cov + share * identity, their_cov, "their shrinkage", units=16)
    for shrinkage, s in ((0.3, 0.3), (1, 1.0), ("oas", share)):
        for method in METHODS:
            w = Whitener(method, shrinkage=shrinkage).fit(x).whitening_
            agree(w @ ((1 - s) * cov + s * identity) @ w.T, np.eye(20), f"{method}, shrinkage {shrinkage}", units=UNITS)
    assert len(Whitener("pca").fit(x).whitening_) == 19
    cross = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # a multiple of the identity: nothing to divide by
    agree(Whitener(shrinkage="oas").fit(cross).transform(cross), cross * np.sqrt(2), "no shrinkage", units=16)


def test_whitener_keeps_float32_and_its_digits(rng):
    x = (1e4 + rng.standard_normal((2000, 8))).astype(np.float32)
    y = whiten(x)
    assert y.dtype == np.float32
    agree(y, whiten(x.astype(np.float64)), "float32", units=1, scale=float(np.abs(y).max()))
    agree(covariance_of(y), np.eye(8), "covariance", units=1)


@pytest.mark.parametrize("method", ["zca", "pca", "cholesky"])
def test_no_features(method):
    with pytest.raises(ValueError, match="no features"):
        whiten(np.empty((3, 0)), method=method)

"""The estimators on Dask arrays: what they learn and give beside NumPy's, lazily."""

import pickle

import numpy as np
import pytest
from oracle import agree

pytest.importorskip("dask.array", reason="Dask is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
import dask
import dask.array as da
from chunked import Source, chunked, precision
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from normfast.preprocessing import MinMaxScaler, Standardizer, Whitener

ALL = [
    Standardizer(),
    Standardizer(with_mean=False, ddof=1),
    Standardizer(with_std=False),
    MinMaxScaler(),
    MinMaxScaler((-1, 3), clip=True),
    *(Whitener(method) for method in ("zca", "pca", "cholesky")),
    Whitener("pca", n_components=1, shrinkage="oas"),
]


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_equal_to_numpy(estimator, rng):
    for _ in range(50):
        n, d = int(rng.integers(20, 80)), int(rng.integers(1, 5))
        x = rng.choice([0.0, 1e4]) + rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))
        x = x.astype(rng.choice(["f4", "f8"]))
        lazy, weights = chunked(x, rng), rng.uniform(0.5, 2, n)
        weighted = not isinstance(estimator, MinMaxScaler) and rng.random() < 0.5
        options = {"sample_weight": weights} if weighted else {}
        whole, own = clone(estimator).fit(x, **options), clone(estimator).fit(lazy, **options)
        expected, y = whole.transform(x), own.transform(lazy)
        assert isinstance(y, da.Array)
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
        assert type(own.n_samples_seen_) is type(whole.n_samples_seen_)
        scale, units = max(1.0, np.abs(expected).max()), 0  # MinMaxScaler: every bit
        if isinstance(estimator, Standardizer):
            units = precision(x, 0) if x.dtype == np.float64 else 16
        elif isinstance(estimator, Whitener):
            cov = np.atleast_2d(np.cov(x.astype(float), rowvar=False))
            scale, units = max(1.0, np.abs(x).max() / np.sqrt(np.linalg.eigvalsh(cov)[0])), 256 * np.linalg.cond(cov)
        agree(y.compute(), expected, f"{estimator} {lazy.chunks}", units=units, scale=scale)
        back = own.inverse_transform(y).compute()
        agree(back, whole.inverse_transform(expected), "inverse", units=4 * units, scale=np.abs(x).max() * scale)
        parts = clone(estimator)
        for part in (slice(0, n // 3 + 5), slice(n // 3 + 5, None)):
            parts.partial_fit(lazy[part], **{name: da.from_array(values[part], chunks=7) for name, values in options.items()})
        agree(parts.transform(x), expected, "partial_fit", units=4 * units, scale=scale)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_protocol(estimator, rng):
    x = rng.standard_normal((60, 4))
    lazy = da.from_array(x, chunks=(13, 3))
    fitted = clone(estimator).fit(lazy)
    y = fitted.transform(lazy)
    for twin in (pickle.loads(pickle.dumps(fitted)), clone(fitted).fit(lazy), clone(fitted).partial_fit(lazy)):
        assert twin.transform(lazy).name == y.name
    assert clone(estimator).fit_transform(lazy).name == y.name
    assert fitted.n_features_in_ == 4
    assert fitted.n_samples_seen_ == 60
    assert len(fitted.get_feature_names_out()) == y.shape[1]
    assert np.array_equal(fitted.transform(x), fitted.transform(da.from_array(x)).compute())
    assert clone(fitted).get_params() == estimator.get_params()
    unknown = lazy[lazy[:, 0] > 0]
    agree(clone(estimator).fit_transform(unknown).compute(), clone(estimator).fit_transform(x[x[:, 0] > 0]), "unknown", units=1e4)
    model = make_pipeline(Standardizer(), clone(estimator)).fit(lazy)
    assert isinstance(model.transform(lazy), da.Array)
    assert clone(estimator).fit_transform(lazy.astype(np.float16)).dtype == np.float16
    assert clone(estimator).fit_transform((lazy * 100).astype(int)).dtype == np.float64


@pytest.mark.parametrize("make", [Standardizer, MinMaxScaler, Whitener])
def test_blocks_are_read_once_to_learn_and_once_to_transform(make, rng):
    source = Source(rng.standard_normal((64, 3)))
    lazy = source.chunked((4, 3))
    with dask.config.set(scheduler="synchronous"):
        fitted = make().fit(lazy)
        assert set(source.reads.values()) == {1}
        y = fitted.transform(lazy)
        assert set(source.reads.values()) == {1}
        y.compute()
        assert set(source.reads.values()) == {2}
        assert source.most <= 4


def test_nan_and_extremes(rng):
    x = rng.standard_normal((40, 3)) * [1e300, 1.0, 1e-200]
    x[rng.random(x.shape) < 0.1] = np.nan
    lazy = da.from_array(x, chunks=(7, 2))
    for make in (Standardizer, MinMaxScaler):
        expected, y = make().fit_transform(x), make().fit_transform(lazy).compute()
        assert np.array_equal(np.isnan(y), np.isnan(expected))
        agree(np.nan_to_num(y), np.nan_to_num(expected), make.__name__, units=64)
    assert Standardizer().fit(lazy).n_samples_seen_.tolist() == (~np.isnan(x)).sum(axis=0).tolist()


X = da.from_array(np.arange(12.0).reshape(6, 2), chunks=2)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Standardizer().fit(X / 0), ValueError, "x has infinity: take it out first"),
        (lambda: MinMaxScaler().fit(X + np.inf), ValueError, "x has infinity: take it out first"),
        (lambda: Whitener().fit(X + np.nan), ValueError, "x has NaN"),
        (lambda: Whitener().fit(X + np.inf), ValueError, "x has infinities"),
        (lambda: Standardizer().fit(X[:, 0]), ValueError, r"x has shape \(6,\): it must be \(n_samples, n_features\)"),
        (lambda: Standardizer().fit(X[:0]), ValueError, r"x has shape \(0, 2\)"),
        (lambda: MinMaxScaler().fit(X[X[:, 0] > 99]), ValueError, "x has no samples: give one or more"),
        (lambda: Standardizer().fit(X[:, X[0] > 0]), ValueError, "unknown number of features"),
        (lambda: Standardizer().fit(X.astype(complex)), TypeError, "got complex128"),
        (lambda: Standardizer().transform(X), ValueError, "not fitted yet"),
        (lambda: Standardizer().fit(X).transform(X[:, :1]), ValueError, "x has 1 features, and 2 were learned"),
        (lambda: Standardizer().fit(X).partial_fit(X[:, :1]), ValueError, "x has 1 features, and 2 were learned"),
        (lambda: Standardizer().fit(X, sample_weight=da.zeros(6)), ValueError, "sample_weight is zero everywhere"),
        (lambda: Whitener().fit(X, sample_weight=da.zeros(6)), ValueError, "sample_weight is zero everywhere"),
        (lambda: Whitener("pca", n_components=1).fit(X).inverse_transform(X), ValueError, r"it must be \(n_samples, 1\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")  # of the infinite data
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()

"""The estimators under scikit-learn's own checks, in chunks, in pipelines, in place, and without scikit-learn."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import agree

from normfast.preprocessing import MinMaxScaler, Standardizer, Whitener, minmax_scale, standardize, whiten

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

METHODS = ("zca", "pca", "cholesky")
ALL = [
    Standardizer(),
    Standardizer(with_mean=False, ddof=1),
    Standardizer(with_std=False),
    MinMaxScaler(),
    MinMaxScaler((-1, 3), clip=True),
    *(Whitener(method) for method in METHODS),
    Whitener("pca", n_components=2, ddof=1),
    Whitener("cholesky", n_components=1, shrinkage=0.1),
    Whitener(shrinkage="oas"),
]


@parametrize_with_checks(ALL)
def test_scikit_learns_own_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # some checks warn on purpose
        check(estimator)


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(1, 299), max_size=6, unique=True), offset=st.sampled_from([0.0, 1e4, 1e8]), seed=st.integers(0, 2**32 - 1))
def test_chunks_are_the_whole(cuts, offset, seed):
    rng = np.random.default_rng(seed)
    x = offset + rng.standard_normal((300, 4)) @ (np.eye(4) + np.triu(np.ones((4, 4))))
    x[rng.random(x.shape) < 0.05] += 3
    weights = rng.uniform(0.5, 2, 300)
    pieces = np.split(np.arange(300), sorted(cuts))
    for make in (Standardizer, MinMaxScaler, Whitener):
        for options in ({}, {"sample_weight": weights}) if make is not MinMaxScaler else ({},):
            whole, chunks = make().fit(x, **options), make()
            for piece in pieces:
                chunks.partial_fit(x[piece], **{name: values[piece] for name, values in options.items()})
            a, b = whole.transform(x), chunks.transform(x)
            condition = np.linalg.cond(np.cov(x, rowvar=False))  # of the widest and the narrowest direction, whose variance is 1 or more
            agree(b, a, f"{make.__name__} in chunks", units=64 * condition + 8 * offset, scale=1.0)
            assert chunks.fit(x, **options).transform(x).tolist() == a.tolist()


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_inputs_and_layouts(estimator, engine, dtype, rng):
    x = (5 + rng.standard_normal((60, 4)) @ rng.standard_normal((4, 4))).astype(dtype)
    x.flags.writeable = False
    y = clone(estimator).fit(x).transform(x)
    assert y.dtype == dtype
    for other in (np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x[::-1].copy()[::-1]):
        other.flags.writeable = False
        agree(clone(estimator).fit(other).transform(other), y, "layout", units=8 if dtype == np.float32 else 1e4, scale=1.0)
    twin = pickle.loads(pickle.dumps(clone(estimator).fit(x)))
    assert twin.transform(x).tolist() == y.tolist()
    assert clone(estimator).fit_transform(x).tolist() == y.tolist()
    whole = clone(estimator).fit(np.arange(12).reshape(6, 2)).transform(np.arange(12).reshape(6, 2))
    assert whole.dtype == np.float64


@pytest.mark.parametrize("make", [Standardizer, MinMaxScaler])
def test_in_place(make, engine, dtype, rng):
    x = rng.standard_normal((50, 3)).astype(dtype)
    estimator = make(copy=False).fit(x)
    expected, before = make().fit(x).transform(x), x.copy()
    assert estimator.transform(x) is x
    assert x.tolist() == expected.tolist()
    assert estimator.inverse_transform(x) is x
    agree(x, before, "there and back", units=8)


@pytest.mark.parametrize("function", [standardize, minmax_scale])
def test_out(function, engine, dtype, rng):
    x = rng.standard_normal((50, 3)).astype(dtype)
    y = function(x)
    out = np.empty((3, 50), dtype).T
    assert function(x, out=out) is out
    assert out.tolist() == y.tolist()
    memory = rng.standard_normal((100_001, 3)).astype(dtype)  # more than a block
    expected = function(memory[:-1])
    function(memory[:-1], out=memory[1:])
    assert np.array_equal(memory[1:], expected)
    assert function(x, out=x) is x
    assert x.tolist() == y.tolist()
    assert function(np.empty((0, 3), dtype)).shape == (0, 3)


def test_data_frames_and_pipelines(rng):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(rng.standard_normal((80, 3)) * [1, 1e5, 1e-5] + [0, 1e6, 1], columns=["a", "b", "c"])
    label = (frame["a"] + (frame["b"] - 1e6) / 1e5 > 0).to_numpy()
    for estimator in ALL:
        estimator = clone(estimator).set_output(transform="pandas")
        y = estimator.fit_transform(frame)
        kept = not isinstance(estimator, Whitener) or estimator.method == "zca"
        assert list(estimator.feature_names_in_) == ["a", "b", "c"]
        assert list(y.columns) == (["a", "b", "c"] if kept else [f"whitener{j}" for j in range(y.shape[1])])
        with pytest.raises(ValueError, match="feature names"):
            estimator.transform(frame[["b", "a", "c"]])
        model = make_pipeline(clone(estimator), LogisticRegression()).fit(frame, label)
        if isinstance(estimator, Whitener) and estimator.shrinkage == 0 and estimator.n_components is None:
            assert model.score(frame, label) > 0.9
    weights = rng.uniform(0, 2, 80)
    model = make_pipeline(Standardizer(), LogisticRegression()).fit(frame, label, standardizer__sample_weight=weights)
    agree(model[0].mean_, np.average(frame, axis=0, weights=weights), "weighted mean", units=4)


X = np.arange(12.0).reshape(6, 2)


class Sparse:
    def toarray(self):
        return X


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: standardize(Sparse()), TypeError, "x is a sparse Sparse, which would fill up: give x.toarray()"),
        (lambda: whiten(Sparse()), TypeError, "x is a sparse Sparse"),
        (lambda: minmax_scale(X * 1j), TypeError, "got complex128"),
        (lambda: minmax_scale(X, feature_range=(1, 1)), ValueError, r"feature_range must be two numbers in ascending order, got \(1, 1\)"),
        (lambda: MinMaxScaler((1, 0)).fit(X), ValueError, "ascending order"),
        (lambda: minmax_scale(X, axis=2), ValueError, "axis 2 is out of bounds"),
        (lambda: standardize(X, out=X.T), ValueError, r"out has shape \(2, 6\)"),
        (lambda: whiten(X[0]), ValueError, "samples in rows"),
        (lambda: whiten(np.where(X == 3, np.nan, X)), ValueError, "x has NaN in 1 of the rows from 0 on"),
        (lambda: whiten(np.where(X == 3, np.inf, X)), ValueError, "the covariance is not finite: x has infinities"),
        (lambda: whiten(X * 1e300), ValueError, "squares overflow; standardize it first"),
        (lambda: whiten(X[:0]), ValueError, "0 samples have no covariance"),
        (lambda: whiten(X, method="lu"), ValueError, "method must be one of zca, pca, cholesky, got 'lu'"),
        (lambda: whiten(X, n_components=3), ValueError, "n_components must be a number from 1 to 2, that of the features, or None, got 3"),
        (lambda: whiten(X, shrinkage=1.5), ValueError, 'shrinkage must be a number from 0 to 1 or "oas", got 1.5'),
        (lambda: whiten(X, shrinkage="auto"), ValueError, "got 'auto'"),
        (lambda: whiten(X, eps=-1), ValueError, "eps must be a finite number of 0 or more"),
        (lambda: Standardizer().fit(X, sample_weight=np.zeros(6)), ValueError, "sample_weight is zero everywhere"),
        (lambda: Whitener().fit(X, sample_weight=-np.ones(6)), ValueError, "weights must be finite and 0 or more"),
        (lambda: Whitener("pca", n_components=1).fit(X).inverse_transform(X), ValueError, r"\(6, 2\): it must be \(n_samples, 1\)"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_sparse_matrices_raise(estimator):
    sparse = pytest.importorskip("scipy.sparse")
    for x in (sparse.csr_matrix(X), sparse.coo_array(X)):
        with pytest.raises(TypeError, match=r"[Ss]parse data was passed"):
            clone(estimator).fit(x)
        with pytest.raises(TypeError, match=r"[Ss]parse data was passed"):
            clone(estimator).fit(X).transform(x)


def test_without_scikit_learn_and_scipy():
    code = """
import sys
sys.modules["sklearn"] = sys.modules["scipy"] = None
import numpy as np
from normfast.preprocessing import MinMaxScaler, Standardizer, Whitener, minmax_scale, standardize, whiten
x = np.random.default_rng(0).standard_normal((50, 3)) @ [[1, 2, 3], [0, 1, 4], [0, 0, 1]]
for estimator, f in ((Standardizer(), standardize), (MinMaxScaler(), minmax_scale), (Whitener("pca"), lambda x: whiten(x, method="pca"))):
    y = estimator.fit_transform(x)
    assert np.abs(y - f(x)).max() < 1e-12
    assert np.abs(estimator.inverse_transform(y) - x).max() < 1e-12
    assert len(estimator.get_feature_names_out()) == 3
    copy = type(estimator)().set_params(**estimator.get_params())
    assert np.abs(copy.partial_fit(x[:20]).partial_fit(x[20:]).transform(x) - y).max() < 1e-12
def error(call):
    try:
        call()
    except (TypeError, ValueError) as e:
        return str(e)
print(error(lambda: Standardizer().transform(x)))
print(error(lambda: Standardizer().fit(x).transform(x[:, :2])))
print(error(lambda: Standardizer().fit(x[0])))
print(error(lambda: Whitener().fit(x * np.nan)))
print(error(lambda: Whitener().set_params(shape=3)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "this Standardizer has learned nothing yet: call fit or partial_fit first",
        "x has 2 features, but Standardizer has learned 3",
        "x has shape (3,): it must be (n_samples, n_features) with one or more of each",
        "x has NaN or infinity: take them out first",
        "Whitener has no parameters ['shape']: it has ['ddof', 'eps', 'method', 'n_components', 'shrinkage']",
    ]


def test_the_namespace():
    import normfast.preprocessing as preprocessing

    for name in preprocessing.__all__:
        assert ">>>" in getattr(preprocessing, name).__doc__, name

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

import normfast as nf
from normfast.preprocessing import MinMaxScaler, Standardizer, Whitener, minmax_scale, standardize, whiten

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
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


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_come_out_as_frames(library, rng):
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    x = rng.standard_normal((20, 3)) @ rng.standard_normal((3, 3))
    frame = module.DataFrame(dict(zip("abc", x.T.copy(), strict=True)))
    if library == "pandas":
        frame.index = module.Index([f"row{i}" for i in range(20)][::-1], name="key")
    for estimator in ALL:
        plain = clone(estimator).fit(x)
        framed = clone(estimator).set_output(transform=library).fit(frame)
        y = framed.transform(frame)
        assert type(y) is module.DataFrame
        assert list(y.columns) == list(framed.get_feature_names_out())
        agree(y.to_numpy(), plain.transform(x), "frame", units=1e4, scale=1.0)  # whose columns may lie apart
        assert type(framed.inverse_transform(y)) is np.ndarray  # as in scikit-learn
        if library == "pandas":
            assert y.index.equals(frame.index)
            assert y.index.name == "key"
        assert type(clone(framed).fit_transform(frame)) is module.DataFrame


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_unions_and_searches(library, rng):
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    frame = module.DataFrame(dict(zip("abcd", rng.standard_normal((4, 600)) + 1e3, strict=True)))
    label = frame["a"].to_numpy() > 1e3
    split = make_column_transformer((Standardizer(), ["a", "b"]), (MinMaxScaler(), ["c"]), (Whitener("pca"), ["b", "d"]), remainder="drop")
    y = split.set_output(transform=library).fit_transform(frame)
    names = ["standardizer__a", "standardizer__b", "minmaxscaler__c", "whitener__whitener0", "whitener__whitener1"]
    assert (type(y), list(y.columns)) == (module.DataFrame, names)
    agree(y.to_numpy()[:, 2:3], minmax_scale(frame.to_numpy()[:, 2:3]), "column", units=1)
    y = make_union(Standardizer(), Whitener("zca")).set_output(transform=library).fit_transform(frame)
    assert list(y.columns) == [*(f"standardizer__{name}" for name in "abcd"), *(f"whitener__{name}" for name in "abcd")]
    model = make_pipeline(Standardizer(), Whitener("pca"), LogisticRegression())
    search = GridSearchCV(model, {"whitener__n_components": [1, 4], "standardizer__ddof": [0, 1]}, cv=3).fit(frame, label)
    assert search.best_params_["whitener__n_components"] == 4
    assert search.best_score_ > 0.9


@pytest.mark.parametrize("dtype", ["Float64", "Float32", "Int64", "double[pyarrow]", "int64[pyarrow]", "float64"])
@pytest.mark.parametrize("columns", [1, 3])
def test_missing_values_of_frames_are_nan(dtype, columns, rng):
    """They take no part and stay, whatever the dtype that allows them."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    x = rng.integers(0, 9, (20, columns)).astype(np.float64)
    holes = x.copy()
    holes[3, 0] = np.nan
    for values in (x, holes):
        series = {f"c{j}": pandas.array([None if np.isnan(v) else v for v in values[:, j]], dtype=dtype) for j in range(columns)}
        frame = pandas.DataFrame(series)
        expected = standardize(values)
        for y in (standardize(frame), standardize(frame["c0"]), Standardizer().fit_transform(frame)):
            shown = expected if y.ndim == 2 else expected[:, 0]
            assert np.allclose(y, shown, rtol=1e-6 if y.dtype == np.float32 else 1e-13, atol=1e-6, equal_nan=True)
        assert standardize(frame).dtype == (np.float32 if dtype == "Float32" else np.float64)
        assert np.allclose(nf.moments(frame, 0, nan_policy="omit").mean, np.nanmean(values, axis=0))
        if np.isnan(values).any():
            with pytest.raises(ValueError, match="contains NaN"):
                Whitener().fit(frame)
    words = pandas.DataFrame({"a": ["1", "2"], "b": pandas.array([1, 2], dtype="Int64")})
    with pytest.raises(TypeError, match="got dtype object"):
        standardize(words)


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
class Lent:  # an array of another library
    def __init__(self, array):
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__
class Frame:
    columns = ["a", "b", "c"]
    def __init__(self, array, columns=columns):
        self.array, self.columns = array, columns
    def __array__(self, dtype=None, copy=None):
        return self.array
for make in (Standardizer, MinMaxScaler, Whitener):
    y = make().fit_transform(x)
    assert make().fit_transform(Lent(x)).tolist() == y.tolist()
    framed = make().fit(Frame(x))
    assert framed.transform(Frame(x)).tolist() == framed.transform(x).tolist() == y.tolist()
    assert list(framed.feature_names_in_) == list(framed.get_feature_names_out()) == ["a", "b", "c"]
    assert not hasattr(framed.fit(x), "feature_names_in_")
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
print(error(lambda: Standardizer().fit(Frame(x)).transform(Frame(x, ["a", "c", "b"]))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "this Standardizer has learned nothing yet: call fit or partial_fit first",
        "x has 2 features, but Standardizer has learned 3",
        "x has shape (3,): it must be (n_samples, n_features) with one or more of each",
        "x has NaN or infinity: take them out first",
        "Whitener has no parameters ['shape']: it has ['ddof', 'eps', 'method', 'n_components', 'shrinkage']",
        "x has the feature names ['a', 'c', 'b'], but Standardizer has learned ['a', 'b', 'c']",
    ]


def test_the_namespace():
    import normfast.preprocessing as preprocessing

    for name in preprocessing.__all__:
        assert ">>>" in getattr(preprocessing, name).__doc__, name

"""The bridge to Dask: its results beside NumPy's on random chunkings, their bits, laziness, extremes and errors."""

import subprocess
import sys

import numpy as np
import pytest
from oracle import agree

pytest.importorskip("dask.array", reason="Dask is not installed")
import dask
import dask.array as da
from chunked import Source, case, chunked, precision

import normfast as nf
import normfast.dask as nfd
from normfast.preprocessing import minmax_scale, standardize, whiten

CHUNKINGS = 50


def parameters(x, axes, rng):
    return rng.standard_normal((2, *(x.shape[axis] for axis in axes))).astype(np.float32 if x.dtype == np.float16 else x.dtype)


def both(name, x, lazy, axes, rng):
    """What nf gives for the array and nfd for its chunks, as arrays side by side."""
    weight, bias = parameters(x, axes, rng)
    if name == "moments":
        a, b = nf.moments(x, axes), nfd.moments(lazy, axes).compute()
        assert (b.count, type(b.count)) == (a.count, int)
        return (a.mean, a.std()), (b.mean, b.std())
    if name in ("standardize", "minmax_scale"):
        return (globals()[name](x, axis=axes),), (getattr(nfd, name)(lazy, axis=axes),)
    if name == "dropout":
        options = {"p": 0.3, "rng": 7, "axis": axes if rng.random() < 0.5 else None, "offset": int(rng.integers(1000))}
        return (nf.dropout(x, **options),), (nfd.dropout(lazy, **options),)
    if name == "layer_norm":
        return (nf.layer_norm(x, weight, bias, axis=axes),), (nfd.layer_norm(lazy, weight, bias, axis=axes),)
    if name == "rms_norm":
        return (nf.rms_norm(x, weight, axis=axes),), (nfd.rms_norm(lazy, weight, axis=axes),)
    options = {"weight": weight, "bias": bias, "axis": axes, "activation": rng.choice([None, "relu"])}
    y, stats = nf.batch_norm_forward(x, **options)
    if name == "batch_norm":
        return (nf.batch_norm(x, stats.mean, stats.var, **options),), (nfd.batch_norm(lazy, stats.mean, stats.var, **options),)
    own_y, own = dask.compute(*nfd.batch_norm_forward(lazy, **options))
    assert own.count == stats.count
    return (y, *stats[:3]), (own_y, *own[:3])


def same(a, b):
    """Whether two arrays, of which one or both are Dask's, are equal."""
    a, b = dask.compute(a, b)
    return a.dtype == b.dtype and np.array_equal(a, b)


EXACT = ("batch_norm", "dropout", "minmax_scale")


@pytest.mark.parametrize("name", ["moments", "standardize", "layer_norm", "rms_norm", "batch_norm_forward", *EXACT])
def test_chunks_are_the_whole(name, rng):
    for _ in range(CHUNKINGS):
        x, lazy, axes = case(rng)
        expected, found = both(name, x, lazy, axes, rng)
        rest = axes if name != "batch_norm_forward" else tuple(axis for axis in range(x.ndim) if axis not in axes)
        for a, b in zip(expected, found, strict=True):
            assert (b.shape, b.dtype) == (a.shape, a.dtype)
            if isinstance(b, da.Array):
                assert b.chunks == lazy.chunks
                b = b.compute()
                assert (b.shape, b.dtype, type(b)) == (a.shape, a.dtype, np.ndarray)
            if name in EXACT:
                assert np.array_equal(a, b), (name, x.shape, lazy.chunks, axes)
            else:
                wide = x.dtype == np.float64 or name == "moments"
                units = precision(x, rest) if wide else 16 * (2**29 if a.dtype == np.float64 else 1)  # float64 statistics of float32 sums
                agree(b, a, f"{name} {lazy.chunks} along {axes}", units=units, scale=max(1.0, np.abs(a).max()))


def test_covariance_and_whitening(rng):
    for _ in range(CHUNKINGS):
        n, d, offset = int(rng.integers(10, 80)), int(rng.integers(1, 6)), rng.choice([0.0, 1e4])
        x = (offset + rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))).astype(rng.choice(["f4", "f8"]))
        lazy = chunked(x, rng)
        a, b = nf.covariance(x), nfd.covariance(lazy).compute()
        assert (b.count, type(b.count)) == (n, int)
        agree(b.mean, a.mean, "mean", units=8, scale=1.0 + offset)
        agree(b.cov(1), a.cov(1), "covariance", units=64)
        agree(nfd.covariance(lazy).cov(1).compute(), a.cov(1), "lazy covariance", units=64)
        condition = np.linalg.cond(np.atleast_2d(a.cov()))
        for options in ({"method": "zca"}, {"method": "pca"}, {"method": "cholesky", "n_components": 1}, {"shrinkage": "oas", "ddof": 1}):
            y, expected = nfd.whiten(lazy, **options), whiten(x, **options)
            assert y.dtype == x.dtype
            assert np.isnan(y.shape[1]) == (options.get("method", "zca") != "zca")
            agree(y.compute(), expected, f"{options} {lazy.chunks}", units=1024 * condition + 64 * offset, scale=1.0)


def tree(x, lazy, axes):
    """The documented order: blocks merged along the last reduced axis first."""
    cuts = [np.cumsum((0, *sizes)) for sizes in lazy.chunks]

    def merged(place, rest):
        if not rest:
            block = x[tuple(slice(cut[i], cut[i + 1]) for cut, i in zip(cuts, place, strict=True))]
            return nf.moments(block.copy(), axes)
        axis, *rest = rest
        return nf.Moments.merge([merged((*place[:axis], i, *place[axis + 1 :]), rest) for i in range(lazy.numblocks[axis])])

    kept = [axis for axis in range(x.ndim) if axis not in axes]
    mean, m2 = (np.empty([x.shape[axis] for axis in kept]) for _ in range(2))
    for place in np.ndindex(*[lazy.numblocks[axis] for axis in kept]):
        start = [0] * x.ndim
        for axis, i in zip(kept, place, strict=True):
            start[axis] = i
        m = merged(tuple(start), axes)
        own = tuple(slice(cuts[axis][i], cuts[axis][i + 1]) for axis, i in zip(kept, place, strict=True))
        mean[own], m2[own] = m.mean, m.m2
    return mean.tobytes(), m2.tobytes()


def bits(m):
    return m.mean.tobytes(), m.m2.tobytes()


def test_bits_of_the_documented_tree(rng):
    for _ in range(CHUNKINGS):
        x, lazy, axes = case(rng)
        assert bits(nfd.moments(lazy, axes).compute()) == tree(x, lazy, axes)
    values = rng.normal(5, 1, 5000)  # four levels of the tree, each with a rest
    lazy = da.from_array(values, chunks=3)
    merged = nf.Moments.merge([nf.moments(values[i : i + 3], 0) for i in range(0, 5000, 3)])
    assert nfd.moments(lazy).compute().to_bytes() == merged.to_bytes()
    rows = values.reshape(-1, 4)
    merged = nf.Covariance.merge([nf.covariance(rows[i : i + 7]) for i in range(0, len(rows), 7)])
    assert nfd.covariance(da.from_array(rows, chunks=(7, 3))).compute().to_bytes() == merged.to_bytes()


def test_masks_weights_and_nan(rng):
    for _ in range(CHUNKINGS):
        x = rng.standard_normal((30, 4))
        x[rng.random(x.shape) < 0.1] = np.nan
        lazy = chunked(x, rng)
        weights, where = rng.random(30), rng.random(x.shape) < 0.5
        for options in ({"where": where}, {"where": where[:, :1]}, {"weights": weights}, {"where": where[0], "weights": weights}, {}):
            policy = rng.choice(["propagate", "omit"])
            a = nf.moments(x, 0, nan_policy=policy, **options)
            m = nfd.moments(lazy, 0, nan_policy=policy, **options)
            b = m.compute()
            assert np.array_equal(np.isnan(a.mean), np.isnan(b.mean))
            assert type(b.count) is type(a.count)
            assert np.asarray(b.count).dtype == np.asarray(a.count).dtype
            for field in ("count", "mean", "m2"):
                ours, theirs = (np.nan_to_num(np.asarray(getattr(v, field), float)) for v in (b, a))
                agree(ours, theirs, field, units=64, scale=30.0)
            as_dask = {name: chunked(values, rng) for name, values in options.items()}
            assert bits(nfd.moments(lazy, 0, nan_policy=policy, **as_dask).compute()) == bits(b)
    with pytest.raises(ValueError, match="x holds a NaN"):
        nfd.moments(da.from_array(np.array([1.0, np.nan]), chunks=1), nan_policy="raise").compute()


@pytest.mark.parametrize(
    "column",
    [
        [1e300, -1e300, 3e299, 7e300],
        [1.7e308, -1.7e308, 1e308, 0.0],
        [1e200, 1e200, -1e200, -1e200],  # each block a constant
        [1e160, 1e160, 1e-160, 1e-160],
        [1e-200, 3e-200, -1e-200, 5e-200],
        [3.3, 3.3, 3.3, 3.3],
        [1e308] * 4,
        [1e-300, 1e-300, 0.0, 0.0],
        [np.nan, 1.0, 2.0, np.nan],
        [np.nan] * 4,
        [0.0, np.inf, 1.0, 2.0],
    ],
    ids=str,
)
def test_extreme_columns(column):
    """What standardize and the norms of NumPy arrays survive."""
    x = np.array([column, [1.0, 2.0, 3.0, 5.0]]).T
    for chunks in ((1, 1), (2, 2), (3, 1), (4, 2)):
        lazy = da.from_array(x, chunks=chunks)
        pairs = [(nfd.standardize(lazy), standardize(x)), (nfd.minmax_scale(lazy), minmax_scale(x))]
        for eps in (0.0, 1e-5):
            pairs.append((nfd.layer_norm(lazy, axis=0, eps=eps), nf.layer_norm(x, axis=0, eps=eps)))
            pairs.append((nfd.rms_norm(lazy, axis=0, eps=eps), nf.rms_norm(x, axis=0, eps=eps)))
            pairs.append((nfd.batch_norm_forward(lazy, eps=eps)[0], nf.batch_norm_forward(x, eps=eps)[0]))
        with np.errstate(all="ignore"):
            for y, expected in pairs:
                y = y.compute()
                assert np.array_equal(np.isnan(y), np.isnan(expected)), (y, expected)
                agree(np.nan_to_num(y), np.nan_to_num(expected), f"{column} {chunks}", units=8)


@pytest.mark.parametrize(("shape", "axis"), [((0, 3), 0), ((3, 0), 0), ((3, 0), 1), ((0,), None), ((), None), ((1,), 0), ((2, 3), ())])
def test_small_and_empty_arrays(shape, axis):
    x = np.ones(shape)
    for lazy in (da.from_array(x), da.from_array(x, chunks=1)):
        assert nfd.moments(lazy, axis).compute().to_bytes() == nf.moments(x, axis).to_bytes()
        assert same(nfd.standardize(lazy, axis=axis), standardize(x, axis=axis))
        assert nfd.minmax_scale(lazy, axis=axis).compute().tolist() == np.zeros(shape).tolist()
        assert same(nfd.dropout(lazy, rng=0), nf.dropout(x, rng=0))
        for f, g in ((nfd.layer_norm, nf.layer_norm), (nfd.rms_norm, nf.rms_norm)):
            if axis not in (None, ()):
                assert same(f(lazy, axis=axis), g(x, axis=axis))


def test_integers_and_byte_order(rng):
    x = rng.integers(-100, 100, (20, 3))
    lazy = da.from_array(x, chunks=(6, 2))
    assert nfd.standardize(lazy).dtype == np.float64
    agree(nfd.standardize(lazy).compute(), standardize(x), "integers", units=16)
    agree(nfd.moments(lazy, 0).compute().mean, x.mean(axis=0), "mean", units=4)
    swapped = da.from_array(x.astype(">f8") * 1e200, chunks=(6, 2))
    y = nfd.standardize(swapped)
    assert y.dtype == y.compute().dtype == np.dtype(float)
    agree(y.compute(), standardize(x), "byte order", units=64)
    assert same(nfd.dropout(swapped, rng=1), nf.dropout(x * 1e200, rng=1))
    bfloat16 = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16
    small = da.from_array(x.astype(bfloat16), chunks=(6, 2))
    for f, g in ((nfd.layer_norm, nf.layer_norm), (nfd.standardize, standardize)):
        y = f(small).compute()
        assert y.dtype == bfloat16
        agree(y.astype(float), g(x.astype(bfloat16)).astype(float), "bfloat16", units=2**52 * 2.0**-6)


def test_unknown_sizes(rng):
    x = rng.normal(3, 2, (60, 6))
    lazy = da.from_array(x, chunks=(9, 4))
    lazy, x = lazy[lazy[:, 0] > 2], x[x[:, 0] > 2]
    assert np.isnan(lazy.shape[0])
    assert nfd.moments(lazy).compute().count == x.size
    m = nfd.moments(lazy, 0, where=lazy > 1).compute()
    agree(m.mean, nf.moments(x, 0, where=x > 1).mean, "masked", units=8)
    assert nfd.covariance(lazy).compute().count == len(x)
    for found, expected in (
        (nfd.standardize(lazy), standardize(x)),
        (nfd.minmax_scale(lazy), minmax_scale(x)),
        (nfd.whiten(lazy), whiten(x)),
        (nfd.layer_norm(lazy), nf.layer_norm(x)),
        (nfd.layer_norm(lazy, axis=0), nf.layer_norm(x, axis=0)),
        (nfd.batch_norm(lazy, x[0], x[0] ** 2), nf.batch_norm(x, x[0], x[0] ** 2)),
    ):
        agree(found.compute(), expected, "unknown sizes", units=256)
    y, stats = dask.compute(*nfd.batch_norm_forward(lazy))
    agree(y, nf.batch_norm_forward(x)[0], "batch norm", units=16)
    assert stats.count.tolist() == [len(x)] * 6
    with pytest.raises(ValueError, match=r"chunks of unknown size.*call x.compute_chunk_sizes\(\) first"):
        nfd.dropout(lazy)


CALLS = {
    "moments": lambda x: nfd.moments(x, axis=0),
    "covariance": nfd.covariance,
    "standardize": nfd.standardize,
    "minmax_scale": nfd.minmax_scale,
    "whiten": nfd.whiten,
    "layer_norm": nfd.layer_norm,
    "layer_norm along blocks": lambda x: nfd.layer_norm(x, axis=0),
    "rms_norm along blocks": lambda x: nfd.rms_norm(x, axis=0),
    "batch_norm": lambda x: nfd.batch_norm(x, np.zeros(x.shape[1]), np.ones(x.shape[1])),
    "batch_norm_forward": lambda x: nfd.batch_norm_forward(x)[0],
    "dropout": lambda x: nfd.dropout(x, rng=3),
}
TWICE = ("standardize", "minmax_scale", "whiten", "layer_norm along blocks", "rms_norm along blocks", "batch_norm_forward")


@pytest.mark.parametrize("name", CALLS)
def test_laziness(name, rng):
    """Nothing is read before it is computed, then each block once for the statistics and once for the result, and none waits in memory."""
    source = Source(rng.standard_normal((256, 6)))
    lazy = source.chunked((4, 6))
    result = CALLS[name](lazy)
    assert source.reads == {}
    with dask.config.set(scheduler="synchronous"):
        result.compute()
        assert len(source.reads) == 64
        assert set(source.reads.values()) == {2 if name in TWICE else 1}
        assert source.most <= 4
        if name in ("standardize", "whiten"):
            source.reads.clear()
            getattr(nfd, name)(lazy, reread=False).compute()
            assert set(source.reads.values()) == {1}
            assert source.most == 64
    tokens = [dask.base.tokenize(CALLS[name](lazy)) for _ in range(2)]
    assert tokens[0] == tokens[1]
    assert dask.base.tokenize(CALLS[name](lazy + 1)) != tokens[0]


@pytest.mark.parametrize("name", CALLS)
def test_graphs_grow_with_the_blocks(name):
    x = np.zeros((2048, 2))
    sizes = [len(dict(CALLS[name](da.from_array(x, chunks=(n, 2))).__dask_graph__())) for n in (32, 4)]  # 64 and 512 blocks
    assert sizes[1] < 8.5 * sizes[0]
    assert sizes[1] < 10 * 512


def test_options_make_names():
    x = da.ones((8, 4), chunks=2)
    results = [
        nfd.standardize(x), nfd.standardize(x, ddof=1), nfd.standardize(x, axis=1), nfd.standardize(x, reread=False), nfd.minmax_scale(x),
        nfd.minmax_scale(x, feature_range=(-1, 1)), nfd.dropout(x, rng=1), nfd.dropout(x, rng=2), nfd.dropout(x, 0.2, rng=1),
        nfd.dropout(x, rng=1, axis=0), nfd.dropout(x, rng=1, offset=1), nfd.dropout(x), nfd.dropout(x), nfd.layer_norm(x),
        nfd.layer_norm(x, eps=1.0), nfd.rms_norm(x), nfd.whiten(x), nfd.whiten(x, method="pca"),
    ]  # fmt: skip
    assert len({result.name for result in results}) == len(results)


def test_lazy_moments(rng):
    x = rng.standard_normal((50, 4))
    lazy = da.from_array(x, chunks=(7, 3))
    m, whole = nfd.moments(lazy, axis=0), nf.moments(x, 0)
    assert repr(m) == "LazyMoments(shape=(4,))"
    assert dask.is_dask_collection(m)
    for values in (m.count, m.mean, m.m2, m.var(1), m.std(1)):
        assert isinstance(values, da.Array)
        assert (values.shape, values.dtype) == ((4,), np.float64)
    agree(m.var(1).compute(), whole.var(1), "var", units=16)
    agree(m.std().compute(), whole.std(), "std", units=16)
    assert m.var(50).compute().tolist() == [np.inf] * 4
    agree(((lazy - m.mean) / m.std()).compute(), standardize(x), "in a graph", units=64)
    both = (m + nfd.moments(lazy[:20], axis=0)).compute()
    assert (both.count, type(both.count)) == (70, int)
    assert bits(both) == bits(m.compute() + nfd.moments(lazy[:20], axis=0).compute())
    kept = m.persist()
    assert type(kept) is nfd.LazyMoments
    assert len(dict(kept.__dask_graph__())) == 2
    assert bits(kept.compute()) == bits(m.compute())
    together = dask.compute(m, {"y": nfd.standardize(lazy)}, nfd.covariance(lazy))
    assert [type(v) for v in together] == [nf.Moments, dict, nf.Covariance]
    assert float(dask.delayed(lambda m: m.std()[0])(m).compute()) == m.std().compute()[0]
    c = nfd.covariance(lazy)
    assert repr(c) == "LazyCovariance(features=4)"
    agree(c.mean.compute(), whole.mean, "mean", units=8)
    assert (int(c.count.compute()), c.m2.shape) == (50, (4, 4))
    with pytest.raises(ValueError, match=r"shape \(4,\) and \(\) do not merge"):
        m + nfd.moments(lazy)
    with pytest.raises(TypeError):
        m + whole


def test_keys_of_dropout(rng):
    """By SPEC 7, drawn when the graph is built."""
    x = np.ones((40, 30))
    lazy = da.from_array(x, chunks=(11, 7))
    theirs, ours = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(2):  # a Generator advances once for each call, whatever the chunks
        y = nfd.dropout(lazy, rng=ours)
        assert same(y, nf.dropout(x, rng=theirs))
        assert same(y, y)
    sequence = np.random.SeedSequence(9)
    assert same(nfd.dropout(lazy, rng=sequence), nf.dropout(x, rng=sequence))
    assert not same(nfd.dropout(lazy), nfd.dropout(lazy))
    assert same(nfd.dropout(lazy, p=0.0), x)
    assert not nfd.dropout(lazy * np.inf, p=1.0).compute().any()
    assert same(nfd.dropout(lazy[:, ::-1].T, rng=1), nf.dropout(x.T, rng=1))


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((3, 200_000), (2, 60_000)),
        ((200, 6000), (50, 50)),
        ((7, 5, 3, 11), (3, 2, 2, 4)),
        ((30, 40, 50), (7, 40, 50)),
        ((5, 2000, 9), (2, 300, 9)),
    ],
)
def test_masks_of_long_and_short_runs(shape, chunks, rng):
    """Each way to draw: run by run, whole rows of which columns are picked, one run."""
    x = rng.standard_normal(shape).astype(np.float32)
    lazy = da.from_array(x, chunks=chunks)
    for options in ({}, {"offset": 2**40 + 13}, {"axis": 0}, {"axis": -1, "offset": 5}, {"axis": (0, -1)}):
        assert same(nfd.dropout(lazy, 0.4, rng=3, **options), nf.dropout(x, 0.4, rng=3, **options)), options
    halves = nfd.dropout(lazy.astype(np.float16), 0.4, rng=3)
    assert same(halves, nf.dropout(x.astype(np.float16), 0.4, rng=3))


def test_another_engine(rng):
    """A task takes the engine of its process."""
    x = rng.standard_normal((30, 8)).astype(np.float32)
    lazy = da.from_array(x, chunks=(7, 3))
    with nf.use_engine("numpy"), dask.config.set(scheduler="synchronous"):
        assert same(nfd.dropout(lazy, rng=1), nf.dropout(x, rng=1))
        for found, expected in ((nfd.standardize(lazy), standardize(x)), (nfd.layer_norm(lazy), nf.layer_norm(x))):
            agree(found.compute(), expected, "numpy", units=16)


X = da.ones((6, 4), chunks=(3, 2))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nfd.moments(np.ones(3)), TypeError, "x must be a Dask array, got ndarray: dask.array.from_array makes one"),
        (lambda: nfd.dropout([1.0]), TypeError, "x must be a Dask array, got list"),
        (lambda: nfd.moments(X.astype(complex)), TypeError, "x must be real, got complex128"),
        (lambda: nfd.moments(X.astype(object)), TypeError, "got dtype object"),
        (lambda: nfd.standardize(X.map_blocks(np.ma.masked_equal, 1.0)), TypeError, "x is a masked array, whose mask would be lost"),
        (lambda: nfd.moments(X, 2), ValueError, "axis 2 is out of bounds"),
        (lambda: nfd.moments(X, "rows"), TypeError, "axis must be an integer or a tuple of integers"),
        (lambda: nfd.moments(X, nan_policy="skip"), ValueError, "nan_policy must be one of propagate, omit, raise"),
        (lambda: nfd.moments(X, where=np.ones((6, 4))), TypeError, "where must be boolean"),
        (lambda: nfd.moments(X, where=np.ones((5, 4), bool)), ValueError, r"where has shape \(5, 4\), which does not broadcast to"),
        (lambda: nfd.moments(X, weights=np.ones(6)), ValueError, "weights belong to one axis, and axis names 2"),
        (lambda: nfd.moments(X, 0, weights=np.ones(4)), ValueError, r"weights has shape \(4,\): axis 0 of x needs \(6,\)"),
        (lambda: nfd.moments(X, 0, weights=-np.ones(6)).compute(), ValueError, "weights must be finite and 0 or more"),
        (lambda: nfd.covariance(X[0]), ValueError, r"x has shape \(0,\): it must be \(n, d\), samples in rows"),
        (lambda: nfd.covariance(X, weights=np.ones(4)), ValueError, r"weights has shape \(4,\): x with 6 rows needs \(6,\)"),
        (lambda: nfd.covariance(X, where=np.ones(6)), TypeError, "where must be an array of bool"),
        (lambda: nfd.standardize(X.astype(complex)), TypeError, "got complex128"),
        (lambda: nfd.standardize(X, axis=2), ValueError, "axis 2 is out of bounds"),
        (lambda: nfd.minmax_scale(X, feature_range=(1, 0)), ValueError, "ascending order"),
        (lambda: nfd.whiten(X, method="lu"), ValueError, "method must be one of zca, pca, cholesky, got 'lu'"),
        (lambda: nfd.whiten(X, n_components=5), ValueError, "n_components must be a number from 1 to 4"),
        (lambda: nfd.whiten(X, shrinkage=2.0).compute(), ValueError, "shrinkage must be a number from 0 to 1"),
        (lambda: nfd.whiten(X * np.nan).compute(), ValueError, "x has NaN in 3 of the rows"),
        (lambda: nfd.whiten(X[:, X[0] > 0]), ValueError, "unknown number of features"),
        (lambda: nfd.layer_norm(X.astype(int)), TypeError, "x must be float16, bfloat16, float32 or float64, got int64"),
        (lambda: nfd.layer_norm(X, np.ones(3)), ValueError, r"weight has shape \(3,\): an x of shape \(6, 4\) needs \(4,\)"),
        (lambda: nfd.layer_norm(X, eps=-1), ValueError, "eps must be a finite number of 0 or more"),
        (lambda: nfd.rms_norm(X, axis=(0, 0)), ValueError, "repeated axis"),
        (lambda: nfd.batch_norm(X, np.ones(4), np.ones(3)), ValueError, r"var has shape \(3,\)"),
        (lambda: nfd.batch_norm(X, None, np.ones(4)), TypeError, "mean"),
        (lambda: nfd.batch_norm(X, np.ones(4), -np.ones(4)).compute(), ValueError, "var must be 0 or more"),
        (lambda: nfd.batch_norm_forward(X, activation="step"), ValueError, "unknown activation 'step'"),
        (lambda: nfd.dropout(X, 1.5), ValueError, r"p must lie in \[0, 1\], got 1.5"),
        (lambda: nfd.dropout(X, rng="seed"), TypeError, "rng must be None, an integer"),
        (lambda: nfd.dropout(X, offset=-1), ValueError, "offset must be an integer of 0 or more"),
        (lambda: nfd.dropout(X, axis=2), ValueError, "axis 2 is out of bounds"),
        (lambda: nfd.dropout(X.astype(int)), TypeError, "got int64"),
    ],
)  # fmt: skip
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_without_dask():
    code = "import sys; sys.modules['dask'] = None\nimport normfast\ntry:\n    import normfast.dask\nexcept ImportError as e:\n    print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "normfast.dask needs dask: pip install 'normfast[dask]'"
    code = "import sys, normfast.preprocessing; print('dask' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_page():
    """The examples of docs/dask.md."""
    import doctest
    from pathlib import Path

    page = Path(__file__).parents[1] / "docs" / "dask.md"
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (failed, tried > 15) == (0, True)

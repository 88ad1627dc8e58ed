"""The same bits for a row whatever its batch, for values wherever they lie in memory, and for a result wherever it goes.

Each test is a sentence of docs/reproducibility.md.
"""

import numpy as np
import pytest
from profiles import LONG, cases

import normfast as nf

ENGINES = "auto", *(["numba"] if LONG else [])  # NumPy's engine adds up by NumPy, whose order is NumPy's affair
ROWS = [(5, 7), (33, 31), (70, 96), (9, 1000), (7, 1500), (3, 5000), (300, 768), *([(40, 70_000), (2100, 2100)] if LONG else [])]
IMAGES = [(4, 6, 5, 7), (9, 4, 1, 1), (6, 8, 7, 7), (5, 4, 16, 16), (3, 6, 60, 60), *([(7, 64, 56, 56)] if LONG else [])]


@pytest.fixture(params=ENGINES, autouse=True)
def compiled(request):
    if request.param == "numba":
        pytest.importorskip("numba", reason="Numba is not installed")
    with nf.use_engine(request.param):
        if nf.show_config("dicts")["engine"] == "numpy":
            pytest.skip("no compiled engine is installed here")
        yield request.param


@pytest.fixture(params=["float16", "bfloat16", "float32", "float64"])
def kind(request):
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 is the dtype of ml_dtypes")
    return request.param


def of_rows(x, dy, weight, bias):
    """What each row has of its own, of operations along the last axis."""
    found = {}
    y, stats = nf.layer_norm_forward(x, weight, bias)
    found["layer_norm"] = [y, *stats[:3], nf.layer_norm(x, weight, bias), nf.layer_norm_backward(dy, x, stats, weight).dx]
    y, stats = nf.rms_norm_forward(x, weight)
    found["rms_norm"] = [y, *stats[1:3], nf.rms_norm(x, weight), nf.rms_norm_backward(dy, x, stats, weight).dx]
    y, h, stats = nf.add_layer_norm_forward(x, dy, weight, bias)
    found["add_layer_norm"] = [y, h, *stats[:3]]
    for ord in (1, 2, 3, np.inf):
        y, saved = nf.lp_norm_forward(x, ord)
        found[f"lp_norm, ord={ord}"] = [y, saved, nf.lp_norm_backward(dy, x, saved, ord=ord).dx]
    return found


def of_values(x, dy):
    """What each value has of its own: activations, and batch norm by given statistics."""
    mean, var = np.arange(x.shape[1]) / 8, 1 + np.arange(x.shape[1]) / 64
    found = {name: [nf.activation(x, name), nf.activation_backward(dy, x, name)] for name in ("relu", "gelu", "silu", "tanh")}
    found["batch_norm"] = [nf.batch_norm(x, mean, var), nf.batch_norm(x, mean, var, activation="gelu")]
    return found


def of_samples(x):
    """What each image has of its own."""
    groups, channels = nf.group_norm_forward(x, 2), nf.instance_norm_forward(x)
    return {"group_norm": [groups[0], *groups[1][:3]], "instance_norm": [channels[0], *channels[1][:3]]}


def same(found, expected, what, part=slice(None)):
    """Asserts equal bytes; returns how many results there were."""
    for name, results in expected.items():
        for place, (actual, result) in enumerate(zip(found[name], results, strict=True)):
            assert np.asarray(actual).tobytes() == np.asarray(result)[part].tobytes(), f"{name}, result {place}, {what}"
    return sum(map(len, expected.values()))


def data(rng, shape, kind):
    return [(3 + rng.standard_normal(shape)).astype(kind) for _ in range(2)]


def parts(rng, n):
    """Batches of one row, at both ends and within, and of several."""
    yield from (slice(0, 1), slice(n - 1, n), slice(1, 4), slice(0, n - 1))
    for _ in range(cases(2, 50)):
        lo = int(rng.integers(n))
        yield slice(lo, int(rng.integers(lo, n)) + 1)


@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_a_row_does_not_depend_on_its_batch(rng, kind, shape, tried):
    x, dy = data(rng, shape, kind)
    weight, bias = rng.standard_normal((2, shape[1])).astype(kind)
    rows, values, count = of_rows(x, dy, weight, bias), of_values(x, dy), 0
    for part in parts(rng, len(x)):
        count += same(of_rows(x[part], dy[part], weight, bias), rows, part, part) + same(of_values(x[part], dy[part]), values, part, part)
    tried(count)


@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_an_image_does_not_depend_on_its_batch(rng, kind, shape, tried):
    """Where its groups have no more than 65536 values: larger ones are cut by how many there are."""
    x, dy = data(rng, shape, kind)
    images, values, count = of_samples(x), of_values(x, dy), 0
    for part in parts(rng, len(x)):
        count += same(of_samples(x[part]), images, part, part) + same(of_values(x[part], dy[part]), values, part, part)
    tried(count)


def arrangements(x):
    """The same values elsewhere in memory."""
    start = np.empty(x.nbytes + 64, np.uint8)
    for shift in (1, 2, 4, 36):
        moved = start[shift : shift + x.nbytes].view(x.dtype).reshape(x.shape)
        moved[...] = x
        yield f"{shift} bytes on", moved
    yield "every second column", np.repeat(x, 2, axis=1)[:, ::2]
    yield "every second row", np.repeat(x, 2, axis=0)[::2]
    yield "backwards", x[::-1, ::-1].copy()[::-1, ::-1]
    yield "by columns", np.asfortranarray(x)
    if x.dtype.isbuiltin:
        yield "of the other byte order", x.astype(x.dtype.newbyteorder())


@pytest.mark.parametrize("shape", [shape for shape in ROWS if shape[0] * shape[1] < 300_000], ids=str)
def test_values_do_not_depend_on_where_they_lie(rng, kind, shape, tried):
    x, dy = data(rng, shape, kind)
    weight, bias = rng.standard_normal((2, shape[1])).astype(kind)
    rows, values, count = of_rows(x, dy, weight, bias), of_values(x, dy), 0
    drop, mask = nf.dropout_forward(x, 0.3, rng=5)
    for (name, moved), (_, dmoved) in zip(arrangements(x), arrangements(dy), strict=True):
        count += same(of_rows(moved, dmoved, weight, bias), rows, name) + same(of_values(moved, dmoved), values, name)
        again, other = nf.dropout_forward(moved, 0.3, rng=5)
        assert (again == drop).all(), name
        assert (other.toarray() == mask.toarray()).all(), name
    tried(count)


@pytest.mark.parametrize("shape", [(33, 31), (9, 1000), (3, 5000)], ids=str)
def test_a_result_does_not_depend_on_where_it_goes(rng, kind, shape, tried):
    """A new array, one that is given, and x itself."""
    x, _ = data(rng, shape, kind)
    mean, var = np.zeros(shape[1]), np.ones(shape[1])
    calls = {
        "layer_norm": lambda x, out: nf.layer_norm(x, out=out),
        "rms_norm": lambda x, out: nf.rms_norm(x, out=out),
        "batch_norm": lambda x, out: nf.batch_norm(x, mean, var, activation="silu", out=out),
        "batch_norm_forward": lambda x, out: nf.batch_norm_forward(x, out=out)[0],
        "group_norm": lambda x, out: nf.group_norm(x, 1, out=out),
        "lp_norm": lambda x, out: nf.lp_norm_forward(x, out=out)[0],
        "dropout": lambda x, out: nf.dropout(x, 0.3, rng=1, out=out),
    }
    for name, call in calls.items():
        expected = call(x, None)
        for out in (np.empty_like(x), np.empty((2 * len(x), shape[1]), x.dtype)[::2], own := x.copy()):
            assert call(x if out is not own else own, out).tobytes() == expected.tobytes(), name
    tried(3 * len(calls))

"""The kernels as C functions: the same bits as the Python functions, whatever is NULL, from many threads, and wrong arguments refused."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from oracle import agree

import normfast as nf
from normfast.engines.policy import STREAMED

try:
    from normfast import capi
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

ROWS = [(1, 1), (3, 1), (5, 7), (300, 64), (3, 1023), (2, 5000), (2, 140_000)]
IMAGES = [(1, 4, 9), (9, 6, 49), (8, 600, 4), (5, 8, 1), (700, 12, 1), (300, 1100, 1), (3, 4, 70_000), (2, 1200, 65), (3, 1, 30), (4, 1, 1)]
CODES = [None, "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "softplus"]


def pointer(array):
    return None if array is None else array.ctypes.data


def call(name, dtype, *arguments):
    """The status of a C function for one dtype; arrays go as addresses."""
    suffix = "" if dtype is None else "_f32" if dtype == np.float32 else "_f64"
    arguments = [pointer(a) if a is None or isinstance(a, np.ndarray) else a for a in arguments]
    return capi.function(name + suffix)(*arguments)


def same(actual, expected, what):
    """Assert that two arrays are the same to the bit, NaN included."""
    expected = np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), what
    assert np.array_equal(actual, expected, equal_nan=True), f"{what}: not the bits of the Python function"


def doubles(*shape):
    return np.full(shape, np.nan)


@pytest.fixture(autouse=True)
def ours():
    """Python's side on the same kernels and one thread, since a gradient's sums over rows may be cut."""
    with nf.use_engine("cython"), nf.threads(1):
        yield


def values(rng, shape, dtype, offset=100.0):
    return (rng.standard_normal(shape) + offset).astype(dtype)


def parameters(rng, n, dtype, given):
    return [values(rng, n, dtype, 1.0) if given else None for _ in range(2)]


@pytest.mark.parametrize("given", [True, False], ids=["weight", "plain"])
@pytest.mark.parametrize("shape", ROWS)
def test_rows(rng, dtype, shape, given):
    x, (weight, bias) = values(rng, shape, dtype), parameters(rng, shape[1], dtype, given)
    rows, n = shape
    y, (mean, rstd, var) = np.empty_like(x), doubles(3, rows)
    for kept in ((mean, rstd, var), (None, None, None), (mean, None, None), (None, rstd, None)):
        y.fill(np.nan)
        assert call("layer_norm", dtype, x, weight, bias, rows, n, 1e-5, y, *kept) == 0
        expected, stats = nf.layer_norm_forward(x, weight, bias)
        same(y, expected, "layer_norm")
    for values_, name in ((mean, "mean"), (rstd, "rstd"), (var, "var")):
        same(values_, getattr(stats, name), name)
    y[...] = x
    assert call("layer_norm", dtype, y, weight, bias, rows, n, 1e-5, y, None, None, None) == 0
    same(y, expected, "layer_norm in place")
    assert call("rms_norm", dtype, x, weight, rows, n, 1e-5, y, rstd, var) == 0
    expected, stats = nf.rms_norm_forward(x, weight)
    same(y, expected, "rms_norm")
    same(rstd, stats.rstd, "rstd")
    same(var, stats.var, "var")
    assert call("moments", dtype, x, rows, n, mean, var) == 0
    m = nf.moments(x, axis=1)
    same(mean, m.mean, "mean")
    same(var, m.m2, "m2")


@pytest.mark.parametrize("given", [True, False], ids=["weight", "plain"])
@pytest.mark.parametrize("shape", ROWS)
def test_gradients_of_rows(rng, dtype, shape, given):
    rows, n = min(shape[0], 5), shape[1]  # few rows: Python adds up those of many in tiles
    x, dy, (weight, _) = values(rng, (rows, n), dtype), values(rng, (rows, n), dtype), parameters(rng, n, dtype, given)
    stats = nf.layer_norm_forward(x)[1]
    dx, dweight, dbias = np.empty_like(x), np.zeros(n), np.zeros(n)
    assert call("layer_norm_backward", dtype, dy, x, stats.mean, stats.rstd, weight, rows, n, dx, dweight, dbias) == 0
    expected = nf.layer_norm_backward(dy, x, stats, weight)
    same(dx, expected.dx, "dx")
    for name, actual in (("dweight", dweight), ("dbias", dbias)):
        same(actual.astype(dtype), getattr(expected, name), name)
    once = dweight.copy()
    assert call("layer_norm_backward", dtype, dy, x, stats.mean, stats.rstd, weight, rows, n, dx, dweight, None) == 0
    same(dweight, 2 * once, "dweight of two calls")
    dx.fill(np.nan)
    assert call("layer_norm_backward", dtype, dy, x, stats.mean, stats.rstd, weight, rows, n, dx, None, None) == 0
    same(dx, expected.dx, "dx alone")
    for stood in (dy, x):
        target = stood.copy()
        sources = (target, x) if stood is dy else (dy, target)
        assert call("layer_norm_backward", dtype, *sources, stats.mean, stats.rstd, weight, rows, n, target, None, None) == 0
        scale = np.abs(dy).max() * (1 if weight is None else np.abs(weight).max()) * stats.rstd.max()
        agree(target, expected.dx.astype(np.longdouble), "dx in the place of a source", scale=float(scale))
    stats = nf.rms_norm_forward(x)[1]
    dweight[:] = 0
    assert call("rms_norm_backward", dtype, dy, x, stats.rstd, weight, rows, n, dx, dweight) == 0
    expected = nf.rms_norm_backward(dy, x, stats, weight)
    same(dx, expected.dx, "dx of rms_norm")
    same(dweight.astype(dtype), expected.dweight, "dweight of rms_norm")


@pytest.mark.parametrize("order", [2.0, 1.0, 3.5, 0.0, np.inf, -np.inf, -1.0])
@pytest.mark.parametrize("shape", ROWS[:-1])
def test_lp_norm(rng, dtype, shape, order):
    x = values(rng, shape, dtype, 0.5)
    y, norm = np.empty_like(x), doubles(shape[0])
    assert call("lp_norm", dtype, x, *shape, order, 1e-12, y, norm) == 0
    expected, saved = nf.lp_norm_forward(x, order)
    same(y, expected, "lp_norm")
    same(norm, saved, "norm")
    y.fill(np.nan)
    assert call("lp_norm", dtype, x, *shape, order, 1e-12, y, None) == 0
    same(y, expected, "lp_norm without its norm")


@pytest.mark.parametrize("given", [True, False], ids=["weight", "plain"])
@pytest.mark.parametrize("shape", IMAGES)
def test_channels(rng, dtype, shape, given):
    n, c, s = shape
    x, (weight, bias) = values(rng, shape if s > 1 else shape[:2], dtype), parameters(rng, c, dtype, given)
    y = np.empty_like(x)
    for code, name in enumerate(CODES):
        y.fill(np.nan)
        mean, rstd, var = doubles(3, c)
        assert call("batch_norm_forward", dtype, x, weight, bias, n, c, s, 1e-5, code, y, mean, rstd, var) == 0
        expected, stats = nf.batch_norm_forward(x, weight, bias, activation=name)
        same(y, expected, f"batch_norm_forward {name}")
        for actual, own in ((mean, stats.mean), (rstd, stats.rstd), (var, stats.var)):
            same(actual, own, "statistics of batch_norm_forward")
        y.fill(np.nan)
        assert call("batch_norm", dtype, x, mean, var, weight, bias, n, c, s, 1e-5, code, y) == 0
        same(y, nf.batch_norm(x, mean, var, weight, bias, activation=name), f"batch_norm {name}")
    y.fill(np.nan)
    assert call("batch_norm_forward", dtype, x, weight, bias, n, c, s, 1e-5, 0, y, None, None, None) == 0
    same(y, nf.batch_norm_forward(x, weight, bias)[0], "batch_norm_forward without statistics")
    y[...] = x
    assert call("batch_norm_forward", dtype, y, weight, bias, n, c, s, 1e-5, 0, y, None, None, None) == 0
    same(y, nf.batch_norm_forward(x, weight, bias)[0], "batch_norm_forward in place")
    for groups in {1, c, 2 if c % 2 == 0 else 1}:
        mean, rstd, var = doubles(3, n, groups)
        expected, stats = nf.group_norm_forward(x, groups, weight, bias)
        for kept in ((mean, rstd, var), (None, None, var)):
            y.fill(np.nan)
            assert call("group_norm", dtype, x, weight, bias, n, groups, c, s, 1e-5, y, *kept) == 0
            if n * groups >= 4 and s >= 16:
                same(y, expected, f"group_norm of {groups} groups")
            else:  # which Python takes in pieces
                scale = np.abs(expected).max() + np.abs(stats.mean * stats.rstd).max()  # a mean of m deviations costs m units
                agree(y, expected.astype(np.longdouble), f"group_norm of {groups} groups", scale=float(scale))
        if n * groups >= 4 and s >= 16:
            for actual, own in ((mean, stats.mean), (rstd, stats.rstd), (var, stats.var)):
                same(actual, own, "statistics of group_norm")


def test_batch_norm_of_a_constant_channel_gives_the_bias(dtype):
    x, y = np.full((2, 3, 4), 7, dtype), np.empty((2, 3, 4), dtype)
    bias = np.array([1, 2, 3], dtype)
    assert call("batch_norm", dtype, x, np.full(3, 7.0), np.zeros(3), None, bias, 2, 3, 4, 0.0, 0, y) == 0
    same(y, nf.batch_norm(x, np.full(3, 7.0), np.zeros(3), None, bias, eps=0), "batch_norm")


def test_activations(rng, dtype):
    x, dy = 3 * rng.standard_normal((2, 3001)).astype(dtype)
    y, dx = np.empty_like(x), np.empty_like(x)
    for code, name in enumerate(CODES):
        assert call("activation", dtype, x, x.size, code, y) == 0
        assert call("activation_backward", dtype, dy, x, x.size, code, dx) == 0
        same(y, x if name is None else nf.activation(x, name), name)
        same(dx, dy if name is None else nf.activation_backward(dy, x, name), f"gradient of {name}")


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.1, 0.5, 2**-20 + 0.25, 1.0 - 2**-40, 1.0])
@pytest.mark.parametrize("offset", [0, 4095, 2**40 + 3])
def test_dropout(rng, dtype, p, offset):
    x = values(rng, 9001, dtype)
    x[5:7] = np.nan, np.inf
    expected, mask = nf.dropout_forward(x, p, rng=11, offset=offset)
    y, kept = np.empty_like(x), np.full(x.size, 7, np.uint8)
    assert call("dropout", dtype, x, x.size, mask.key, offset, p, y) == 0
    same(y, expected, "dropout")
    assert call("dropout", dtype, x[:70], 70, mask.key, offset, p, y) == 0
    assert call("dropout", dtype, x[70:], x.size - 70, mask.key, offset + 70, p, y[70:]) == 0
    same(y, expected, "dropout in parts")
    assert call("dropout_mask", None, mask.key, offset, p, x.size, kept) == 0
    same(kept.view(bool), mask.toarray(), "mask")


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [*ROWS[:-1], (300, 4096), (40, 30_000)])  # the last ones go past the caches
def test_dropout_add_norm(rng, dtype, shape, p):
    rows, n = shape
    x, residual, (weight, bias) = values(rng, shape, dtype), values(rng, shape, dtype), parameters(rng, n, dtype, True)
    y, h, (mean, rstd, var) = np.empty_like(x), np.empty_like(x), doubles(3, rows)
    expected = nf.dropout_add_layer_norm_forward(x, residual, weight, bias, p=p, rng=5, offset=77)
    key = expected.mask.key if p else None
    for kept in ((mean, rstd, var), (None, rstd, None)):
        assert call("dropout_add_layer_norm", dtype, x, residual, key, 77, p, weight, bias, rows, n, 1e-5, h, y, *kept) == 0
        same(h, expected.h, "h")
        same(y, expected.y, "y")
    same(mean, expected.stats.mean, "mean")
    same(rstd, expected.stats.rstd, "rstd")
    for stood in (x, residual):
        target = stood.copy()
        sources = (target, residual) if stood is x else (x, target)
        assert call("dropout_add_layer_norm", dtype, *sources, key, 77, p, weight, bias, rows, n, 1e-5, h, target, mean, rstd, var) == 0
        same(target, expected.y, "y in the place of a source")
    stream = residual.copy()
    assert call("dropout_add_layer_norm", dtype, x, stream, key, 77, p, weight, bias, rows, n, 1e-5, stream, y, None, None, None) == 0
    same(stream, expected.h, "h in the place of the residual")
    same(y, expected.y, "y beside it")
    expected = nf.dropout_add_rms_norm_forward(x, residual, weight, p=p, rng=5, offset=77)
    assert call("dropout_add_rms_norm", dtype, x, residual, key, 77, p, weight, rows, n, 1e-5, h, y, rstd, var) == 0
    same(h, expected.h, "h of rms_norm")
    same(y, expected.y, "y of rms_norm")
    same(var, expected.stats.var, "mean square")
    if p == 0.0:
        same(y, nf.add_rms_norm(x, residual, weight), "add_rms_norm")


def test_merge_moments(rng):
    parts = [nf.moments(part) for part in np.split(values(rng, 100, float), [0, 1, 40])]
    total = np.zeros(3)
    for m in parts:
        assert call("merge_moments", None, total, total[1:], total[2:], m.count, m.mean.item(), m.m2.item()) == 0
    merged = sum(parts[1:], parts[0])
    assert total.tolist() == [merged.count, merged.mean, merged.m2]


def test_moments_of_many_pieces(rng):
    x, (mean, m2) = values(rng, 9_000_001, np.float32), doubles(2, 1)
    assert call("moments", np.float32, x, 1, x.size, mean, m2) == 0
    m = nf.moments(x)
    assert (mean[0], m2[0]) == (m.mean, m.m2)


def test_extremes_stay_in_their_row(rng, dtype):
    x = values(rng, (6, 300), dtype)
    limit = np.finfo(dtype).max
    x[1, 7], x[2, 9], x[3], x[4], x[5] = np.nan, np.inf, limit, x[4] * np.finfo(dtype).tiny, 5
    y, expected = np.empty_like(x), nf.layer_norm(x, eps=0.0)
    assert call("layer_norm", dtype, x, None, None, 6, 300, 0.0, y, None, None, None) == 0
    same(y, expected, "layer_norm")
    assert np.isnan(y).any(axis=1).tolist() == [False, True, True, False, False, False]


def test_nothing_is_written_without_values(dtype):
    x, (mean, rstd, var) = np.empty((3, 0), dtype), doubles(3, 3) * 0
    assert call("layer_norm", dtype, x, None, None, 3, 0, 1e-5, x, mean, rstd, var) == 0
    assert np.isnan([mean, rstd, var]).all()
    mean[:], var[:] = 1, 1
    assert call("moments", dtype, None, 3, 0, mean, var) == 0
    assert np.isnan(mean).all()
    assert var.tolist() == [0, 0, 0]
    assert call("layer_norm", dtype, None, None, None, 0, 5, 1e-5, None, None, None, None) == 0
    assert call("layer_norm_backward", dtype, None, None, None, None, None, 0, 5, None, None, None) == 0
    assert call("lp_norm", dtype, None, 3, 0, 2.0, 0.0, None, var) == 0
    assert call("group_norm", dtype, None, None, None, 1, 1, 3, 0, 0.0, None, mean, None, None) == 0
    assert call("batch_norm_forward", dtype, None, None, None, 0, 3, 5, 0.0, 0, None, mean, rstd, var) == 0
    assert call("batch_norm", dtype, None, mean, mean, None, None, 0, 3, 5, 0.0, 0, None) == 0
    assert call("activation", dtype, None, 0, 1, None) == 0
    for p in (0.0, 0.5, 1.0):
        assert call("dropout", dtype, None, 0, np.zeros(4, np.uint32), 0, p, None) == 0
        assert call("dropout_mask", None, np.zeros(4, np.uint32), 0, p, 0, None) == 0
    assert call("activation_backward", dtype, None, None, 0, 0, None) == 0
    assert call("dropout_add_rms_norm", dtype, None, None, None, 0, 0.0, None, 0, 9, 0.0, None, None, None, None) == 0


def test_wrong_arguments_are_refused_before_anything_is_written(dtype):
    x, y, h, key = np.ones((2, 6), dtype), np.full((2, 6), 7, dtype), np.full((2, 6), 7, dtype), np.zeros(4, np.uint32)
    m = np.full(12, 7.0)
    nan = float("nan")
    wrong = [
        ("layer_norm", x, None, None, -1, 6, 1e-5, y, m, m, m),
        ("layer_norm", x, None, None, 2, -6, 1e-5, y, m, m, m),
        *(("layer_norm", x, None, None, 2, 6, eps, y, m, m, m) for eps in (-1e-9, nan, np.inf)),
        ("layer_norm", None, None, None, 2, 6, 1e-5, y, m, m, m),
        ("layer_norm", x, None, None, 2, 6, 1e-5, None, m, m, m),
        ("layer_norm_backward", x, x, None, m, None, 2, 6, y, m, m),
        ("layer_norm_backward", x, x, m, None, None, 2, 6, y, m, m),
        ("layer_norm_backward", None, x, m, m, None, 2, 6, y, m, m),
        ("rms_norm", x, None, 2, 6, nan, y, m, m),
        ("moments", x, 2, 6, None, m),
        ("moments", x, -2, 6, m, m),
        *(("group_norm", x, None, None, 2, groups, 6, 1, 1e-5, y, m, m, m) for groups in (0, -1, 4)),
        *(("batch_norm", x, m, m, None, None, 2, 6, 1, 1e-5, code, y) for code in (-1, 8)),
        ("batch_norm", x, m, -m, None, None, 2, 6, 1, 1e-5, 0, y),
        ("batch_norm", x, None, m, None, None, 2, 6, 1, 1e-5, 0, y),
        ("batch_norm_forward", x, None, None, 2, 6, 1, 1e-5, 8, y, m, m, m),
        ("lp_norm", x, 2, 6, nan, 1e-5, y, m),
        ("activation", x, 12, 8, y),
        ("activation_backward", None, x, 12, 1, y),
        *(("dropout", x, 12, key, 0, p, y) for p in (-0.1, 1.1, nan)),
        ("dropout", x, 12, None, 0, 0.5, y),
        ("dropout", x, 12, key, -1, 0.5, y),
        ("dropout", x, 12, key, 2**63 - 5, 0.5, y),
        ("dropout_add_layer_norm", x, x, None, 0, 0.5, None, None, 2, 6, 1e-5, h, y, m, m, m),
        ("dropout_add_layer_norm", x, x, key, 0, 0.5, None, None, 2, 6, 1e-5, y, y, m, m, m),
        ("dropout_add_rms_norm", x, None, key, 0, 0.5, None, 2, 6, 1e-5, h, y, m, m),
    ]
    for name, *arguments in wrong:
        assert call(name, dtype, *arguments) == 1, (name, arguments)
        assert {*y.ravel(), *h.ravel(), *m} == {7}, name
    assert call("merge_moments", None, m, m, None, 1.0, 1.0, 1.0) == 1
    assert call("merge_moments", None, m, m, m, -1.0, 1.0, 1.0) == 1
    assert call("dropout_mask", None, key, 0, 0.5, 12, None) == 1


def test_a_value_off_the_cache_line(rng, dtype):
    """Arrays need their type's alignment only, also where results go past the caches."""
    memory = np.full((2, 2100 * 2048 + 4), 7, dtype)
    x, y = memory[0, 1:-3].reshape(2100, 2048), memory[1, 3:-1].reshape(2100, 2048)
    x[...] = rng.standard_normal(2048)
    assert y.nbytes >= STREAMED
    assert call("layer_norm", dtype, x, None, None, *x.shape, 1e-5, y, None, None, None) == 0
    same(y, nf.layer_norm(x), "layer_norm")
    assert call("rms_norm", dtype, x, None, *x.shape, 1e-5, y, None, None) == 0
    same(y, nf.rms_norm(x), "rms_norm")
    assert memory[1, [0, 1, 2, -1]].tolist() == [7, 7, 7, 7]


def test_from_threads_at_once(rng, dtype):
    x = values(rng, (400, 768), dtype)
    key = nf.dropout_forward(x, 0.2, rng=3)[1].key
    expected = nf.dropout_add_layer_norm_forward(x, x, p=0.2, rng=3)
    y, h = np.empty_like(x), np.empty_like(x)

    def rows(i):
        part = x[4 * i : 4 * i + 4]
        here = slice(4 * i, 4 * i + 4)
        return call(
            "dropout_add_layer_norm", dtype, part, part, key, 4 * i * 768, 0.2, None, None, 4, 768, 1e-5, h[here], y[here], None, None, None
        )

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(rows, range(100))) == {0}
    same(h, expected.h, "h")
    same(y, expected.y, "y")


def test_names():
    with pytest.raises(ValueError, match=r"no C function 'layer_norm': choose one of .*layer_norm_f32"):
        capi.address("layer_norm")
    assert capi.address("moments_f32") != capi.address("moments_f64")


def header():
    return Path(nf.get_include(), "normfast.h").read_text()


def test_the_header_is_what_cython_says():
    """Each function of the header has the type and the address of the Cython function of that name, in the order of the table."""
    import ctypes

    found = re.findall(r"int \(\*(\w+)\)\(([^)]*)\);", header())
    assert sorted(name for name, _ in found) == list(capi.FUNCTIONS)
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(capi._C_API, b"normfast.capi._C_API")
    size = ctypes.sizeof(ctypes.c_void_p)
    addresses = (ctypes.c_void_p * len(found)).from_address(table + 2 * size)
    assert ctypes.c_int.from_address(table).value == 1
    assert ctypes.c_size_t.from_address(table + size).value == (2 + len(found)) * size
    for (name, arguments), address in zip(found, addresses, strict=True):
        types = [re.sub(r"\w+$", "", " ".join(argument.split())).strip() for argument in arguments.split(",")]
        types = [re.sub(r"const (\w+) \*", r"\1 const *", kind).replace("ptrdiff_t", "Py_ssize_t") for kind in types]
        assert f"int ({', '.join(types)})" == capi.signature(name), name
        assert address == capi.address(name), name

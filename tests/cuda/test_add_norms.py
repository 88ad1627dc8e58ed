"""Sums with the residual stream and their norms on a device: held to the oracle by `check` of the tests that the CPU's engines pass."""

import numpy as np
import pytest
from devices import Lent, got, put
from test_fused import arrays, check, same, trio

import normfast as nf
from normfast.engines.cuda import row_gradients, rows

DTYPES = ["float16", "bfloat16", "float32", "float64"]


@pytest.fixture(params=DTYPES)
def dtype(request):
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 is the dtype of ml_dtypes")
    return np.dtype(request.param)


@pytest.fixture(params=["layer", "rms"])
def norm(request):
    return request.param


@pytest.fixture
def on_gpu():
    with nf.use_engine("cuda"):
        yield


def parameters_of(rng, norm, n, dtype):
    weight, bias = arrays(rng, 2, n, np.dtype(np.float32) if dtype.itemsize == 2 else dtype)
    return {"weight": weight, "bias": bias} if norm == "layer" else {"weight": weight, "zero": True}


@pytest.mark.parametrize("p", [None, 0.0, 0.1, 1.0])
def test_rows(on_gpu, dtype, norm, p, rng):
    """In registers, of vectors and of single values."""
    for n in (1, 16, 37):
        x, other, dy, dh = arrays(rng, 4, (3, n), dtype)
        if p:
            dy, dh = ((values * np.float32(1 - p / 1.01)).astype(dtype) for values in (dy, dh))
        key = {} if p is None else {"rng": n, "offset": 1000 * n}
        check(norm, x, other, p=p, dy=dy, dh=dh if n > 1 else None, **(parameters_of(rng, norm, n, dtype) if n > 1 else {}), **key)


@pytest.mark.parametrize("p", [None, 0.1])
@pytest.mark.parametrize("axis", [0, (0, 2), (0, 1, 2)], ids=str)
def test_axes(on_gpu, norm, axis, p, rng):
    shape, axes = (3, 2, 5), axis if isinstance(axis, tuple) else (axis,)
    x, other, dy, dh = arrays(rng, 4, shape, np.dtype(np.float32))
    (weight,) = arrays(rng, 1, [shape[a] for a in axes], x.dtype)
    check(norm, x, other, p=p, dy=dy, dh=dh, axis=axis, weight=weight, **({} if p is None else {"rng": 4}))


@pytest.mark.parametrize("n", [61, 70], ids=["a block's row", "several blocks' row"])
def test_long_rows(on_gpu, dtype, norm, n, rng, monkeypatch):
    held = max(4, dtype.itemsize)  # bytes of a thread: one value
    monkeypatch.setattr(rows, "FORWARD", (held, held, 64))
    monkeypatch.setattr(row_gradients, "BACKWARD", (held, held, 64))
    x, other, dy, dh = arrays(rng, 4, (2, n), dtype)
    check(norm, x, other, p=0.1, rng=1, dy=dy, dh=dh, **parameters_of(rng, norm, n, dtype))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_masks_that_were_given(on_gpu, norm, p, rng):
    x, other, dy = arrays(rng, 3, (4, 24), np.dtype(np.float32))
    check(norm, x, other, p=p, given=True, rng=2, dy=dy)


def test_a_mask_whose_elements_share(on_gpu, norm, rng):
    x, other = arrays(rng, 2, (4, 24), np.dtype(np.float32))
    mask = nf.dropout_forward(x, 0.5, rng=1, axis=0)[1]
    _y, h, *_ = trio(norm)[0](x, other, p=0.5, mask=mask)
    assert same(h, nf.dropout_forward(x, 0.5, mask=mask)[0] + other)


@pytest.mark.parametrize("p", [None, 0.2])
def test_in_place(norm, p, rng):
    """h in the place of the stream and y in that of x; backward, the gradients in those of dy and dh."""
    dtype = np.dtype(np.float32)
    x, other, dy, dh = arrays(rng, 4, (5, 20), dtype)
    weight = rng.standard_normal(20).astype(dtype)
    forward, backward = trio(norm, p is not None)
    key = {} if p is None else {"p": p, "rng": 3}
    places = [put(values) for values in (x, other, dy, dh)]
    expected = forward(*places[:2], put(weight), **key)
    y, h, stats, *mask = forward(*places[:2], weight, **key, out=places[0], h_out=places[1])
    assert y is places[0]
    assert h is places[1]
    for one, two in zip(got((y, h)), got(tuple(expected[:2])), strict=True):
        assert same(one, two)
    wanted = backward(*places[2:3], h, stats, *mask, weight, dh=places[3])
    targets = {"out": places[3]} if p is None else {"out": places[2], "dresidual_out": places[3]}
    gradients = backward(*places[2:3], h, stats, *mask, weight, dh=places[3], **targets)
    for one, two in zip(got(tuple(gradients)), got(tuple(wanted)), strict=True):
        assert same(one, two)


def test_device_arrays_give_what_numpy_arrays_give(dtype, norm, rng):
    x, other, dy, dh = arrays(rng, 4, (3, 32), dtype)
    weight = rng.standard_normal(32).astype(np.float32 if dtype.itemsize == 2 else dtype)
    forward, backward = trio(norm)
    with nf.use_engine("cuda"):
        expected = forward(x, other, weight, p=0.3, rng=5)
        wanted = backward(dy, expected.h, expected.stats, expected.mask, weight, dh=dh)
    result = forward(Lent(x), Lent(other), Lent(weight), p=0.3, rng=5)
    gradients = backward(Lent(dy), result.h, result.stats, result.mask, Lent(weight), dh=Lent(dh))
    pairs = [*zip(got(tuple(result[:2])), expected[:2], strict=True), *zip(got(tuple(gradients)), wanted, strict=True)]
    pairs += [(got(a), b) for a, b in zip(result.stats[:3], expected.stats[:3], strict=True) if b is not None]
    for one, two in pairs:
        assert same(one, two)


def test_wrong_input_is_refused_before_anything_is_written(norm, rng):
    x, other = arrays(rng, 2, (2, 6), np.dtype(np.float32))
    forward, backward = trio(norm)
    a, b = put(x), put(other)
    _y, h, stats, mask = forward(a, b, p=0.1, rng=1)
    for call, words in (
        (lambda: forward(a, put(other[:1]), h_out=b), "residual has shape"),
        (lambda: forward(a, b, put(x[0, :5]), h_out=b), "weight has shape"),
        (lambda: forward(a, b, h_out=b, out=b), "out and h_out overlap"),
        (lambda: forward(a, b, eps=-1, h_out=b), "eps must be"),
        (lambda: forward(a, b, axis=3, h_out=b), "axis"),
        (lambda: backward(a, h, stats, None), "mask must be the DropoutMask"),
        (lambda: backward(a, h, None, mask), "stats must be"),
        (lambda: backward(a, put(x[:1]), stats, mask), "shape"),
        (lambda: backward(a, h, stats, mask, out=b, dresidual_out=b), "overlap"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            call()
    assert same(got(b), other)


def test_no_values(norm, rng):
    x = np.zeros((0, 4), np.float32)
    forward, backward = trio(norm)
    for values in (x, x.T.copy()):
        y, h, stats, mask = forward(put(values), put(values), p=0.5)
        expected = forward(values, values, p=0.5)
        gradients = backward(put(values), h, stats, mask)
        wanted = backward(values, *expected[1:])
        for one, two in zip(got((y, *tuple(gradients))), (expected.y, *wanted), strict=True):
            assert same(one, two)
        assert same(got(stats.var), expected.stats.var)

"""Dropout on a device: the CPU's mask for the same key, whatever the dtype, offset, probability and axis."""

import numpy as np
import pytest
from devices import Lent, got, put

import normfast as nf

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def bits(array):
    """The bits of an array, so that zeros differ from zeros and NaN equals NaN."""
    return np.ascontiguousarray(array).view(np.uint8).tobytes()


@pytest.fixture(params=DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return request.param


@pytest.mark.parametrize("p", [0.1, 0.5, 0.0, 1.0])
def test_the_result_is_that_of_the_cpu_bit_for_bit(dtype, p, rng):
    x = rng.standard_normal((3, 151)).astype(dtype)
    x[1, 7:9] = np.inf, np.nan
    expected, mask = nf.dropout_forward(x, p, rng=5)
    y, own = nf.dropout_forward(put(x), p, rng=5)
    assert bits(got(y)) == bits(expected)
    assert repr(own) == repr(mask)
    assert bits(got(nf.dropout_backward(put(x), mask))) == bits(expected)


@pytest.mark.parametrize("offset", [1, 4090, 2**40 + 3])
@pytest.mark.parametrize("p", [0.3, 1e-9, 1 - 1e-9])
def test_a_stream_is_continued_anywhere(offset, p, rng):
    x = rng.standard_normal(77).astype(np.float32)
    assert bits(got(nf.dropout(put(x), p, rng=8, offset=offset))) == bits(nf.dropout(x, p, rng=8, offset=offset))


def test_several_warps(rng, monkeypatch):
    """Whoever counts the ties before him counts those of the warps before his."""
    from normfast.engines.cuda import dropout

    monkeypatch.setattr(dropout, "THREADS", 64)
    x = rng.standard_normal(5000).astype(np.float32)
    assert bits(got(nf.dropout(put(x), 0.3, rng=8))) == bits(nf.dropout(x, 0.3, rng=8))


@pytest.mark.parametrize("axis", [0, 1, (0, 2), (1, 2), ()], ids=str)
def test_axes_that_share(axis, rng):
    x = rng.standard_normal((4, 5, 6)).astype(np.float32)
    expected, mask = nf.dropout_forward(x, 0.4, rng=3, axis=axis, offset=11)
    assert bits(got(nf.dropout(put(x), 0.4, rng=3, axis=axis, offset=11))) == bits(expected)
    assert bits(got(nf.dropout_backward(put(x), mask))) == bits(expected)


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_given_masks(p, dtype, rng):
    x, keep = rng.standard_normal((7, 9)).astype(dtype), rng.random((7, 9)) < 0.5
    expected = nf.dropout(x, p, mask=keep)
    for mask in (keep, np.packbits(keep, bitorder="little"), put(keep)):
        assert bits(got(nf.dropout(put(x), p, mask=mask))) == bits(expected)


def test_strides_and_out(rng):
    whole = rng.standard_normal((6, 10, 4)).astype(np.float32)
    for view in (lambda x: x.transpose(2, 0, 1), lambda x: x[::-1, ::2], lambda x: x[1:, 1:, 1:], lambda x: x[:, :0]):
        x, target = view(whole), Lent(whole)
        expected = nf.dropout(x, 0.5, rng=1)
        assert bits(got(nf.dropout(LentView(Lent(whole), view), 0.5, rng=1))) == bits(expected)
        out = LentView(target, view)
        assert nf.dropout(put(np.ascontiguousarray(x)), 0.5, rng=1, out=out) is out
        assert bits(got(out)) == bits(expected)
        if np.size(x) and x.shape[0] < 7:
            assert nf.dropout(out, 0.5, rng=1, out=out) is out  # in place
            assert bits(got(out)) == bits(nf.dropout(expected, 0.5, rng=1))


class LentView:
    """A view of a `Lent`."""

    def __init__(self, whole, view):
        self.whole, values = whole, view(whole.words)
        base = whole.__cuda_array_interface__
        shift = values.__array_interface__["data"][0] - whole.words.__array_interface__["data"][0]
        self.__cuda_array_interface__ = base | {
            "shape": values.shape,
            "strides": values.strides,
            "data": (base["data"][0] + shift, False),
        }


def test_out_that_overlaps(rng):
    values = rng.standard_normal(40).astype(np.float32)
    whole = Lent(values)
    x, out = LentView(whole, lambda x: x[:30]), LentView(whole, lambda x: x[5:35])
    nf.dropout(x, 0.5, rng=2, out=out)
    assert bits(got(out)) == bits(nf.dropout(values[:30], 0.5, rng=2))


def test_numpy_arrays_where_the_engine_is_chosen(rng):
    x = rng.standard_normal((5, 40)).astype(np.float16)
    expected, mask = nf.dropout_forward(x, 0.3, rng=9)
    with nf.use_engine("cuda"):
        y, own = nf.dropout_forward(x, 0.3, rng=9)
        assert type(y) is np.ndarray
        assert bits(y) == bits(expected)
        assert bits(nf.dropout_backward(x, mask)) == bits(expected)
        out = np.empty_like(x)[:, ::-1]
        assert nf.dropout(x, 0.3, rng=9, out=out) is out
        assert bits(out) == bits(expected)
        assert (own.toarray() == mask.toarray()).all()
        assert nf.dropout([1.0, 2.0], 0.0).tolist() == [1.0, 2.0]


def test_wrong_input_is_refused_in_the_words_of_the_cpu(rng):
    x = rng.standard_normal((2, 3)).astype(np.float32)
    d, mask = put(x), nf.dropout_forward(x, 0.5)[1]
    for call, error, words in (
        (lambda: nf.dropout(put(x.astype(np.int32))), TypeError, "x must be float16, bfloat16, float32 or float64, got int32"),
        (lambda: nf.dropout(d, 1.5), ValueError, "p must lie in"),
        (lambda: nf.dropout(d, out=put(x[:1])), ValueError, r"out has shape \(1, 3\) and dtype float32: it needs \(2, 3\) and float32"),
        (lambda: nf.dropout(d, out=np.empty_like(x)), TypeError, "out must lie on the GPU as x does, got ndarray"),
        (lambda: nf.dropout(d, out=Lent(x, read_only=True)), ValueError, "out is read-only"),
        (lambda: nf.dropout(d, mask=np.ones((2, 2), bool)), ValueError, "x has shape"),
        (lambda: nf.dropout(d, mask=np.ones((2, 3))), TypeError, "mask must be boolean"),
        (lambda: nf.dropout(d, axis=2), ValueError, "axis"),
        (lambda: nf.dropout_backward(put(x[:1]), mask), ValueError, "dy has shape"),
        (lambda: nf.dropout_backward(d, None), TypeError, "mask must be the DropoutMask"),
        (lambda: nf.dropout(x, out=Lent(x)), TypeError, "out lies on"),
    ):
        with pytest.raises(error, match=words):
            call()
    assert bits(got(d)) == bits(x)

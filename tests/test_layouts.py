"""Any strides, byte order, alignment and aliasing: the result is that of a plain copy, and inputs are never written."""

import numpy as np
import pytest

import normfast as nf


def arrangements(x):
    """The values of x (2-D) in many memory layouts."""
    rows, n = x.shape
    wide = np.zeros((2 * rows, 3 * n), x.dtype)
    wide[::2, ::3] = x
    unaligned = np.frombuffer(bytearray(x.nbytes + 1), np.uint8)[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    record = np.zeros(x.shape, [("pad", np.uint8), ("value", x.dtype)])
    record["value"] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    return {
        "plain": x.copy(), "fortran": np.asfortranarray(x), "strided": wide[::2, ::3], "negative": x[::-1, ::-1].copy()[::-1, ::-1],
        "byte-swapped": x.astype(x.dtype.newbyteorder()), "unaligned": unaligned, "field": record["value"], "read-only": read_only,
        "list": x.tolist() if x.dtype == np.float64 else x.copy(), "memmap-like": x.copy().view(np.memmap),
    }  # fmt: skip


def results(x, dy):
    y, stats = nf.layer_norm_forward(x)
    z, batch = nf.batch_norm_forward(x)
    return [
        y, *stats[:3], *nf.layer_norm_backward(dy, x, stats), z, *batch[:3], *nf.batch_norm_backward(dy, x, batch),
        nf.batch_norm(x, batch.mean, batch.var), nf.dropout(x, 0.4, rng=1), nf.moments(x, 0).m2, nf.moments(x, 1).m2,
    ]  # fmt: skip


def test_layouts(engine, dtype, rng):
    x, dy = rng.standard_normal((2, 33, 65)).astype(dtype)
    expected = results(x, dy)
    for name, other in arrangements(x).items():
        before = np.array(other)
        for result, value in zip(results(other, arrangements(dy)[name]), expected, strict=True):
            eps = np.finfo(dtype).eps * max(1.0, float(np.abs(value).max()))
            assert np.abs(result - value).max() <= 64 * eps, name  # another order of axes sums in another order
            assert type(result) is np.ndarray or np.ndim(result) == 0
        assert (np.array(other) == before).all()


def test_channels_last_memory_is_not_copied(rng):
    """An NCHW view of NHWC memory gives a result in the same memory layout."""
    x = rng.standard_normal((4, 5, 6, 7)).astype(np.float32).transpose(0, 3, 1, 2)
    y, stats = nf.batch_norm_forward(x)
    assert y.strides == x.strides
    expected, _ = nf.batch_norm_forward(np.ascontiguousarray(x))
    assert np.abs(y - expected).max() < 1e-6
    assert nf.batch_norm_backward(y, x, stats).dx.strides == x.strides


def test_broadcast_input(rng):
    row = rng.standard_normal(50).astype(np.float32)
    x = np.broadcast_to(row, (7, 50))
    assert (nf.layer_norm(x) == nf.layer_norm(np.array(x, order="C"))).all()
    assert (nf.batch_norm_forward(x)[0] == 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda x, out: nf.layer_norm(x, out=out),
        lambda x, out: nf.batch_norm_forward(x, out=out)[0],
        lambda x, out: nf.batch_norm_forward(x, axis=0, out=out)[0],
        lambda x, out: nf.batch_norm(x, np.zeros(x.shape[1]), np.ones(x.shape[1]), out=out),
        lambda x, out: nf.dropout(x, 0.5, rng=1, out=out),
        lambda x, out: nf.dropout(x, 0.5, rng=1, axis=0, out=out),
    ],
    ids=["layer_norm", "batch_norm_forward", "slabs", "batch_norm", "dropout", "shared dropout"],
)
def test_out(engine, call, rng):
    """`out` is returned itself; in place and overlapping give what a copy of x gives."""
    x = rng.standard_normal((20, 20)).astype(np.float32)
    expected = call(x, None)
    for out in (np.empty_like(x), np.empty((20, 20), np.float32, order="F"), np.empty((40, 60), np.float32)[::2, ::-3], x.copy()):
        assert call(x, out) is out
        assert (out == expected).all()
    inplace = x.copy()
    assert call(inplace, inplace) is inplace
    assert (inplace == expected).all()
    memory = np.empty(500, np.float32)
    for shift in (1, 20, 63):
        source, out = memory[:400].reshape(20, 20), memory[shift : shift + 400].reshape(20, 20)
        source[...] = x
        call(source, out)
        assert (out == expected).all()
    source = memory[:400].reshape(20, 20)
    source[...] = x
    call(source, source.T)
    assert (expected == source.T).all()


def test_out_may_overlap_the_weight(rng):
    x = rng.standard_normal((3, 8)).astype(np.float32)
    memory = rng.standard_normal(32).astype(np.float32)
    weight = memory[:8]
    expected = nf.layer_norm(x, weight.copy())
    assert (nf.layer_norm(x, weight, out=memory[:24].reshape(3, 8)) == expected).all()

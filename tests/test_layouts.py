"""Any strides, byte order, alignment and aliasing: the result is that of a plain copy, and inputs are never written."""

import numpy as np
import pytest

import normfast as nf
from normfast.ops import _pieces


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


SQUARE = (lambda z: z * z, lambda da, z: 2 * z * da)


def backward(operation, *parameters, forward=(), **options):
    """What takes x and returns the backward function of (dy, x, out), once statistics or mask of x are known."""
    shared = {key: value for key, value in options.items() if key != "bias" and key not in forward}
    call = getattr(nf, f"{operation}_backward")

    def of(x):
        saved = getattr(nf, f"{operation}_forward")(x, **{key: options[key] for key in forward}, **shared)[1]
        if "dropout" in operation:
            return lambda dy, x, out: [call(dy, saved, out=out)]
        return lambda dy, x, out: call(dy, x, saved, *parameters, **options, out=out)

    return of


W, W9 = np.linspace(0.5, 2, 8).astype(np.float32), np.linspace(0.5, 2, 9).astype(np.float32)
KEPT = np.random.default_rng(0).random((6, 8, 9, 9)) < 0.7
BACKWARD = {  # of x (6, 8, 9, 9)
    "layer": backward("layer_norm", W9),
    "layer, middle axis": backward("layer_norm", W, axis=1),
    "layer, where": backward("layer_norm", W9, where=KEPT),
    "rms": backward("rms_norm", W9),
    "rms, two axes": backward("rms_norm", axis=(1, 3)),
    "group": backward("group_norm", W, forward=["num_groups"], num_groups=4),
    "group, NHWC": backward("group_norm", W9, forward=["num_groups"], num_groups=3, axis=-1),
    "group, where": backward("group_norm", W, forward=["num_groups"], num_groups=4, where=KEPT),
    "instance": backward("instance_norm", W),
    "instance, NHWC": backward("instance_norm", W9, axis=-1),
    "batch": backward("batch_norm", W),
    "batch, columns": backward("batch_norm", W9, axis=-1),
    "batch, short runs": backward("batch_norm", W9, axis=2),
    "batch, gelu": backward("batch_norm", W, bias=W, activation="gelu"),
    "batch, columns, silu": backward("batch_norm", W9, bias=W9, axis=-1, activation="silu"),
    "batch, own activation": backward("batch_norm", W, bias=W, activation=SQUARE),
    "batch, gelu, where": backward("batch_norm", W, bias=W, activation="gelu", where=KEPT),
    "batch, where": backward("batch_norm", W, where=KEPT),
    "batch, L1": backward("batch_norm", W[:6], axis=0, ord=1),
    "batch, Linf": backward("batch_norm", axis=0, ord=np.inf),
    "batch, Linf, relu": backward("batch_norm", W, bias=W, ord=np.inf, activation="relu"),
    "batch, L1, where": backward("batch_norm", W, ord=1, where=KEPT),
    "mean variance": backward("mean_variance_norm", axis=(0, 2)),
    "lp": backward("lp_norm"),
    "lp, ord 3": backward("lp_norm", ord=3, axis=1),
    "dropout": backward("dropout", forward=["rng"], rng=1),
    "shared dropout": backward("dropout", forward=["rng", "axis"], rng=1, axis=(0, 1)),
    "alpha dropout": backward("alpha_dropout", forward=["rng"], rng=1),
    "activation": lambda x: lambda dy, x, out: [nf.activation_backward(dy, x, "gelu", out=out)],
    "own activation": lambda x: lambda dy, x, out: [nf.activation_backward(dy, x, SQUARE, out=out)],
}  # fmt: skip
FEW = ("layer", "group", "batch, gelu", "batch, columns")  # Numba compiles for seconds


@pytest.mark.parametrize("name", [name for name in BACKWARD if "dropout" not in name])  # which has no x on the way back
def test_gradients_of_another_dtype(name, rng):
    """dy is taken in x's dtype, whatever it comes in."""
    x, dy = rng.standard_normal((2, 6, 8, 9, 9), dtype=np.float32)
    call = BACKWARD[name](x)
    expected = call(dy, x, None)
    for other in (dy.astype(np.float64), dy.astype(">f4"), dy.tolist()):
        for result, value in zip(call(other, x, None), expected, strict=True):
            assert result is value is None or (result.dtype == value.dtype and np.array_equal(result, value))


@pytest.mark.parametrize(
    ("engine", "name"), [(e, n) for e in ("cython", "numpy", "numba") for n in (FEW if e == "numba" else BACKWARD)], indirect=["engine"]
)
@pytest.mark.parametrize("limit", [None, 700], ids=["whole", "pieces"])
def test_out_of_backward(engine, name, limit, rng, monkeypatch):
    """`out` is returned itself; it may be dy, x or both or overlap them: every bit is that of a call without it."""
    if limit:
        monkeypatch.setattr(_pieces, "LIMIT", limit)
    shape = (6, 8, 9, 9)
    for dtype in (np.float32, np.float16) if engine != "numba" else (np.float32,):
        x, dy = rng.standard_normal((2, *shape)).astype(dtype)
        call = BACKWARD[name](x)
        expected = [np.array(values) for values in call(dy, x, None)]

        def check(dy, x, out, expected=expected, call=call):
            dx, *parameters = call(dy, x, out)
            assert dx is out
            for values, right in zip((out, *parameters), expected, strict=True):
                assert np.array_equal(values, right, equal_nan=True)

        check(dy, x, np.empty_like(x))
        if not limit:  # sums over other pieces end in other bits
            check(dy, x, np.empty((12, 8, 18, 9), dtype)[::2, :, ::-2])
            check(dy, x, np.empty(shape, dtype, order="F"))
        memory = np.empty(x.size + 1000, dtype)
        for shift in (0, 1, 9, 729):
            first, second = memory[: x.size].reshape(shape), memory[shift : shift + x.size].reshape(shape)
            for source, out in ((first, first if shift == 0 else second), (second, first)):
                source[...] = dy
                check(source, x, out)
                source[...] = x
                check(dy, source, out)
        both = x.copy()
        once = BACKWARD[name](x)(x, x, None)
        again = call(both, both, both)
        assert again[0] is both
        for values, right in zip(again, once, strict=True):
            assert np.array_equal(values, right, equal_nan=True)


@pytest.mark.parametrize("name", ["layer", "rms", "group", "batch", "batch, gelu", "batch, columns", "lp"])
def test_out_of_backward_past_the_caches(name, rng, monkeypatch):
    monkeypatch.setattr("normfast.engines.compiled.STREAMED", 0)
    x, dy = rng.standard_normal((2, 300, 8, 9, 9), dtype=np.float32)
    call = BACKWARD[name](x)
    expected = call(dy, x, None)
    for own in (False, True):
        copy = (x if own else dy).copy()
        for values, right in zip(call(dy if own else copy, copy if own else x, copy), expected, strict=True):
            assert np.array_equal(values, right)


@pytest.mark.parametrize(("norm", "axis"), [("layer_norm", -1), ("rms_norm", -1), ("batch_norm", 0), ("batch_norm", 1)])
def test_out_of_backward_may_overlap_weight_and_statistics(norm, axis, rng):
    x, dy = rng.standard_normal((2, 5, 6, 4))
    stats = getattr(nf, f"{norm}_forward")(x, axis=axis)[1]
    call = getattr(nf, f"{norm}_backward")
    weight = rng.standard_normal(x.shape[axis])
    expected = call(dy, x, stats, weight, axis=axis)
    for field in ("weight", "mean", "rstd"):
        source = weight if field == "weight" else getattr(stats, field)
        if source is not None:
            out = np.empty_like(x)
            part = out.reshape(-1)[7 : 7 + source.size].reshape(source.shape)
            part[...] = source
            changed = (stats, part) if field == "weight" else (stats._replace(**{field: part}), weight)
            for values, right in zip(call(dy, x, *changed, axis=axis, out=out), expected, strict=True):
                assert (values == right).all()


def test_out_of_backward_may_overlap_the_norms(rng):
    x, dy = rng.standard_normal((2, 9, 4))
    out, saved = np.empty_like(x), nf.lp_norm_forward(x)[1]
    expected = nf.lp_norm_backward(dy, x, saved).dx
    out.reshape(-1)[7:16] = saved
    assert (nf.lp_norm_backward(dy, x, out.reshape(-1)[7:16], out=out).dx == expected).all()

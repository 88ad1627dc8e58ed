"""The norms on a device, forward and backward, against the oracle: the accuracy law, extremes, any layout, and the CPU's errors."""

import numpy as np
import pytest
from devices import Lent, got, put
from oracle import agree, exact, exact_gradients
from test_norms import bound, channel_axes, spread

import normfast as nf

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
OFFSETS = [(0.0, 1.0), (1e5, 1.0), (0.0, 1e30)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The simulator runs each thread of a GPU as one of Python's."""
    from normfast.engines.cuda import channels, columns, long_rows, primitives, rows, slabs

    if not primitives.SIMULATED:
        return
    for module in (channels, columns, long_rows, rows, slabs):
        monkeypatch.setattr(module, "THREADS", 32)


@pytest.fixture(params=DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return request.param


@pytest.fixture
def tight(monkeypatch):
    """Rows as if they were long: `tight(warp, block)` bytes of one are what a thread holds, and a block has 64 threads."""
    from normfast.engines.cuda import long_rows, row_gradients, rows, slabs

    def limit(warp, block):
        monkeypatch.setattr(rows, "FORWARD", (warp, block, 64))
        monkeypatch.setattr(row_gradients, "BACKWARD", (warp, block, 64))
        monkeypatch.setattr(long_rows, "PIECE", 100)
        monkeypatch.setattr(slabs, "PIECE", 100)

    return limit


def is_half(dtype):
    return np.dtype(dtype).itemsize == 2


def data(shape, dtype, rng, offset=(0.0, 1.0)):
    """Values of the dtype; offsets that 16 bits cannot hold are left out."""
    return spread(shape, (0.0, 1.0) if is_half(dtype) else offset, np.float64, rng).astype(dtype)


def units_of(x, axes):
    """Error allowed, in eps; 16 bits are rounded once, in the end."""
    return 0.6 if is_half(x.dtype) else bound(x, axes, x.dtype.type)


def parameters(shape, dtype, rng):
    """Weight and bias in the type that x is computed in."""
    return rng.standard_normal((2, *np.atleast_1d(shape))).astype(np.float64 if dtype == np.float64 else np.float32)


def check_layer_norm(x, rng, what="layer_norm"):
    """Forward and backward of rows."""
    dy = data(x.shape, x.dtype, rng)
    weight, bias = parameters(x.shape[1], x.dtype, rng)
    units = units_of(x, (1,))
    y, stats = nf.layer_norm_forward(put(x), put(weight), put(bias))
    expected, mean, var, rstd = exact(x, (1,), 1e-5, weight, bias)
    agree(got(y), expected, what, units=units, scale=max(1.0, float(np.abs(expected).max())))
    wide = np.finfo(np.float32 if is_half(x.dtype) else x.dtype).eps / np.finfo(np.float64).eps
    agree(got(stats.mean), mean[:, 0], f"mean of {what}", units=8 + wide, scale=float(np.abs(x.astype(np.float64)).max()))
    agree(got(stats.var), var[:, 0], f"var of {what}", units=8 * wide + units * (wide == 1))
    dx, dxhat, db = exact_gradients(dy, x, (1,), 1e-5, weight)
    gradients = got(nf.layer_norm_backward(put(dy), put(x), stats, put(weight)))
    scale = float((np.abs(rstd) * np.abs(dy.astype(np.float64) * weight).max()).max())
    agree(gradients.dx, dx, f"dx of {what}", units=4 * units, scale=scale)
    for name, actual, terms in (("dweight", gradients.dweight, dxhat), ("dbias", gradients.dbias, db)):
        agree(actual, terms.sum(axis=0), f"{name} of {what}", units=4 * units, scale=float(np.abs(terms).sum(axis=0).max()))


@pytest.mark.parametrize("offset", OFFSETS, ids=str)
def test_layer_norm(dtype, offset, rng):
    for shape in [(5, 7), (3, 40)] if not is_half(dtype) or offset == OFFSETS[0] else []:
        check_layer_norm(data(shape, dtype, rng, offset), rng, f"{shape} {offset}")


@pytest.mark.parametrize("held", [(4, 8), (4, 4)], ids=["a block's row", "several blocks' row"])
def test_long_rows(dtype, held, tight, rng):
    factor = 2 if dtype == np.float64 else 8 if is_half(dtype) else 4
    tight(*(size * factor for size in held))
    n = 320 if held[1] == 8 else 648
    offset = (0.0, 1.0) if is_half(dtype) else (1e4, 1.0)
    check_layer_norm(data((2, n if held[1] == 4 or dtype != np.float64 else 160), dtype, rng, offset), rng, f"long rows {held}")
    x, dy = data((2, n), dtype, rng), data((2, n), dtype, rng)
    y, stats = nf.rms_norm_forward(put(x))
    expected, own = nf.rms_norm_forward(x.astype(np.float64))
    agree(got(y), expected, "rms_norm", units=units_of(x, (1,)))
    gradients, expected = (
        got(nf.rms_norm_backward(put(dy), put(x), stats)),
        nf.rms_norm_backward(*(v.astype(np.float64) for v in (dy, x)), own),
    )
    for actual, wanted, name in zip(gradients, expected, ("dx", "dweight"), strict=True):
        agree(actual, wanted, name, units=4 * units_of(x, (1,)))


@pytest.mark.parametrize("zero_centered", [False, True])
def test_rms_norm(dtype, zero_centered, rng):
    x, dy = data((3, 40), dtype, rng), data((3, 40), dtype, rng)
    weight = parameters(40, dtype, rng)[0]
    y, stats = nf.rms_norm_forward(put(x), put(weight), zero_centered=zero_centered)
    wide = [values.astype(np.float64) for values in (dy, x, weight)]
    expected, own = nf.rms_norm_forward(wide[1], wide[2], zero_centered=zero_centered)
    agree(got(y), expected, "rms_norm", units=units_of(x, (1,)))
    assert stats.mean is None
    agree(got(nf.rms_norm(put(x), put(weight), zero_centered=zero_centered)), expected, "rms_norm", units=units_of(x, (1,)))
    gradients = got(nf.rms_norm_backward(put(dy), put(x), stats, put(weight), zero_centered=zero_centered))
    expected = nf.rms_norm_backward(wide[0], wide[1], own, wide[2], zero_centered=zero_centered)
    for actual, wanted, name in zip(gradients, expected, ("dx", "dweight"), strict=True):
        agree(actual, wanted, name, units=4 * units_of(x, (1,)))


def check_batch_norm(x, axis, rng, what):
    """Training, inference and backward."""
    kept, reduced, broadcast = channel_axes(x.shape, axis)
    dy = data(x.shape, x.dtype, rng)
    weight, bias = parameters([x.shape[a] for a in kept], x.dtype, rng)
    wide_weight, wide_bias = weight.reshape(broadcast), bias.reshape(broadcast)
    units = units_of(x, reduced)
    y, stats = nf.batch_norm_forward(put(x), put(weight), put(bias), axis=axis)
    expected, mean, _, rstd = exact(x, reduced, 1e-5, wide_weight, wide_bias)
    scale = max(1.0, float(np.abs(expected).max()))
    agree(got(y), expected, what, units=units, scale=scale)
    lanes = 1 if x.dtype == np.float64 else 2.0**29
    agree(got(stats.mean), mean.reshape(stats.mean.shape), f"mean of {what}", units=16 + lanes, scale=float(np.abs(x.astype(float)).max()))
    again = nf.batch_norm(put(x), stats.mean, stats.var, put(weight), put(bias), axis=axis)
    agree(got(again), expected, f"{what} at inference", units=units, scale=scale)
    dx, dxhat, db = exact_gradients(dy, x, reduced, 1e-5, wide_weight)
    gradients = got(nf.batch_norm_backward(put(dy), put(x), stats, put(weight), axis=axis))
    agree(gradients.dx, dx, f"dx of {what}", units=4 * units, scale=float((rstd * np.abs(dy.astype(float) * wide_weight).max()).max()))
    for name, actual, terms in (("dweight", gradients.dweight, dxhat), ("dbias", gradients.dbias, db)):
        sums = terms.sum(axis=reduced).reshape(actual.shape)
        agree(actual, sums, f"{name} of {what}", units=4 * units, scale=float(np.abs(terms).sum(axis=reduced).max()))


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4, 10), 1), ((2, 4, 3, 8), -1), ((2, 3, 7), 1), ((9, 5), 1)], ids=str)
def test_batch_norm(dtype, shape, axis, rng):
    check_batch_norm(data(shape, dtype, rng, (1e4, 1.0)), axis, rng, f"batch_norm {shape} {axis}")


def test_batch_norm_of_other_axes_and_pieces(monkeypatch, rng):
    from normfast.engines.cuda import columns, slabs

    monkeypatch.setattr(slabs, "PIECE", 64)
    monkeypatch.setattr(columns, "ROWS", 1)
    for shape, axis in (((3, 2, 130), 1), ((150, 3), 1), ((2, 3, 4, 5), (1, 2)), ((2, 3, 4), (0, 2)), ((6,), 0), ((9, 2, 5), 1)):
        check_batch_norm(data(shape, np.float32, rng, (1e5, 1.0)), axis, rng, f"batch_norm {shape} {axis}")


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("axis", [1, -1])
def test_batch_norm_with_an_activation(activation, axis, rng):
    x, dy = (data((2, 4, 3, 4), np.float32, rng) for _ in range(2))
    weight, bias = parameters(4, np.float32, rng)
    expected, own = nf.batch_norm_forward(x, weight, bias, axis=axis, activation=activation)
    y, stats = nf.batch_norm_forward(put(x), put(weight), put(bias), axis=axis, activation=activation)
    agree(got(y), expected, activation)
    options = {"bias": bias, "axis": axis, "activation": activation}
    expected = nf.batch_norm_backward(dy, x, own, weight, **options)
    gradients = got(nf.batch_norm_backward(put(dy), put(x), stats, put(weight), **options))
    for actual, wanted, name in zip(gradients, expected, expected._fields, strict=True):
        agree(actual, wanted, f"{name} of {activation}", units=16)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_group_and_instance_norm(dtype, axis, rng):
    shape = [2, 3, 5]
    shape.insert(axis % 4, 4)
    x, dy = data(shape, dtype, rng, (1e3, 1.0)), data(shape, dtype, rng)
    weight, bias = parameters(4, dtype, rng)
    wide = [values.astype(np.float64) for values in (x, dy, weight, bias)]
    units = 0.6 if is_half(dtype) else 64 if dtype == np.float32 else 64e3
    for groups in (2, None):
        options = {"axis": axis} if groups is None else {"axis": axis, "num_groups": groups}
        forward, backward = (
            (nf.instance_norm_forward, nf.instance_norm_backward) if groups is None else (nf.group_norm_forward, nf.group_norm_backward)
        )
        y, stats = forward(put(x), weight=put(weight), bias=put(bias), **options)
        expected, own = forward(wide[0], weight=wide[2], bias=wide[3], **options)
        agree(got(y), expected, "group_norm", units=min(units, 6) if dtype != np.float64 else units)
        assert got(stats.mean).shape == own.mean.shape
        assert stats.count == own.count
        gradients, expected = (
            got(backward(put(dy), put(x), stats, put(weight), **options)),
            backward(wide[1], wide[0], own, wide[2], **options),
        )
        for actual, wanted, name in zip(gradients, expected, expected._fields, strict=True):
            agree(actual, wanted, f"{name} of group_norm", units=units if is_half(actual.dtype) or not is_half(dtype) else 4)


def test_extremes_do_not_overflow(dtype, rng):
    info = ml_dtypes.finfo(dtype)
    rows = rng.standard_normal((2, 40))
    rows /= np.abs(rows).max()
    for size in (float(info.max), float(info.tiny) * 2.0**12):
        x = (rows * size).astype(dtype)
        expected = exact(x, (1,), 0)[0]
        agree(got(nf.layer_norm(put(x), eps=0)), expected, f"rows of {size:g}", units=64, scale=1)
        agree(got(nf.batch_norm_forward(put(x), axis=0, eps=0)[0]), expected, f"slabs of {size:g}", units=64, scale=1)
        agree(got(nf.batch_norm_forward(put(x.T.copy()), eps=0)[0]), expected.T, f"columns of {size:g}", units=64, scale=1)


def test_constant_gives_the_bias(dtype):
    for value, n in ((0.0, 5), (0.1, 40), (-1e30, 7), (1e-40, 1)) if not is_half(dtype) else ((0.0, 5), (0.1, 40)):
        x, bias = np.full((2, n), value, dtype), np.arange(n, dtype=np.float64 if dtype == np.float64 else np.float32)
        for eps in (1e-5, 0.0):
            y, stats = nf.layer_norm_forward(put(x), bias=put(bias), eps=eps)
            assert (got(y) == bias.astype(dtype)).all()
            assert (got(stats.var) == 0).all()
            assert (got(stats.mean) == x[:, 0].astype(np.float64)).all()
            y, stats = nf.batch_norm_forward(put(x.T.copy()), eps=eps)
            assert (got(y) == 0).all()
            assert (got(stats.var) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_stay_in_their_row_and_channel(bad, rng):
    x, dy = rng.standard_normal((2, 5, 12)).astype(np.float32)
    x[2, 7] = bad
    y, stats = nf.layer_norm_forward(put(x))
    dx, others = got(nf.layer_norm_backward(put(dy), put(x), stats).dx), np.arange(5) != 2
    assert np.isnan(got(y)[2]).all()
    assert np.isfinite(got(y)[others]).all()
    assert np.isfinite(dx[others]).all()
    for axis, index in ((1, 7), (0, 2)):
        y, stats = nf.batch_norm_forward(put(x), axis=axis)
        gradients, rest = got(nf.batch_norm_backward(put(dy), put(x), stats, axis=axis)), np.arange(x.shape[axis]) != index
        assert np.isnan(got(y).compress(~rest, axis)).all()
        assert np.isfinite(got(y).compress(rest, axis)).all()
        assert np.isfinite(gradients.dx.compress(rest, axis)).all()
        assert np.isfinite(gradients.dweight[rest]).all()


@pytest.mark.parametrize("axis", [0, (0, 2), (-1, 0), (0, 1, 2)], ids=str)
def test_layer_norm_over_any_axes(axis, rng):
    x, dy = rng.standard_normal((2, 3, 4, 5))
    axes = tuple(sorted(a % 3 for a in (axis if isinstance(axis, tuple) else (axis,))))
    weight, bias = rng.standard_normal((2, *(x.shape[a] for a in axes)))
    expected, own = nf.layer_norm_forward(x, weight, bias, axis=axis)
    y, stats = nf.layer_norm_forward(put(x), put(weight), put(bias), axis=axis)
    agree(got(y), expected, "layer_norm", units=32)
    agree(got(stats.mean), own.mean, "mean", units=32)
    gradients, expected = (
        got(nf.layer_norm_backward(put(dy), put(x), stats, put(weight), axis=axis)),
        nf.layer_norm_backward(dy, x, own, weight, axis=axis),
    )
    for actual, wanted, name in zip(gradients, expected, expected._fields, strict=True):
        agree(actual, wanted, name, units=64)


class View:
    """A view of a `Lent`, as any library's."""

    def __init__(self, lent, view):
        self.lent, self.array = lent, view(lent.words)

    @property
    def __cuda_array_interface__(self):
        offset = self.array.__array_interface__["data"][0] - self.lent.words.__array_interface__["data"][0]
        whole = self.lent.__cuda_array_interface__
        return whole | {"shape": self.array.shape, "strides": self.array.strides, "data": (whole["data"][0] + offset, False)}


VIEWS = {
    "transposed": lambda x: x.transpose(2, 0, 1), "Fortran": lambda x: x.T, "reversed": lambda x: x[::-1, :, ::-1],
    "cut": lambda x: x[1:, 1:, 1:], "every other": lambda x: x[:, ::2],
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_strides_and_out(view, rng):
    whole = rng.standard_normal((3, 4, 6)).astype(np.float32)
    x = view(whole)
    for call in (
        lambda x, out: nf.layer_norm(x, axis=-1, out=out),
        lambda x, out: nf.layer_norm(x, axis=(0, 1), out=out),
        lambda x, out: nf.batch_norm_forward(x, axis=1, out=out)[0],
        lambda x, out: nf.group_norm(x, x.array.shape[1] if isinstance(x, View) else x.shape[1], axis=1, out=out),
    ):
        expected = call(x, None)
        source, target = View(Lent(whole), view), View(Lent(np.zeros_like(whole)), view)
        assert call(source, target) is target
        agree(got(target), expected, "in out", units=8)
        assert call(source, source) is source  # in place
        agree(got(source), expected, "in place", units=8)


def test_out_that_overlaps_otherwise(rng):
    whole = rng.standard_normal(46).astype(np.float32)
    lent = Lent(whole)
    source, target = (View(lent, lambda words, lo=lo: words[lo : lo + 40].reshape(4, 10)) for lo in (0, 6))
    expected = nf.layer_norm(whole[:40].reshape(4, 10))
    agree(got(nf.layer_norm(source, out=target)), expected, "shifted", units=8)


def test_one_value_and_none(dtype, rng):
    x, dy = data((3, 1), dtype, rng), data((3, 1), dtype, rng)
    y, stats = nf.layer_norm_forward(put(x))
    gradients = got(nf.layer_norm_backward(put(dy), put(x), stats))
    assert (got(y) == 0).all()
    assert (gradients.dx == 0).all()
    assert (gradients.dweight == 0).all()
    y, stats = nf.batch_norm_forward(put(x.T.copy()))
    assert (got(nf.batch_norm_backward(put(dy.T.copy()), put(x.T.copy()), stats).dx) == 0).all()
    for shape in ((0, 4), (4, 0)):
        x = np.empty(shape, dtype)
        for forward, backward in ((nf.layer_norm_forward, nf.layer_norm_backward), (nf.batch_norm_forward, nf.batch_norm_backward)):
            expected, own = forward(x)
            y, stats = forward(put(x))
            assert got(y).shape == expected.shape
            assert stats.count == own.count
            assert np.array_equal(got(stats.mean), own.mean, equal_nan=True)
            gradients, wanted = got(backward(put(x), put(x), stats)), backward(x, x, own)
            assert [(g.shape, g.dtype, g.tolist()) for g in gradients] == [(g.shape, g.dtype, g.tolist()) for g in wanted]


def test_the_same_bits_again(rng):
    x, dy = rng.standard_normal((2, 37, 24)).astype(np.float32)

    def run():
        y, stats = nf.layer_norm_forward(put(x))
        z, own = nf.batch_norm_forward(put(x))
        results = (y, *stats[:3], *nf.layer_norm_backward(put(dy), put(x), stats), z, *nf.batch_norm_backward(put(dy), put(x), own))
        return [got(values).tobytes() for values in results]

    assert run() == run()


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)], ids=str)
def test_moments(dtype, axis, rng):
    x = data((4, 5, 6), dtype, rng, (1e5, 1.0))
    actual, expected = nf.moments(put(x), axis), nf.moments(x.astype(np.float64), axis)
    assert actual.count == expected.count
    wide = 1 if dtype == np.float64 else 2.0**29
    agree(actual.mean, expected.mean, "mean", units=8 + wide, scale=float(np.abs(x.astype(float)).max()))
    agree(actual.var(), expected.var(), "var", units=64 * wide + (1e6 if wide == 1 else 0))


def test_update_running(rng):
    x = rng.standard_normal((6, 5)).astype(np.float32)
    mean, var = np.zeros(5, np.float32), np.ones(5, np.float32)
    own_mean, own_var = put(mean), put(var)
    nf.update_running(mean, var, nf.batch_norm_forward(x)[1], momentum=0.3)
    nf.update_running(own_mean, own_var, nf.batch_norm_forward(put(x))[1], momentum=0.3)
    agree(got(own_mean), mean, "running mean")
    agree(got(own_var), var, "running var")
    with pytest.raises(ValueError, match="no variance with ddof=6"):
        nf.update_running(own_mean, own_var, nf.batch_norm_forward(put(x))[1], ddof=6)


WRONG = [
    lambda p: nf.layer_norm(p(np.ones((2, 3))), p(np.ones(2))),
    lambda p: nf.layer_norm(p(np.ones((2, 3))), axis=2),
    lambda p: nf.layer_norm(p(np.ones((2, 3))), eps=-1),
    lambda p: nf.layer_norm(p(np.ones((2, 3))), out=p(np.ones((3, 2)))),
    lambda p: nf.layer_norm(p(np.ones((2, 3), np.int32))),
    lambda p: nf.layer_norm_backward(p(np.ones((2, 2))), p(np.ones((2, 3))), nf.layer_norm_forward(np.ones((2, 3)))[1]),
    lambda p: nf.layer_norm_backward(p(np.ones((2, 3))), p(np.ones((2, 3))), None),
    lambda p: nf.group_norm(p(np.ones((2, 3))), 2),
    lambda p: nf.batch_norm(p(np.ones((2, 3))), None, p(np.ones(3))),
    lambda p: nf.batch_norm_forward(p(np.ones((2, 3))), activation="swoosh"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_errors_are_those_of_the_cpu(wrong):
    with pytest.raises((TypeError, ValueError)) as expected:
        wrong(np.asarray)
    with pytest.raises(type(expected.value)) as actual:
        wrong(put)
    assert str(actual.value) == str(expected.value).replace("numpy.", "")


def test_masks_are_for_the_cpu():
    with pytest.raises(TypeError, match="copy it there first"):
        nf.layer_norm(Lent(np.ones((2, 3))), where=np.ones((2, 3), bool))


def test_numpy_arrays_on_the_chosen_engine(rng):
    x, dy = rng.standard_normal((2, 3, 8)).astype(np.float32)
    expected, own = nf.layer_norm_forward(x)
    with nf.use_engine("cuda"):
        y, stats = nf.layer_norm_forward(x)
        assert type(y) is type(stats.mean) is np.ndarray
        agree(y, expected, "y")
        out = np.empty_like(x)
        assert nf.layer_norm(x, out=out) is out
        agree(out, expected, "out")
        agree(nf.layer_norm_backward(dy, x, stats).dx, nf.layer_norm_backward(dy, x, own).dx, "dx", units=8)

"""16-bit floats: every value widens exactly, narrowing rounds as NumPy and ml_dtypes do, and no statistic overflows."""

import numpy as np
import pytest
from oracle import agree, exact, exact_gradients

import normfast as nf
from normfast import engines

ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 comes from ml_dtypes, which is not installed")
HALVES = [np.float16, ml_dtypes.bfloat16]


@pytest.fixture(params=HALVES, ids=["float16", "bfloat16"])
def half(request):
    return np.dtype(request.param)


def same_bits(a, b):
    """Equal, signs of zero included; any NaN equals any other."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        nan = np.isnan(b)
        assert (np.isnan(a) == nan).all()
    bits = np.uint16 if a.dtype.itemsize == 2 else np.uint32
    assert (a.view(bits)[~nan] == b.view(bits)[~nan]).all()


def test_every_value_widens_exactly(engine, half):
    values = np.arange(65536, dtype=np.uint16).view(half)
    wide = np.empty(65536, np.float32)
    engines.current().widen(values, wide)
    same_bits(wide, values.astype(np.float32))


def test_narrowing_rounds_to_even(engine, half, rng):
    """All values of the type, the middles between neighbours and their neighbours in float32, and random bits."""
    finite = np.arange(65536, dtype=np.uint16).view(half).astype(np.float32)
    middles = (
        finite.view(np.uint32)[:, None]
        + (np.array([[0, 0x1000, 0x8000]], np.uint32) + np.array([[-1], [0], [1]]).ravel()[:, None]).astype(np.uint32).ravel()
    )
    bits = np.concatenate([middles.ravel(), rng.integers(0, 2**32, 100_000, dtype=np.uint32)])
    wide = bits.view(np.float32)
    narrow = np.empty(wide.size, half)
    engines.current().narrow(wide, narrow)
    with np.errstate(all="ignore"):
        same_bits(narrow, wide.astype(half))


def test_norms_of_extreme_values(engine, half, rng):
    """float16 squares overflow at 256, bfloat16 ones at 1e19; subnormal rows normalize too."""
    info = ml_dtypes.finfo(half)
    rows = rng.uniform(-1, 1, (6, 300))
    for size in (float(info.max), float(info.max) ** 0.5 * 4, float(info.smallest_normal) / 4):
        x = (rows * size).astype(half)
        for y, expected in (
            (nf.layer_norm(x, eps=0), exact(x, (1,), 0)[0]),
            (nf.batch_norm_forward(x, axis=0, eps=0)[0], exact(x, (1,), 0)[0]),
            (nf.batch_norm_forward(x, axis=1, eps=0)[0], exact(x, (0,), 0)[0]),
            (nf.group_norm(x, 3, eps=0), exact(x.reshape(6, 3, 100), (2,), 0)[0].reshape(x.shape)),
        ):
            agree(
                y.astype(np.float32), expected, f"{half} of {size:g}", units=float(info.eps) / 2**-23, scale=float(np.abs(expected).max())
            )


def test_float32_parameters(engine, half, rng):
    """y has x's type, dweight and dbias that of the weight."""
    x, dy = (rng.standard_normal((2, 40, 3, 50)) + 1).astype(half)
    weight, bias = rng.standard_normal((2, 50)).astype(np.float32)
    y, stats = nf.layer_norm_forward(x, weight, bias)
    assert y.dtype == half
    expected = exact(x, (2,), 1e-5, weight, bias)[0]
    assert np.abs(y.astype(np.longdouble) - expected).max() <= 0.51 * float(ml_dtypes.finfo(half).eps) * np.abs(expected).max()
    gradients = nf.layer_norm_backward(dy, x, stats, weight)
    assert [g.dtype for g in gradients] == [half, np.float32, np.float32]
    _, dxhat, db = exact_gradients(dy, x, (2,), 1e-5, weight)
    agree(gradients.dweight, dxhat.sum(axis=(0, 1)), "dweight", units=16, scale=float(np.abs(dxhat).sum(axis=(0, 1)).max()))
    agree(gradients.dbias, db.sum(axis=(0, 1)), "dbias", units=16, scale=float(np.abs(db).sum(axis=(0, 1)).max()))
    assert nf.layer_norm_backward(dy, x, stats).dweight.dtype == half
    assert nf.batch_norm_backward(dy, x, nf.batch_norm_forward(x)[1], weight[:3]).dweight.dtype == np.float32


def test_16_bit_parameters(engine, half, rng):
    """As the same parameters in float32, bit for bit; the gradients have the parameters' type."""
    x, dy = (rng.standard_normal((2, 6, 48, 64)) + 1).astype(half)
    for norm, backward, n, options in (
        (nf.layer_norm_forward, nf.layer_norm_backward, 64, {"axis": -1}),
        (nf.batch_norm_forward, nf.batch_norm_backward, 48, {"axis": 1}),
    ):
        weight, bias = rng.standard_normal((2, n)).astype(half)
        wide = weight.astype(np.float32), bias.astype(np.float32)
        y, stats = norm(x, weight, bias, **options)
        same_bits(y, norm(x, *wide, **options)[0])
        gradients, expected = (backward(dy, x, stats, values, **options) for values in (weight, wide[0]))
        assert [g.dtype for g in gradients] == [half] * 3
        for gradient, wanted in zip(gradients, expected, strict=True):
            same_bits(gradient, wanted.astype(half))
    mean, var = rng.random((2, 48)).astype(half) + half.type(1)
    same_bits(
        nf.batch_norm(x, mean, var, weight, bias),
        nf.batch_norm(x, *(values.astype(np.float32) for values in (mean, var, weight, bias))),
    )


def test_dropout_masks_do_not_depend_on_the_type(engine, half):
    x = np.ones((7, 333), half)
    y, mask = nf.dropout_forward(x, 0.25, rng=3)
    assert ((y != 0) == (nf.dropout(np.ones(x.shape), 0.25, rng=3) != 0)).all()
    assert (y[y != 0] == np.float32(4 / 3).astype(half)).all()
    assert (nf.dropout_backward(x, mask) == y).all()
    assert (nf.dropout(np.asfortranarray(x), 0.25, rng=3) == y).all()
    noise = np.arange(65536, dtype=np.uint16).view(half)
    same_bits(nf.dropout(noise, 0.0, rng=1), noise)


def test_in_place_and_strided(engine, half, rng):
    x = rng.standard_normal((30, 40)).astype(half)
    expected = nf.layer_norm(x)
    assert (nf.layer_norm(np.asfortranarray(x), np.ones(40, np.float32)) == expected).all()
    wide = np.zeros((60, 80), half)
    wide[::2, ::-2] = x
    assert (nf.layer_norm(wide[::2, ::-2]) == expected).all()
    out = np.zeros((60, 80), half)[::2, ::2]
    assert nf.layer_norm(x, out=out) is out
    assert (out == expected).all()
    assert nf.layer_norm(x, out=x) is x
    assert (x == expected).all()


SLABS = {  # statistics taken as they lie, long runs in several chunks; in pieces: short runs, few statistics, columns
    "runs": (3, 16, 9, 11),
    "chunks": (2, 16, 50, 97),
    "one run": (1, 17, 4100),
    "short runs": (3, 16, 5, 7),
    "few": (4, 2, 90),
    "columns": (70, 20),
}


def norms_with_parameters(x, dy, weight, bias):
    """Every result of the norms over channels and rows, forward and backward, by name."""
    results = {}
    with np.errstate(all="ignore"):
        results["batch"], stats = nf.batch_norm_forward(x, weight, bias)
        results["batch backward"] = nf.batch_norm_backward(dy, x, stats, weight)
        results["inference"] = nf.batch_norm(x, stats.mean, stats.var, weight, bias, activation="gelu")
        results["relu"], stats = nf.batch_norm_forward(x, weight, bias, activation="relu")
        results["relu backward"] = nf.batch_norm_backward(dy, x, stats, weight, bias=bias, activation="relu")
        if x.shape[1] % 2 == 0:
            results["group"], stats = nf.group_norm_forward(x, 2, weight, bias)
            results["group backward"] = nf.group_norm_backward(dy, x, stats, weight, num_groups=2)
        results["instance"], stats = nf.instance_norm_forward(x, weight, bias)
        results["instance backward"] = nf.instance_norm_backward(dy, x, stats, weight)
        results["layer"], stats = nf.layer_norm_forward(x)
        results["layer backward"] = nf.layer_norm_backward(dy, x, stats)
        results["rms"], stats = nf.rms_norm_forward(x)
        results["rms backward"] = nf.rms_norm_backward(dy, x, stats)
    return results


@pytest.mark.parametrize("shape", SLABS.values(), ids=SLABS)
def test_norms_are_those_of_float32_rounded(engine, half, shape, rng):
    """Widening is exact, so y and the gradients are the float32 ones rounded, but where these lie between two values."""
    x, dy = (rng.standard_normal((2, *shape)) * 3 + 1).astype(half)
    weight, bias = rng.standard_normal((2, shape[1])).astype(np.float32)
    narrow = norms_with_parameters(x, dy, weight, bias)
    wide = norms_with_parameters(x.astype(np.float32), dy.astype(np.float32), weight, bias)
    for name, results in narrow.items():
        for mine, expected in zip(*((r if isinstance(r, tuple) else (r,)) for r in (results, wide[name])), strict=True):
            error = np.abs(mine.astype(np.float32) - expected.astype(np.float32))
            unit = float(ml_dtypes.finfo(mine.dtype).eps)
            smallest = float(ml_dtypes.finfo(mine.dtype).smallest_subnormal)
            assert (error <= 0.51 * unit * np.abs(expected) + 4e-6 * np.abs(expected).max() + smallest).all(), name


@pytest.mark.parametrize("shape", SLABS.values(), ids=SLABS)
def test_bits_depend_on_nothing_but_the_values(engine, half, shape, rng, monkeypatch):
    """Not on threads, on stores past the caches, nor on whether the result stands where its source did."""
    x, dy = (rng.standard_normal((2, *shape)) * 3 + 1).astype(half)
    weight, bias = rng.standard_normal((2, shape[1])).astype(np.float32)
    expected = norms_with_parameters(x, dy, weight, bias)
    monkeypatch.setattr("normfast.engines.policy.SERIAL", 256)
    monkeypatch.setattr("normfast.engines.compiled.STREAMED", 0)
    for threads in (1, 2, 5):
        with nf.threads(threads):
            for name, results in norms_with_parameters(x, dy, weight, bias).items():
                for mine, before in zip(*((r if isinstance(r, tuple) else (r,)) for r in (results, expected[name])), strict=True):
                    assert mine.tobytes() == before.tobytes(), (name, threads)
    for name, norm in (("batch", nf.batch_norm_forward), ("instance", nf.instance_norm_forward), ("layer", nf.layer_norm_forward)):
        place = x.copy()
        parameters = () if name == "layer" else (weight, bias)
        y, stats = norm(place, *parameters, out=place)
        assert y is place
        assert y.tobytes() == expected[name].tobytes(), name
        backward = getattr(nf, norm.__name__.replace("forward", "backward"))
        parameters = parameters[:1]
        once = backward(dy, x, stats, *parameters).dx
        for own in (dy.copy(), x.copy()):
            gradients = (own, x) if (own == dy).all() else (dy, own)
            again = backward(*gradients, stats, *parameters, out=own)
            assert again.dx is own
            assert again.dx.tobytes() == once.tobytes(), name


def test_extreme_values_of_slabs(engine, half, rng):
    """A statistic that overflows or vanishes is scaled; NaN and infinity stay in theirs."""
    info = ml_dtypes.finfo(half)
    rows = rng.uniform(-1, 1, (2, 18, 4, 30))
    for size in (float(info.max), float(info.smallest_normal) / 4):
        x = (rows * size).astype(half)
        for y, axes, shape in (
            (nf.batch_norm_forward(x, eps=0)[0], (0, 2, 3), x.shape),
            (nf.group_norm(x, 9, eps=0), (2, 3, 4), (2, 9, 2, 4, 30)),
        ):
            expected = exact(x.reshape(shape), axes, 0)[0].reshape(x.shape)
            agree(
                y.astype(np.float32), expected, f"{half} of {size:g}", units=float(info.eps) / 2**-23, scale=float(np.abs(expected).max())
            )
    x = rows.astype(half)
    x[1, 3, 2, 5], x[0, 7, 0, 0] = np.nan, np.inf
    with np.errstate(all="ignore"):
        y = nf.batch_norm_forward(x)[0].astype(np.float32)
    assert (np.isnan(y).any(axis=(0, 2, 3)) == np.isin(np.arange(18), (3, 7))).all()

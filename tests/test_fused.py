"""Dropout, sum with the residual stream and norm in one call: exact, whoever computes and however the arrays lie.

The exact results are those of the mask's own array in longdouble; the norm is that of h as it is stored. A mask that was drawn and the same
mask given as an array take different ways through the package.
"""

import itertools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from formulas import along
from oracle import agree

import normfast as nf
from normfast.engines.numpy import gradient_of_normalized, normalized, root_mean_square
from normfast.ops import _pieces

SHORT = [1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257]
LONG = [(5, 768), (3, 1000), (2, 4096), (3, 4097), (1, 5000), (2, 70_000), (700, 33), (90, 257), (2100, 1), (17, 64)]
NORMS = ["layer", "rms"]


@pytest.fixture(params=["float16", "bfloat16", "float32", "float64"])
def dtype(request):
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 is the dtype of ml_dtypes")
    return np.dtype(request.param)


@pytest.fixture(params=NORMS)
def norm(request):
    return request.param


@pytest.fixture
def threaded(monkeypatch):
    """Small arrays have several threads too."""
    monkeypatch.setattr("normfast.engines.policy.SERIAL", 256)


def trio(norm, drops=True):
    """The forward and the backward function of a norm."""
    name = f"{'dropout_' if drops else ''}add_{norm}_norm"
    return getattr(nf, f"{name}_forward"), getattr(nf, f"{name}_backward")


def eps_of(dtype):
    return float(np.spacing(dtype.type(1)))


def arrays(rng, count, shape, dtype, mean=0.0):
    return [(mean + rng.standard_normal(shape)).astype(dtype) for _ in range(count)]


def same(a, b):
    """Whether two arrays have the same bits, but for NaN, of which one is as good as another."""
    a, b = np.asarray(a), np.asarray(b)
    with np.errstate(invalid="ignore"):
        nan = np.isnan(a)
        return a.dtype == b.dtype and a.shape == b.shape and (nan == np.isnan(b)).all() and a[~nan].tobytes() == b[~nan].tobytes()


def close(actual, expected, what, units, scale=None):
    """`agree`; 16 bits are rounded once, from what float32 gives."""
    if actual.dtype.itemsize > 2:
        agree(actual, expected, what, units=units, scale=scale)
        return
    assert actual.shape == expected.shape, what
    if actual.size:
        scale = float(np.abs(expected).max()) if scale is None else scale
        smallest = float(np.nextafter(actual.dtype.type(0), actual.dtype.type(1)))
        error = np.abs(actual.astype(np.longdouble) - expected) - 0.505 * eps_of(actual.dtype) * np.abs(expected) - smallest
        assert (error <= units * 2**-23 * scale).all(), f"{what} {actual.dtype}: {float(error.max()):.3g} too much"


def exact(norm, h, axes=(-1,), eps=1e-5):
    """xhat, mean, var and rstd in longdouble; axes are kept."""
    wide = h.astype(np.longdouble)
    with np.errstate(all="ignore"):
        return (normalized if norm == "layer" else root_mean_square)(wide, tuple(a % h.ndim for a in axes), np.longdouble(eps))


def check_sum(h, x, residual, keep, scale):
    """h is x * scale + residual where x is kept, each step rounded at most once, and residual itself where not."""
    with np.errstate(all="ignore"):
        added = np.where(keep, x.astype(np.longdouble) * scale, 0)
        expected = added + residual.astype(np.longdouble)
        unit = 2.0**-23 if h.itemsize == 2 else eps_of(h.dtype)
        smallest = float(np.nextafter(h.dtype.type(0), h.dtype.type(1)))
        error = np.abs(h.astype(np.longdouble) - expected)
        assert (error <= 1.01 * unit * np.abs(added) + 0.505 * eps_of(h.dtype) * np.abs(expected) + smallest)[np.isfinite(expected)].all()
        assert (h == residual.astype(h.dtype))[~keep].all()


def check(
    norm, x, residual, *, p=None, axis=-1, eps=1e-5, given=False, weight=None, bias=None, dy=None, dh=None, zero=False, targets=None, **key
):
    """Call forward and backward, compare every result with the exact one, and return them; p None: nothing is dropped.

    targets: for y, h, dx and dresidual.
    """
    x, residual = np.asarray(x), np.asarray(residual)
    dtype, centred = x.dtype.newbyteorder("="), norm == "layer"
    axes = tuple(sorted(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))))
    others = tuple(a for a in range(x.ndim) if a not in axes)
    forward, backward = trio(norm, p is not None)
    parameters = {name: values for name, values in (("weight", weight), ("bias", bias)) if values is not None}
    options = {"axis": axis} | ({"zero_centered": True} if zero else {})
    out, h_out, dx_out, dresidual_out = targets or [None] * 4
    keep, scale = np.ones(x.shape, bool), np.longdouble(1)
    if p is not None:
        mask = nf.dropout_forward(np.empty(x.shape, dtype), p, **key)[1]
        keep, scale = mask.toarray(), 1 / (1 - np.longdouble(p)) if p < 1 else np.longdouble(0)
        key = {"p": p, "mask": keep} if given else {"p": p, **key}
    before = [np.array(values) for values in (x, residual)]
    y, h, stats, *rest = forward(x, residual, **parameters, **key, eps=eps, out=out, h_out=h_out, **options)
    if not targets:
        assert same(x.astype(dtype), before[0].astype(dtype))
        assert same(residual, before[1])
    assert (y.dtype, h.dtype, y.shape, h.shape) == (dtype, dtype, x.shape, x.shape)
    assert y is out or out is None
    assert h is h_out or h_out is None
    assert type(y) is type(h) is np.ndarray
    check_sum(h, before[0], before[1], keep, scale)

    wide, gamma = h.astype(np.longdouble), 1 if weight is None else along(weight.astype(np.longdouble) + zero, x, axes)
    xhat, mean, var, rstd = exact(norm, wide, axes, eps)
    expected = xhat * gamma + (0 if bias is None else along(bias.astype(np.longdouble), x, axes))
    lanes = 1.0 if dtype == np.float64 else 2.0**29  # rows of float32 are summed in float32, 32 terms at a time
    far = float((np.abs(mean) / np.sqrt(np.where(var == 0, np.inf, var))).max(initial=0)) if centred else 0.0
    units = 16.0 + 4.0 * far if dtype == np.float64 else 6.0
    kept_shape = mean.squeeze(axes).shape
    close(y, expected, "y", units, max(1.0, float(np.abs(expected).max(initial=0))))
    assert stats.count == x.size // max(1, mean.size) if x.size else True
    if centred:
        agree(stats.mean, mean.reshape(kept_shape), "mean", units=8 + lanes, scale=float(np.abs(wide).max(initial=0)))
    else:
        assert stats.mean is None
    agree(stats.var, var.reshape(kept_shape), "var", units=8 * lanes + (units if dtype == np.float64 else 0))
    agree(stats.rstd, 1 / np.sqrt(stats.var.astype(np.longdouble) + eps), "rstd", units=8)
    if dy is None:
        return y, h, stats, *rest

    gradients = backward(
        dy, h, stats, *rest, *([] if weight is None else [weight]), dh=dh,
        **({"out": dresidual_out} if p is None else {"out": dx_out, "dresidual_out": dresidual_out}), **options
    )  # fmt: skip
    dx, dresidual = gradients[:2] if p is not None else (None, gradients.dx)
    assert dresidual is dresidual_out or dresidual_out is None
    wide_dy, more = dy.astype(np.longdouble), 0 if dh is None else dh.astype(np.longdouble)
    g = wide_dy * gamma
    of_norm = gradient_of_normalized(g, xhat, rstd, axes) if centred else rstd * (g - xhat * (g * xhat).mean(axis=axes, keepdims=True))
    expected = of_norm + more
    size = float((rstd * np.abs(g).max(initial=0)).max(initial=0)) + float(np.abs(more).max(initial=0))
    close(dresidual, expected, "dresidual", 4 * units, size)
    if p is not None:
        assert dx is dx_out or dx_out is None
        close(dx, np.where(keep, expected * scale, 0), "dx", 5 * units, size * float(scale))
        assert (dx[~keep] == 0).all()
        if dtype.itemsize > 2:
            assert same(dx, nf.dropout_backward(dresidual, rest[0]))
    wanted = dtype if weight is None or dtype.itemsize > 2 else weight.dtype
    for name, terms in (("dweight", wide_dy * xhat), ("dbias", wide_dy)):
        if name in gradients._fields:
            result, sums = getattr(gradients, name), terms.sum(axis=others)
            assert result.dtype == wanted, f"{name} is {result.dtype}"
            close(result, sums, name, 4 * units, float(np.abs(terms).sum(axis=others).max(initial=0)))
        else:
            assert name == "dbias"
            assert not centred
    return y, h, stats, *rest, gradients


def bits(norm, x, residual, weight, dy, dh, p=0.1, drops=True, **options):
    """Every result of a forward and a backward call, as bytes, and h and dx themselves."""
    forward, backward = trio(norm, drops)
    y, h, stats, *mask = forward(x, residual, weight, **({"p": p, "rng": 7, "offset": 5} if drops else {}), **options)
    gradients = backward(dy, h, stats, *mask, weight, dh=dh, **options)
    return [values.tobytes() for values in (y, h, *stats[centred_from(norm) : 3], *gradients)]


def centred_from(norm):
    return 0 if norm == "layer" else 1


# Exact.


def test_the_last_axis_is_the_default(norm, rng):
    """Without an axis, and without dropout's probability, each call is that of axis=-1 and p=0.5."""
    x, residual, dy = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    for drops in (False, True):
        forward, backward = trio(norm, drops)
        one_line = getattr(nf, forward.__name__.removesuffix("_forward"))
        given, plain = ({"p": 0.5, "rng": 3}, {"rng": 3}) if drops else ({}, {})
        y, h, stats, *mask = forward(x, residual, axis=-1, **given)
        found = one_line(x, residual, **plain), *forward(x, residual, **plain)
        assert np.array_equal(found[0], y)
        assert np.array_equal(found[1], y)
        for result, value in zip(backward(dy, h, stats, *mask), backward(dy, h, stats, *mask, axis=-1), strict=True):
            assert result is value is None or np.array_equal(result, value)


@pytest.mark.parametrize("p", [None, 0.0, 0.1, 0.5, 0.999, 1.0])
def test_short_rows(engine, dtype, norm, p, rng):
    """Every combination of weight, bias, dh, zero-centred weight and 16-bit parameters comes by."""
    kinds = itertools.cycle(itertools.product((False, True), repeat=4))
    for n, (weighted, other, sum_used, sixteen) in zip(SHORT * 2, kinds, strict=False):
        shape = (int(rng.integers(1, 7)), n)
        x, residual, dy, dh = arrays(rng, 4, shape, dtype)
        if p is not None:
            dy, dh = ((values * np.float32(1 - p / 1.01)).astype(dtype) for values in (dy, dh))  # so that dx is a float16
        own = np.float32 if dtype.itemsize == 2 and not sixteen else dtype
        weight, bias = arrays(rng, 2, n, own)
        parameters = {"weight": weight} if weighted else {}
        parameters |= ({"bias": bias} if norm == "layer" else {"zero": True}) if other and (weighted or norm == "layer") else {}
        key = {} if p is None else {"rng": n, "offset": 1000 * n}
        for given in (False,) if p is None else (False, True):
            check(norm, x, residual, p=p, dy=dy, dh=dh if sum_used else None, given=given, **parameters, **key)


@pytest.mark.parametrize("shape", LONG, ids=str)
def test_long_rows(engine, dtype, norm, shape, rng):
    x, dy, dh = arrays(rng, 3, shape, dtype)
    (residual,) = arrays(rng, 1, shape, dtype, mean=3.0)
    weight, bias = arrays(rng, 2, shape[1], np.float32 if dtype.itemsize == 2 else dtype)
    parameters = {"weight": weight, "bias": bias} if norm == "layer" else {"weight": weight, "zero": True}
    check(norm, x, residual, p=0.1, dy=dy, dh=dh, rng=3, offset=2**40 + 77, **parameters)
    check(norm, x, residual, dy=dy, **parameters)


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e5])
@pytest.mark.parametrize("p", [None, 0.1])
def test_float32_error_stays_below_1e_6(engine, mean, p, rng):
    """The promise of layer norm holds for the norm of h."""
    x, dy, dh = arrays(rng, 3, (128, 1000), np.dtype(np.float32))
    (residual,) = arrays(rng, 1, x.shape, x.dtype, mean=mean)
    forward, backward = trio("layer", p is not None)
    y, h, stats, *mask = forward(x, residual, **({} if p is None else {"p": p, "rng": 1}))
    xhat, _, _, rstd = exact("layer", h)
    assert np.abs(y - xhat).max() < 1e-6
    wide = dy.astype(np.longdouble)
    gradients = backward(dy, h, stats, *mask, dh=dh)
    dresidual = gradients.dx if p is None else gradients.dresidual
    sums = gradient_of_normalized(wide, xhat, rstd, (1,)) + dh, (wide * xhat).sum(axis=0), wide.sum(axis=0)
    for actual, expected in zip((dresidual, gradients.dweight, gradients.dbias), sums, strict=True):
        assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


def test_both_ways_agree(engine, norm, rng):
    """A mask that was drawn, and the same one given, in rows and in Fortran order."""
    dtype = np.dtype(np.float32)
    x, residual, dy, dh = arrays(rng, 4, (37, 300), dtype)
    (weight,) = arrays(rng, 1, 300, dtype)
    forward, backward = trio(norm)
    y, h, stats, mask = forward(x, residual, weight, p=0.3, rng=3)
    gradients = backward(dy, h, stats, mask, weight, dh=dh)
    for change in (np.ascontiguousarray, np.asfortranarray):
        other = forward(change(x), change(residual), weight, p=0.3, mask=mask.toarray())
        others = backward(change(dy), change(h), stats, other.mask, weight, dh=change(dh))
        for one, two in zip((y, h, *gradients), (other.y, other.h, *others), strict=True):
            agree(one, two.astype(np.longdouble), "other way", units=16)


@pytest.mark.parametrize("axis", [-1, 0, 1, (-2, -1), (0, 2), (1, 0), (0, 1, 2)], ids=str)
def test_axes(engine, dtype, norm, axis, rng):
    shape = (4, 5, 19)
    axes = sorted(a % 3 for a in (axis if isinstance(axis, tuple) else (axis,)))
    x, residual, dy, dh = arrays(rng, 4, shape, dtype, mean=0.5)
    weight, bias = arrays(rng, 2, [shape[a] for a in axes], np.float32 if dtype.itemsize == 2 else dtype)
    parameters = {"weight": weight, "bias": bias} if norm == "layer" else {"weight": weight}
    check(norm, x, residual, p=0.4, axis=axis, dy=dy, dh=dh, rng=3, **parameters)
    order = [np.asfortranarray(values) for values in (x, residual, dy, dh)]
    check(norm, *order[:2], p=0.4, axis=axis, dy=order[2], dh=order[3], rng=3, **parameters)
    check(norm, x, residual, axis=axis, dy=dy, dh=dh, **parameters)


def test_one_axis_and_no_rows(engine, dtype, norm, rng):
    x, residual, dy, dh = arrays(rng, 4, 300, dtype)
    check(norm, x, residual, p=0.4, dy=dy, dh=dh, rng=3, axis=0)
    for shape in ((0, 4), (4, 0), (0, 0), (2, 0, 3), (0, 3, 2)):
        x = np.empty(shape, dtype)
        for drops in (False, True):
            forward, backward = trio(norm, drops)
            y, h, stats, *mask = forward(x, x, **({"p": 0.5, "rng": 1} if drops else {}))
            assert y.shape == h.shape == shape
            assert stats.rstd.shape == shape[:-1]
            gradients = backward(y, h, stats, *mask, dh=h)
            assert [values.shape for values in gradients] == [shape] * (1 + drops) + [shape[-1:]] * (1 + (norm == "layer"))
            assert all((values == 0).all() for values in gradients[1 + drops :])


def test_pieces(engine, dtype, norm, rng, monkeypatch):
    """Where an array does not fit into the buffers of the general way."""
    monkeypatch.setattr(_pieces, "LIMIT", 700)
    x, residual, dy, dh = arrays(rng, 4, (40, 70), dtype)
    (weight,) = arrays(rng, 1, 70, dtype)
    for given in (False, True):
        order = [np.asfortranarray(values) for values in (x, residual, dy, dh)]
        check(norm, *order[:2], p=0.4, dy=order[2], dh=order[3], rng=3, weight=weight, given=given)
    check(norm, *order[:2], dy=order[2], dh=order[3], weight=weight)


# Masks.


@pytest.mark.parametrize("p", [1e-11, 0.001, 0.1 + 2**-20, 0.5, 0.996, 1 - 2e-6])
def test_the_mask_is_that_of_dropout(engine, dtype, norm, p, threaded, rng):
    """What is dropped of x and of the gradient is what `dropout` drops with NumPy, for any number of threads."""
    forward, backward = trio(norm)
    for shape, offset in (((37, 300), 0), ((3, 2049), 2047), ((700, 3), 1), ((2, 5000), 2**40 + 1023), ((1, 1), 2**62)):
        one, zero = np.ones(shape, dtype), np.zeros(shape, dtype)
        with nf.use_engine("numpy"):
            keep = nf.dropout_forward(one, p, rng=11, offset=offset)[1].toarray()
        drawn = nf.dropout_forward(one, p, rng=11, offset=offset)[1]
        for threads in (1, 2, 5):
            with nf.threads(threads):
                _, h, stats, mask = forward((one * dtype.type(2**-20)).astype(dtype), zero, p=p, rng=11, offset=offset)
                assert ((h != 0) == keep).all()
                assert (mask.key == drawn.key).all()
                assert (mask.p, mask.offset, mask.shape, mask.axis) == (p, offset, shape, None)
                gradients = backward(zero, one, stats._replace(rstd=np.ones(shape[0])), mask, dh=(one * dtype.type(2**-20)).astype(dtype))
                assert ((gradients.dx != 0) == keep).all()
                assert (mask.toarray() == keep).all()


def test_sources_of_randomness(rng):
    x = np.ones((10, 100))
    generators = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(2):  # each call takes one key
        key = nf.dropout_forward(x, rng=generators[1])[1].key
        assert (nf.dropout_add_layer_norm_forward(x, x, rng=generators[0]).mask.key == key).all()
    assert (nf.dropout_add_layer_norm_forward(x, x).h != nf.dropout_add_layer_norm_forward(x, x).h).any()
    seeds = np.random.SeedSequence(5)
    assert same(nf.dropout_add_rms_norm(x, x, rng=seeds), nf.dropout_add_rms_norm(x, x, rng=5))


def test_rows_of_a_whole(engine, dtype, norm, rng):
    """Rows k to m, drawn from their own offset, are those of the whole."""
    x, residual, dy, dh = arrays(rng, 4, (40, 333), dtype)
    forward, backward = trio(norm)
    y, h, stats, mask = forward(x, residual, p=0.3, rng=9, offset=100)
    gradients = backward(dy, h, stats, mask, dh=dh)
    for rows in (slice(0, 7), slice(7, 8), slice(8, 40)):
        other = forward(x[rows], residual[rows], p=0.3, rng=9, offset=100 + 333 * rows.start)
        assert same(other.h, h[rows])
        close(other.y, y[rows].astype(np.longdouble), "y", 4.0 if dtype.itemsize > 2 else 2**23 * eps_of(dtype))
        assert (other.mask.toarray() == mask.toarray()[rows]).all()
        dx = backward(dy[rows], other.h, other.stats, other.mask, dh=dh[rows]).dx
        assert ((dx == 0) == (gradients.dx[rows] == 0)).all()


def test_given_masks(engine, dtype, norm, rng):
    """A list, an array of bool, a mask of `dropout` that shares along axes, and one of another call."""
    shape, forward, backward = (4, 6, 35), *trio(norm)
    x, residual, dy, dh = arrays(rng, 4, shape, dtype)
    keep = rng.random(shape) < 0.3
    shared = nf.dropout_forward(x, 0.5, rng=3, axis=(0, 1))[1]
    other = nf.dropout_forward(x, 0.5, rng=3, offset=77)[1]
    given = nf.dropout_forward(x, 0.5, mask=keep)[1]
    for mask in (keep, keep.tolist(), shared, other, given, np.asfortranarray(keep)):
        kept = mask.toarray() if isinstance(mask, nf.DropoutMask) else np.array(mask)
        y, h, stats, own = forward(x, residual, p=0.5, mask=mask)
        assert own is mask or not isinstance(mask, nf.DropoutMask)
        assert (own.toarray() == kept).all()
        check_sum(h, x, residual, kept, 2.0)
        close(y, exact(norm, h)[0], "y", 16.0)
        gradients = backward(dy, h, stats, own, dh=dh)
        twice = np.where(kept, gradients.dresidual.astype(float) * 2, 0)  # of one float32; subnormal ones end in other bits
        smallest = float(np.nextafter(dtype.type(0), dtype.type(1)))
        assert (np.abs(gradients.dx.astype(float) - twice) <= 2 * smallest).all()
        assert (gradients.dx[~kept] == 0).all()


def test_a_given_mask_is_taken_at_the_call(engine, norm, rng):
    x, residual = rng.standard_normal((2, 5, 40))
    forward, backward = trio(norm)
    keep = rng.random(x.shape) < 0.5
    _, h, stats, mask = forward(x, residual, p=0.5, mask=keep)
    expected = backward(x, h, stats, mask).dx
    keep[...] = True
    assert same(backward(x, h, stats, mask).dx, expected)


# The same bits.


@pytest.mark.parametrize("shape", [(33, 257), (700, 33), (2500, 2), (3, 5000), (130, 64), (1, 200_001)], ids=str)
def test_bits_do_not_depend_on_threads_and_caches(compiled_engine, dtype, norm, shape, threaded, rng, monkeypatch):
    x, residual, dy, dh = arrays(rng, 4, shape, dtype)
    (weight,) = arrays(rng, 1, shape[1], np.float32 if dtype.itemsize == 2 else dtype)
    for drops in (True, False):
        with nf.threads(1):
            expected = bits(norm, x, residual, weight, dy, dh, drops=drops)
        for threads, streamed in itertools.product((1, 2, 5), (0, 1 << 40)):
            monkeypatch.setattr("normfast.engines.compiled.STREAMED", streamed)
            with nf.threads(threads):
                assert bits(norm, x, residual, weight, dy, dh, drops=drops) == expected, (threads, streamed)


def test_bits_do_not_depend_on_where_an_array_begins(engine, dtype, norm, rng, monkeypatch):
    """Stores past the caches come in whole lines: each result begins elsewhere in its line, and nothing beside it is written."""
    shape, size = (41, 77), 41 * 77
    x, residual, dy, dh = arrays(rng, 4, shape, dtype)
    forward, backward = trio(norm)
    expected = forward(x, residual, p=0.2, rng=1)
    gradients = backward(dy, *expected[1:], dh=dh)
    calls = [
        (partial(forward, x, residual, p=0.2, rng=1), ("out", "h_out"), expected),
        (partial(backward, dy, *expected[1:], dh=dh), ("out", "dresidual_out"), gradients),
    ]
    for streamed in (1 << 40, 0):
        monkeypatch.setattr("normfast.engines.compiled.STREAMED", streamed)
        for starts in ((0, 0), (0, 5), (3, 0), (1, 2), (17, 31), (63, 33)):
            memory = [np.full(size + 128, 7, dtype) for _ in starts]
            first, second = (m[lo : lo + size].reshape(shape) for m, lo in zip(memory, starts, strict=True))
            for call, names, right in calls:
                one, two = call(**dict(zip(names, (first, second), strict=True)))[:2]
                assert one is first
                assert two is second
                assert same(one, right[0]), (streamed, starts)
                assert same(two, right[1]), (streamed, starts)
                for m, lo in zip(memory, starts, strict=True):
                    assert (m[:lo] == 7).all()
                    assert (m[lo + size :] == 7).all()


@pytest.mark.parametrize("drops", [True, False])
def test_large_arrays(compiled_engine, dtype, norm, drops, rng):
    """Beyond 8 MB: h and dx are those of its parts, y is that of some rows, and writing in place changes no bit."""
    shape = ((18 << 20) // 1000 // dtype.itemsize, 1000)
    x, residual = rng.standard_normal((2, *shape), np.float32).astype(dtype)
    forward, backward = trio(norm, drops)

    def call(x, residual, row=0, **out):
        return forward(x, residual, **({"p": 0.1, "rng": 4, "offset": 1000 * row} if drops else {}), **out)

    y, h, stats, *mask = call(x, residual)
    gradients = backward(x, h, stats, *mask, dh=residual)
    for row in range(0, shape[0] - 100, shape[0] // 7):
        rows = slice(row, row + 100)
        part = call(x[rows], residual[rows], row)
        assert same(part.h, h[rows])
        close(part.y, y[rows].astype(np.longdouble), "y", 4.0 if dtype.itemsize > 2 else 2**23 * eps_of(dtype))
        dx = backward(x[rows], *part[1:], dh=residual[rows]).dx
        close(dx, gradients.dx[rows].astype(np.longdouble), "dx", 16.0 if dtype.itemsize > 2 else 2**23 * eps_of(dtype))
        assert ((dx == 0) == (gradients.dx[rows] == 0)).all()
        close(y[row : row + 3], exact(norm, h[row : row + 3])[0], "y", 16.0)
    place, stream = x.copy(), residual.copy()
    again = call(place, stream, out=place, h_out=stream)
    assert again.y.tobytes() == y.tobytes()
    assert again.h.tobytes() == h.tobytes()
    dy, dh = x.copy(), residual.copy()
    out = {"out": dy, "dresidual_out": dh} if drops else {"out": dh}
    for one, two in zip(backward(dy, h, stats, *mask, dh=dh, **out), gradients, strict=True):
        assert one.tobytes() == two.tobytes()


def test_python_threads_at_once(engine, norm, threaded, rng):
    x, residual, dy, dh = arrays(rng, 4, (200, 150), np.dtype(np.float32))
    (weight,) = arrays(rng, 1, 150, x.dtype)
    expected = bits(norm, x, residual, weight, dy, dh)
    start = threading.Barrier(8)

    def work(_):
        with nf.use_engine(engine), nf.threads(2):
            start.wait()
            return all(bits(norm, x, residual, weight, dy, dh) == expected for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


# Memory.


def arrangements(x):
    """The values of x (2-D) in many memory layouts."""
    wide = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
    wide[::2, ::3] = x
    unaligned = np.frombuffer(bytearray(x.nbytes + 1), np.uint8)[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    layouts = {
        "fortran": np.asfortranarray(x), "strided": wide[::2, ::3], "negative": x[::-1, ::-1].copy()[::-1, ::-1],
        "rows back": x[::-1].copy()[::-1], "every other row": np.repeat(x, 2, axis=0)[::2],
        "unaligned": unaligned, "read-only": read_only, "memmap": x.copy().view(np.memmap),
    }  # fmt: skip
    return layouts if x.itemsize == 2 else layouts | {"byte-swapped": x.astype(x.dtype.newbyteorder())}


def test_layouts(engine, dtype, norm, rng):
    """One operand lies otherwise, or all do; targets of their own layouts take the results."""
    values = arrays(rng, 4, (23, 65), dtype)
    weight = arrays(rng, 1, 65, np.float32 if dtype.itemsize == 2 else dtype)[0]
    others = [arrangements(array) for array in values]
    for name in others[0]:
        for which in ((0,), (1,), (2, 3), (0, 1, 2, 3)):
            x, residual, dy, dh = (others[i][name] if i in which else array for i, array in enumerate(values))
            check(norm, x, residual, p=0.3, dy=dy, dh=dh, weight=weight, rng=5)
    for name in ("fortran", "strided", "negative", "unaligned", "every other row"):
        for which in ((0,), (1,), (0, 1)):
            targets = [arrangements(np.empty_like(values[0]))[name] if i % 2 in which else np.empty_like(values[0]) for i in range(4)]
            check(norm, *values[:2], p=0.3, dy=values[2], dh=values[3], weight=weight, rng=5, targets=targets)


def test_broadcast_and_other_types(engine, norm, rng):
    """A residual that has one row for all, and one of another dtype, which is rounded to x's first."""
    x = rng.standard_normal((20, 33)).astype(np.float32)
    row = np.broadcast_to(rng.standard_normal(33).astype(np.float32), x.shape)
    check(norm, x, row, p=0.3, rng=5, dy=x, dh=row)
    check(norm, row, x, p=0.3, rng=5, dy=row, dh=x)
    forward, backward = trio(norm)
    residual = rng.standard_normal(x.shape)
    expected = forward(x, residual.astype(np.float32), p=0.3, rng=5)
    for other in (residual, residual.tolist()):
        y, h, _, _ = forward(x, other, p=0.3, rng=5)
        assert same(y, expected.y)
        assert same(h, expected.h)
    gradients = backward(residual, *expected[1:], dh=residual)
    narrow = residual.astype(np.float32)
    assert all(same(a, b) for a, b in zip(gradients, backward(narrow, *expected[1:], dh=narrow), strict=True))


def ways(mask):
    """A mask that was drawn, and the same one given: the keywords of both."""
    return {"rng": 1}, {"mask": mask.toarray()}


FORWARD = {  # of x and residual: which x, residual, out and h_out are
    "out is x": lambda x, r: (x, r, x, None),
    "out is residual": lambda x, r: (x, r, r, None),
    "h_out is x": lambda x, r: (x, r, None, x),
    "h_out is residual": lambda x, r: (x, r, None, r),
    "x and residual": lambda x, r: (x, r, x, r),
    "residual and x": lambda x, r: (x, r, r, x),
    "a view of residual": lambda x, r: (x, r, None, r[...]),
    "views of both": lambda x, r: (x, r, x[...], r[...]),
    "views crossed": lambda x, r: (x, r, r[...], x[...]),
    "residual transposed": lambda x, r: (x, r, None, r.T),
    "x transposed": lambda x, r: (x, r, x.T, None),
    "both transposed": lambda x, r: (x, r, r.T, x.T),
    "rows turned round": lambda x, r: (x, r, x[::-1], r[::-1]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("drops", [True, False])
def test_in_place(engine, dtype, norm, name, drops, rng, monkeypatch):
    """The results are those of copies, bit for bit; transposed ones lie otherwise, and so are close."""
    x, residual = arrays(rng, 2, (60, 60), dtype)
    (weight,) = arrays(rng, 1, 60, np.float32 if dtype.itemsize == 2 else dtype)
    forward, _ = trio(norm, drops)
    keys = ways(nf.dropout_forward(x, 0.5, rng=1)[1]) if drops else ({},)
    for key, streamed, limit in itertools.product(keys, (0, 1 << 40), (1 << 18, 700)):
        monkeypatch.setattr("normfast.engines.compiled.STREAMED", streamed)
        monkeypatch.setattr(_pieces, "LIMIT", limit)
        expected = forward(x, residual, weight, **key)
        mine, other, out, h_out = FORWARD[name](x.copy(), residual.copy())
        y, h, stats, *_ = forward(mine, other, weight, out=out, h_out=h_out, **key)
        assert out is None or y is out
        assert h_out is None or h is h_out
        for actual, right in ((y, expected.y), (h, expected.h), (stats.rstd, expected.stats.rstd)):
            if "transposed" in name or "round" in name:
                close(actual, right.astype(np.longdouble), name, 8.0 if actual.dtype.itemsize > 2 else 2**23 * eps_of(dtype))
            else:
                assert same(actual, right), (name, key)


def test_one_array_for_everything(engine, dtype, norm, rng):
    """x and residual are one array, and so are dy, dh and h."""
    (x,) = arrays(rng, 1, (30, 50), dtype)
    forward, backward = trio(norm)
    for key in ways(nf.dropout_forward(x, 0.5, rng=1)[1]):
        expected = forward(x, x.copy(), **key)
        for which in ("out", "h_out"):
            place = x.copy()
            result = forward(place, place, **key, **{which: place})
            assert same(result.y, expected.y)
            assert same(result.h, expected.h)
        _, h, stats, mask = expected
        gradients = backward(h, h.copy(), stats, mask, dh=h.copy())
        for which in ("out", "dresidual_out"):
            place = h.copy()
            for actual, right in zip(backward(place, place, stats, mask, dh=place, **{which: place}), gradients, strict=True):
                assert same(actual, right), which


def overlapping(memory, shape, shift):
    """Two arrays of a shape, `shift` values apart in one memory."""
    size = shape[0] * shape[1]
    return memory[:size].reshape(shape), memory[shift : shift + size].reshape(shape)


@pytest.mark.parametrize("shift", [1, 19, 40, 320])
def test_overlaps(engine, dtype, norm, shift, rng):
    """Each input overlaps each result, from before and from behind: as if copied."""
    shape = (20, 40)
    x, residual, dy, dh = arrays(rng, 4, shape, dtype)
    (weight,) = arrays(rng, 1, 40, dtype)
    forward, backward = trio(norm)
    memory = np.empty(2000, dtype)
    for key in ways(nf.dropout_forward(x, 0.5, rng=1)[1]):
        y, h, stats, mask = expected = forward(x, residual, weight, **key)
        gradients = backward(dy, h, stats, mask, weight, dh=dh)
        for pair in (overlapping(memory, shape, shift), overlapping(memory, shape, shift)[::-1]):
            for which, target in itertools.product((0, 1, 2), ("out", "h_out")):
                arguments = [x, residual, weight]
                arguments[which], place = pair if which < 2 else (pair[0][3], pair[1])
                arguments[which][...] = (x, residual, weight)[which]
                result = forward(*arguments, **key, **{target: place})
                assert same(result.y, y), (which, target)
                assert same(result.h, h), (which, target)
                assert same(result.stats.rstd, expected.stats.rstd), (which, target)
            for which, target in itertools.product((0, 1, 2, 3), ("out", "dresidual_out")):
                arguments = [dy, h, dh, weight]
                arguments[which], place = pair if which < 3 else (pair[0][3], pair[1])
                arguments[which][...] = (dy, h, dh, weight)[which]
                result = backward(*arguments[:2], stats, mask, arguments[3], dh=arguments[2], **{target: place})
                assert all(same(a, b) for a, b in zip(result, gradients, strict=True)), (which, target)


def test_results_may_stand_on_the_parameters(engine, norm, rng):
    """1-D: weight, bias and statistics may have the place of a result, exactly."""
    x, residual, weight, bias, dy, dh = rng.standard_normal((6, 50))
    forward, backward = trio(norm)
    parameters = (weight, bias) if norm == "layer" else (weight,)
    for key in ways(nf.dropout_forward(x, 0.5, rng=1)[1]):
        y, h, stats, mask = forward(x, residual, *parameters, **key)
        gradients = backward(dy, h, stats, mask, weight, dh=dh)
        for which, target in itertools.product(range(len(parameters)), ("out", "h_out")):
            mine = [values.copy() for values in parameters]
            result = forward(x, residual, *mine, **key, **{target: mine[which]})
            assert same(result.y, y), (which, target)
            assert same(result.h, h), (which, target)
        for target in ("out", "dresidual_out"):
            place = weight.copy()
            result = backward(dy, h, stats, mask, place, dh=dh, **{target: place})
            assert all(same(a, b) for a, b in zip(result, gradients, strict=True)), target
    x, residual, dy = rng.standard_normal((3, 6, 4))
    y, h, stats, mask = forward(x, residual, rng=1)
    gradients = backward(dy, h, stats, mask)
    for field, target in itertools.product(("mean", "rstd") if norm == "layer" else ("rstd",), ("out", "dresidual_out")):
        place = np.empty_like(x)
        part = place.reshape(-1)[7:13]
        part[...] = getattr(stats, field)
        result = backward(dy, h, stats._replace(**{field: part}), mask, **{target: place})
        assert all(same(a, b) for a, b in zip(result, gradients, strict=True)), field


BACKWARD = {  # of dy, h and dh: which they, out (dx) and dresidual_out are
    "dx is dy": lambda dy, h, dh: (dy, h, dh, dy, None),
    "dx is h": lambda dy, h, dh: (dy, h, dh, h, None),
    "dx is dh": lambda dy, h, dh: (dy, h, dh, dh, None),
    "dresidual is dy": lambda dy, h, dh: (dy, h, dh, None, dy),
    "dresidual is h": lambda dy, h, dh: (dy, h, dh, None, h),
    "dresidual is dh": lambda dy, h, dh: (dy, h, dh, None, dh),
    "dy and dh": lambda dy, h, dh: (dy, h, dh, dy, dh),
    "dh and dy": lambda dy, h, dh: (dy, h, dh, dh, dy),
    "h and dh": lambda dy, h, dh: (dy, h, dh, h, dh),
    "a view of dh": lambda dy, h, dh: (dy, h, dh, dy[...], dh[...]),
    "views crossed": lambda dy, h, dh: (dy, h, dh, dh[...], h[...]),
    "transposed": lambda dy, h, dh: (dy, h, dh, dy.T, dh.T),
    "rows turned round": lambda dy, h, dh: (dy, h, dh, dh[::-1], dy[::-1]),
    "no dh, dresidual is h": lambda dy, h, _: (dy, h, None, dy, h),
}  # fmt: skip


@pytest.mark.parametrize("name", BACKWARD)
def test_gradients_in_place(engine, dtype, norm, name, rng, monkeypatch):
    x, residual, dy, dh = arrays(rng, 4, (60, 60), dtype)
    (weight,) = arrays(rng, 1, 60, np.float32 if dtype.itemsize == 2 else dtype)
    forward, backward = trio(norm)
    plain = trio(norm, False)[1]
    for key, streamed, limit in itertools.product(ways(nf.dropout_forward(x, 0.5, rng=1)[1]), (0, 1 << 40), (1 << 18, 700)):
        monkeypatch.setattr("normfast.engines.compiled.STREAMED", streamed)
        monkeypatch.setattr(_pieces, "LIMIT", limit)
        _, h, stats, mask = forward(x, residual, weight, **key)
        more = None if "no dh" in name else dh
        expected = backward(dy, h, stats, mask, weight, dh=more), plain(dy, h, stats, weight, dh=more)
        mine, own, other, out, dresidual_out = BACKWARD[name](dy.copy(), h.copy(), dh.copy())
        results = [backward(mine, own, stats, mask, weight, dh=other, out=out, dresidual_out=dresidual_out)]
        mine, own, other, out, dresidual_out = BACKWARD[name](dy.copy(), h.copy(), dh.copy())
        results.append(plain(mine, own, stats, weight, dh=other, out=out if dresidual_out is None else dresidual_out))
        for gradients, rights in zip(results, expected, strict=True):
            for actual, right in zip(gradients, rights, strict=True):
                if "transposed" in name or "round" in name:
                    close(actual, right.astype(np.longdouble), name, 16.0 if actual.dtype.itemsize > 2 else 2**23 * eps_of(dtype))
                else:
                    assert same(actual, right), (name, key)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shift", [0, 1, 24])
def test_results_need_memory_of_their_own(norm, shift):
    x, memory = np.ones((6, 4)), np.full(100, 7.0)
    first, second = memory[:24].reshape(6, 4), memory[shift : shift + 24].reshape(6, 4)
    forward, backward = trio(norm)
    _, h, stats, mask = forward(x, x, rng=1)
    for call, names in (
        (lambda: forward(x, x, rng=1, out=first, h_out=second), "out and h_out"),
        (lambda: trio(norm, False)[0](x, x, out=first, h_out=second), "out and h_out"),
        (lambda: backward(x, h, stats, mask, out=first, dresidual_out=second), "out and dresidual_out"),
    ):
        if shift < 24:
            with pytest.raises(ValueError, match=f"{names} overlap"):
                call()
            assert (memory == 7).all()
        else:
            call()
            assert (memory[:48] != 7).all()
            assert (memory[48:] == 7).all()


# Extremes.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [17, 257, 4097])
def test_what_is_dropped_does_not_leak(engine, dtype, norm, bad, n, rng):
    """h is residual there, whatever x holds; what is kept stays in its row."""
    x, residual, dy, dh = arrays(rng, 4, (9, n), dtype)
    forward, backward = trio(norm)
    drawn = nf.dropout_forward(x, 0.5, rng=1)[1]
    keep = drawn.toarray()
    for key in ways(drawn):
        clean = forward(x, residual, p=0.5, **key)
        gradients = backward(dy, *clean[1:], dh=dh)
        spoilt = np.where(keep, x, dtype.type(bad))
        result = forward(spoilt, residual, p=0.5, **key)
        assert same(result.h, clean.h)
        assert same(result.y, clean.y)
        spoilt = np.where(keep, dh, dtype.type(bad))
        with np.errstate(all="ignore"):
            result = backward(dy, *clean[1:], dh=spoilt)
        assert same(result.dx, gradients.dx)
        assert same(result.dweight, gradients.dweight)
        assert same(result.dresidual[~keep], (result.dresidual[~keep] * 0 + dtype.type(bad)) if np.isnan(bad) else spoilt[~keep])
        row = np.flatnonzero(keep.any(axis=1))[-1]
        spoilt = x.copy()
        spoilt[row, np.flatnonzero(keep[row])[-1]] = bad
        others = np.arange(9) != row
        with np.errstate(all="ignore"):
            y, h, stats, mask = forward(spoilt, residual, p=0.5, **key)
            result = backward(dy, h, stats, mask, dh=dh)
        assert same(y[others], clean.y[others])
        assert same(h[others], clean.h[others])
        assert np.isnan(y[row]).all() if norm == "layer" else np.isnan(y[row]).any()
        assert same(result.dresidual[others], gradients.dresidual[others])
        assert same(result.dx[others], gradients.dx[others])
        assert (result.dx[~keep] == 0).all()
        assert np.isnan(result.dx[row][keep[row]]).any()


def test_bad_residuals_stay_in_their_row(engine, dtype, norm, rng):
    x, residual = arrays(rng, 2, (9, 70), dtype)
    forward, _ = trio(norm)
    for key in ways(nf.dropout_forward(x, 0.5, rng=1)[1]):
        clean = forward(x, residual, p=0.5, **key)
        for bad in (np.nan, np.inf):
            spoilt = residual.copy()
            spoilt[4, 33] = bad
            with np.errstate(all="ignore"):
                y, h, _, _ = forward(x, spoilt, p=0.5, **key)
            assert np.isnan(y[4]).any()
            assert not np.isfinite(h[4, 33])
            assert np.isfinite(h).sum() == h.size - 1
            assert same(y[np.arange(9) != 4], clean.y[np.arange(9) != 4])


def test_everything_dropped(engine, dtype, norm, rng):
    """p = 1: h is residual whatever x holds, and dx is 0 whatever dresidual holds."""
    (residual,) = arrays(rng, 1, (5, 40), dtype)
    forward, backward = trio(norm)
    expected = trio(norm, False)[0](np.zeros_like(residual), residual)
    keys = {"rng": 1}, {"mask": np.ones((5, 40), bool)}, {"mask": np.zeros((5, 40), bool)}
    for bad, key in itertools.product((1.0, np.inf, np.nan), keys):
        y, h, stats, mask = forward(np.full((5, 40), bad, dtype), residual, p=1.0, **key)
        assert same(h, residual), key
        assert same(y, expected.y)
        with np.errstate(all="ignore"):
            gradients = backward(residual, h, stats, mask, dh=np.full((5, 40), bad, dtype))
        assert (gradients.dx == 0).all(), key
        if bad != 1.0:
            assert not np.isfinite(gradients.dresidual).any()


def test_nothing_dropped(engine, dtype, norm, rng):
    """p = 0 is the sum as NumPy gives it, and every bit that of the call without dropout."""
    x, residual, dy, dh = arrays(rng, 4, (9, 70), dtype)
    y, h, stats, mask = trio(norm)[0](x, residual, p=0.0)
    computed = np.float32 if dtype.itemsize == 2 else dtype
    assert (h == (x.astype(computed) + residual.astype(computed)).astype(dtype)).all()
    other = trio(norm, False)[0](x, residual)
    assert same(y, other.y)
    assert same(h, other.h)
    assert same(stats.rstd, other.stats.rstd)
    gradients, others = trio(norm)[1](dy, h, stats, mask, dh=dh), trio(norm, False)[1](dy, h, stats, dh=dh)
    for actual, right in zip(gradients, (others.dx, *others), strict=True):
        assert same(actual, right)


def test_huge_and_tiny_sums(engine, dtype, norm, rng):
    """The squares of h overflow or vanish, and its norm does not."""
    info = np.finfo(dtype) if dtype.name != "bfloat16" else np.finfo(np.float32)
    largest = float(np.finfo(np.float16).max) if dtype == np.float16 else float(info.max) * 0.99
    rows = rng.uniform(-1, 1, (2, 6, 300))
    rows[1, :, 0] = 1.0
    sizes = (largest / 4, largest**0.5 * 4, float(info.tiny) ** 0.5 / 4) if dtype != np.float16 else (largest / 4, 2.0**-15)
    for size in sizes:
        x, residual = (rows * size).astype(dtype)
        for drops in (True, False):
            y, h, _, *_ = trio(norm, drops)[0](x, residual, eps=0, **({"p": 0.5, "rng": 1} if drops else {}))
            assert np.isfinite(h).all()
            expected = exact(norm, h, eps=0)[0]
            close(y, expected, f"rows of {size:g}", 64.0, float(np.abs(expected).max()))


def test_constant_gives_the_bias(engine, dtype):
    for value, n, eps in itertools.product((0.0, 0.1, -3e4), (1, 5, 40, 3000), (1e-5, 0.0)):
        residual, x = np.full((4, n), value, dtype), np.full((4, n), np.nan, dtype)
        bias = (np.arange(n) % 7).astype(dtype)
        results = [
            nf.dropout_add_layer_norm_forward(x, residual, bias=bias, p=1.0, rng=1, eps=eps),
            nf.dropout_add_layer_norm_forward(x, residual, bias=bias, p=0.5, mask=np.zeros((4, n), bool), eps=eps),
            nf.dropout_add_layer_norm_forward(np.zeros_like(x), residual, bias=bias, p=0.5, rng=1, eps=eps),
            nf.add_layer_norm_forward(np.zeros_like(x), residual, bias=bias, eps=eps),
        ]
        for result in results:
            assert (result.y == bias).all()
            assert (result.stats.var == 0).all()
            assert (result.stats.mean == residual[:, 0].astype(float)).all()


@pytest.mark.parametrize("p", [None, 0.5])
def test_one_value_passes_dh_alone(engine, dtype, p, rng):
    """Rows of one value: y is the bias whatever h, so that dresidual is dh, bit for bit."""
    x, residual, dy, dh = arrays(rng, 4, (70, 1), dtype)
    for eps in (1e-5, 0.0):
        forward, backward = trio("layer", p is not None)
        _, h, stats, *mask = forward(x, residual, eps=eps, **({} if p is None else {"p": p, "rng": 1}))
        gradients = backward(dy, h, stats, *mask, dh=dh)
        assert (gradients.dx if p is None else gradients.dresidual).tobytes() == dh.tobytes()
        assert (gradients.dweight == 0).all()


# Zero-centred weights.


def test_zero_centred_rms_norm(engine, dtype, rng):
    """As 1 + weight, in the type that is computed in; dweight has the type of the weight."""
    for shape, axis in (((9, 33), -1), ((3, 4, 50), (1, 2)), ((5, 6, 3), 1)):
        x, residual, dy, dh = arrays(rng, 4, shape, dtype)
        axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
        for own in {np.dtype(np.float32), dtype} if dtype.itemsize == 2 else {dtype}:
            weight = (arrays(rng, 1, [shape[a] for a in axes], np.dtype(np.float64))[0] * 0.1).astype(own)
            computed = np.float32 if dtype.itemsize == 2 else dtype
            plus = 1 + weight.astype(computed)
            zero = {"zero_centered": True, "axis": axis}
            y, stats = nf.rms_norm_forward(x, weight, **zero)
            assert same(y, nf.rms_norm(x, plus, axis=axis))
            assert same(y, nf.rms_norm(x, weight, **zero))
            assert same(nf.rms_norm(x, None, **zero), nf.rms_norm(x, axis=axis))
            some, right = nf.rms_norm_backward(dy, x, stats, weight, **zero), nf.rms_norm_backward(dy, x, stats, plus, axis=axis)
            assert some.dweight.dtype == own
            assert same(some.dx, right.dx)
            close(some.dweight, right.dweight.astype(np.longdouble), "dweight", 1.0)
            for drops in (True, False):
                forward, backward = trio("rms", drops)
                key = {"p": 0.3, "rng": 1} if drops else {}
                y, h, stats, *mask = forward(x, residual, weight, **key, **zero)
                assert same(y, forward(x, residual, plus, axis=axis, **key).y)
                some = backward(dy, h, stats, *mask, weight, dh=dh, **zero)
                right = backward(dy, h, stats, *mask, plus, dh=dh, axis=axis)
                assert some.dweight.dtype == own
                close(some.dweight, right.dweight.astype(np.longdouble), "dweight", 1.0)
                assert same(some.dx, right.dx)
                assert same(backward(dy, h, stats, *mask, dh=dh, **zero).dx, backward(dy, h, stats, *mask, dh=dh, axis=axis).dx)


# Errors.

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
_, H, STATS, MASK = nf.dropout_add_layer_norm_forward(X, X, rng=0)
LOCKED = np.zeros((6, 4), np.float32)
LOCKED.flags.writeable = False
BOTH = [  # the wrong arguments of a forward call
    ({"residual": X[:3]}, ValueError, r"residual has shape \(3, 4\) and x has \(6, 4\)"),
    ({"residual": X[0]}, ValueError, r"residual has shape \(4,\) and x has \(6, 4\)"),
    ({"residual": X.astype(int)}, TypeError, "residual must be float16, bfloat16, float32 or float64, got int64"),
    ({"residual": None}, TypeError, "residual must be"),
    ({"x": X.astype(complex)}, TypeError, "x must be float16, bfloat16, float32 or float64, got complex128"),
    ({"x": np.ma.masked_array(X)}, TypeError, "x is a masked array"),
    ({"residual": np.ma.masked_array(X)}, TypeError, "residual is a masked array"),
    ({"weight": np.ones(5, np.float32)}, ValueError, r"weight has shape \(5,\)"),
    ({"weight": np.ones(4, int)}, TypeError, "weight must be float16"),
    ({"eps": -1e-5}, ValueError, "eps must be a finite number"),
    ({"eps": "small"}, TypeError, "eps must be a number"),
    ({"axis": 2}, ValueError, "axis 2 is out of bounds"),
    ({"axis": 1.5}, TypeError, "axis must be an integer"),
    ({"out": LOCKED}, ValueError, "^out is read-only"),
    ({"h_out": LOCKED}, ValueError, "^h_out is read-only"),
    ({"out": np.full((6, 4), 7.0)}, ValueError, "^out has shape .* dtype float64: it needs .* float32"),
    ({"h_out": np.full((4, 6), 7, np.float32)}, ValueError, r"^h_out has shape \(4, 6\).* it needs \(6, 4\)"),
    ({"h_out": [1, 2]}, TypeError, "^h_out must be a NumPy array, got list"),
    ({"h_out": np.lib.stride_tricks.as_strided(np.zeros(4, "f"), (6, 4), (0, 4), writeable=True)}, ValueError, "^h_out overlaps itself"),
]
DROPPING = [
    ({"p": 1.1}, ValueError, r"p must lie in \[0, 1\], got 1.1"),
    ({"p": -0.1}, ValueError, r"p must lie in \[0, 1\], got -0.1"),
    ({"p": np.nan}, ValueError, r"p must lie in \[0, 1\], got nan"),
    ({"p": "half"}, TypeError, "p must be a number, got str"),
    ({"p": None}, TypeError, "p must be a number"),
    ({"p": [0.5]}, TypeError, "p must be a number"),
    ({"p": True}, TypeError, "p must be a number"),
    ({"rng": "seed"}, TypeError, "rng must be None, an integer"),
    ({"rng": -1}, ValueError, "rng must be 0 or more"),
    ({"offset": -1}, ValueError, "offset must be an integer of 0 or more"),
    ({"offset": 2**63}, ValueError, "offset must be an integer of 0 or more"),
    ({"offset": 1.5}, ValueError, "offset must be an integer of 0 or more"),
    ({"mask": np.ones((6, 4))}, TypeError, "mask must be boolean .* got float64"),
    ({"mask": np.ones((6, 4), np.uint8)}, TypeError, "mask must be boolean .* got uint8"),
    ({"mask": np.ones((4, 6), bool)}, ValueError, r"x has shape \(6, 4\) and the mask has \(4, 6\)"),
    ({"mask": np.ones(4, bool)}, ValueError, r"x has shape \(6, 4\) and the mask has \(4,\)"),
    ({"mask": True}, ValueError, r"the mask has \(\)"),
    ({"mask": MASK, "p": 0.3}, ValueError, "drawn with p=0.5 and p=0.3 is asked for"),
]
GRADIENTS = [  # the wrong arguments of a backward call
    ({"dy": X[:3]}, ValueError, r"dy has shape \(3, 4\)"),
    ({"dy": X.astype(int)}, TypeError, "dy must be float16"),
    ({"dh": X[:3]}, ValueError, r"dh has shape \(3, 4\)"),
    ({"dh": X.astype(int)}, TypeError, "dh must be float16"),
    ({"h": X.astype(int)}, TypeError, "h must be float16"),
    ({"stats": None}, TypeError, "stats must be what the forward call returned"),
    ({"stats": (1, 2)}, TypeError, "stats must be what the forward call returned"),
    ({"stats": nf.layer_norm_forward(X[:3])[1]}, ValueError, r"stats.\w+ has shape \(3,\)"),
    ({"weight": np.ones(3)}, ValueError, r"weight has shape \(3,\)"),
    ({"axis": 2}, ValueError, "axis 2 is out of bounds"),
    ({"axis": 0}, ValueError, r"stats.\w+ has shape \(6,\)"),
    ({"out": np.full((6, 4), 7.0)}, ValueError, "^out has shape .* float64"),
    ({"out": LOCKED}, ValueError, "^out is read-only"),
]
MASKED = [
    ({"mask": None}, TypeError, "mask must be the DropoutMask .* got NoneType"),
    ({"mask": np.ones((6, 4), bool)}, TypeError, "mask must be the DropoutMask .* got ndarray"),
    ({"mask": nf.dropout_forward(X.T)[1]}, ValueError, r"\(6, 4\) and the mask has \(4, 6\)"),
    ({"dresidual_out": np.full((6, 4), 7.0)}, ValueError, "^dresidual_out has shape .* float64"),
    ({"dresidual_out": LOCKED}, ValueError, "^dresidual_out is read-only"),
]


def wrong_calls():
    for norm, drops in itertools.product(NORMS, (True, False)):
        forward, backward = trio(norm, drops)
        plain = getattr(nf, forward.__name__.removesuffix("_forward"))
        bias = [({"bias": np.ones(3, np.float32)}, ValueError, r"bias has shape \(3,\)")] if norm == "layer" else []
        for call, (change, error, text) in itertools.product((forward, plain), BOTH + bias + DROPPING * drops):
            options = {"x": X, "residual": X} | ({"rng": 1} if drops else {})
            yield pytest.param(call, options, {"out", "h_out"}, change, error, text, id=f"{call.__name__}, {next(iter(change))}")
        for change, error, text in GRADIENTS + MASKED * drops:
            options = {"dy": X, "h": H, "stats": STATS, "dh": X} | ({"mask": MASK} if drops else {})
            targets = {"out", "dresidual_out"} if drops else {"out"}
            yield pytest.param(backward, options, targets, change, error, text, id=f"{backward.__name__}, {next(iter(change))}")


@pytest.mark.parametrize(("call", "options", "targets", "change", "error", "text"), list(wrong_calls()))
def test_wrong_arguments(call, options, targets, change, error, text):
    """They raise before anything is written."""
    places = {name: np.full((6, 4), 7, np.float32) for name in targets}
    with pytest.raises(error, match=text):
        call(**options | places | change)
    assert all((place == 7).all() for place in places.values())


# Peak of memory.


def peak(call, *sizes):
    """Bytes that a call allocates at its peak, beyond those that it returns in arrays of the sizes."""
    call()  # compiles, and fills caches
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result = call()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result is not None
    return most - before - sum(sizes)


@pytest.mark.parametrize("drops", [True, False])
def test_memory(compiled_engine, dtype, norm, drops):
    """Given `out`, neither forward nor backward makes an array of x's size: under 1 MB beside the statistics (mean, rstd, var)."""
    rows, n = 64 << 20 >> 9 >> (3 if dtype == np.float64 else 2), 512  # 64 MB; 16 bits: 32 MB
    x, residual, y, h = (np.ones((rows, n), dtype) for _ in range(4))
    x[:, ::2] = 3
    forward, backward = trio(norm, drops)
    key = {"p": 0.1, "rng": 1} if drops else {}
    statistics = 3 * 8 * rows
    assert peak(lambda: forward(x, residual, **key, out=y, h_out=h), statistics) < 1 << 20
    _, h, stats, *mask = forward(x, residual, **key, out=y, h_out=h)
    out = {"out": x, "dresidual_out": residual} if drops else {"out": residual}
    assert peak(lambda: backward(y, h, stats, *mask, dh=residual, **out)) < 1 << 20


def test_memory_of_dropout(compiled_engine, dtype):
    x = np.ones((8 << 20, 4), dtype) if dtype.itemsize == 2 else np.ones(((64 << 20) // dtype.itemsize // 4, 4), dtype)
    y = np.empty_like(x)
    mask = nf.dropout_forward(x, 0.1, rng=1)[1]
    assert peak(lambda: nf.dropout_forward(x, 0.1, rng=1, out=y)) < 1 << 20
    assert peak(lambda: nf.dropout_backward(x, mask, out=y)) < 1 << 20
    assert peak(lambda: nf.dropout_backward(x, mask, out=x)) < 1 << 20

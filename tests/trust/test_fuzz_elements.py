"""Fuzzing: dropout, activations, lp norms and the fused operations, any layout, dtype and magnitude, judged by the oracle."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import strategies as st
from trust.arrays import DTYPES, KINDS, LAYOUTS, OUTS, Output, laid_out, shapes, values_of
from trust.judging import Normalized, Precision, activated, near, slopes, wide
from trust.test_fuzz_norms import ENGINES, fuzz, kept_axes

import normfast as nf

NAMES = ["identity", "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "softplus"]
V, DOUBLE = np.longdouble(2.0) ** -53, Precision(np.float64)
LOW = -np.longdouble("1.6732632423543772848170429916717") * np.longdouble("1.0507009873554804934193349852946")


@st.composite
def element_cases(draw, operation=None, least=0, engines=ENGINES):
    c = SimpleNamespace(operation=operation, shape=draw(shapes(least=least)), dtype=draw(st.sampled_from(DTYPES)))
    c.kind, c.layout, c.engine = (draw(st.sampled_from(choice)) for choice in (KINDS, LAYOUTS, engines))
    c.out, c.edges, c.seed = draw(st.sampled_from(OUTS)), draw(st.integers(0, 5)) == 0, draw(st.integers(0, 2**32 - 1))
    c.name, c.p = draw(st.sampled_from(NAMES)), draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]) | st.floats(0, 1))
    c.mask, c.offset = draw(st.sampled_from(["drawn", "drawn", "given", "packed"])), draw(st.sampled_from([0, 0, 5, 4096, 2**40]))
    c.axis, c.centred, c.drops = None, draw(st.booleans()), draw(st.booleans())
    c.ord, c.eps = draw(st.sampled_from([2, 2, 1, 3, 0.5, np.inf, -np.inf, 0, -1])), draw(st.sampled_from([0.0, 1e-12, 1e-5]))
    c.axes = None
    if c.shape:
        c.axes, c.named = kept_axes(draw, len(c.shape))
        c.axis = c.named if draw(st.integers(0, 3)) == 0 else None
    return c


def prepared(c, rng):
    """What the calls share: what is given, its values, the precision, the output."""
    output = Output(c.out, laid_out(values_of(c.kind, c.shape, c.dtype, rng, c.edges), c.layout, rng), rng)
    return output.x, np.array(output.x, dtype=c.dtype), Precision(c.dtype), output


def activation(c, rng):
    z, values, precision, output = prepared(c, rng)
    a = nf.activation(z, c.name, out=output.given)
    output.check(a)
    with np.errstate(all="ignore"):
        expected, bound = activated(wide(values), c.name, 0 * wide(values), precision.u)
        near(a, expected, precision.kept(expected, bound), c.name, precision, np.isfinite(values))
        da = rng.standard_normal(c.shape).astype(c.dtype)
        slope, of_slope = slopes(wide(values), c.name, 0 * wide(values), precision.u)
        at_kink = (values == 0) & (c.name in ("relu", "leaky_relu"))
        dz = nf.activation_backward(da, values, c.name)
        bound = np.abs(wide(da)) * of_slope + 2 * precision.u * np.abs(da * slope)
        near(dz, da * slope, precision.kept(da * slope, bound), f"{c.name} backward", precision, np.isfinite(values) & ~at_kink)


def mask_options(c, rng):
    """The arguments that say what is dropped."""
    if c.mask == "drawn":
        return {"rng": int(c.seed), "offset": c.offset}
    kept = rng.random(c.shape) < 0.6
    return {"mask": kept if c.mask == "given" else np.packbits(kept, bitorder="little")}


def dropout(c, rng):
    x, values, precision, output = prepared(c, rng)
    options = mask_options(c, rng) | ({"axis": c.axis} if c.mask == "drawn" else {})
    y, mask = nf.dropout_forward(x, c.p, out=output.given, **options)
    output.check(y)
    kept, scale = mask.toarray(), np.longdouble(0 if c.p == 1 else 1 / (1 - np.longdouble(c.p)))
    assert kept.shape == c.shape
    with np.errstate(all="ignore"):
        expected = np.where(kept, wide(values) * scale, 0)
        near(y, expected, precision.kept(expected, 3 * precision.u * np.abs(expected)), "dropout", precision)
    assert (np.asarray(y)[~kept] == 0).all()
    if c.p == 0 and c.mask == "drawn":
        assert np.array(y).tobytes() == values.tobytes(), "p = 0 is the identity, bit for bit"
    again = nf.dropout_backward(values, mask)
    assert np.array_equal(np.asarray(again), np.asarray(y), equal_nan=True), "backward of x is not what forward gave"
    if c.mask == "drawn" and c.axis is None and values.size and 0 < c.p < 1:
        longer = nf.dropout_forward(np.ones(values.size + 70, np.float32), c.p, **options)[1].toarray()
        assert (longer[: values.size] == kept.reshape(-1)).all(), "a longer mask begins otherwise"


def alpha_dropout(c, rng):
    x, values, precision, output = prepared(c, rng)
    y, mask = nf.alpha_dropout_forward(x, c.p, rng=int(c.seed), offset=c.offset, out=output.given)
    output.check(y)
    kept, p = mask.toarray(), np.longdouble(c.p)
    with np.errstate(all="ignore"):
        if c.p == 1:
            expected, bound = np.zeros(c.shape, np.longdouble), np.zeros(c.shape)
        else:
            a = 1 / np.sqrt((1 - p) * (1 + p * LOW * LOW))
            expected = np.where(kept, a * wide(values), a * LOW) - a * LOW * p
            bound = precision.u * np.abs(expected) + 8 * V * (np.abs(np.where(kept, a * wide(values), a * LOW)) + np.abs(a * LOW * p))
        near(y, expected, precision.kept(expected, bound), "alpha_dropout", precision, np.isfinite(values))


def bias_activation_dropout(c, rng):
    x, values, precision, output = prepared(c, rng)
    bias = rng.standard_normal(c.shape[-1:]).astype(c.dtype)
    options = {"activation": c.name, "p": c.p} | mask_options(c, rng)
    y, mask = nf.bias_activation_dropout_forward(x, bias, out=output.given, **options)
    output.check(y)
    kept, scale = mask.toarray(), np.longdouble(0 if c.p == 1 else 1 / (1 - np.longdouble(c.p)))
    with np.errstate(all="ignore"):
        z = wide(values) + bias
        a, bound = activated(z, c.name, 2 * precision.u * np.abs(z), precision.u)
        expected, bound = np.where(kept, a * scale, 0), np.where(kept, bound * scale + 3 * precision.u * np.abs(a * scale), 0)
        finite = np.isfinite(values) & (np.abs(a) < precision.largest)
        near(y, expected, precision.kept(expected, bound), "bias_activation_dropout", precision, finite)


def lp_norm(c, rng):
    x, values, precision, output = prepared(c, rng)
    y, norms = nf.lp_norm_forward(x, c.ord, axis=c.named, eps=c.eps, out=output.given)
    output.check(y)
    n = int(np.prod([c.shape[axis] for axis in c.axes]))
    with np.errstate(all="ignore"):
        size = np.abs(wide(values))
        if n == 0:
            assert norms.shape == tuple(k for axis, k in enumerate(c.shape) if axis not in c.axes)
            return
        most, least = size.max(axis=c.axes, keepdims=True), size.min(axis=c.axes, keepdims=True)
        unit = np.where(most > 0, most if c.ord > 0 else np.maximum(least, np.longdouble(1e-4900)), 1)
        if np.isinf(c.ord):
            norm = most if c.ord > 0 else least
        elif c.ord == 0:
            norm = (size > 0).sum(axis=c.axes, keepdims=True).astype(np.longdouble)
        else:
            norm = unit * ((size / unit) ** c.ord).sum(axis=c.axes, keepdims=True) ** (1 / np.longdouble(c.ord))
            norm = np.where((least == 0) & (c.ord < 0), 0, norm)
        eta = (precision.k + 2) * precision.u if c.ord == 2 else (n + 2 * abs(c.ord) + 64) * V * max(1, 1 / (abs(c.ord) or 1))
        eta = 0 if np.isinf(c.ord) else eta
        divisor = np.maximum(norm, np.longdouble(c.eps))
        expected = np.where(divisor == 0, 0, wide(values) / np.where(divisor == 0, 1, divisor))
        clean = np.isfinite(values).all(axis=c.axes, keepdims=True) & (norm < np.longdouble(1e307))
        bound = (eta + 4 * V) * norm + 2 * DOUBLE.tiny
        near(norms, norm.squeeze(c.axes), bound.squeeze(c.axes), "norms", DOUBLE, clean.squeeze(c.axes))
        bound = (4 * precision.u + 2 * eta) * np.abs(expected) + 8 * precision.tiny
        clean &= 1 / divisor < precision.reach
        near(y, expected, precision.kept(expected, bound), f"lp_norm ord={c.ord}", precision, clean)


def add_norm(c, rng):
    """y and h of the sum with a residual stream, and the way back."""
    x, values, precision, output = prepared(c, rng)
    kind = "layer_norm" if c.centred else "rms_norm"
    residual = laid_out(values_of("normal", c.shape, c.dtype, rng), c.layout if c.layout not in ("broadcast", "list") else "F", rng)
    shape = [c.shape[axis] for axis in c.axes]
    along = [n if axis in c.axes else 1 for axis, n in enumerate(c.shape)]
    weight = rng.standard_normal(shape).astype(c.dtype)
    options = {"axis": c.named, "eps": c.eps}
    drawing = {"p": min(c.p, 0.9)} | mask_options(c, rng) if c.drops else {}
    call = getattr(nf, f"{'dropout_' if c.drops else ''}add_{kind}_forward")
    found = call(x, residual, weight, out=output.given, **drawing, **options)
    output.check(found.y)
    kept = found.mask.toarray() if c.drops else np.ones(c.shape, bool)
    scale = 1 / (1 - np.longdouble(drawing["p"])) if c.drops else np.longdouble(1)
    with np.errstate(all="ignore"):
        dropped = np.where(kept, wide(values) * scale, 0)
        h = dropped + wide(residual)
        bound = precision.u * (np.abs(h) + 4 * np.abs(dropped))
        near(found.h, h, precision.kept(h, bound), "h", precision)
        exact = Normalized(np.asarray(found.h), c.axes, precision, eps=c.eps, weight=weight.reshape(along), centred=c.centred)
        y, bound = exact.forward()
        near(found.y, y, bound, f"y of {call.__name__}", precision, exact.clean)
        dy, dh = (rng.standard_normal(c.shape).astype(c.dtype) for _ in range(2))
        saved = [found.h, found.stats, *([found.mask] if c.drops else [])]
        back = getattr(nf, call.__name__.replace("_forward", "_backward"))(dy, *saved, weight, dh=dh, axis=c.named)
        dx, bound, _, _ = exact.backward(dy)
        total = dx + wide(dh)
        bound = precision.kept(total, bound + 2 * precision.u * (np.abs(total) + np.abs(dh)))
        if not c.drops:
            near(back.dx, total, bound, f"dx of {call.__name__}", precision, exact.clean)
            return
        near(back.dresidual, total, bound, f"dresidual of {call.__name__}", precision, exact.clean)
        bound = np.where(kept, precision.kept(total * scale, scale * (bound + 4 * precision.u * np.abs(total))), 0)
        near(back.dx, np.where(kept, total * scale, 0), bound, f"dx of {call.__name__}", precision, exact.clean)


JUDGES = {judge.__name__: judge for judge in (activation, dropout, alpha_dropout, bias_activation_dropout, lp_norm, add_norm)}
WITH_AXES = ("bias_activation_dropout", "lp_norm", "add_norm")


def run(c):
    with nf.use_engine(c.engine), warnings.catch_warnings():
        warnings.simplefilter("error")
        JUDGES[c.operation](c, np.random.default_rng(c.seed))


@pytest.mark.parametrize("operation", JUDGES)
def test_elements(tried, operation):
    fuzz(tried, element_cases(operation=operation, least=operation in WITH_AXES), run, 100, 2000)


@pytest.mark.long
@pytest.mark.parametrize("operation", JUDGES)
def test_elements_by_numba(tried, operation):
    pytest.importorskip("numba", reason="Numba, whose engine this is about, is not installed")
    fuzz(tried, element_cases(operation=operation, least=operation in WITH_AXES, engines=["numba"]), run, 300, 300)

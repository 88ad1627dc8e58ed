"""Fuzzing: norms forward and backward, any layout, dtype, magnitude and option, judged by the oracle."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import cases
from trust.arrays import DTYPES, KINDS, LAYOUTS, OUTS, Output, laid_out, shapes, values_of
from trust.judging import Normalized, Precision, near

import normfast as nf

NORMS = ["layer", "rms", "batch", "group", "instance", "mean variance", "batch inference"]
ACTIVATIONS = [None, None, "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "softplus"]
EPS = [0.0, 1e-30, 1e-12, 1e-5, 1e-5, 0.1]
ENGINES = ["auto", "auto", "numpy"]


def fuzz(tried, strategy, judge, short, long):
    """Let hypothesis draw cases for a judge, so many of them in each profile."""
    many = cases(short, long)

    @settings(max_examples=many, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def judged(c):
        judge(c)

    judged()
    tried(many)


def kept_axes(draw, ndim):
    """Some axes, at least one, as a caller may name them."""
    axes = sorted(draw(st.sets(st.integers(0, ndim - 1), min_size=1)))
    named = tuple(axis - ndim if draw(st.booleans()) else axis for axis in axes)
    return tuple(axes), named[0] if len(named) == 1 and draw(st.booleans()) else named


@st.composite
def norm_cases(draw, norms=NORMS, dtypes=DTYPES, engines=ENGINES):
    """One call of a norm: what it is, and the arrays."""
    c = SimpleNamespace(norm=draw(st.sampled_from(norms)), options={}, ord=2, mask=None, activation=None)
    least = {"group": 2, "instance": 2}.get(c.norm, 1)
    c.shape = draw(shapes(least=least))
    ndim = len(c.shape)
    c.dtype, c.kind, c.layout = (draw(st.sampled_from(choice)) for choice in (dtypes, KINDS, LAYOUTS))
    c.engine, c.eps, c.out, c.dx_out = (draw(st.sampled_from(choice)) for choice in (engines, EPS, OUTS, OUTS))
    c.edges, c.seed = draw(st.integers(0, 7)) == 0, draw(st.integers(0, 2**32 - 1))
    c.weighted, c.biased = draw(st.booleans()), draw(st.booleans())
    every = tuple(range(ndim))
    c.view, c.keep = lambda a: a, None
    if c.norm in ("layer", "rms"):
        c.axes, c.options["axis"] = kept_axes(draw, ndim)
        c.own = c.axes  # of the parameters
        if c.norm == "rms":
            c.options["zero_centered"], c.biased = draw(st.booleans()), False
    elif c.norm.startswith("batch"):
        c.own, c.options["axis"] = kept_axes(draw, ndim)
        c.axes = tuple(axis for axis in every if axis not in c.own)
        c.activation = draw(st.sampled_from(ACTIVATIONS))
        c.options["activation"] = c.activation
        if c.norm == "batch":
            c.ord = c.options["ord"] = draw(st.sampled_from([2, 2, 2, 1, np.inf]))
    elif c.norm == "mean variance":
        c.axes, c.options["axis"] = kept_axes(draw, ndim)
        c.own, c.weighted, c.biased = (), False, False
    else:
        channels = draw(st.integers(1, ndim - 1))
        size = c.shape[channels]
        c.own, c.options["axis"] = (channels,), draw(st.sampled_from([channels, channels - ndim]))
        c.groups = size if c.norm == "instance" else draw(st.sampled_from([g for g in range(1, size + 1) if size % g == 0] or [1]))
        split = (c.shape[0], max(c.groups, 1), -1 if 0 not in c.shape else 0)
        c.view, c.axes = lambda a: np.moveaxis(a, channels, 1).reshape(split), (2,)
    if c.norm in ("layer", "batch", "group") and draw(st.integers(0, 3)) == 0:
        c.mask = draw(st.sampled_from(["full", "along one axis", "nothing"]))
    return c


def judged(c, rng):
    """Run the case forward and backward; raise an AssertionError where it is wrong."""
    x = values_of(c.kind, c.shape, c.dtype, rng, c.edges)
    precision = Precision(c.dtype)
    output = Output(c.out, laid_out(x, c.layout, rng), rng)
    given_x = output.x
    values = np.array(given_x, dtype=c.dtype)  # "broadcast" has repeated some
    options = dict(c.options)
    parameter_shape = [c.shape[axis] for axis in c.own]
    along = [n if axis in c.own else 1 for axis, n in enumerate(c.shape)]
    weight, bias = rng.standard_normal(parameter_shape).astype(c.dtype), rng.standard_normal(parameter_shape).astype(c.dtype)
    full_weight = weight.reshape(along).astype(np.longdouble) + bool(options.get("zero_centered")) if c.weighted else 1
    full_bias = bias.reshape(along) if c.biased else 0
    if c.mask:
        shape = c.shape if c.mask != "along one axis" else [n if i == 0 else 1 for i, n in enumerate(c.shape)]
        where = rng.random(shape) < (0.7 if c.mask != "nothing" else 0.0)
        options["where"], mask = where, np.broadcast_to(where, c.shape)
    else:
        mask = np.ones(c.shape, bool)
    view = {"weight": c.view(np.broadcast_to(full_weight, c.shape)), "bias": c.view(np.broadcast_to(full_bias, c.shape))}
    name = f"{c.norm.removesuffix(' inference').replace(' ', '_')}_norm"
    exact = Normalized(c.view(values), c.axes, precision, eps=c.eps, mask=c.view(mask), centred=c.norm != "rms", ord=c.ord, **view)
    parameters = [laid_out(values, "C", rng) if asked else None for values, asked in ((weight, c.weighted), (bias, c.biased))]
    if c.norm == "batch inference":
        inference(c, given_x, exact, parameters, precision, output)
        return
    call = {"eps": c.eps, **options}
    before = None if c.out in ("same", "overlapping") else np.array(given_x).tobytes()
    arguments = [] if c.norm == "mean variance" else parameters[: 1 if c.norm == "rms" else 2]
    first = [c.groups] if c.norm == "group" else []
    y, stats = getattr(nf, f"{name}_forward")(given_x, *first, *arguments, out=output.given, **call)
    output.check(y)
    assert y.shape == c.shape
    assert y.dtype == np.dtype(c.dtype)
    if before is not None:
        assert np.array(given_x).tobytes() == before, "x has changed"
    expected, bound = exact.forward(c.activation)
    what = f"{name} y"
    near(c.view(y), expected, bound, what, precision, exact.clean & (exact.count > 0))
    assert (np.asarray(y)[~mask] == 0).all(), "y of masked values"
    alone = getattr(nf, name)(values, *first, *arguments, **call) if name != "batch_norm" else None
    if alone is not None:
        near(c.view(alone), expected, bound, f"{what}, inference", precision, exact.clean & (exact.count > 0))
    backward(c, values, stats, arguments, exact, precision, options, name, rng)


def backward(c, x, stats, arguments, exact, precision, options, name, rng):
    """dx, dweight and dbias of the case."""
    dy = np.ldexp(rng.standard_normal(c.shape), rng.integers(-8, 4)).astype(c.dtype)
    if c.ord != 2:
        return  # the kinks of absolute deviations are those of `test_operations.py`
    output = Output(c.dx_out, laid_out(dy, c.layout if c.layout != "broadcast" else "F", rng), rng)
    given_dy = output.x
    dy = np.array(given_dy, dtype=c.dtype)
    extra = {"num_groups": c.groups} if c.norm == "group" else {"bias": arguments[1]} if c.norm == "batch" else {}
    found = getattr(nf, f"{name}_backward")(given_dy, x, stats, *arguments[:1], out=output.given, **extra, **options)
    output.check(found.dx)
    assert found.dx.shape == c.shape
    assert found.dx.dtype == np.dtype(c.dtype)
    dx, bound, of_weight, of_bias = exact.backward(c.view(dy), c.activation)
    near(c.view(found.dx), dx, bound, f"{name} dx", precision, exact.clean & (exact.count > 0))
    for gradient, terms, which in zip(found[1:], (of_weight, of_bias), ("dweight", "dbias"), strict=False):
        assert gradient.shape == tuple(c.shape[axis] for axis in c.own)
        assert gradient.dtype.isnative
        if c.norm in ("group", "instance"):
            inverse = [c.shape[0], c.shape[c.own[0]], -1 if 0 not in c.shape else 0]
            total, bound = (term.reshape(inverse).sum(axis=(0, 2)) for term in map(exact.full, terms))
            clean = np.repeat(exact.clean.all(axis=(0, 2)), inverse[1] // max(c.groups, 1))
        else:
            others = tuple(axis for axis in range(len(c.shape)) if axis not in c.own)
            total, bound = (np.broadcast_to(term, c.shape).sum(axis=others) for term in terms)
            clean = np.broadcast_to(exact.clean, c.shape).all(axis=others)
        near(gradient, total, precision.kept(total, bound + 2 * precision.u * np.abs(total)), f"{name} {which}", precision, clean)


def inference(c, x, exact, parameters, precision, output):
    """batch_norm by given statistics: those of the batch, in float64."""
    with np.errstate(all="ignore"):
        mean, var = (np.asarray(values.reshape([c.shape[axis] for axis in c.own]), np.float64) for values in (exact.mean, exact.var))
    if not (np.isfinite(mean).all() and np.isfinite(var).all()):
        mean, var = np.zeros_like(mean), np.ones_like(var)
    y = nf.batch_norm(x, mean, var, *parameters, out=output.given, eps=c.eps, **c.options)
    output.check(y)
    exact.given(mean.reshape(exact.mean.shape), var.reshape(exact.var.shape), c.eps)
    expected, bound = exact.forward(c.activation)
    near(y, expected, bound, "batch_norm y", precision, exact.clean)


def run(c):
    with nf.use_engine(c.engine), warnings.catch_warnings():
        warnings.simplefilter("error")
        judged(c, np.random.default_rng(c.seed))


def test_norms(tried):
    fuzz(tried, norm_cases(), run, 300, 6000)


@pytest.mark.long
def test_norms_by_numba(tried):
    pytest.importorskip("numba", reason="Numba, whose engine this is about, is not installed")
    fuzz(tried, norm_cases(engines=["numba"]), run, 1500, 1500)

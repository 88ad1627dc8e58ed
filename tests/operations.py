"""Every operation, forward and backward, with its exact result: the cases of `test_operations.py` and of `docs/operations/errors.md`.

    python tests/operations.py > docs/operations/errors.md

A case is a call of normfast and a plain formula, which runs in longdouble. The exact gradient is the formula's complex step (Squire and
Trapp 1998): the derivative with respect to a value is the imaginary part of f(x + ih) / h, with no cancellation.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from formulas import ACTIVATIONS, affine, along, lp_normalized, normalized, weighted_moments

import normfast as nf
from normfast.ops.activation import activation, activation_backward

DTYPES = ("float16", "bfloat16", "float32", "float64")
BOUNDS = {"float16": 0.51, "bfloat16": 0.51, "float32": 3.0, "float64": 6.0}  # eps of the largest value; 16 bits: rounded once, at the end


@dataclass(frozen=True, eq=False)
class Case:
    """One row of the table. The arrays are x and the parameters, all of which have a gradient; `backward` is None where there is none."""

    operation: str
    variant: str
    shapes: dict
    formula: Callable  # formula(**arrays) -> y, or several results
    forward: Callable  # forward(**arrays) -> y or several results, and what backward needs
    backward: Callable | None = None  # backward(dy, saved, **arrays) -> gradients in the order of the arrays
    bounds: dict = field(default_factory=dict)  # instead of BOUNDS
    wide: bool = False  # the result is float64 whatever the dtype of x
    keeps: bool = False  # the formula takes `kept`, which rounds to x's dtype what is a result and goes on as such

    @property
    def name(self):
        return f"{self.operation}, {self.variant}" if self.variant else self.operation


# The cases.


def norm(operation, variant, shape, axes, parameter_axes, *, bounds=(), **options):
    """A norm with weight and bias over the axes of x; the options are those of the call."""
    mathematical = {key: options[key] for key in ("ord", "where") if key in options}
    unit = 1 if options.get("zero_centered") else 0
    after = {key: options[key] for key in ("where", "activation") if key in options}
    groups = options.get("num_groups")
    shapes = {"x": shape, "weight": [shape[axis] for axis in parameter_axes]}
    if operation != "rms_norm":
        shapes["bias"] = shapes["weight"]

    def formula(x, weight, bias=None):
        if groups is None:
            xhat = normalized(x, axes, centred=operation != "rms_norm", **mathematical)
        else:
            first = np.moveaxis(x, parameter_axes[0], 1)  # channels next to the samples, then (N, groups, the rest)
            mask = np.moveaxis(np.broadcast_to(options.get("where", True), shape), parameter_axes[0], 1)
            split = (shape[0], groups, -1)
            xhat = np.moveaxis(normalized(first.reshape(split), (2,), where=mask.reshape(split)).reshape(first.shape), 1, parameter_axes[0])
        return affine(xhat, weight + unit, bias, parameter_axes, **after)

    def forward(x, **parameters):
        return getattr(nf, f"{operation}_forward")(x, **parameters, **options)

    def backward(dy, stats, x, weight, bias=None):
        extra = {"bias": bias} if "activation" in options else {}
        return getattr(nf, f"{operation}_backward")(dy, x, stats, weight, **extra, **options)

    return Case(operation, variant, shapes, formula, forward, backward, dict(bounds))


def add_norm(operation, variant, shape, axes, **options):
    """A sum with the residual stream, after dropout or not, and its norm: y and h, of which h is rounded before it is normalized.

    p is 0.5, so that x / (1 - p) is exact in every dtype.
    """
    drops, centred = operation.startswith("dropout"), operation.endswith("layer_norm")
    drawing = {"p": 0.5, "rng": 7} if drops else {}
    factor = 2 * nf.dropout_forward(np.ones(shape), **drawing)[1].toarray() if drops else 1
    unit = 1 if options.get("zero_centered") else 0
    shapes = {"x": shape, "residual": shape, "weight": [shape[axis] for axis in axes]}
    if centred:
        shapes["bias"] = shapes["weight"]

    def formula(x, residual, weight, bias=None, *, kept):
        h = kept(x * factor + residual)
        return affine(normalized(h, axes, centred=centred), weight + unit, bias, axes), h

    def forward(x, residual, **parameters):
        y, *saved = getattr(nf, f"{operation}_forward")(x, residual, **parameters, **drawing, **options)
        return (y, saved[0]), saved

    def backward(dy, saved, x, residual, weight, bias=None):
        dx, *others = getattr(nf, f"{operation}_backward")(dy, *saved, weight, dh=dy, **options)
        return [dx, *others] if drops else [dx, dx, *others]

    return Case(operation, variant, shapes, formula, forward, backward, keeps=True)


def inference(variant, shape, axis, **options):
    """batch_norm by given statistics."""
    rng = np.random.default_rng(1)
    mean, var = rng.normal(3, 1, shape[axis]), rng.uniform(1, 4, shape[axis])

    def formula(x, weight, bias):
        axes = (axis % x.ndim,)
        wide_mean, rstd = (along(values, x, axes).astype(np.longdouble) for values in (mean, 1 / np.sqrt(var + np.longdouble(1e-5))))
        return affine((x - wide_mean) * rstd, weight, bias, axes, **options)

    def forward(x, weight, bias):
        return nf.batch_norm(x, mean, var, weight, bias, axis=axis, **options), None

    return Case("batch_norm", variant, {"x": shape, "weight": [shape[axis]], "bias": [shape[axis]]}, formula, forward)


def mean_variance_norm(variant, shape, axis):
    return Case(
        "mean_variance_norm", variant, {"x": shape},
        lambda x: normalized(x, axis, eps=1e-9),
        lambda x: nf.mean_variance_norm_forward(x, axis=axis),
        lambda dy, stats, x: nf.mean_variance_norm_backward(dy, x, stats, axis=axis),
    )  # fmt: skip


def lp_norm(ord):
    return Case(
        "lp_norm", f"ord={ord}", {"x": (5, 131)},
        lambda x: lp_normalized(x, ord),
        lambda x: nf.lp_norm_forward(x, ord),
        lambda dy, saved, x: nf.lp_norm_backward(dy, x, saved, ord=ord),
    )  # fmt: skip


def activated(name):
    return Case(
        "activation", name, {"x": (3, 67)},
        lambda x: ACTIVATIONS[name](x),
        lambda x: (activation(x, name), None),
        lambda dy, _, x: [activation_backward(dy, x, name)],
    )  # fmt: skip


def moments(variant, axis, *, shape=(131, 5), weights=None, where=True):
    every = along(np.ones(shape) if weights is None else weights, np.empty(shape), (0,) if np.ndim(weights) else (0, 1)) * np.ones(shape)

    def forward(x):
        m = nf.moments(x, axis, weights=weights, **({} if where is True else {"where": where}))
        return (m.mean, m.var()), None

    return Case(
        "moments", variant, {"x": shape}, lambda x: weighted_moments(x, axis, every * where), forward, wide=True,
    )  # fmt: skip


def dropout():
    keep = nf.dropout_forward(np.ones((5, 131)), 0.3, rng=7)[1].toarray()
    return Case(
        "dropout", "", {"x": (5, 131)},
        lambda x: x * keep / (1 - np.longdouble(0.3)),
        lambda x: nf.dropout_forward(x, 0.3, rng=7),
        lambda dy, mask, x: [nf.dropout_backward(dy, mask)],
    )  # fmt: skip


def alpha_dropout():
    """Klambauer et al. (2017): a dropped value becomes SELU's -scale * alpha, and the result keeps mean 0 and variance 1."""
    p = np.longdouble(0.3)
    low = -np.longdouble("1.6732632423543772848170429916717") * np.longdouble("1.0507009873554804934193349852946")
    a = 1 / np.sqrt((1 - p) * (1 + p * low * low))
    keep = nf.alpha_dropout_forward(np.ones((5, 131)), 0.3, rng=7)[1].toarray()
    return Case(
        "alpha_dropout", "", {"x": (5, 131)},
        lambda x: a * np.where(keep, x, low) - a * low * p,
        lambda x: nf.alpha_dropout_forward(x, 0.3, rng=7),
        lambda dy, mask, x: [nf.alpha_dropout_backward(dy, mask)],
    )  # fmt: skip


def bias_activation_dropout(name):
    keep = nf.dropout_forward(np.ones((5, 67)), 0.3, rng=7)[1].toarray()
    options = {"activation": name}
    return Case(
        "bias_activation_dropout", name, {"x": (5, 67), "bias": [67]},
        lambda x, bias: ACTIVATIONS[name](x + bias) * keep / (1 - np.longdouble(0.3)),
        lambda x, bias: nf.bias_activation_dropout_forward(x, bias, p=0.3, rng=7, **options),
        lambda dy, mask, x, bias: nf.bias_activation_dropout_backward(dy, x, mask, bias, **options),
    )  # fmt: skip


def mask_of(*shape):
    return np.random.default_rng(2).random(shape) < 0.7


ADDING = ("add", "dropout_add")


@functools.cache
def cases():
    nchw, nhwc = (4, 6, 5, 7), (4, 5, 7, 6)
    columns = {"shape": (131, 5), "axes": (0,), "parameter_axes": (1,)}
    return [
        norm("layer_norm", "last axis", (5, 131), (1,), (1,), axis=-1),
        norm("layer_norm", "two axes", (4, 7, 11), (1, 2), (1, 2), axis=(-2, -1)),
        norm("layer_norm", "middle axis", (3, 71, 3), (1,), (1,), axis=1),
        norm("layer_norm", "where", (5, 131), (1,), (1,), axis=-1, where=mask_of(5, 131)),
        norm("rms_norm", "last axis", (5, 131), (1,), (1,), axis=-1),
        norm("rms_norm", "two axes", (4, 7, 11), (1, 2), (1, 2), axis=(-2, -1)),
        norm("rms_norm", "middle axis", (3, 71, 3), (1,), (1,), axis=1),
        norm("rms_norm", "zero-centred", (5, 131), (1,), (1,), axis=-1, zero_centered=True),
        norm("group_norm", "NCHW", nchw, None, (1,), num_groups=3),
        norm("group_norm", "NHWC", nhwc, None, (3,), num_groups=3, axis=-1),
        norm("group_norm", "where", nchw, None, (1,), num_groups=3, where=mask_of(4, 1, 5, 7)),
        norm("instance_norm", "NCHW", nchw, (2, 3), (1,)),
        norm("instance_norm", "NHWC", nhwc, (1, 2), (3,), axis=-1),
        norm("batch_norm", "training, NCHW", nchw, (0, 2, 3), (1,)),
        norm("batch_norm", "training, NHWC", nhwc, (0, 1, 2), (3,), axis=-1),
        norm("batch_norm", "training, (N, C)", **columns),
        norm("batch_norm", "training, ord=1", **columns, ord=1),
        norm("batch_norm", "training, ord=inf", **columns, ord=np.inf),
        norm("batch_norm", "training, NCHW, ord=1", nchw, (0, 2, 3), (1,), ord=1),
        norm("batch_norm", "training, NCHW, ord=inf", nchw, (0, 2, 3), (1,), ord=np.inf),
        norm("batch_norm", "training, where", nchw, (0, 2, 3), (1,), where=mask_of(4, 1, 5, 7)),
        *(norm("batch_norm", f"training, {name}", **columns, activation=name) for name in ACTIVATIONS if name != "identity"),
        norm("batch_norm", "training, NCHW, silu", nchw, (0, 2, 3), (1,), activation="silu"),
        inference("inference, NCHW", nchw, 1),
        inference("inference, NHWC", nhwc, -1),
        inference("inference, gelu", (131, 5), 1, activation="gelu"),
        mean_variance_norm("all axes", (5, 131), None),
        mean_variance_norm("axes 0, 2, 3", nchw, (0, 2, 3)),
        *(lp_norm(ord) for ord in (1, 2, 3, np.inf)),
        *(activated(name) for name in ACTIVATIONS),
        dropout(),
        alpha_dropout(),
        *(bias_activation_dropout(name) for name in ("relu", "gelu", "silu")),
        *(add_norm(f"{name}_layer_norm", "last axis", (5, 67), (1,), axis=-1) for name in ADDING),
        *(add_norm(f"{name}_layer_norm", "two axes", (3, 5, 7), (1, 2), axis=(-2, -1)) for name in ADDING),
        *(add_norm(f"{name}_layer_norm", "first axis", (31, 4), (0,), axis=0) for name in ADDING),
        *(add_norm(f"{name}_rms_norm", "last axis", (5, 67), (1,), axis=-1) for name in ADDING),
        *(add_norm(f"{name}_rms_norm", "middle axis", (2, 31, 3), (1,), axis=1) for name in ADDING),
        *(add_norm(f"{name}_rms_norm", "zero-centred", (5, 67), (1,), axis=-1, zero_centered=True) for name in ADDING),
        moments("all axes", None),
        moments("axis 0", 0),
        moments("axis 1", 1),
        moments("where", 0, where=mask_of(131, 5)),
        moments("weights", 0, weights=np.random.default_rng(3).random(131)),
    ]  # fmt: skip


# The errors.


def several(results):
    return results if isinstance(results, tuple) else (results,)


def kept(values, dtype):
    """The values as an array of the dtype holds them, 16 bits by way of the float32 that they are computed in; their derivative stays."""
    computed = values.real.astype(np.float32 if dtype.itemsize == 2 else dtype)
    return values + (computed.astype(dtype).astype(np.longdouble) - values.real)


@functools.cache
def arrays_of(case, dtype, parameters):
    """x and the parameters in their dtypes, and dy: what they are after rounding is the input. Fixed data: at ties no gradient is exact."""
    if dtype == "bfloat16":
        import ml_dtypes  # noqa: F401  (gives NumPy the dtype's name)
    rng = np.random.default_rng(0)
    centre = 0.0 if case.operation in ("activation", "dropout", "alpha_dropout", "lp_norm") else 3.0
    arrays = {"x": rng.normal(centre, 2.0, case.shapes["x"]).astype(dtype)}
    for name, shape in case.shapes.items():
        if name != "x":
            arrays[name] = rng.standard_normal(shape).astype(dtype if name == "residual" else parameters)
    return arrays, rng.standard_normal(case.shapes["x"]).astype(dtype)


@functools.cache
def exact(case, direction, dtype, parameters):
    """The formula, or its gradients, in longdouble."""
    arrays, dy = arrays_of(case, dtype, parameters)
    wide = {name: array.astype(np.longdouble) for name, array in arrays.items()}
    formula = functools.partial(case.formula, kept=functools.partial(kept, dtype=np.dtype(dtype))) if case.keeps else case.formula
    if direction == "forward":
        return several(formula(**wide))
    h, dy, gradients = np.longdouble(1e-30), dy.astype(np.longdouble), []
    for name, array in wide.items():
        gradient, moved = np.empty_like(array), array.astype(np.clongdouble)
        for index in np.ndindex(array.shape):
            moved[index] += 1j * h
            gradient[index] = sum((dy * result.imag).sum() for result in several(formula(**wide | {name: moved}))) / h
            moved[index] = array[index]
        gradients.append(gradient)
    return tuple(gradients)


def error(case, direction, dtype, parameters=None):
    """The largest error of all results, each in eps of its dtype and of its largest exact value."""
    arrays, dy = arrays_of(case, dtype, parameters or dtype)
    y, saved = case.forward(**arrays)
    if direction == "forward":
        results, dtypes = several(y), ["float64" if case.wide else dtype] * len(several(y))
    else:
        results, dtypes = case.backward(dy, saved, **arrays), [array.dtype for array in arrays.values()]
    errors = []
    for actual, expected, wanted in zip(results, exact(case, direction, dtype, parameters or dtype), dtypes, strict=True):
        actual = np.asarray(actual)
        assert actual.dtype == wanted, f"{case.name}: the result is {actual.dtype}"
        assert actual.shape == expected.shape, f"{case.name}: shape {actual.shape} instead of {expected.shape}"
        eps = np.spacing(actual.dtype.type(1)).astype(np.longdouble)
        errors.append(np.abs(actual.astype(np.longdouble) - expected).max() / (eps * np.abs(expected).max()))
    return float(np.max(errors))


def bound(case, dtype):
    return (BOUNDS | case.bounds)["float64" if case.wide else dtype]


# The page.

HEAD = """# Every operation, and its error

Generated by `python tests/operations.py > docs/operations/errors.md`; `tests/test_operations.py` holds every figure to its bound.

Each figure is the largest error over y (and h, the sum with the residual stream), or over dx, dresidual, dweight and dbias, in eps of the
result's dtype (2^-10, 2^-7, 2^-23, 2^-52), relative to the largest exact value. The exact results are plain formulas in longdouble on the
inputs as stored, and their complex-step derivatives. Results of 16 bits are computed in wider types and rounded once: half an eps. h is
normalized as it is stored; its gradient is dy, as that of y.

"-": no backward of its own. Gradients of batch norm belong to the training pass; `moments`, whose results are float64 whatever the input,
has none."""
FOOT = "Measured with normfast {normfast}, Python {python}, NumPy {numpy}, on {processor}. {engines}."


def page():
    """The table in Markdown, a section for each dtype."""
    config = nf.show_config("dicts")
    lines = [HEAD]
    for dtype in DTYPES:
        lines += ["", f"## {dtype}", ""]
        lines += ["| operation | forward: Cython | Numba | NumPy | backward: Cython | Numba | NumPy | bound |", "| --- |" + " ---: |" * 7]
        for case in cases():
            cells = [case.name]
            for direction in ("forward", "backward"):
                for engine in nf.engines.ENGINES:
                    with nf.use_engine(engine):
                        none = direction == "backward" and case.backward is None
                        cells.append("-" if none else f"{error(case, direction, dtype):.2f}")
            lines.append(f"| {' | '.join(cells)} | {bound(case, dtype):g} |")
    engines = "; ".join(f"{name}: {status}" for name, status in config["engines"].items())
    return "\n".join([*lines, "", FOOT.format(**config | {"engines": engines})])


if __name__ == "__main__":
    print(page())

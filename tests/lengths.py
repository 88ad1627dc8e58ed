"""Every operation of `operations.py` at any length: calls for the tests of memory, which ask what is touched and not what comes out."""

import sys
from dataclasses import replace

import numpy as np
from formulas import ACTIVATIONS
from operations import (
    ADDING,
    activated,
    add_norm,
    alpha_dropout,
    bias_activation_dropout,
    dropout,
    inference,
    lp_norm,
    mask_of,
    mean_variance_norm,
    moments,
    norm,
    several,
)

import normfast as nf

AROUND = sorted({edge + step for edge in (16, 32, 64, 128, 256) for step in (-1, 0, 1)})
SHORT = [*range(1, 10), *AROUND, 300]  # vectors and what is left over of them, and a few of each
WHOLE = range(301)


def cases_of(n):
    """The cases, whose rows, runs or columns have n values; more of them where a loop of its own takes a shape."""
    rows, images, samples, last = (5, n), (2, 6, n), (9, 4, n), (2, n, 6)
    whole, middle = {"axis": -1}, {"shape": (2, n, 3), "axes": (1,), "parameter_axes": (1,), "axis": 1}
    columns = {"shape": (n, 5), "axes": (0,), "parameter_axes": (1,)}
    return [
        *(norm(name, "rows", rows, (1,), (1,), **whole) for name in ("layer_norm", "rms_norm")),
        *(norm(name, "middle axis", **middle) for name in ("layer_norm", "rms_norm")),
        norm("layer_norm", "one row", (1, n), (1,), (1,), **whole),
        norm("layer_norm", "where", rows, (1,), (1,), **whole, where=mask_of(*rows)),
        norm("rms_norm", "zero-centred", rows, (1,), (1,), **whole, zero_centered=True),
        norm("group_norm", "NCHW", images, None, (1,), num_groups=3),
        norm("group_norm", "NHWC", last, None, (2,), num_groups=3, axis=-1),
        norm("group_norm", "where", images, None, (1,), num_groups=3, where=mask_of(2, 1, n)),
        norm("instance_norm", "NCHW", images, (2,), (1,)),
        norm("instance_norm", "NHWC", last, (1,), (2,), axis=-1),
        norm("batch_norm", "NCHW", images, (0, 2), (1,)),
        norm("batch_norm", "NCHW of many samples", samples, (0, 2), (1,)),
        norm("batch_norm", "NHWC", last, (0, 1), (2,), axis=-1),
        norm("batch_norm", "columns", **columns),
        norm("batch_norm", "n columns", (5, n), (0,), (1,)),
        norm("batch_norm", "ord=1", **columns, ord=1),
        norm("batch_norm", "NCHW, ord=inf", images, (0, 2), (1,), ord=np.inf),
        norm("batch_norm", "where", images, (0, 2), (1,), where=mask_of(2, 1, n)),
        *(norm("batch_norm", name, samples, (0, 2), (1,), activation=name) for name in ACTIVATIONS if name != "identity"),
        inference("NCHW", images, 1),
        inference("NHWC, gelu", last, -1, activation="gelu"),
        inference("n columns", (5, n), 1),
        mean_variance_norm("all axes", rows, None),
        mean_variance_norm("axes 0 and 2", images, (0, 2)),
        *(replace(lp_norm(ord), shapes={"x": rows}) for ord in (1, 2, 3, np.inf)),
        *(replace(activated(name), shapes={"x": (n,)}) for name in ACTIVATIONS),
        replace(dropout(), shapes={"x": rows}),
        replace(alpha_dropout(), shapes={"x": rows}),
        *(replace(bias_activation_dropout(name), shapes={"x": rows, "bias": (n,)}) for name in ("relu", "gelu", "silu")),
        *(add_norm(f"{name}_{kind}", "rows", rows, (1,), **whole) for name in ADDING for kind in ("layer_norm", "rms_norm")),
        add_norm("dropout_add_layer_norm", "middle axis", (2, n, 3), (1,), axis=1),
        add_norm("add_rms_norm", "zero-centred", rows, (1,), **whole, zero_centered=True),
        *(moments(f"axis {axis}", axis, shape=shape) for axis in (None, 0, 1) for shape in (rows, (n, 5))),
        moments("where", 1, shape=rows, where=mask_of(*rows)),
        moments("weights", 0, shape=(n, 5), weights=np.random.default_rng(3).random(n)),
    ]  # fmt: skip


def arrays_of(case, dtype):
    """x, the parameters and dy: the same values in every call."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(3.0, 2.0, shape).astype(dtype) for name, shape in case.shapes.items()}
    return arrays, rng.standard_normal(case.shapes["x"]).astype(dtype)


def results_of(case, arrays, dy):
    """All results of the call and of its gradient."""
    y, saved = case.forward(**arrays)
    results = [*several(y)]
    if case.backward is not None:
        results += case.backward(dy, saved, **arrays)
    return results


def other_calls(n, dtype):
    """What else draws, reads or writes: name, what makes the arrays, and the call on them, which gives its results."""

    def arrays():
        x = np.random.default_rng(0).normal(3.0, 2.0, n).astype(dtype)
        return x, np.full(n, 7, dtype), np.arange(n) % 3 > 0

    def call(f):
        return lambda *given: several(f(*given))

    return [
        (name, arrays, call(f))
        for name, f in {
            "dropout by a mask": lambda x, out, kept: nf.dropout_forward(x, 0.5, mask=kept)[0],
            "dropout by a mask from its second flag on": lambda x, out, kept: nf.dropout_forward(x[1:], 0.5, mask=kept[1:])[0],
            "dropout from an offset": lambda x, out, kept: nf.dropout_forward(x, 0.3, rng=7, offset=4093)[0],
            "a mask's flags": lambda x, out, kept: nf.dropout_forward(x, 0.3, rng=7)[1].toarray(),
            "a mask's bits": lambda x, out, kept: nf.dropout_forward(x, 0.3, rng=7)[1].packbits(),
            "dropout, out": lambda x, out, kept: nf.dropout(x, 0.3, rng=7, out=out),
            "layer_norm, out": lambda x, out, kept: nf.layer_norm(x, x, x, out=out),
            "layer_norm in place": lambda x, out, kept: nf.layer_norm(x, x, x, out=x),
            "rms_norm, out": lambda x, out, kept: nf.rms_norm(x, out=out),
            "batch_norm, out": lambda x, out, kept: nf.batch_norm(x[None], abs(x), abs(x), x, x, out=out[None]),
            "batch_norm_forward, out": lambda x, out, kept: nf.batch_norm_forward(x[:, None], out=out[:, None])[0],
            "group_norm, out": lambda x, out, kept: nf.group_norm(x[None, None], 1, out=out[None, None]),
            "lp_norm, out": lambda x, out, kept: nf.lp_norm(x, out=out),
            "add_layer_norm, out": lambda x, out, kept: nf.add_layer_norm(x, x, out=out),
            "every other value": lambda x, out, kept: nf.layer_norm(x[::2], out=out[::2]),
            "backwards": lambda x, out, kept: nf.rms_norm(x[::-1], out=out[::-1]),
        }.items()
    ]


def main(dtype, *lengths):
    """Every call once at each length, for who looks at the process."""
    if dtype == "bfloat16":
        import ml_dtypes  # noqa: F401  (gives NumPy the dtype's name)
    calls = 0
    for n in map(int, lengths):
        for case in cases_of(n):
            print(f"{dtype} {case.name}, {n} values", flush=True)
            results_of(case, *arrays_of(case, dtype))
            calls += 1 + (case.backward is not None)
        for name, arrays, call in other_calls(n, dtype):
            print(f"{dtype} {name}, {n} values", flush=True)
            call(*arrays())
            calls += 1
    print(f"{calls} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])

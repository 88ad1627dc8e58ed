"""normfast itself, on one of its engines."""

import functools
from contextlib import ExitStack

import normfast as nf
from normfast.benchmarks.formulas import P
from normfast.benchmarks.rivals import Contender


def contender(engine, problem, threads):
    """The public calls; raises ImportError where the engine is not installed."""
    case = problem.case
    nf.engines.load(engine)

    def state():
        stack = ExitStack()
        stack.enter_context(nf.use_engine(engine))
        stack.enter_context(nf.threads(threads))
        return stack

    with state():
        make = fused if case.fused else {"forward": forward, "backward": backward, "both": both}[case.direction]
        run, results = make(case, problem)
    return Contender(run, results, state)


def forward(case, problem):
    x, out = problem.x, problem.out if case.out else None
    if case.op == "moments":
        return lambda: nf.moments(x, case.axis), lambda m: (m.mean, m.var())
    if case.op == "standardize":
        return lambda: nf.preprocessing.standardize(x, axis=case.axis, out=out), lambda y: (y,)
    if case.op == "dropout":
        return lambda: nf.dropout(x, P, rng=1, out=out), lambda y: (y,)
    if case.op == "lp_norm":
        return lambda: nf.lp_norm(x, out=out), lambda y: (y,)
    weight, bias, axis = problem.weight, problem.bias, case.axis
    if case.op == "batch_norm_inference":
        return lambda: nf.batch_norm(x, problem.mean, problem.var, weight, bias, axis=axis, out=out), lambda y: (y,)
    if case.op.startswith("batch_norm"):
        activation = "relu" if case.op == "batch_norm_relu" else None
        return lambda: nf.batch_norm_forward(x, weight, bias, axis=axis, activation=activation, out=out), lambda pair: pair[:1]
    if case.op == "rms_norm":
        return lambda: nf.rms_norm(x, weight, out=out), lambda y: (y,)
    if case.op == "group_norm":
        return lambda: nf.group_norm(x, case.groups, weight, bias, axis=axis, out=out), lambda y: (y,)
    norm = getattr(nf, case.op)
    return lambda: norm(x, weight, bias, axis=axis, out=out), lambda y: (y,)


def trio(case, problem):
    """forward() -> y, saved and backward(dy, saved, out) -> gradients."""
    x, weight, bias, axis = problem.x, problem.weight, problem.bias, case.axis
    if case.op == "dropout":
        return lambda: nf.dropout_forward(x, P, rng=1), lambda dy, mask, out: (nf.dropout_backward(dy, mask, out=out),)
    if case.op == "lp_norm":
        return lambda: nf.lp_norm_forward(x), lambda dy, saved, out: nf.lp_norm_backward(dy, x, saved, out=out)
    if case.op == "rms_norm":
        return lambda: nf.rms_norm_forward(x, weight), lambda dy, stats, out: nf.rms_norm_backward(dy, x, stats, weight, out=out)
    if case.op == "group_norm":
        return (
            lambda: nf.group_norm_forward(x, case.groups, weight, bias, axis=axis),
            lambda dy, stats, out: nf.group_norm_backward(dy, x, stats, weight, num_groups=case.groups, axis=axis, out=out),
        )
    if case.op == "batch_norm_relu":
        return (
            lambda: nf.batch_norm_forward(x, weight, bias, axis=axis, activation="relu"),
            lambda dy, stats, out: nf.batch_norm_backward(dy, x, stats, weight, bias=bias, axis=axis, activation="relu", out=out),
        )
    norm, gradient = getattr(nf, f"{case.op}_forward"), getattr(nf, f"{case.op}_backward")
    return lambda: norm(x, weight, bias, axis=axis), lambda dy, stats, out: gradient(dy, x, stats, weight, axis=axis, out=out)


def backward(case, problem):
    there, back = trio(case, problem)
    dy, out, (_, saved) = problem.dy, problem.out if case.out else None, there()
    return lambda: back(dy, saved, out), tuple


def both(case, problem):
    there, back = trio(case, problem)
    dy = problem.dy

    def run():
        y, saved = there()
        return y, back(dy, saved, None)

    return run, lambda pair: (pair[0], *pair[1])


def fused(case, problem):
    """Dropout, sum and norm: y and h, the gradients, or y and the gradients."""
    x, residual, dy, dh, weight, out, h = (getattr(problem, name) for name in ("x", "residual", "dy", "dh", "weight", "out", "h"))
    inputs = (x, residual, weight) if case.inner.op == "rms_norm" else (x, residual, weight, problem.bias)
    targets = {"out": out, "h_out": h} if case.out else {}
    if case.op.startswith("add"):
        call = getattr(nf, case.op if case.out else f"{case.op}_forward")
        return functools.partial(call, *inputs, **targets), lambda y: (y, h) if case.out else y[:2]
    there = functools.partial(getattr(nf, f"{case.op}_forward"), *inputs, p=P, rng=1)
    back = getattr(nf, f"{case.op}_backward")
    if case.direction == "forward":
        return lambda: there(**targets), lambda results: results[:2]
    if case.direction == "backward":
        targets = {"out": out, "dresidual_out": h} if case.out else {}
        _, *saved = there()
        return lambda: back(dy, *saved, weight, dh=dh, **targets), tuple

    def run():
        y, *saved = there()
        return y, *back(dy, *saved, weight)

    return run, tuple

"""normfast keeps its digits where data have an offset.

Layer norm of 512 handwritten digits (64 pixels each, from 0 to 1 in steps of a sixteenth) plus an offset, in float32, which holds these
values exactly: whatever error there is comes from the calculation. Shown is the largest error of y, and of the worst of dx, dweight and
dbias, relative to the largest exact value, by offset; beside normfast stand NumPy's formulas as people write them in float32, and those
libraries of the [benchmarks](../benchmarks.md) that are installed. One pass is the mean of squares minus the square of the mean. What is
not finite, or larger than 1, counts as an error of 1.
"""

from dataclasses import replace

import numpy as np
from figures import Check, Panel, larger, show
from pages import main
from sklearn.datasets import load_digits

import normfast as nf
from normfast.benchmarks import formulas, rivals
from normfast.benchmarks.cases import Case
from normfast.benchmarks.problems import Problem
from normfast.benchmarks.rivals.ours import contender as ours

SEEDS = range(5)
OFFSETS = [0, 1, 10, 100, 1_000, 10_000, 100_000]
CASE = Case("layer_norm", "digits", (512, 64))
OTHERS = "numpy", "torch", "onnxruntime", "jax", "openvino"


def one_pass(problem):
    """y by mean(x**2) - mean(x)**2 in float32."""
    x = problem.x
    mean = x.mean(axis=1, keepdims=True)
    var = np.maximum((x * x).mean(axis=1, keepdims=True) - mean * mean, 0)
    return ((x - mean) / np.sqrt(var + np.float32(formulas.EPS)) * problem.weight + problem.bias,)


def results_of(name, problem):
    """What a contender gives for a problem, or None where it does not have the operation."""
    if name == "one pass":
        return one_pass(problem) if problem.case.direction == "forward" else None
    contender = ours(nf.engines.current().name, problem, 1) if name == "normfast" else rivals.build(name, problem, 1)
    if contender is None:
        return None
    with contender.state():
        return contender.results(contender.run())


def measure(seed):
    rng = np.random.default_rng(seed)
    images = load_digits().data[rng.choice(1797, CASE.shape[0], replace=False)] / 16
    contenders = ["normfast", "one pass", *filter(rivals.installed, OTHERS)]
    figures = {}
    for direction in ("forward", "backward"):
        for offset in OFFSETS:
            problem = Problem(replace(CASE, direction=direction))
            problem.x[...] = images + offset
            problem.weight[...], problem.bias[...] = rng.uniform(0.5, 1.5, 64), rng.normal(size=64)
            if problem.dy is not None:
                problem.dy[...] = rng.standard_normal(CASE.shape)
            for name in contenders:
                results = results_of(name, problem)
                if results is not None:
                    figures.setdefault(f"{name} {direction}", []).append(min(1.0, problem.error(results)))
    return figures


def judge(figures):
    checks = []
    for direction, what in (("forward", "y"), ("backward", "gradients")):
        ours = figures[f"normfast {direction}"].max(axis=1)
        bound = 1e-6 if direction == "forward" else 1e-5
        found = f"largest error {show(ours)}, the promise is {bound:g}"
        checks.append(Check(f"{what}: within what is promised at every offset", found, bool(ours.max() <= bound)))
        for name in ("one pass", *OTHERS):
            if (theirs := figures.get(f"{name} {direction}")) is not None:
                found = f"{show(theirs[:, -1])} and {show(figures[f'normfast {direction}'][:, -1])}"
                checks.append(
                    Check(
                        f"{what}: {name} loses digits at an offset of {OFFSETS[-1]:g}, normfast less",
                        found,
                        larger(theirs[:, -1], figures[f"normfast {direction}"][:, -1]),
                    )
                )
    return checks


NAMES = "normfast", "one pass", *OTHERS
PANELS = [
    Panel(f"Layer norm, {direction}", "offset", "largest error", OFFSETS, {name: f"{name} {direction}" for name in NAMES}, "symlog", "log")
    for direction in ("forward", "backward")
]

if __name__ == "__main__":
    main(__file__)

"""Batch norm keeps sigmoid layers out of saturation, so that gradients do not vanish.

Handwritten digits, eight hidden layers of 64 sigmoid units, initial weights from a normal distribution of standard deviation 1 (inputs of
the units then reach where the function is flat) or uniform within 1 / sqrt(64) (where they do not), 200 steps at learning rate 0.3. A
value is saturated where the slope of the sigmoid is below 0.01 (`normfast.diagnostics.saturation`). The gradient of a layer is the norm
of its weights' gradient before the first step; the ratio compares the first layer with the last hidden one: 1 where nothing vanishes.
"""

import numpy as np
from figures import Check, Panel, larger, show
from pages import main
from training import accuracy, cross_entropy_gradient, digits, network, trained

from normfast.diagnostics import saturation

SEEDS = range(5)
DEPTH, WIDTH = 8, 64
STARTS = "normal", "uniform"


def deep(seed, norm, start):
    model = network((64, *[WIDTH] * DEPTH, 10), seed, norm, "sigmoid")
    rng = np.random.default_rng(seed)
    if start == "normal":
        for layer in model.layers:
            layer.weight.data[...] = rng.standard_normal(layer.weight.data.shape)
    return model


def measure(seed):
    data, figures = digits(seed), {}
    for start in STARTS:
        for norm in ("batch", None):
            model, name = deep(seed, norm, start), f"{start} {norm}"
            figures[f"{name} saturated"] = [100 * row.saturated for row in saturation(model, data.x)]
            model.backward(cross_entropy_gradient(model(data.x), data.labels))
            norms = [float(np.linalg.norm(layer.weight.grad)) for layer in model.layers[:DEPTH]]
            figures[f"{name} gradients"], figures[f"{name} ratio"] = norms, norms[0] / norms[-1]
            figures[f"{name} accuracy"] = accuracy(trained(model, data, seed, 200, rate=0.3), data.test, data.test_labels)
            figures[f"{name} saturated later"] = [100 * row.saturated for row in saturation(model, data.x)]
    return figures


def judge(figures):
    shares = [figures[f"normal {norm} saturated"].mean(axis=1) for norm in ("batch", None)]
    later = [figures[f"normal {norm} saturated later"].mean(axis=1) for norm in ("batch", None)]
    checks = [
        Check(
            "with normal weights, fewer values saturated at the start",
            f"{show(shares[0], ' %')} with, {show(shares[1], ' %')} without",
            larger(shares[1], shares[0]),
        ),
        Check(
            "with normal weights, fewer values saturated after 200 steps",
            f"{show(later[0], ' %')} with, {show(later[1], ' %')} without",
            larger(later[1], later[0]),
        ),
    ]
    for start in STARTS:
        ratios = [figures[f"{start} {norm} ratio"] for norm in ("batch", None)]
        found = f"first layer's gradient / last one's {show(ratios[0])} with, {show(ratios[1])} without"
        checks.append(
            Check(f"with {start} weights, gradients shrink less on their way down", found, larger(np.log(ratios[0]), np.log(ratios[1])))
        )
        ends = [figures[f"{start} {norm} accuracy"] for norm in ("batch", None)]
        found = f"{show(ends[0], ' %')} with, {show(ends[1], ' %')} without"
        checks.append(
            Check(f"with {start} weights, better by more than 10 points after 200 steps", found, larger(ends[0], ends[1], by=10.0))
        )
    return checks


LAYERS = list(range(1, DEPTH + 1))
LABELS = {f"{start}, {'with' if norm else 'without'}": f"{start} {norm}" for start in STARTS for norm in ("batch", None)}
PANELS = [
    Panel(
        "Saturated at the start", "layer", "saturated values in %", LAYERS, {label: f"{name} saturated" for label, name in LABELS.items()}
    ),
    Panel(
        "Saturated after 200 steps",
        "layer",
        "saturated values in %",
        LAYERS,
        {label: f"{name} saturated later" for label, name in LABELS.items()},
    ),
    Panel(
        "Gradients at the start",
        "layer",
        "norm of the gradient",
        LAYERS,
        {label: f"{name} gradients" for label, name in LABELS.items()},
        yscale="log",
    ),
]

if __name__ == "__main__":
    main(__file__)

"""Batch norm makes the network less sensitive to the scale of its initial weights.

Handwritten digits, three hidden layers of 64 units; the initial weights (uniform within 1 / sqrt(inputs)) are multiplied by scales from
0.01 to 100 before 300 steps at learning rate 0.1.
"""

from figures import Check, Panel, larger, show
from pages import main
from training import accuracy, digits, network, scaled, trained

SEEDS = range(5)
SCALES = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
ACTIVATIONS = "relu", "sigmoid"


def measure(seed):
    data, figures = digits(seed), {}
    for activation in ACTIVATIONS:
        for norm in ("batch", None):
            models = [scaled(network((64, 64, 64, 64, 10), seed, norm, activation), scale) for scale in SCALES]
            ends = [accuracy(trained(model, data, seed, 300), data.test, data.test_labels) for model in models]
            figures[f"{activation} {norm}"] = ends
            figures[f"{activation} {norm} range"] = max(ends) - min(ends)
    return figures


def judge(figures):
    checks = []
    for activation in ACTIVATIONS:
        ranges = [figures[f"{activation} {norm} range"] for norm in ("batch", None)]
        found = f"{show(ranges[0], ' points')} with, {show(ranges[1], ' points')} without"
        expected = f"with {activation}, a smaller range of accuracies over the scales"
        checks.append(Check(expected, found, larger(ranges[1], ranges[0])))
        worst = figures[f"{activation} batch"].min(axis=1)
        checks.append(
            Check(
                f"with {activation} and batch norm, 90 % or more at every scale",
                f"{show(worst, ' %')} at the worst",
                bool(worst.mean() >= 90),
            )
        )
    return checks


PANELS = [
    Panel(
        name,
        "scale of the initial weights",
        "test accuracy in %",
        SCALES,
        {"with batch norm": f"{name} batch", "without": f"{name} None"},
        "log",
    )
    for name in ACTIVATIONS
]

if __name__ == "__main__":
    main(__file__)

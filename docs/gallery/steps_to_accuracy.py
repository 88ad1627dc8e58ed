"""Batch norm reaches an accuracy in fewer steps.

Handwritten digits, three hidden layers of 100 units as in the paper's first experiment (Ioffe, Szegedy 2015, section 4.1), batches of 64
and learning rate 0.1 with and without batch norm; [learning rates](learning_rates.md) asks the same at each network's own best rate. The
initial weights are uniform within 1 / sqrt(inputs), as PyTorch's are, or within sqrt(6 / inputs), as He et al. (2015) draw them for ReLU.
Test accuracy is taken every 5 steps; a run that does not reach the level counts with all its steps.
"""

import numpy as np
from figures import Check, Panel, larger, show
from pages import main
from training import accuracy, descend, digits, network, scaled, steps_to

SEEDS = range(5)
LEVEL = 95.0
SETTINGS = {"relu": ("relu", 1.0, 300), "relu, He's weights": ("relu", 6**0.5, 300), "sigmoid": ("sigmoid", 1.0, 1000)}
AT = {name: list(range(5, steps + 1, 5)) for name, (_, _, steps) in SETTINGS.items()}


def measure(seed):
    data, figures = digits(seed), {}
    for name, (activation, scale, steps) in SETTINGS.items():
        for norm in ("batch", None):
            model = scaled(network((64, 100, 100, 100, 10), seed, norm, activation), scale)
            walk = descend(model, data, seed, steps)
            curve = [accuracy(model, data.test, data.test_labels) for step in walk if step % 5 == 0]
            figures[f"{name} {norm}"] = curve
            figures[f"{name} {norm} steps"] = steps_to(LEVEL, AT[name], curve, steps)
    return figures


def judge(figures):
    checks = []
    for name, (_, _, steps) in SETTINGS.items():
        with_norm, without = (figures[f"{name} {norm} steps"] for norm in ("batch", None))
        never = int(np.sum(figures[f"{name} None"].max(axis=1) < LEVEL))
        tail = f" ({never} of {len(without)} runs never within {steps})" if never else ""
        expected = f"with {name}, fewer steps to {LEVEL:g} % with batch norm"
        checks.append(Check(expected, f"{show(with_norm)} steps with, {show(without)} without{tail}", larger(without, with_norm)))
    return checks


PANELS = [
    Panel(name, "step", "test accuracy in %", AT[name], {"with batch norm": f"{name} batch", "without": f"{name} None"})
    for name in SETTINGS
]

if __name__ == "__main__":
    main(__file__)

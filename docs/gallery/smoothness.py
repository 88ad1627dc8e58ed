"""Batch norm smooths the loss: gradients predict it better.

Santurkar et al. (2018, arXiv:1805.11604, section 3.2), on handwritten digits: along the training of a network of four hidden layers of 64
ReLU units, one batch's loss and gradient are taken at the points w - t g along its gradient g, for t from 1/4 to 4 times the learning rate
of 0.1. Shown are the range of the loss (largest - smallest), the change of the gradient (its largest distance from g), and the effective
beta-smoothness: the largest distance of gradients over the distance of their points. Both networks start from He's weights (uniform within
sqrt(6 / inputs)), with which the plain one trains, too, as the paper's does.
"""

import numpy as np
from figures import Check, Panel, larger, show
from pages import main
from training import cross_entropy, cross_entropy_gradient, descend, digits, network, scaled

SEEDS = range(5)
RATE, BATCH = 0.1, 256
TIMES = RATE * np.geomspace(0.25, 4, 9)
AT = [1, 5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300]
NORMS = {"with batch norm": "batch", "without": None}


def look(model, x, labels):
    """Loss and gradient of a batch in training mode, the gradient as one vector in float64."""
    logits = model(x)
    model.backward(cross_entropy_gradient(logits, labels))
    return cross_entropy(logits, labels), np.concatenate([parameter.grad.ravel() for parameter in model.parameters()]).astype(np.float64)


def along(model, x, labels):
    """The loss; its range, the change of the gradient and beta-smoothness along the gradient. The model is put back."""
    parameters = model.parameters()
    weights = [parameter.data.copy() for parameter in parameters]
    first, gradient = look(model, x, labels)
    steps = [parameter.grad.copy() for parameter in parameters]
    losses, changes = [first], []
    for time in TIMES:
        for parameter, weight, step in zip(parameters, weights, steps, strict=True):
            parameter.data[...] = weight - np.float32(time) * step
        value, there = look(model, x, labels)
        losses.append(value)
        changes.append(np.linalg.norm(there - gradient))
    for parameter, weight in zip(parameters, weights, strict=True):
        parameter.data[...] = weight
    size = np.linalg.norm(gradient)
    return first, max(losses) - min(losses), max(changes), max(changes / (TIMES * size))


def measure(seed):
    data, figures = digits(seed), {}
    rows = np.random.default_rng(seed).permutation(len(data.x))[:BATCH]
    for norm in NORMS.values():
        model = scaled(network((64, 64, 64, 64, 64, 10), seed, norm), 6**0.5)
        walk = descend(model, data, seed, AT[-1], RATE, BATCH)
        found = [along(model, data.x[rows], data.labels[rows]) for step in walk if step in AT]
        for name, values in zip(("value", "loss", "change", "beta"), zip(*found, strict=True), strict=True):
            figures[f"{norm} {name}"] = list(values)
    return figures


def judge(figures):
    names = {"loss": "range of the loss", "change": "change of the gradient", "beta": "effective beta-smoothness"}
    checks = []
    for key, words in names.items():
        for which, part in (("on the median over the steps", np.median), ("at its worst", np.max)):
            values = [part(figures[f"{norm} {key}"], axis=1) for norm in NORMS.values()]
            found = f"{show(values[0])} with, {show(values[1])} without"
            checks.append(Check(f"smaller {words} with batch norm, {which}", found, larger(values[1], values[0])))
    return checks


PANELS = [
    Panel(title, "step", label, AT, {name: f"{norm} {key}" for name, norm in NORMS.items()}, "log", "log")
    for title, label, key in (
        ("Loss", "of the batch", "value"),
        ("Range of the loss", "largest - smallest", "loss"),
        ("Gradient", "change along it", "change"),
        ("Beta-smoothness", "effective beta", "beta"),
    )
]

if __name__ == "__main__":
    main(__file__)

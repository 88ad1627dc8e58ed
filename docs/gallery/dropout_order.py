"""Dropout before batch norm shifts the variance at inference and costs accuracy.

Handwritten digits, three hidden layers of 64 ReLU units with batch norm and dropout in three orders: dropout, norm, ReLU; norm, ReLU,
dropout (the next layer's norm still sees dropped inputs); and dropout behind the last norm only, which Li et al. (2018, arXiv:1801.05134)
recommend. `normfast.diagnostics.variance_shift` compares the variance of each norm's input in training and at inference; `recalibrate`
gives the norms the statistics that they meet at inference, which takes the shift away and leaves the weights.
"""

import copy

import numpy as np
from figures import Check, Panel, larger, same, show
from pages import main
from training import accuracy, digits, loss, trained

from normfast.diagnostics import variance_shift
from normfast.inference import recalibrate
from normfast.layers import Activation, BatchNorm, Dense, Dropout, Sequential

SEEDS = range(8)
RATES = [0.0, 0.1, 0.3, 0.5, 0.6, 0.7]
ORDERS = "before", "after", "last"
HALF = RATES.index(0.5)


def stack(order, p, seed, width=64, depth=3):
    seeds = iter(np.random.SeedSequence(seed).spawn(2 * depth + 1))
    rng = lambda: np.random.default_rng(next(seeds))  # noqa: E731
    layers, inputs = [], 64
    for i in range(depth):
        parts = [BatchNorm(width), Activation("relu")]
        if order == "before":
            parts.insert(0, Dropout(p, rng=rng()))
        elif order == "after" or i == depth - 1:
            parts.append(Dropout(p, rng=rng()))
        layers += [Dense(inputs, width, rng=rng()), *parts]
        inputs = width
    return Sequential(*layers, Dense(width, 10, rng=rng()))


def measure(seed):
    data, figures = digits(seed), {}
    for order in ORDERS:
        rows = {"accuracy": [], "recalibrated": [], "loss": [], "loss recalibrated": []}
        for p in RATES:
            model = trained(stack(order, p, seed), data, seed, 300)
            if p == RATES[HALF]:
                figures[f"{order} shift"] = [row.ratio for row in variance_shift(model, data.x, rng=seed)]
            exact = recalibrate(copy.deepcopy(model), [data.x])
            for name, tested in (("", model), ("recalibrated", exact)):
                rows[name or "accuracy"].append(accuracy(tested, data.test, data.test_labels))
                rows[f"loss {name}".strip()].append(loss(tested, data.test, data.test_labels))
        figures |= {f"{order} {name}": values for name, values in rows.items()}
    return figures


def judge(figures):
    at = {
        order: {name: figures[f"{order} {name}"][:, HALF] for name in ("accuracy", "recalibrated", "loss", "loss recalibrated")}
        for order in ORDERS
    }
    shift = {order: figures[f"{order} shift"].max(axis=1) for order in ORDERS}
    before = at["before"]
    return [
        Check(
            "at p = 0.5, dropout before the norm has the larger shift of variance",
            f"largest ratio {show(shift['before'])} before, {show(shift['after'])} after",
            larger(shift["before"], shift["after"]),
        ),
        Check(
            "dropout behind the last norm shifts the variance by less than 5 %",
            f"largest ratio {show(shift['last'])}",
            same(shift["last"], np.ones(len(SEEDS)), 0.05),
        ),
        Check(
            "accuracy at inference: before is below after",
            f"{show(before['accuracy'], ' %')} and {show(at['after']['accuracy'], ' %')}",
            larger(at["after"]["accuracy"], before["accuracy"]),
        ),
        Check(
            "accuracy at inference: before is below dropout behind the last norm only",
            f"{show(before['accuracy'], ' %')} and {show(at['last']['accuracy'], ' %')}",
            larger(at["last"]["accuracy"], before["accuracy"]),
        ),
        Check(
            "the shift is a cause: recalibrated, before has a smaller test loss",
            f"{show(before['loss'])} and recalibrated {show(before['loss recalibrated'])}",
            larger(before["loss"], before["loss recalibrated"]),
        ),
        Check(
            "the shift is a cause: recalibrated, before has a higher accuracy",
            f"{show(before['accuracy'], ' %')} and recalibrated {show(before['recalibrated'], ' %')}",
            larger(before["recalibrated"], before["accuracy"]),
        ),
    ]


LABELS = {"dropout before norm": "before", "after it": "after", "behind the last norm": "last"}
PANELS = [
    Panel(
        "Variance shift, p = 0.5",
        "norm",
        "variance in training / at inference",
        [1, 2, 3],
        {label: f"{order} shift" for label, order in LABELS.items()},
    ),
    Panel("At inference", "p of dropout", "test accuracy in %", RATES, {label: f"{order} accuracy" for label, order in LABELS.items()}),
    Panel("Recalibrated", "p of dropout", "test accuracy in %", RATES, {label: f"{order} recalibrated" for label, order in LABELS.items()}),
]

if __name__ == "__main__":
    main(__file__)

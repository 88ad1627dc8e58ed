"""Batch norm bears learning rates that break the plain network.

Learning rates from 0.001 to 10, handwritten digits, two hidden layers of 64 ReLU units, 300 steps of batches of 64, no momentum, no decay.
A rate works where the mean test accuracy at the end is at least 90 %.
"""

from figures import Check, Panel, larger, show
from pages import main
from training import accuracy, descend, digits, network, steps_to

SEEDS = range(5)
RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
STEPS, WORKS = 300, 90.0
LABELS = {"with batch norm": "batch", "without": None}


def measure(seed):
    data, figures = digits(seed), {}
    for norm in LABELS.values():
        ends, steps = [], []
        for rate in RATES:
            model = network((64, 64, 64, 10), seed, norm)
            walk = descend(model, data, seed, STEPS, rate)
            curve = [accuracy(model, data.test, data.test_labels) for step in walk if step % 5 == 0]
            ends.append(curve[-1])
            steps.append(steps_to(95.0, range(5, STEPS + 1, 5), curve, STEPS))
        figures[f"{norm} accuracy"], figures[f"{norm} steps"] = ends, steps
    return figures


def judge(figures):
    working = {
        norm: [rate for rate, mean in zip(RATES, figures[f"{norm} accuracy"].mean(axis=0), strict=True) if mean >= WORKS]
        for norm in ("batch", None)
    }
    ends = {norm: figures[f"{norm} accuracy"][:, -1] for norm in working}
    best = {norm: figures[f"{norm} steps"].mean(axis=0).argmin() for norm in working}
    fewest = {norm: figures[f"{norm} steps"][:, best[norm]] for norm in working}
    span = {norm: f"{rates[0]:g} to {rates[-1]:g}" if rates else "none" for norm, rates in working.items()}
    tops = {norm: max(rates, default=0.0) for norm, rates in working.items()}
    return [
        Check(
            "the largest rate that works is larger with batch norm",
            f"rates that work: {span['batch']} with, {span[None]} without",
            tops["batch"] > tops[None],
        ),
        Check(
            "at rate 10 the network with batch norm is better by more than 10 points",
            f"{show(ends['batch'], ' %')} with, {show(ends[None], ' %')} without",
            larger(ends["batch"], ends[None], by=10.0),
        ),
        Check(
            "fewer steps to 95 % also when each network has its own best rate",
            f"{show(fewest['batch'])} steps with (rate {RATES[best['batch']]:g}), "
            f"{show(fewest[None])} without (rate {RATES[best[None]]:g})",
            larger(fewest[None], fewest["batch"]),
        ),
    ]


PANELS = [
    Panel(
        "After 300 steps",
        "learning rate",
        "test accuracy in %",
        RATES,
        {label: f"{norm} accuracy" for label, norm in LABELS.items()},
        "log",
    ),
    Panel("Steps to 95 %, at most 300", "learning rate", "steps", RATES, {label: f"{norm} steps" for label, norm in LABELS.items()}, "log"),
]

if __name__ == "__main__":
    main(__file__)

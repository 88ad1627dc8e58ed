"""At inference the population's statistics and running averages of the batches' serve alike.

A network with batch norm (two hidden layers of 64 ReLU units, rate 0.1, batches of 32) is tested on the way with four kinds of statistics:
running averages with momentum 0.1 and 0.01 (weight of the new batch), the population average of the sources, E[x] = E_B[mean] and
Var[x] = m / (m - 1) E_B[var] over all training batches (`BatchNorm(momentum=None)`), and the exact ones of the training set
(`normfast.inference.recalibrate`). The error is the largest difference of a running variance from the exact one, relative to it.
"""

import copy

import numpy as np
from figures import Check, Panel, same, show
from pages import main
from training import accuracy, batch_norm, descend, digits, network

from normfast.inference import recalibrate
from normfast.layers import BatchNorm

SEEDS = range(5)
AT = [1, 2, 5, 10, 20, 50, 100, 200, 400]
BATCH = 32
KINDS = {"running, momentum 0.1": 0.1, "running, momentum 0.01": 0.01, "average over batches": None, "exact": "exact"}


def norms_of(model):
    return [layer for _, layer in model.named_modules() if isinstance(layer, BatchNorm)]


def averaged(model, batches):
    """A copy whose statistics are the averages of all batches, at the weights it has."""
    model = copy.deepcopy(model)
    for norm in norms_of(model):
        norm.momentum, norm.num_batches_tracked[...] = None, 0
    for batch in batches:
        model(batch)
    return model


def measure(seed):
    data = digits(seed)
    figures = {f"{kind} {what}": [] for kind in KINDS for what in ("accuracy", "error")}
    batches = np.array_split(data.x, len(data.x) // BATCH)
    walks = {}
    for momentum in (0.1, 0.01):  # the same training, since running statistics take no part in it
        model = network((64, 64, 64, 10), seed, batch_norm(momentum=momentum))
        walks[momentum] = model, descend(model, data, seed, AT[-1], batch=BATCH)
    for step in range(1, AT[-1] + 1):
        for _, walk in walks.values():
            next(walk)
        if step not in AT:
            continue
        model = walks[0.1][0]
        exact = recalibrate(copy.deepcopy(model), [data.x])
        models = {0.1: model, 0.01: walks[0.01][0], None: averaged(model, batches), "exact": exact}
        for kind, which in KINDS.items():
            figures[f"{kind} accuracy"].append(accuracy(models[which], data.test, data.test_labels))
            pairs = zip(norms_of(models[which]), norms_of(exact), strict=True)
            figures[f"{kind} error"].append(100 * max(float(np.abs(a.running_var / b.running_var - 1).max()) for a, b in pairs))
    return figures


def judge(figures):
    exact = figures["exact accuracy"]
    checks = []
    for step, words, margin in ((AT[-1], "half a point", 0.5), (20, "a point", 1.0)):
        wanted = exact[:, AT.index(step)]
        for kind in list(KINDS)[:3]:
            found = figures[f"{kind} accuracy"][:, AT.index(step)]
            expected = f"{kind}: after {step} steps within {words} of the exact ones"
            checks.append(Check(expected, f"{show(found, ' %')} and {show(wanted, ' %')}", same(found, wanted, margin)))
    return checks


PANELS = [
    Panel("Statistics at inference", "step", "test accuracy in %", AT, {kind: f"{kind} accuracy" for kind in KINDS}, "log"),
    Panel(
        "Their largest error", "step", "error of the variance in %", AT, {kind: f"{kind} error" for kind in list(KINDS)[:3]}, "log", "log"
    ),
]

if __name__ == "__main__":
    main(__file__)

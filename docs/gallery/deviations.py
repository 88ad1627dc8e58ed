"""L1, L2 and L-infinity deviations in batch norm train about as well.

The deviation of a channel is the mean absolute, the root mean square or the largest absolute deviation (`BatchNorm(ord=1)`, `2`, `inf`;
Hoffer et al. 2018, without their constant factors, which gamma can learn). Handwritten digits, two hidden layers of 64 ReLU units, 400
steps at learning rate 0.1. About as well: the 95 % interval of the difference to L2 is within one point of accuracy.
"""

import numpy as np
from figures import Check, Panel, larger, same, show
from pages import main
from training import accuracy, batch_norm, descend, digits, network, steps_to

SEEDS = range(5)
NORMS = {"L1": batch_norm(ord=1), "L2": batch_norm(), "L-infinity": batch_norm(ord=np.inf), "no norm": None}
AT = list(range(10, 401, 10))


def measure(seed):
    data, figures = digits(seed), {}
    for name, norm in NORMS.items():
        model = network((64, 64, 64, 10), seed, norm)
        walk = descend(model, data, seed, AT[-1])
        figures[name] = [accuracy(model, data.test, data.test_labels) for step in walk if step % 10 == 0]
        figures[f"{name} steps"] = steps_to(95.0, AT, figures[name], AT[-1])
    return figures


def judge(figures):
    checks = []
    for name in ("L1", "L-infinity"):
        found = f"{show(figures[name][:, -1], ' %')} and {show(figures['L2'][:, -1], ' %')}"
        checks.append(Check(f"{name} ends within a point of L2", found, same(figures[name][:, -1], figures["L2"][:, -1], 1.0)))
    for name in ("L1", "L2", "L-infinity"):
        found = f"{show(figures[f'{name} steps'])} and {show(figures['no norm steps'])} steps"
        checks.append(
            Check(f"{name} reaches 95 % in fewer steps than no norm", found, larger(figures["no norm steps"], figures[f"{name} steps"]))
        )
    return checks


PANELS = [Panel("Batch norm by its deviation", "step", "test accuracy in %", AT, {name: name for name in NORMS})]

if __name__ == "__main__":
    main(__file__)

"""Batch norm fails for tiny batches, where group norm and layer norm hold.

Batches of 2 to 256, six passes over the training images each, at a learning rate that grows with the batch (0.1 for 32), as Wu and He
(Group Normalization, 2018) do. Two hidden layers of 64 ReLU units; 8 groups.
"""

from figures import Check, Panel, larger, same, show
from pages import main
from training import accuracy, batch_norm, digits, network, trained

from normfast.layers import GroupNorm

SEEDS = range(5)
SIZES = [2, 4, 8, 16, 32, 64, 128, 256]
NORMS = {"batch norm": batch_norm(), "group norm": lambda width: GroupNorm(8, width, axis=-1), "layer norm": "layer", "none": None}


def measure(seed):
    data, figures = digits(seed), {}
    for name, norm in NORMS.items():
        figures[name] = []
        for size in SIZES:
            model = network((64, 64, 64, 10), seed, norm)
            trained(model, data, seed, 6 * len(data.x) // size, rate=0.1 * size / 32, batch=size)
            figures[name].append(accuracy(model, data.test, data.test_labels))
    return figures


def judge(figures):
    two, batch = {name: figures[name][:, 0] for name in NORMS}, figures["batch norm"]
    checks = [
        Check(
            "batch norm is worse with batches of 2 than with batches of 32, by more than a point",
            f"{show(two['batch norm'], ' %')} and {show(batch[:, SIZES.index(32)], ' %')}",
            larger(batch[:, SIZES.index(32)], two["batch norm"], by=1.0),
        )
    ]
    for name in ("group norm", "layer norm"):
        found = f"{show(two[name], ' %')} against {show(two['batch norm'], ' %')}"
        checks.append(Check(f"with batches of 2, {name} is better than batch norm", found, larger(two[name], two["batch norm"])))
        found = f"{show(two[name], ' %')} and {show(figures[name][:, SIZES.index(32)], ' %')}"
        checks.append(
            Check(
                f"{name} is as good with batches of 2 as of 32, within a point",
                found,
                same(two[name], figures[name][:, SIZES.index(32)], 1.0),
            )
        )
    return checks


PANELS = [Panel("Six passes over the images", "samples in a batch", "test accuracy in %", SIZES, {name: name for name in NORMS}, "log")]

if __name__ == "__main__":
    main(__file__)

"""The noise of batch statistics regularizes.

Every step takes 256 of 500 training images; only the number m of images that share their batch statistics varies, from 4 to 256 ("ghost
batches", Hoffer et al. 2017), so that the noise of the statistics is all that differs: x has shape (256 / m, m, 64), and `InstanceNorm`
with running statistics normalizes each part for itself. Two hidden layers of 64 ReLU units, 200 steps at learning rate 0.2; the other
1297 images test.
"""

import numpy as np
from figures import Check, Panel, larger, show
from pages import main
from training import accuracy, cross_entropy_gradient, digits, loss, network

from normfast.layers import InstanceNorm

SEEDS = range(10)
SIZES = [4, 8, 16, 64, 256]
BATCH, STEPS, RATE = 256, 200, np.float32(0.2)


def ghost_norm(width):
    return InstanceNorm(width, affine=True, track_running_stats=True, axis=-1)


def trained_in_parts(model, data, seed, size):
    """Train on batches of 256, whose statistics are those of `size` images each."""
    rng, parameters = np.random.default_rng(seed), model.parameters()
    for _ in range(STEPS):
        rows = rng.permutation(len(data.x))[:BATCH]
        logits = model(data.x[rows].reshape(-1, size, 64))
        gradient = cross_entropy_gradient(logits.reshape(BATCH, 10), data.labels[rows])
        model.backward(gradient.reshape(logits.shape))
        for parameter in parameters:
            parameter.data -= RATE * parameter.grad
    return model


def measure(seed):
    data = digits(seed, size=500)
    names = "training", "test", "training loss", "test loss", "loss gap"
    figures = {name: [] for name in names}
    for size in SIZES:
        model = trained_in_parts(network((64, 64, 64, 10), seed, ghost_norm), data, seed, size)
        accuracies = accuracy(model, data.x, data.labels), accuracy(model, data.test, data.test_labels)
        losses = loss(model, data.x, data.labels), loss(model, data.test, data.test_labels)
        for name, value in zip(names, (*accuracies, *losses, losses[1] - losses[0]), strict=True):
            figures[name].append(value)
    return figures


def judge(figures):
    few, all = ({name: values[:, i] for name, values in figures.items()} for i in (SIZES.index(16), -1))
    return [
        Check(
            "with statistics of 16, the training loss is larger than with those of 256",
            f"{show(few['training loss'])} and {show(all['training loss'])}",
            larger(few["training loss"], all["training loss"]),
        ),
        Check(
            "the gap between test and training loss is smaller",
            f"{show(few['loss gap'])} and {show(all['loss gap'])}",
            larger(all["loss gap"], few["loss gap"]),
        ),
        Check(
            "the test loss is smaller", f"{show(few['test loss'])} and {show(all['test loss'])}", larger(all["test loss"], few["test loss"])
        ),
        Check("the test accuracy is higher", f"{show(few['test'], ' %')} and {show(all['test'], ' %')}", larger(few["test"], all["test"])),
    ]


PANELS = [
    Panel("Accuracy", "images that share statistics", "accuracy in %", SIZES, {"training": "training", "test": "test"}, "log"),
    Panel("Cross entropy", "images that share statistics", "loss", SIZES, {"training": "training loss", "test": "test loss"}, "log", "log"),
]

if __name__ == "__main__":
    main(__file__)

"""What the experiments share: the data, a network and its training, so that each script shows its experiment alone."""

from typing import NamedTuple

import numpy as np

from normfast.demo import accuracy as share_right
from normfast.demo import cross_entropy_gradient, standardized_digits
from normfast.layers import BatchNorm, Dense, Sequential


class Split(NamedTuple):
    """Training and test samples with their labels."""

    x: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def digits(seed, size=None):
    """Standardized handwritten digits, 1437 of the 1797 to train on; or `size`, and all others to test on."""
    x, labels, test, test_labels = standardized_digits(seed)
    if size is None:
        return Split(x, labels, test, test_labels)
    return Split(x[:size], labels[:size], np.concatenate([test, x[size:]]), np.concatenate([test_labels, labels[size:]]))


def network(widths, seed, norm=None, activation="relu", dropout=0.0):
    """Dense layers of the given widths; all but the last have a norm (a name, or a function of the width), an activation and dropout."""
    seeds = np.random.SeedSequence(seed).spawn(len(widths))
    layers = []
    for a, b, source in zip(widths[:-2], widths[1:-1], seeds, strict=False):
        chosen = norm(b) if callable(norm) else norm
        layers.append(Dense(a, b, norm=chosen, activation=activation, dropout=dropout, rng=np.random.default_rng(source)))
    return Sequential(*layers, Dense(*widths[-2:], rng=np.random.default_rng(seeds[-1])))


def scaled(model, scale):
    """The model with its initial weights, not its biases, times the scale."""
    for layer in model.layers:
        layer.weight.data *= np.float32(scale)
    return model


def batch_norm(**options):
    """A function of the width for `network`, for a batch norm with options."""
    return lambda width: BatchNorm(width, axis=-1, **options)


def descend(model, data, seed, steps, rate=0.1, batch=64, penalty=None):
    """Train by stochastic gradient descent; yields the number of steps done, after each. `penalty(model)` may add to the gradients."""
    rng, parameters, rate = np.random.default_rng(seed), model.parameters(), np.float32(rate)
    order = np.empty(0, int)
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = rng.permutation(len(data.x))
        rows, order = order[:batch], order[batch:]
        with np.errstate(all="ignore"):  # a network that diverges is a result
            model.backward(cross_entropy_gradient(model(data.x[rows]), data.labels[rows]))
            if penalty is not None:
                penalty(model)
            for parameter in parameters:
                parameter.data -= rate * parameter.grad
        yield step


def trained(model, data, seed, steps, **options):
    """The model after so many steps of `descend`."""
    for _ in descend(model, data, seed, steps, **options):
        pass
    return model


def accuracy(model, x, labels):
    """Percentage of the samples that the model, at inference, names right."""
    with np.errstate(all="ignore"):
        return 100 * share_right(model, x, labels)


def cross_entropy(logits, labels):
    """Mean cross entropy of softmax(logits), in float64."""
    z = logits - logits.max(axis=1, keepdims=True).astype(np.float64)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(labels)), labels]).mean())


def loss(model, x, labels):
    """Mean cross entropy of the model at inference."""
    model.eval()
    value = cross_entropy(model(x), labels)
    model.train()
    return value


def steps_to(level, steps, values, budget):
    """The first step at which the values reach the level; the budget where they never do."""
    return next((step for step, value in zip(steps, values, strict=True) if value >= level), budget)

"""`normfast demo`: train a network on scikit-learn's handwritten digits, forward and backward by hand, with and without batch norm.

The same network stands here twice: on `normfast.layers`, and in plain NumPy formulas as a textbook writes them (`Textbook`), which is
what its speed and its errors are held against.
"""

import statistics
import time

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import normfast as nf
from normfast import engines
from normfast.inference import freeze
from normfast.layers import Dense, Sequential

HIDDEN, CLASSES, BATCH, RATE, DROPOUT, EPS = 512, 10, 128, 0.1, 0.5, 1e-5


def standardized_digits(seed):
    """Training and test images, standardized with the one-pass moments of the training images, and their labels."""
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(images, labels, test_size=0.2, random_state=seed, stratify=labels)
    moments = nf.moments(train, axis=0)
    std = np.maximum(moments.std(), 1.0)  # of 16 levels of grey: pixels that are nearly always blank are not blown up
    train, test = (((part - moments.mean) / std).astype(np.float32) for part in (train, test))
    return train, train_labels, test, test_labels


def network(norm, seed, dtype=np.float32):
    """Two hidden layers of Dense, norm, ReLU and dropout, and a linear one."""
    seeds = np.random.SeedSequence(seed).spawn(3)
    hidden = {"norm": norm, "activation": "relu", "dropout": DROPOUT, "dtype": dtype}
    return Sequential(
        Dense(64, HIDDEN, rng=np.random.default_rng(seeds[0]), **hidden),
        Dense(HIDDEN, HIDDEN, rng=np.random.default_rng(seeds[1]), **hidden),
        Dense(HIDDEN, CLASSES, rng=np.random.default_rng(seeds[2]), dtype=dtype),
    )


def cross_entropy_gradient(logits, labels):
    """Gradient of the mean cross entropy of softmax(logits)."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    p /= len(labels)
    return p


def step(model, parameters, x, labels):
    """One step of stochastic gradient descent."""
    model.backward(cross_entropy_gradient(model(x), labels))
    for parameter in parameters:
        parameter.data -= RATE * parameter.grad


class Textbook:
    """The network with batch norm in plain NumPy formulas, from the weights of a model."""

    def __init__(self, model, dropout=DROPOUT, seed=0):
        names = ("weight", "bias", "norm.weight", "norm.bias")
        state = model.state_dict()
        self.hidden = [[state[f"{i}.{name}"] for name in names] for i in range(2)]
        self.running = [np.stack([np.zeros_like(gamma), np.ones_like(gamma)]) for _, _, gamma, _ in self.hidden]  # for inference
        self.last = [state["2.weight"], state["2.bias"]]
        self.p, self.rng = dropout, np.random.default_rng(seed)

    def gradients(self, x, labels):
        """Gradients of all parameters, in the order of `parameters`."""
        saved = []
        for (weight, bias, gamma, beta), running in zip(self.hidden, self.running, strict=True):
            z = x @ weight.T + bias
            mean = z.mean(axis=0)
            var = z.var(axis=0)
            running += np.float32(0.1) * (np.stack([mean, var * len(z) / (len(z) - 1)]) - running)
            rstd = 1 / np.sqrt(var + EPS)
            xhat = (z - mean) * rstd
            a = np.maximum(gamma * xhat + beta, 0)
            mask = (self.rng.random(a.shape, dtype=np.float32) >= self.p) / a.dtype.type(1 - self.p)
            saved.append((x, xhat, rstd, a, mask))
            x = a * mask
        weight, bias = self.last
        dz = cross_entropy_gradient(x @ weight.T + bias, labels)
        result = [dz.T @ x, dz.sum(axis=0)]
        dx = dz @ weight
        for (weight, _, gamma, _), (x, xhat, rstd, a, mask) in zip(reversed(self.hidden), reversed(saved), strict=True):
            dy = dx * mask * (a > 0)
            dgamma, dbeta = (dy * xhat).sum(axis=0), dy.sum(axis=0)
            dxhat = dy * gamma
            dz = rstd * (dxhat - dxhat.mean(axis=0) - xhat * (dxhat * xhat).mean(axis=0))
            result = [dz.T @ x, dz.sum(axis=0), dgamma, dbeta, *result]
            dx = dz @ weight
        return result

    def parameters(self):
        return [array for layer in (*self.hidden, self.last) for array in layer]

    def step(self, x, labels):
        for array, gradient in zip(self.parameters(), self.gradients(x, labels), strict=True):
            array -= RATE * gradient


def accuracy(model, images, labels):
    """Share of the images that the model, in inference, names right."""
    model.eval()
    share = float((model(images).argmax(axis=1) == labels).mean())
    model.train()
    return share


def train(model, data, seed, epochs, tick):
    """Train and return the test accuracy after every tenth step, as (step, accuracy)."""
    images, labels, test, test_labels = data
    rng, parameters = np.random.default_rng(seed), model.parameters()
    curve, done = [(0, accuracy(model, test, test_labels))], 0
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for batch in np.array_split(order, len(order) // BATCH):
            step(model, parameters, images[batch], labels[batch])
            done += 1
            if done % 10 == 0:
                curve.append((done, accuracy(model, test, test_labels)))
        tick()
    curve.append((done, accuracy(model, test, test_labels)))
    return curve


def steps_to(curve, share):
    """First step at which a curve reaches the share, as text."""
    return next((str(at) for at, reached in curve if reached >= share), "never")


def time_per_step(data, seed, repeats=200):
    """Median milliseconds of a step on normfast and in plain NumPy formulas, taken in turns."""
    images, labels = data[0][:BATCH], data[1][:BATCH]
    model = network("batch", seed)
    plain, parameters = Textbook(model), model.parameters()
    runs = (lambda: step(model, parameters, images, labels)), (lambda: plain.step(images, labels))
    times = [], []
    for _ in range(repeats):
        for run, record in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            record.append(time.perf_counter() - start)
    return [1e3 * statistics.median(record) for record in times]


def largest_errors(data, seed, offset):
    """Largest error of batch norm's output and input gradient in float32, on normfast and in plain formulas, against float64.

    The images get an offset, as raw measurements have one; errors are relative to the largest exact value.
    """
    rng = np.random.default_rng(seed)
    x = (data[0][:512] + offset).astype(np.float32)
    x = x[:, x.var(axis=0) > 0.1]
    dy = rng.standard_normal(x.shape, np.float32)

    def formulas(x, dy):
        mean, var = x.mean(axis=0), x.var(axis=0)
        rstd = 1 / np.sqrt(var + x.dtype.type(EPS))
        xhat = (x - mean) * rstd
        return xhat, rstd * (dy - dy.mean(axis=0) - xhat * (dy * xhat).mean(axis=0))

    y, stats = nf.batch_norm_forward(x, eps=EPS)
    exact = formulas(x.astype(np.float64), dy.astype(np.float64))
    candidates = (y, nf.batch_norm_backward(dy, x, stats).dx), formulas(x, dy)
    return [max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(pair, exact, strict=True)) for pair in candidates]


def plot(curves, path):
    """Picture of the test accuracies by step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for (name, curve), colour in zip(curves.items(), ("#0072b2", "#d55e00"), strict=True):
        axes.plot(*zip(*curve, strict=True), label=name, color=colour)
    axes.axhline(0.97, color="grey", linewidth=0.8, linestyle=":", label="97 %")
    axes.set(xlabel="step of gradient descent", ylabel="test accuracy", ylim=(0.5, 1.0), title="Handwritten digits, learning rate 0.1")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def run(seed, epochs, path):
    """The whole demo: train, report, freeze, plot."""
    console = Console()
    data = standardized_digits(seed)
    engine = engines.current().name
    console.print(f"{len(data[0])} training and {len(data[2])} test images of handwritten digits, engine {engine}")
    bar = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"), TimeRemainingColumn()
    curves, models = {}, {}
    with Progress(*bar, console=console) as progress:
        for name, norm in (("with batch norm", "batch"), ("without", None)):
            task = progress.add_task(f"training {name:15}", total=epochs)
            models[name] = network(norm, seed)
            curves[name] = train(models[name], data, seed, epochs, lambda task=task: progress.advance(task))

    table = Table(title="Test images")
    for heading in ("network", "accuracy", "steps to 95 %"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for name, curve in curves.items():
        table.add_row(name, f"{100 * curve[-1][1]:.1f} %", steps_to(curve, 0.95))
    console.print(table)

    ours, theirs = time_per_step(data, seed)
    console.print(f"time per step: normfast {ours:.2f} ms, plain NumPy formulas {theirs:.2f} ms: {theirs / ours:.1f} times as fast")
    for offset in (0, 1e4):
        ours, theirs = largest_errors(data, seed, offset)
        console.print(f"largest error against float64, images + {offset:g}: normfast {ours:.1e}, plain NumPy formulas {theirs:.1e}")

    model = models["with batch norm"].eval()
    plan = freeze(model)
    outputs, frozen = model(data[2]), plan(data[2])
    same = int((outputs.argmax(axis=1) == frozen.argmax(axis=1)).sum())
    gap = np.abs(outputs - frozen).max()
    console.print(f"frozen, batch norm folded: {same} of {len(outputs)} predictions are the same, outputs differ by at most {gap:.1e}")
    if path is not None:
        plot(curves, path)
        console.print(f"picture: {path}")

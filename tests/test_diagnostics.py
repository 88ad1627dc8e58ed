"""Variance shift and saturation, against what can be computed by hand, and models that are left alone."""

import numpy as np
import pytest
from oracle import agree

from normfast.diagnostics import saturation, variance_shift
from normfast.layers import Activation, BatchNorm, Dense, Dropout, GroupNorm, LayerNorm, Sequential

F64 = {"dtype": np.float64}


def state_of(net):
    modes = [layer.training for _, layer in net.named_modules()]
    sources = [str(layer.rng.bit_generator.state) for _, layer in net.named_modules() if isinstance(layer, Dropout)]
    return modes, sources, {name: array.tolist() for name, array in net.state_dict().items()}


def test_dropout_before_a_norm_shifts_its_variance(engine, rng):
    """Of inputs with mean m and variance v, dropout makes (v + m**2) / (1 - p) - m**2."""
    net = Sequential(Dropout(0.5), BatchNorm(4, **F64), Dropout(0.2), LayerNorm(4, **F64))
    x = rng.normal(1.0, 2.0, (200_000, 4))
    before = state_of(net)
    report = variance_shift(net, x, rng=0)
    assert state_of(net) == before
    assert [(row.layer, row.kind) for row in report] == [("1", "BatchNorm"), ("3", "LayerNorm")]
    first, second = report
    # in longdouble: NumPy adds down the columns of float64 one by one
    agree(first.inference, x.astype(np.longdouble).var(axis=0).mean(), "variance at inference", units=64)
    assert abs(first.training / (5.0 / 0.5 - 1.0) - 1) < 0.02
    assert first.ratio == first.training / first.inference
    assert abs(second.training / (1 / 0.8) - 1) < 0.02  # the batch norm before it has set mean 0 and variance 1
    assert str(report).splitlines()[0].split() == ["layer", "kind", "training", "inference", "ratio"]
    assert len(str(report).splitlines()) == 3
    assert variance_shift(net, x, rng=0) == report
    assert variance_shift(net, x, rng=1) != report


def test_no_dropout_no_shift(rng):
    net = Sequential(Dense(5, 8, norm="batch", activation="relu", **F64), GroupNorm(2, 8, **F64))
    x = rng.standard_normal((300, 5))
    first = variance_shift(net, x)[0]
    assert first.layer == "0.norm"
    assert first.ratio == 1.0
    assert variance_shift(Dense(5, 2), x) == ()
    assert str(variance_shift(Dense(5, 2), x)) == "(no such layers)"


SLOPES = {
    "relu": lambda z: (z > 0).astype(float),
    "leaky_relu": lambda z: np.where(z > 0, 1.0, 0.01),
    "sigmoid": lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2,
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
    "softplus": lambda z: 1 / (1 + np.exp(-z)),
    "silu": lambda z: (1 + np.exp(-z) + z * np.exp(-z)) / (1 + np.exp(-z)) ** 2,
}


@pytest.mark.parametrize("function", SLOPES)
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize("training", [True, False])
def test_saturation_counts_flat_units(engine, function, norm, training, rng):
    net = Sequential(Dense(5, 30, norm=norm, activation=function, dropout=0.5, **F64), Dense(30, 2, **F64)).train(training)
    dense = net.layers[0]
    dense.bias.data[:] = np.linspace(-40, 40, 30)
    if norm is not None:
        dense.norm.weight.data[:], dense.norm.bias.data[:] = 3.0, np.linspace(-20, 20, 30)
    x = rng.standard_normal((100, 5))
    before = state_of(net)
    (row,) = saturation(net, x)
    assert state_of(net) == before
    z = x @ dense.weight.data.T + dense.bias.data
    if norm == "batch":
        z = z if not training else (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
        z = z / (1 if training else np.sqrt(1 + 1e-5)) * dense.norm.weight.data + dense.norm.bias.data
    elif norm == "layer":
        z = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + 1e-5)
        z = z * dense.norm.weight.data + dense.norm.bias.data
    flat = np.abs(SLOPES[function](z)) < 0.01
    assert row.activation == function
    assert row.layer == ("0.norm" if norm == "batch" else "0.function")
    assert abs(row.saturated - flat.mean()) <= 1 / flat.size  # one value may stand at the bound
    assert abs(row.dead - flat.all(axis=0).mean()) <= 1 / 30
    if function == "leaky_relu":
        assert row.saturated == 0
    else:
        assert 0 < row.dead <= row.saturated < 1
    (wider,) = saturation(net, x, bound=0.2)
    assert wider.saturated >= row.saturated


def test_saturation_of_a_pair_and_of_all_layers(rng):
    def clipped(z):
        return np.clip(z, -1, 1)

    pair = (clipped, lambda da, z: da * (np.abs(z) < 1))
    x = rng.standard_normal((50, 4))
    net = Sequential(Activation(pair), Dense(4, 3, norm=BatchNorm(3, activation="tanh", **F64), activation="relu", **F64), Dense(3, 1))
    report = saturation(net, x)
    assert [(row.layer, row.activation) for row in report] == [("0", "clipped"), ("1.norm", "tanh"), ("1.function", "relu")]
    assert report[0].saturated == (np.abs(x) >= 1).mean()
    assert saturation(Dense(4, 3), x) == ()
    assert str(report).splitlines()[0].split() == ["layer", "activation", "saturated", "dead"]

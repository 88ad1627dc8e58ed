"""Pruning: the ranking, the penalty, and networks whose outputs stay what they were."""

import numpy as np
import pytest
from oracle import agree

from normfast import pruning
from normfast.layers import (
    Activation,
    AlphaDropout,
    BatchNorm,
    Dense,
    Dropout,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    RMSNorm,
    Sequential,
)

F64 = {"dtype": np.float64}
ACTIVATIONS = [
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "gelu",
    "silu",
    "softplus",
    None,
    (lambda z: np.cos(z), lambda da, z: -da * np.sin(z)),
]


def network(rng, activation="gelu", dtype=np.float64):
    """Batch norms of each kind of place, trained statistics, and no parameter at its first value."""
    net = Sequential(
        BatchNorm(5, dtype=dtype),
        Dense(5, 12, norm="batch", activation=activation, dropout=0.3, dtype=dtype),
        Sequential(
            Dense(12, 9, bias=False, activation=activation, dtype=dtype),
            AlphaDropout(0.1),
            BatchNorm(9, dtype=dtype),
            Activation(activation),
            BatchNorm(9, activation=activation, dtype=dtype),
        ),
        Dense(9, 7, bias=False, norm="batch", activation=activation, dtype=dtype),
        Dense(7, 3, norm="batch", dtype=dtype),
    )
    for parameter in net.parameters():
        parameter.data += 0.5 * rng.standard_normal(parameter.data.shape)
    for _ in range(30):
        net(rng.standard_normal((50, 5)).astype(dtype))
    return net


INNER = ("1.norm", "2.2", "2.4", "3.norm")


def norms_of(net):
    return {name: layer for name, layer in net.named_modules() if name in INNER}


def test_rank_is_over_the_whole_network(rng):
    net = network(rng)
    ranked = pruning.rank(net)
    assert set(ranked["layer"]) == set(INNER)
    assert len(ranked) == 12 + 9 + 9 + 7
    assert (np.diff(ranked["gamma"]) >= 0).all()
    for name, channel, gamma in ranked.tolist():
        assert gamma == abs(norms_of(net)[name].weight.data[channel])
    assert len(set(zip(ranked["layer"].tolist(), ranked["channel"].tolist(), strict=True))) == len(ranked)
    for share in (0.0, 0.3, 1.0):
        limit = pruning.threshold(net, share)
        assert (ranked["gamma"] <= limit).sum() == round(share * len(ranked))
    assert len(pruning.rank(BatchNorm(3))) == 0
    assert pruning.threshold(BatchNorm(3), 0.5) == -np.inf


def test_l1_subgradient(rng):
    net = network(rng)
    net(rng.standard_normal((20, 5)))
    net.backward(np.ones((20, 3)))
    norms_of(net)["2.2"].weight.data[3] = 0.0
    before = [(p, p.grad.copy()) for p in net.parameters()]
    pruning.l1_subgradient(net, 0.125)
    gammas = {id(norm.weight) for norm in norms_of(net).values()}
    for parameter, grad in before:
        expected = grad + 0.125 * np.sign(parameter.data) if id(parameter) in gammas else grad
        assert (parameter.grad == expected).all()
    net = network(rng)
    with pytest.raises(RuntimeError, match=r"1\.norm\.weight has no gradient to add to: call backward first"):
        pruning.l1_subgradient(net, 0.1)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a if isinstance(a, str) else "none" if a is None else "pair")
def test_channels_of_gamma_0_leave_the_outputs_as_they_are(activation, rng):
    net = network(rng, activation)
    cut = {"1.norm": [0, 5, 11], "2.2": [1, 2], "2.4": [2, 8], "3.norm": [6]}
    for name, channels in cut.items():
        norms_of(net)[name].weight.data[channels] = 0.0
    x = rng.standard_normal((40, 5))
    net(x)
    net.backward(np.ones((40, 3)))
    state = net.state_dict()
    smaller = pruning.prune(net, threshold=0.0)
    assert all((net.state_dict()[name] == array).all() for name, array in state.items())
    assert smaller.training
    assert all(parameter.grad is None for parameter in smaller.parameters())
    sizes = {name: array.shape for name, array in smaller.state_dict().items() if name.endswith("weight")}
    assert sizes["1.weight"] == (9, 5)
    assert sizes["2.0.weight"] == (6, 9)
    assert sizes["2.2.weight"] == sizes["2.4.weight"] == (6,)
    assert sizes["3.weight"] == (6, 6)
    assert sizes["4.weight"] == (3, 6)
    agree(smaller.eval()(x), net.eval()(x), "pruned", units=64)
    smaller.train()(x)  # it trains on
    assert smaller.backward(np.ones((40, 3))).shape == x.shape


def test_float32(rng):
    net = network(rng, dtype=np.float32)
    norms_of(net)["1.norm"].weight.data[:7] = 0.0
    x = rng.standard_normal((40, 5)).astype(np.float32)
    smaller = pruning.prune(net, threshold=0.0)
    assert {array.dtype for name, array in smaller.state_dict().items() if "num" not in name} == {np.dtype(np.float32)}
    agree(smaller.eval()(x), net.eval()(x), "pruned", units=64)


def test_a_bias_comes_only_where_it_is_needed(rng):
    net = Sequential(Dense(3, 4, norm="batch", activation="relu", **F64), Dense(4, 2, bias=False, **F64))
    norm = net.layers[0].norm
    norm.weight.data[:2], norm.bias.data[:2] = 0.0, -1.0  # relu(-1) = 0
    x = rng.standard_normal((9, 3))
    smaller = pruning.prune(net, threshold=0.0)
    assert list(smaller.state_dict()) == list(net.state_dict())
    agree(smaller.eval()(x), net.eval()(x), "pruned")
    norm.bias.data[:2] = 1.0
    smaller = pruning.prune(net, threshold=0.0)
    assert "1.bias" in smaller.state_dict()
    agree(smaller.eval()(x), net.eval()(x), "pruned")


def test_other_gammas_leave_their_mean_response(rng):
    """What is cut is gamma * xhat behind an activation that is linear here: no more, no less."""
    net = Sequential(Dense(3, 6, norm="batch", **F64), Dense(6, 2, **F64))
    norm = net.layers[0].norm
    norm.weight.data[:] = [0.1, 2.0, 0.2, 3.0, 1.0, 4.0]
    norm.bias.data[:] = rng.standard_normal(6)
    norm.running_mean[:], norm.running_var[:] = rng.standard_normal(6), rng.random(6) + 0.5
    x = rng.standard_normal((9, 3))
    smaller = pruning.prune(net, share=1 / 3)
    assert smaller.layers[0].norm.weight.data.tolist() == [2.0, 3.0, 1.0, 4.0]
    z = x @ net.layers[0].weight.data.T + net.layers[0].bias.data
    xhat = (z - norm.running_mean) / np.sqrt(norm.running_var + 1e-5)
    lost = (norm.weight.data * xhat)[:, [0, 2]] @ net.layers[1].weight.data[:, [0, 2]].T
    agree(smaller.eval()(x) + lost, net.eval()(x), "what was cut", units=16)


def test_one_channel_is_always_left(rng):
    net = network(rng)
    largest = np.argmax(np.abs(norms_of(net)["1.norm"].weight.data))
    kept = net.layers[1].weight.data[largest].copy()
    smaller = pruning.prune(net, share=1.0)
    assert smaller.layers[1].weight.data.tolist() == [kept.tolist()]
    assert [len(layer.weight.data) for layer in (smaller.layers[2].layers[0], *smaller.layers[3:])] == [1, 1, 3]
    assert smaller.eval()(rng.standard_normal((4, 5))).shape == (4, 3)
    same = pruning.prune(net, share=0.0)
    assert all((same.state_dict()[name] == array).all() for name, array in net.state_dict().items())
    two = Sequential(Dense(3, 2), BatchNorm(2), BatchNorm(2), Dense(2, 2))
    two.layers[1].weight.data[:], two.layers[2].weight.data[:] = [5.0, 1.0], [0.125, 1.0]
    assert pruning.prune(two, share=1.0).layers[1].weight.data.tolist() == [1.0]  # the channel whose smallest gamma is the largest
    equal = Sequential(Dense(3, 6, norm="batch"), Dense(6, 2))
    assert pruning.prune(equal, share=0.5).layers[0].weight.data.shape == (3, 3)  # of equal gammas no more than asked for


@pytest.mark.parametrize(
    "mixing", [LayerNorm(6), RMSNorm(6), GroupNorm(2, 6), InstanceNorm(6), Layer()], ids=lambda layer: type(layer).__name__
)
def test_norms_that_mix_channels_refuse(mixing):
    net = Sequential(Dense(3, 6, norm="batch"), mixing, Dense(6, 2))
    with pytest.raises(ValueError, match=f"cannot cut channels that go through 1, a {type(mixing).__name__}"):
        pruning.prune(net, share=0.5)
    assert pruning.prune(net, share=0.0).layers[0].weight.data.shape == (6, 3)


def test_a_norm_that_mixes_elsewhere_is_no_hindrance(rng):
    net = Sequential(
        Dense(3, 6, norm="batch", activation="relu", **F64), Dense(6, 5, norm="layer", activation="tanh", **F64), Dense(5, 2, **F64)
    )
    net.layers[0].norm.weight.data[[1, 4]] = 0.0
    net.layers[0].norm.bias.data[:] = rng.standard_normal(6)
    x = rng.standard_normal((9, 3))
    smaller = pruning.prune(net, threshold=0.0)
    assert smaller.layers[0].weight.data.shape == (4, 3)
    agree(smaller.eval()(x), net.eval()(x), "pruned", units=64)


def test_errors():
    class Block(Layer):
        def __init__(self):
            self.inner = BatchNorm(4)

    net = Sequential(Dense(3, 6, norm="batch"), Dropout(0.1), Dense(6, 2))
    for options in ({}, {"share": 0.1, "threshold": 0.1}):
        with pytest.raises(TypeError, match="give either share= or threshold="):
            pruning.prune(net, **options)
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        pruning.prune(net, share=1.5)
    with pytest.raises(ValueError, match=r"cannot cut channels of 1\.inner: only of batch norms between the Dense layers of a Sequential"):
        pruning.prune(Sequential(Dense(3, 4), Block(), Dense(4, 2)), share=0.5)
    with pytest.raises(ValueError, match="BatchNorm has 3 channels and the Dense layer before it 6"):
        pruning.prune(Sequential(Dense(3, 6), BatchNorm(3), Dense(6, 2)), share=0.5)

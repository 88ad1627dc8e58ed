"""Inference: folding and freezing, Monte-Carlo dropout, and exact running statistics."""

import numpy as np
import pytest
from networks import F64, NAMED, SQUARE, model, shaken
from oracle import agree

import normfast as nf
from normfast.inference import fold_batch_norm, freeze, mc_predict, recalibrate
from normfast.layers import Activation, AlphaDropout, BatchNorm, Dense, Dropout, GroupNorm, InstanceNorm, Layer, Sequential


def test_freeze(rng):
    net = model(np.float32, dropout=0.3)
    x = rng.standard_normal((64, 6)).astype(np.float32)
    for _ in range(20):
        net(x)
    expected = net.eval()(x)
    plan = freeze(net)
    agree(plan(x), expected, "plan", units=32)
    for parameter in net.parameters():
        parameter.data += 1  # the plan has its own copies
    agree(plan(x), expected, "plan", units=32)
    with pytest.raises(ValueError, match="cannot freeze a Dropout with always_on=True"):
        freeze(Dense(3, 3, dropout=Dropout(0.5, always_on=True)))
    with pytest.raises(TypeError, match="cannot freeze int"):
        freeze(3)


@pytest.mark.parametrize("activation", [*NAMED, SQUARE], ids=[*NAMED, "pair"])
@pytest.mark.parametrize("norm", [None, "batch", "layer", "rms", "group", "instance"])
def test_freeze_of_each_norm_and_activation(norm, activation, rng):
    layers = {"group": GroupNorm(3, 6, axis=-1, **F64), "instance": InstanceNorm(6, axis=-1, track_running_stats=True, affine=True, **F64)}
    first = Dense(4, 6, norm=layers.get(norm, norm), activation=activation, dropout=0.2, **F64)
    net = shaken(Sequential(first, Sequential(Activation(activation), AlphaDropout(0.1)), Dense(6, 2, bias=False, **F64)), rng)
    x = rng.standard_normal((3, 8, 4))
    net(x)
    before = x.copy()
    agree(freeze(net)(x), net.eval()(x), f"plan of {norm} and {activation}", units=64)
    assert (x == before).all()
    if norm in layers:
        alone = layers[norm]
        z = rng.standard_normal((3, 8, 6))
        assert (freeze(alone)(z) == alone(z)).all()


def test_folding_into_a_convolution(rng):
    """A 1 x 1 convolution, where the channel axis comes first."""
    weight, x = rng.standard_normal((5, 3, 1, 1)), rng.standard_normal((2, 3, 4, 4))
    mean, gamma, beta = rng.standard_normal((3, 5))
    var = rng.random(5) + 0.5
    folded, bias = fold_batch_norm(weight, None, mean, var, gamma, beta)
    direct = nf.batch_norm(np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x), mean, var, gamma, beta)
    agree(np.einsum("oi,nihw->nohw", folded[:, :, 0, 0], x) + bias[:, None, None], direct, "folded", units=16)
    with pytest.raises(ValueError, match=r"mean has shape \(4,\)"):
        fold_batch_norm(weight, None, mean[:4], var)


def test_mc_predict(rng):
    net = Sequential(Dense(6, 20, norm="batch", activation="relu", dropout=0.4, **F64), BatchNorm(20, **F64), Dense(20, 2, **F64))
    x = rng.standard_normal((30, 6))
    net(x)
    net.layers[1].eval()
    source, state = net.layers[0].dropout.rng, net.state_dict()
    mean, std = mc_predict(net, x, 25, rng=3)
    assert net.layers[0].dropout.rng is source
    assert [layer.training for layer in net.layers] == [True, False, True]
    assert all((net.state_dict()[name] == array).all() for name, array in state.items())
    net.eval()
    net.layers[0].dropout.train().rng = np.random.default_rng(3)
    passes = np.stack([net(x) for _ in range(25)])
    agree(mean, passes.mean(axis=0), "mean of 25 passes")
    agree(std, passes.std(axis=0), "deviation of 25 passes")
    agree(mc_predict(net, x, 25, rng=3, ddof=1).std, passes.std(axis=0, ddof=1), "deviation with ddof=1")
    assert (mc_predict(net, x, 4, rng=np.random.default_rng(1)).mean == mc_predict(net, x, 4, rng=1).mean).all()
    plain = mc_predict(Dense(6, 3, rng=0), x.astype(np.float32), 5)
    assert (plain.std == 0).all()
    with pytest.raises(TypeError):
        mc_predict(net, "text", 2)
    assert not net.layers[0].training
    assert net.layers[0].dropout.training


def test_recalibrate_gives_exact_statistics(engine, rng):
    net = Sequential(
        Dense(6, 20, norm="batch", activation="relu", dropout=0.5, **F64),
        Dense(20, 10, activation="tanh", **F64),
        BatchNorm(10, **F64),
        Dense(10, 3, **F64),
    )
    x = rng.standard_normal((200, 6))
    cuts = np.split(x, [1, 50, 130])
    assert recalibrate(net, iter(cuts)) is net
    assert all(layer.training for _, layer in net.named_modules())
    norms, inputs = {"0.norm": net.layers[0].norm, "2": net.layers[2]}, {}
    for name, norm in norms.items():
        norm.observer = lambda z, name=name: inputs.update({name: z.copy()})
    net.eval()(x)
    for name, norm in norms.items():
        agree(norm.running_mean, inputs[name].mean(axis=0), f"mean of {name}", units=64)
        agree(norm.running_var, inputs[name].var(axis=0), f"variance of {name}", units=64)
        assert int(norm.num_batches_tracked) == 4
    recalibrate(net, [x], ddof=1)
    agree(norms["0.norm"].running_var, inputs["0.norm"].var(axis=0, ddof=1), "ddof=1", units=64)
    assert int(norms["2"].num_batches_tracked) == 1


def test_recalibrate_follows_the_calls(rng):
    """A layer of the user's, whose attributes stand in another order than its calls."""

    class Backwards(Layer):
        def __init__(self):
            self.second, self.first = BatchNorm(3, **F64), BatchNorm(3, **F64)
            self.unused = BatchNorm(3, **F64)

        def forward(self, x):
            return self.second(np.exp(self.first(x)))

    net, x = Backwards(), rng.normal(5, 3, (100, 3))
    recalibrate(net, [x[:10], x[10:]])
    y = net.eval()(x)
    agree(y.mean(axis=0), np.zeros(3), "mean", scale=1.0, units=64)
    agree(y.var(axis=0), net.second.running_var / (net.second.running_var + 1e-5), "variance", units=64)
    assert (net.unused.running_var == 1).all()
    assert int(net.unused.num_batches_tracked) == 0

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
    behind = shaken(Sequential(Dense(3, 3, activation="relu"), BatchNorm(3)), rng).eval()
    x = rng.standard_normal((5, 3)).astype(np.float32)
    agree(freeze(behind)(x), behind(x), "batch norm behind an activation", units=32)
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


@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "grouped Conv2d", "ConvTranspose2d", "grouped ConvTranspose2d", "depthwise Conv2d"])
@pytest.mark.parametrize("affine", [False, True])
def test_folding_into_the_layers_of_pytorch(kind, affine, rng):
    """Behind each layer of PyTorch, in the layout of its weights, and from there in that of Keras."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    layer = {
        "Linear": lambda: torch.nn.Linear(4, 6),
        "Conv2d": lambda: torch.nn.Conv2d(4, 6, 3, padding=1),
        "grouped Conv2d": lambda: torch.nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
        "ConvTranspose2d": lambda: torch.nn.ConvTranspose2d(4, 6, 3, stride=2),
        "grouped ConvTranspose2d": lambda: torch.nn.ConvTranspose2d(4, 6, 3, groups=2),
        "depthwise Conv2d": lambda: torch.nn.Conv2d(3, 6, 3, groups=3, padding=1),
    }[kind]().double()
    norm = (torch.nn.BatchNorm1d if kind == "Linear" else torch.nn.BatchNorm2d)(6, affine=affine).double().eval()
    for values in (*norm.parameters(), norm.running_mean):
        values.data = torch.from_numpy(rng.standard_normal(6))
    norm.running_var.data = torch.from_numpy(rng.random(6) + 0.1)
    mean, var, *affine = (values.detach().numpy() for values in (norm.running_mean, norm.running_var, *norm.parameters()))
    x = torch.from_numpy(rng.standard_normal((2, layer.weight.shape[1] if kind == "Linear" else 3 if "depth" in kind else 4, 5, 5)))
    x = x[:, :, 0, 0] if kind == "Linear" else x
    expected = norm(layer(x)).detach().numpy()
    weight, bias = layer.weight.detach().numpy(), None if layer.bias is None else layer.bias.detach().numpy()
    if kind == "grouped ConvTranspose2d":
        folded, shift = fold_batch_norm(weight.reshape(2, 2, 3, 3, 3), bias, mean, var, *affine, axis=(0, 2))
        folded = folded.reshape(weight.shape)
    else:
        folded, shift = fold_batch_norm(weight, bias, mean, var, *affine, axis=1 if kind == "ConvTranspose2d" else 0)
    if layer.bias is None:
        layer.bias = torch.nn.Parameter(torch.zeros(6).double())
    layer.weight.data, layer.bias.data = torch.from_numpy(folded), torch.from_numpy(shift)
    agree(layer(x).detach().numpy(), expected, kind, units=64)
    if kind in ("Linear", "Conv2d"):  # HWIO, (in, out)
        keras, again = fold_batch_norm(weight.T, bias, mean, var, *affine, axis=-1)
        assert (folded == keras.T).all()
        assert (again == shift).all()
    if kind == "depthwise Conv2d":  # (6, 1, h, w) as (h, w, 3, 2)
        keras, again = fold_batch_norm(weight.reshape(3, 2, 3, 3).transpose(2, 3, 0, 1), bias, mean, var, *affine, axis=(2, 3))
        assert (keras.transpose(2, 3, 0, 1).reshape(folded.shape) == folded).all()
        swapped, _ = fold_batch_norm(weight.reshape(3, 2, 3, 3).transpose(1, 2, 3, 0), bias, mean, var, *affine, axis=(3, 0))
        assert (swapped.transpose(3, 0, 1, 2).reshape(folded.shape) == folded).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_folding_before_a_dense_layer(dtype, rng):
    weight, bias = rng.standard_normal((3, 5)).astype(dtype), rng.standard_normal(3).astype(dtype)
    mean, gamma, beta = rng.standard_normal((3, 5))
    var, x = rng.random(5) + 0.5, rng.standard_normal((20, 5))
    for given in (None, bias):
        direct = nf.batch_norm(x, mean, var, gamma, beta) @ weight.T.astype(np.float64) + (0 if given is None else given)
        folded, shift = fold_batch_norm(weight, given, mean, var, gamma, beta, before=True)
        assert folded.dtype == shift.dtype == dtype
        assert np.abs(x @ folded.T.astype(np.float64) + shift - direct).max() < 64 * np.finfo(dtype).eps
        keras = fold_batch_norm(weight.T, given, mean, var, gamma, beta, before=True, axis=0)
        assert (folded == keras[0].T).all()
        assert (keras[1] == shift).all()


def test_folding_a_constant_channel():
    """As `batch_norm` takes it: without variance and eps the bias alone is left."""
    weight, bias = fold_batch_norm(np.array([[2.0]]), [1.0], [5.0], [0.0], bn_bias=[3.0], eps=0)
    assert (weight, bias) == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((np.ones((2, 2), int), None, np.ones(2), np.ones(2)), {}, TypeError, "weight must be float16"),
        ((np.ones((2, 3)), np.ones(3), np.ones(2), np.ones(2)), {}, ValueError, r"bias has shape \(3,\): a weight of shape \(2, 3\)"),
        ((np.ones((2, 3)), None, np.ones(2), -np.ones(2)), {}, ValueError, "var must be 0 or more, got -1"),
        ((np.ones((2, 3)), None, np.ones(2), None), {}, TypeError, "var is needed, got None"),
        ((np.ones((2, 3)), None, np.ones(2), np.ones(2)), {"eps": -1}, ValueError, "eps must be"),
        ((np.ones((2, 3)), None, np.ones(2), np.ones(2)), {"axis": 2}, ValueError, "axis 2 is out of bounds"),
        ((np.ones((2, 3, 3, 3)), None, np.ones(3), np.ones(3)), {"before": True}, ValueError, "a convolution pads its input with zeros"),
        ((np.ones((2, 3)), None, np.ones(6), np.ones(6)), {"before": True, "axis": (0, 1)}, ValueError, "the one axis of the inputs"),
    ],
)
def test_folding_errors(arguments, options, error, text):
    with pytest.raises(error, match=text) as raised:
        fold_batch_norm(*arguments, **options)
    assert "\n" not in str(raised.value)


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

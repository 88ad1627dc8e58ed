"""Layers: gradients, and PyTorch's names and results."""

import copy
import pickle

import numpy as np
import pytest
from networks import F64, NAMED, SQUARE, model, shaken
from oracle import agree

from normfast.inference import freeze, mc_predict, recalibrate
from normfast.layers import Activation, AlphaDropout, BatchNorm, Dense, Dropout, GroupNorm, InstanceNorm, LayerNorm, RMSNorm, Sequential


def side(layer, z):
    """On which side of the kinks of the derivative an input lies: signs for relu, signs and the largest for absolute deviations."""
    if getattr(layer, "ord", 2) != 2:
        z = z - z.mean(axis=(0, 2), keepdims=True)
        return (z > 0).tobytes() + (np.abs(z) == np.abs(z).max(axis=(0, 2), keepdims=True)).tobytes()
    return (z > 0).tobytes()


def check_gradients(net, x, rng, **options):
    """Every parameter and the input against 4th-order central differences along random directions."""
    layers = [layer for _, layer in net.named_modules()]
    sides = []
    if any(getattr(layer, "activation", None) in ("relu", "leaky_relu") or getattr(layer, "ord", 2) != 2 for layer in layers):
        for layer in layers:
            layer.observer = lambda z, layer=layer: sides[-1].append(side(layer, z))

    def run():
        sides.append([])
        for layer in layers:
            if isinstance(layer, Dropout):
                layer.rng = np.random.default_rng(7)  # the same mask in each call
        return net(x, **options)

    v = rng.standard_normal(run().shape)
    dx = net.backward(v)
    for array, gradient in [(x, dx), *((p.data, p.grad) for p in net.parameters())]:
        assert gradient.shape == array.shape
        start = array.copy()
        for attempt in range(50):  # shorter and shorter steps, until none crosses a kink
            u, along, h = rng.standard_normal(array.shape), 0.0, max(1e-4 * 0.8**attempt, 1e-6)
            sides.clear()
            for k, c in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
                array[...] = start + k * h * u
                along += c * (run() * v).sum() / (12 * h)
            array[...] = start
            if all(reached == sides[0] for reached in sides):
                break
        assert all(reached == sides[0] for reached in sides)
        difference = abs((gradient * u).sum() - along)
        assert difference < 1e-7 * np.abs(gradient * u).sum() + 1e-8 * 1e-4 / h, (array.shape, h, difference)


def test_gradients_of_a_network(engine, rng):
    check_gradients(shaken(model(), rng), rng.standard_normal((12, 6)), rng)


@pytest.mark.parametrize("activation", [*NAMED, SQUARE], ids=[*NAMED, "pair"])
@pytest.mark.parametrize("norm", [None, "batch", "layer", "rms"])
def test_gradients_of_dense(engine, norm, activation, rng):
    net = Sequential(Dense(5, 6, norm=norm, activation=activation, dropout=0.3, rng=0, **F64), Activation("tanh"))
    check_gradients(shaken(net, rng), rng.standard_normal((9, 5)), rng)


LAYERS = {
    "batch": (lambda: BatchNorm(4, **F64), (8, 4)),
    "batch NCHW": (lambda: BatchNorm(4, activation="silu", **F64), (3, 4, 2, 5)),
    "batch NHWC": (lambda: BatchNorm(4, axis=-1, activation=SQUARE, **F64), (3, 2, 5, 4)),
    "batch L1": (lambda: BatchNorm(4, ord=1, **F64), (3, 4, 6)),
    "batch Linf": (lambda: BatchNorm(4, ord=np.inf, activation="gelu", **F64), (3, 4, 6)),
    "batch without weight": (lambda: BatchNorm(4, affine=False, **F64), (8, 4)),
    "layer": (lambda: LayerNorm((3, 4), **F64), (5, 3, 4)),
    "layer without bias": (lambda: LayerNorm(4, bias=False, **F64), (5, 3, 4)),
    "rms": (lambda: RMSNorm((3, 4), **F64), (5, 3, 4)),
    "rms without weight": (lambda: RMSNorm(4, elementwise_affine=False, **F64), (5, 4)),
    "group": (lambda: GroupNorm(2, 6, **F64), (3, 6, 4)),
    "group NHWC": (lambda: GroupNorm(3, 6, axis=-1, **F64), (3, 2, 2, 6)),
    "instance": (lambda: InstanceNorm(4, affine=True, **F64), (3, 4, 5)),
    "instance NHWC": (lambda: InstanceNorm(4, axis=-1, track_running_stats=True, **F64), (3, 5, 4)),
    "dropout": (lambda: Dropout(0.4), (6, 5)),
    "channel dropout": (lambda: Dropout(0.4, axis=(0, 1)), (6, 5, 4)),
    "alpha dropout": (lambda: AlphaDropout(0.4), (6, 5)),
    "dense on sequences": (lambda: Dense(4, 3, norm="batch", activation="tanh", **F64), (6, 2, 4)),
    "dense with a norm layer": (lambda: Dense(4, 6, norm=GroupNorm(2, 6, axis=-1, **F64), activation="leaky_relu", **F64), (6, 4)),
    "dense with its own batch norm": (lambda: Dense(4, 6, norm=BatchNorm(6, activation="tanh", **F64), activation="silu", **F64), (6, 4)),
    "dense with alpha dropout": (lambda: Dense(4, 6, activation="relu", dropout=AlphaDropout(0.3), **F64), (6, 4)),
}


@pytest.mark.parametrize("case", LAYERS)
def test_gradients_of_layers(engine, case, rng):
    make, shape = LAYERS[case]
    check_gradients(shaken(make(), rng), rng.standard_normal(shape), rng)


@pytest.mark.parametrize(
    "make", [lambda: BatchNorm(4, activation="tanh", **F64), lambda: LayerNorm(5, **F64), lambda: GroupNorm(2, 4, **F64)]
)
def test_masked_entries_take_no_part(engine, make, rng):
    net, x = shaken(make(), rng), rng.standard_normal((3, 4, 5))
    where = np.broadcast_to(rng.random((3, 1, 5)) < 0.7, x.shape).copy()
    where[:, :, :2] = True
    check_gradients(net, x, rng, where=where)
    y, dx = net(x, where=where), net.backward(x)
    other = np.where(where, x, np.nan)
    assert (y[~where] == 0).all()
    assert (dx[~where] == 0).all()
    assert (net(other, where=where) == y).all()
    inference = net.eval()(x, where=where)
    assert (inference[~where] == 0).all()
    assert (inference[where] == net(x)[where]).all() or not isinstance(net, BatchNorm)


def test_dropout_goes_back_through_the_mask_of_the_call():
    layer = Dropout(0.5, rng=0)
    x = np.ones((50, 40))
    first, second = layer(x), layer(x)
    assert (first != second).any()
    assert (layer.backward(x) == second).all()
    assert layer.eval()(x) is x
    assert layer.backward(x) is x
    out = np.empty_like(x)
    assert layer(x, out=out) is out
    assert (out == x).all()
    channels = Dropout(0.5, axis=(0, 1), rng=0)(np.ones((20, 30, 4)))
    assert (channels == channels[:, :, :1]).all()
    on = Dropout(0.5, always_on=True, rng=0).eval()
    assert 0 < (on(x) == 0).mean() < 1


def test_training_and_inference_of_batch_norm(rng):
    layer = BatchNorm(4, dtype=np.float64, momentum=None)
    batches = rng.normal(3, 2, (5, 100, 4))
    for batch in batches:
        layer(batch)
    agree(layer.running_mean, batches.mean(axis=(0, 1)), "cumulative mean", units=16)
    agree(layer.running_var, batches.var(axis=1, ddof=1).mean(axis=0), "cumulative variance", units=16)
    assert int(layer.num_batches_tracked) == 5
    layer.eval()
    agree(layer(batches[0]), (batches[0] - layer.running_mean) / np.sqrt(layer.running_var + 1e-5), "inference", units=16)
    with pytest.raises(RuntimeError, match="backward needs a forward call in training mode"):
        layer.backward(batches[0])
    keras = BatchNorm(4, dtype=np.float64, momentum=0.01, ddof=0)
    keras(batches[0])
    agree(keras.running_var, 0.99 + 0.01 * batches[0].var(axis=0), "ddof=0", units=16)
    mean_deviation = BatchNorm(4, dtype=np.float64, momentum=1.0, ord=1)
    mean_deviation(batches[0])
    agree(mean_deviation.running_var, np.abs(batches[0] - batches[0].mean(axis=0)).mean(axis=0) ** 2, "ord=1", units=16)


def test_state_dict_round_trip():
    source, target = model(), model()
    for parameter in source.parameters():
        parameter.data += 1
    target.load_state_dict(source.state_dict())
    for name, array in target.state_dict().items():
        assert (array == source.state_dict()[name]).all()
    state = source.state_dict()
    del state["0.weight"]
    with pytest.raises(ValueError, match=r"missing \['0.weight'\]"):
        target.load_state_dict(state)
    with pytest.raises(ValueError, match=r"0.weight has shape \(1,\) and the layer needs \(9, 6\)"):
        target.load_state_dict(source.state_dict() | {"0.weight": np.zeros(1)})


def test_copies_leave_the_last_batch_behind(rng):
    net = model()
    net(rng.standard_normal((5, 6)))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert all(layer._saved is None for _, layer in twin.named_modules())
        x = rng.standard_normal((5, 6))
        assert (twin.eval()(x) == copy.deepcopy(net).eval()(x)).all()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: Dense(2, 2, norm="group"),
            ValueError,
            "unknown norm 'group': choose one of None, 'batch', 'layer', 'rms', or give a norm",
        ),
        (lambda: Dense(2, 2, activation="step"), ValueError, "unknown activation 'step'"),
        (lambda: BatchNorm(2, activation=abs), TypeError, "activation must be"),
        (lambda: Activation("step"), ValueError, "unknown activation 'step'"),
        (lambda: GroupNorm(2, 5), ValueError, "5 channels cannot be split into 2 groups"),
        (lambda: Dense(2, 2)(np.ones((4, 3))), ValueError, r"x has shape \(4, 3\): its last axis must hold the 2 inputs"),
        (lambda: Dense(2, 2)(np.ones((4, 2), int)), TypeError, "x must be float16"),
        (lambda: Dense(2, 2).backward(np.ones((4, 2))), RuntimeError, "Dense.backward needs a forward call in training mode"),
        (lambda: mc_predict(Dropout(), np.ones(3), 0), ValueError, "n must be an integer of 1 or more, got 0"),
        (lambda: recalibrate(BatchNorm(3), []), ValueError, "there are no batches"),
        (lambda: recalibrate(BatchNorm(3), iter([])), ValueError, "there are no batches"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_gradient_of_the_wrong_shape(rng):
    layer = Dense(3, 2)
    layer(np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"dy has shape \(4, 3\): an x of shape \(4, 3\) needs \(4, 2\)"):
        layer.backward(np.ones((4, 3)))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bit_input_with_float32_parameters(engine, name, rng):
    dtype = np.float16 if name == "float16" else pytest.importorskip("ml_dtypes", reason="bfloat16 comes with ml_dtypes").bfloat16
    unit = 2.0**-10 if name == "float16" else 2.0**-7
    x, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((64, 6), (64, 32)))
    for make in (
        lambda: Dense(6, 32, norm="batch", activation="relu", rng=0),
        lambda: Dense(6, 32, norm="layer", activation="gelu", rng=0),
        lambda: Dense(6, 32, norm="rms", activation=SQUARE, dropout=0.3, rng=0),
        lambda: Sequential(Dense(6, 32, bias=False, rng=0), BatchNorm(32, activation="tanh")),
        lambda: Sequential(Dense(6, 32, rng=0), GroupNorm(2, 32), Activation("silu"), Dropout(0.2, rng=0)),
        lambda: Sequential(LayerNorm(6), Dense(6, 32, rng=0), RMSNorm(32), AlphaDropout(0.2, rng=0)),
    ):
        half, single = make(), make()
        both = (half, x, dy), (single, x.astype(np.float32), dy.astype(np.float32))
        results = [(net(z), net.backward(dz), *(p.grad for p in net.parameters())) for net, z, dz in both]
        assert results[0][0].dtype == results[0][1].dtype == dtype
        assert all(gradient.dtype == np.float32 for gradient in results[0][2:])
        for actual, exact in zip(*results, strict=True):  # each layer rounds its output once, and the way back as often
            assert np.abs(actual.astype(np.float32) - exact).max() <= 8 * unit * np.abs(exact).max()
        assert half.eval()(x).dtype == freeze(half)(x).dtype == dtype if isinstance(half, Dense) else True


def test_a_pytorch_checkpoint_loads_as_it_is(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.nn.Sequential(
        torch.nn.Linear(6, 9), torch.nn.BatchNorm1d(9), torch.nn.LayerNorm(9), torch.nn.ReLU(), torch.nn.Linear(9, 2)
    )
    ours = Sequential(Dense(6, 9), BatchNorm(9), LayerNorm(9), Activation("relu"), Dense(9, 2))
    x = rng.standard_normal((16, 6)).astype(np.float32)
    theirs(torch.from_numpy(3 * x))
    ours.load_state_dict(theirs.state_dict())
    agree(ours(x), theirs(torch.from_numpy(x)).detach().numpy(), "training", units=64)
    for name, value in theirs.state_dict().items():
        agree(ours.state_dict()[name].astype(np.float32), value.numpy(), name, units=8)
    theirs.eval()
    agree(ours.eval()(x), theirs(torch.from_numpy(x)).detach().numpy(), "inference", units=64)


TORCH_LAYERS = {
    "BatchNorm2d": (lambda nn: nn.BatchNorm2d(6), lambda: BatchNorm(6, **F64), (4, 6, 3, 5)),
    "LayerNorm": (lambda nn: nn.LayerNorm((3, 5)), lambda: LayerNorm((3, 5), **F64), (4, 6, 3, 5)),
    "LayerNorm without bias": (lambda nn: nn.LayerNorm(5, bias=False), lambda: LayerNorm(5, bias=False, **F64), (4, 6, 5)),
    "RMSNorm": (lambda nn: nn.RMSNorm(5, eps=1e-5), lambda: RMSNorm(5, **F64), (4, 6, 5)),
    "RMSNorm of two axes": (lambda nn: nn.RMSNorm((6, 5), eps=1e-3), lambda: RMSNorm((6, 5), eps=1e-3, **F64), (4, 6, 5)),
    "GroupNorm": (lambda nn: nn.GroupNorm(3, 6), lambda: GroupNorm(3, 6, **F64), (4, 6, 3, 5)),
    "GroupNorm without weight": (lambda nn: nn.GroupNorm(3, 6, affine=False), lambda: GroupNorm(3, 6, affine=False, **F64), (4, 6, 5)),
    "InstanceNorm2d": (lambda nn: nn.InstanceNorm2d(6), lambda: InstanceNorm(6, **F64), (4, 6, 3, 5)),
    "InstanceNorm1d, all": (
        lambda nn: nn.InstanceNorm1d(6, affine=True, track_running_stats=True, momentum=0.3),
        lambda: InstanceNorm(6, affine=True, track_running_stats=True, momentum=0.3, **F64),
        (4, 6, 5),
    ),
    "InstanceNorm2d, all": (
        lambda nn: nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        lambda: InstanceNorm(6, affine=True, track_running_stats=True, **F64),
        (4, 6, 3, 5),
    ),
}


@pytest.mark.parametrize("case", TORCH_LAYERS)
def test_norm_layers_are_those_of_pytorch(engine, case, rng):
    """Training, running statistics, gradients and inference, from PyTorch's own checkpoint."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    make_theirs, make_ours, shape = TORCH_LAYERS[case]
    theirs, ours = make_theirs(torch.nn).double(), make_ours()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += torch.from_numpy(rng.standard_normal(tuple(parameter.shape)))
    theirs(torch.from_numpy(rng.normal(2, 3, shape)))
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x, dy = rng.standard_normal((2, *shape))
    tensor = torch.from_numpy(x).requires_grad_()
    output = theirs(tensor)
    output.backward(torch.from_numpy(dy))
    agree(ours(x), output.detach().numpy(), f"{case} in training", units=64)
    agree(ours.backward(dy), tensor.grad.numpy(), f"{case} dx", units=256)
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        agree(parameter.grad, other.grad.numpy(), f"{case} dweight or dbias", units=256)
    for name, value in theirs.state_dict().items():
        if name != "num_batches_tracked":  # which PyTorch's InstanceNorm leaves at 0
            agree(ours.state_dict()[name], value.numpy(), f"{case} {name}", units=16)
    agree(ours.eval()(x), theirs.eval()(tensor).detach().numpy(), f"{case} at inference", units=64)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "softplus"])
def test_dense_is_that_of_pytorch(engine, activation, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    function = getattr(torch.nn.functional, activation, None) or getattr(torch, activation)
    linear, norm = torch.nn.Linear(6, 9).double(), torch.nn.BatchNorm1d(9).double()
    ours = Dense(6, 9, norm="batch", activation=activation, **F64)
    ours.load_state_dict(linear.state_dict() | {f"norm.{name}": value for name, value in norm.state_dict().items()})
    x, dy = rng.standard_normal((16, 6)), rng.standard_normal((16, 9))
    tensor = torch.from_numpy(x).requires_grad_()
    output = function(norm(linear(tensor)))
    output.backward(torch.from_numpy(dy))
    agree(ours(x), output.detach().numpy(), activation, units=64)
    agree(ours.backward(dy), tensor.grad.numpy(), f"{activation} dx", units=256)
    for parameter, other in zip(ours.parameters(), (*linear.parameters(), *norm.parameters()), strict=True):
        largest = max(1.0, float(np.abs(other.grad.numpy()).max()))  # that of the bias before the norm is 0 up to rounding
        agree(parameter.grad, other.grad.numpy(), f"{activation} gradients", units=256, scale=largest)

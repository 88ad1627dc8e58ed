"""Layers, folding and freezing, and the command line."""

import numpy as np
import pytest

import normfast as nf
from normfast.inference import fold_batch_norm, freeze
from normfast.layers import BatchNorm, Dense, Dropout, LayerNorm, Sequential


def model(dtype=np.float64, dropout=0.0):
    return Sequential(
        Dense(6, 9, norm="batch", activation="relu", dropout=dropout, dtype=dtype, rng=1),
        Dense(9, 7, norm="layer", activation="relu", dtype=dtype, rng=2),
        Dense(7, 5, bias=False, dtype=dtype, rng=3),
        BatchNorm(5, dtype=dtype),
        Dropout(dropout, rng=4),
        LayerNorm(5, dtype=dtype),
        Dense(5, 3, dtype=dtype, rng=5),
    )


def test_gradients_by_central_differences(engine, rng):
    """Every parameter and the input, 4th order."""
    net = model()
    x, v = rng.standard_normal((12, 6)), rng.standard_normal((12, 3))
    for parameter in net.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.data.shape)
    net(x)
    dx = net.backward(v)
    gradients = [p.grad.copy() for p in net.parameters()]
    h = 1e-6
    for array, gradient in zip([x, *(p.data for p in net.parameters())], [dx, *gradients], strict=True):
        start = array.copy()
        for _ in range(20):  # until no unit crosses the kink of its ReLU on the way: there the derivative jumps
            u, along, signs = rng.standard_normal(array.shape), 0.0, set()
            for k, c in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
                array[...] = start + k * h * u
                along += c * (net(x) * v).sum() / (12 * h)
                signs.add(b"".join((layer._activated > 0).tobytes() for layer in net.layers[:2]))
            array[...] = start
            if len(signs) == 1:
                break
        assert len(signs) == 1
        assert abs((gradient * u).sum() - along) < 1e-5 * max(1.0, abs(along))


def test_dropout_goes_back_through_the_mask_of_the_call():
    layer = Dropout(0.5, rng=0)
    x = np.ones((50, 40))
    first, second = layer(x), layer(x)
    assert (first != second).any()
    assert (layer.backward(x) == second).all()
    assert layer.eval()(x) is x


def test_training_and_inference_of_batch_norm(rng):
    layer = BatchNorm(4, dtype=np.float64, momentum=None)
    batches = rng.normal(3, 2, (5, 100, 4))
    for batch in batches:
        layer(batch)
    assert np.allclose(layer.running_mean, batches.mean(axis=(0, 1)))
    assert int(layer.num_batches_tracked) == 5
    layer.eval()
    assert np.allclose(layer(batches[0]), (batches[0] - layer.running_mean) / np.sqrt(layer.running_var + 1e-5))
    with pytest.raises(RuntimeError, match="backward needs a forward call in training mode"):
        BatchNorm(4).backward(batches[0])


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
    with pytest.raises(ValueError, match="unknown norm 'group': choose one of None, 'batch', 'layer'"):
        Dense(2, 2, norm="group")
    with pytest.raises(ValueError, match="unknown activation 'step'"):
        Dense(2, 2, activation="step")


def test_freeze(rng):
    net = model(np.float32, dropout=0.3)
    x = rng.standard_normal((64, 6)).astype(np.float32)
    for _ in range(20):
        net(x)
    expected = net.eval()(x)
    plan = freeze(net)
    assert np.abs(plan(x) - expected).max() < 1e-5 * np.abs(expected).max()
    for parameter in net.parameters():
        parameter.data += 1  # the plan has its own copies
    assert np.abs(plan(x) - expected).max() < 1e-5 * np.abs(expected).max()
    with pytest.raises(ValueError, match="right before it"):
        freeze(Sequential(Dense(3, 3, activation="relu"), BatchNorm(3)))
    with pytest.raises(TypeError, match="cannot freeze int"):
        freeze(3)


def test_folding_into_a_convolution(rng):
    """A 1 x 1 convolution, where the channel axis comes first."""
    weight, x = rng.standard_normal((5, 3, 1, 1)), rng.standard_normal((2, 3, 4, 4))
    mean, gamma, beta = rng.standard_normal((3, 5))
    var = rng.random(5) + 0.5
    folded, bias = fold_batch_norm(weight, None, mean, var, gamma, beta)
    direct = nf.batch_norm(np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x), mean, var, gamma, beta)
    assert np.allclose(np.einsum("oi,nihw->nohw", folded[:, :, 0, 0], x) + bias[:, None, None], direct, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"mean has shape \(4,\)"):
        fold_batch_norm(weight, None, mean[:4], var)


def test_a_pytorch_checkpoint_loads_as_it_is(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.BatchNorm1d(9), torch.nn.LayerNorm(9), torch.nn.Linear(9, 2))
    ours = Sequential(Dense(6, 9), BatchNorm(9), LayerNorm(9), Dense(9, 2))
    x = rng.standard_normal((16, 6)).astype(np.float32)
    theirs(torch.from_numpy(3 * x))
    ours.load_state_dict(theirs.state_dict())
    assert np.abs(ours(x) - theirs(torch.from_numpy(x)).detach().numpy()).max() < 1e-5
    for name, value in theirs.state_dict().items():
        assert np.allclose(ours.state_dict()[name], value.numpy(), rtol=1e-5)
    theirs.eval()
    assert np.abs(ours.eval()(x) - theirs(torch.from_numpy(x)).detach().numpy()).max() < 1e-5


@pytest.mark.parametrize("shape", [(32, 7), (4, 7, 5, 6)])
def test_values_and_gradients_are_those_of_pytorch(shape, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, dy = rng.standard_normal((2, *shape))
    weight, bias = rng.standard_normal((2, 7))
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, weight, bias)]
    theirs = torch.nn.functional.batch_norm(tensors[0], None, None, *tensors[1:], training=True)
    theirs.backward(torch.from_numpy(dy))
    y, stats = nf.batch_norm_forward(x, weight, bias)
    for ours, their in zip((y, *nf.batch_norm_backward(dy, x, stats, weight)), (theirs, *(t.grad for t in tensors)), strict=True):
        assert np.allclose(ours, their.detach().numpy(), rtol=1e-9, atol=1e-10)
    weight, bias = rng.standard_normal((2, shape[-1]))
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, weight, bias)]
    theirs = torch.nn.functional.layer_norm(tensors[0], shape[-1:], *tensors[1:])
    theirs.backward(torch.from_numpy(dy))
    y, stats = nf.layer_norm_forward(x, weight, bias)
    for ours, their in zip((y, *nf.layer_norm_backward(dy, x, stats, weight)), (theirs, *(t.grad for t in tensors)), strict=True):
        assert np.allclose(ours, their.detach().numpy(), rtol=1e-9, atol=1e-10)

"""Whole PyTorch models with normfast's modules: the same modules, the same curves, compiled, exported, pickled, and back again."""

import copy
import io
import statistics

import pytest
from oracle import agree

torch = pytest.importorskip("torch", reason="the bridge to PyTorch needs PyTorch")
nt = pytest.importorskip("normfast.torch")
nn = torch.nn
torch.set_num_threads(1)  # its threads cost 0.1 s a call where other processes use the cores

MODULES = [
    (lambda m, **o: m.LayerNorm(10, **o), (4, 6, 10), [{}, {"elementwise_affine": False}, {"bias": False}, {"eps": 0.1}]),
    (lambda m, **o: m.LayerNorm((6, 10), **o), (4, 6, 10), [{}]),
    (lambda m, **o: m.RMSNorm(10, **o), (4, 6, 10), [{}, {"elementwise_affine": False}, {"eps": 0.1}]),
    (lambda m, **o: m.GroupNorm(3, 6, **o), (4, 6, 10), [{}, {"affine": False}, {"eps": 0.1}]),
    *(
        (lambda m, name=name, **o: getattr(m, name)(6, **o), shape, options)
        for name, shape, options in (
            ("BatchNorm1d", (17, 6), [{}, {"momentum": None}]),
            ("BatchNorm1d", (4, 6, 10), [{}, {"track_running_stats": False}]),
            ("BatchNorm2d", (4, 6, 5, 3), [{}, {"affine": False}, {"momentum": None}, {"momentum": 0.3, "eps": 0.1}]),
            ("BatchNorm3d", (4, 6, 5, 3, 2), [{}, {"track_running_stats": False}]),
            ("InstanceNorm1d", (4, 6, 10), [{}, {"affine": True}, {"affine": True, "track_running_stats": True}]),
            ("InstanceNorm1d", (6, 10), [{}]),
            ("InstanceNorm2d", (4, 6, 5, 3), [{}, {"affine": True, "track_running_stats": True, "momentum": None}]),
            ("InstanceNorm3d", (4, 6, 5, 3, 2), [{}, {"affine": True}]),
        )
    ),
]
CASES = [(make, shape, options) for make, shape, choices in MODULES for options in choices]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("make", "shape", "options"), CASES, ids=lambda value: str(value) if not callable(value) else "")
def test_module_is_pytorch_s(make, shape, options, dtype, rng):
    """Two steps of training, then inference, beside PyTorch's module in float64: results, gradients and buffers."""
    theirs = make(nn, **options).double()
    ours = make(nt, **options).to(dtype)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.tensor(rng.standard_normal(parameter.shape)).to(dtype))
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    units = {torch.float32: 16, torch.float64: 256}[dtype]
    for training in (True, True, False):
        x, dy = torch.tensor(rng.normal(0.5, 2, shape)).to(dtype), torch.tensor(rng.standard_normal(shape)).to(dtype)
        results = []
        for module in (ours, theirs):
            module.train(training)
            module.zero_grad()
            own = x.detach().clone().to(torch.float64 if module is theirs else dtype).requires_grad_()
            y = module(own)
            y.backward(dy.to(y.dtype))
            results.append([y.detach(), own.grad, *(p.grad for p in module.parameters()), *module.buffers()])
        for value, target in zip(*results, strict=True):
            agree(value.double().to(dtype).numpy(), target.numpy(), repr(ours), units=units, scale=max(1.0, float(target.abs().max())))
    assert repr(ours) == repr(theirs)


class Residual(nn.Module):
    """A block of a ResNet."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


def resnet():
    blocks = [Residual(8, 8, 1), Residual(8, 16, 2)]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )


class Transformer(nn.Module):
    """Names the sequence's most frequent token of the last ones."""

    def __init__(self, dropout, norm_first=False, batch_first=True, d=32):
        super().__init__()
        self.embed, self.batch_first = nn.Embedding(8, d), batch_first
        layer = nn.TransformerEncoderLayer(d, 4, 2 * d, dropout, batch_first=batch_first, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(d), enable_nested_tensor=False)
        self.head = nn.Linear(d, 8)

    def forward(self, x):
        z = self.embed(x)
        return self.head(self.encoder(z).mean(1) if self.batch_first else self.encoder(z.transpose(0, 1)).mean(0))


def curve(model, data, target, steps=40, seed=0):
    """The loss at each step of training."""
    torch.manual_seed(seed)
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), []
    model.train()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(data), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def tokens():
    torch.manual_seed(0)
    x = torch.randint(8, (32, 12))
    return x, x.mode(1).values


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_transformer_without_dropout_has_the_same_curve(norm_first, batch_first):
    torch.manual_seed(1)
    model = Transformer(0.0, norm_first, batch_first)
    other = nt.accelerate(copy.deepcopy(model))
    a, b = (curve(m, *tokens()) for m in (model, other))
    assert a[-1] < a[0] - 0.1
    assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 1e-4


def test_resnet_has_the_same_curve():
    torch.manual_seed(1)
    model = resnet()
    other = nt.accelerate(copy.deepcopy(model))
    data, target = torch.randn(16, 3, 12, 12), torch.randint(4, (16,))
    for layout in (torch.contiguous_format, torch.channels_last):
        a, b = (curve(copy.deepcopy(m), data.contiguous(memory_format=layout), target, 20) for m in (model, other))
        assert a[-1] < a[0] / 2
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 1e-4
    curve(model, data, target, 2)
    curve(other, data, target, 2)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(data), model.eval()(data), rtol=1e-4, atol=1e-4)


def test_transformer_with_dropout_ends_within_the_spread_of_seeds():
    finals = {}
    for swapped in (False, True):
        finals[swapped] = []
        for seed in range(12):
            torch.manual_seed(1)
            model = Transformer(0.1)
            losses = curve(nt.accelerate(model) if swapped else model, *tokens(), seed=seed)
            finals[swapped].append(statistics.mean(losses[-5:]))
    mean, other = (statistics.mean(finals[swapped]) for swapped in (True, False))
    error = (sum(statistics.variance(own) for own in finals.values()) / 12) ** 0.5
    assert abs(mean - other) < 3 * error, finals
    assert min(finals[False]) < mean < max(finals[False]), finals


def test_seed_repeats_a_model():
    torch.manual_seed(1)
    model = nt.accelerate(Transformer(0.1))
    assert curve(copy.deepcopy(model), *tokens(), 3, seed=5) == curve(copy.deepcopy(model), *tokens(), 3, seed=5)
    assert curve(copy.deepcopy(model), *tokens(), 3, seed=5) != curve(copy.deepcopy(model), *tokens(), 3, seed=6)


class Own(nn.LayerNorm):
    """A user's own norm, which stays."""


def test_accelerate_and_restore():
    shared = nn.BatchNorm1d(4)
    model = nn.Sequential(
        shared, shared, nn.LayerNorm(4), Own(4), nn.Dropout(0.1), nn.Dropout1d(), nn.SyncBatchNorm(4), nn.MultiheadAttention(4, 2)
    )
    kinds = [type(m) for m in model.modules()]
    state, parameters = model.state_dict(), list(model.parameters())
    seen = []
    model[2].register_forward_hook(lambda *_: seen.append(1))
    model[4].eval()
    assert nt.accelerate(model) is model
    swapped = [nt.BatchNorm1d, nt.LayerNorm, Own, nt.Dropout, nn.Dropout1d, nn.SyncBatchNorm, nt.MultiheadAttention]
    assert [type(m) for m in model.children()] == swapped
    assert model[0] is model[1] is shared
    model[2](torch.zeros(2, 4))
    assert seen == [1]
    assert not model[4].training
    nt.accelerate(model)  # again: nothing more to do
    assert list(model.state_dict()) == list(state)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert nt.restore(model) is model
    assert [type(m) for m in model.modules()] == kinds
    root = nn.LayerNorm(3)
    assert type(nt.accelerate(root)) is nt.LayerNorm
    with pytest.raises(TypeError, match=r"a model is a torch.nn.Module, got list"):
        nt.accelerate([root])


def test_saved_and_copied():
    torch.manual_seed(0)
    model = nt.accelerate(Transformer(0.1)).eval()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    x = tokens()[0]
    for other in (torch.load(file, weights_only=False), copy.deepcopy(model)):
        assert type(other.encoder.norm) is nt.LayerNorm
        assert torch.equal(other(x), model(x))
    plain = Transformer(0.1).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(x), model(x))


MASKS = {
    "none": {},
    "causal": {"attn_mask": torch.ones(5, 5).triu(1).bool()},
    "causal hint": {"attn_mask": nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64), "is_causal": True},
    "padding": {"key_padding_mask": torch.arange(5) > torch.tensor([[2], [4], [0]])},
    "both": {"attn_mask": torch.ones(5, 5).triu(1).bool(), "key_padding_mask": torch.arange(5) > torch.tensor([[2], [4], [0]])},
    "of heads": {"attn_mask": torch.linspace(-1, 1, 150, dtype=torch.float64).reshape(6, 5, 5)},
    "all": {"attn_mask": torch.ones(5, 5).bool()},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["self", "keys", "all"])
def test_attention(kind, bias, batch_first, mask, monkeypatch, rng):
    """With a dropout that drops nothing it is PyTorch's attention."""
    monkeypatch.setattr("normfast.torch.attention.dropout", lambda x, p: x)
    theirs = nn.MultiheadAttention(8, 2, 0.0, bias=bias, batch_first=batch_first, dtype=torch.float64)
    ours = nt.accelerate(copy.deepcopy(theirs))
    ours.dropout = 0.1
    x = [torch.tensor(rng.standard_normal((3, 5, 8) if batch_first else (5, 3, 8))).requires_grad_() for _ in range(3)]
    q, k, v = {"self": (x[0],) * 3, "keys": (x[0], x[1], x[1]), "all": x}[kind]
    for weights in (False, True):
        options = MASKS[mask] | {"need_weights": weights}
        results = []
        for module in (ours, theirs):
            y, w = module(q, k, v, **options)
            used = {id(t): t for t in (q, k, v)}.values()
            gradients = torch.autograd.grad(y.square().sum(), [*used, *module.parameters()])
            results.append([y, *gradients, *([w] if weights else [])])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)


def test_attention_drops_and_falls_back(rng):
    x = torch.randn(2, 64, 8)
    ours = nt.MultiheadAttention(8, 2, 0.5, batch_first=True)
    _, weights = ours(x, x, x, average_attn_weights=False)
    assert 0.45 < (weights == 0).double().mean() < 0.55
    assert ours(x[0], x[0], x[0])[0].shape == (64, 8)  # no batch: PyTorch's way
    wide = nt.MultiheadAttention(8, 2, 0.5, kdim=4, vdim=4, batch_first=True)
    assert wide(x, x[..., :4], x[..., :4])[0].shape == x.shape
    with pytest.raises(RuntimeError, match="attn_mask"):
        ours(x, x, x, attn_mask=torch.ones(3, 3))


def test_fused_modules():
    torch.manual_seed(0)
    x, residual = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    for kind, norm in ((nt.DropoutAddLayerNorm, nn.LayerNorm), (nt.DropoutAddRMSNorm, nn.RMSNorm)):
        module = kind(8, 0.4, prenorm=True)
        torch.manual_seed(3)
        y, h = module(x, residual)
        torch.manual_seed(3)
        assert torch.equal(module(x, residual)[0], y)
        dropped = torch.isclose(h, residual, atol=0)
        torch.testing.assert_close(h, torch.where(dropped, residual, x / 0.6 + residual))
        torch.testing.assert_close(y, norm(8)(h))
        assert "p=0.4" in repr(module)
        assert list(module.state_dict()) == list(norm(8).state_dict())
        assert torch.equal(module.eval()(x, residual)[1], x + residual)

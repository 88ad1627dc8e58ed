"""normfast.torch under torch.compile and torch.export, and its operators by PyTorch's own check."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="the bridge to PyTorch needs PyTorch")
nt = pytest.importorskip("normfast.torch")
nn = torch.nn
torch.set_num_threads(1)  # its threads cost 0.1 s a call where other processes use the cores

pytestmark = pytest.mark.filterwarnings(  # PyTorch's compiler imports what PyTorch has deprecated
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "batch_norm", "group_norm"])
def test_operators_pass_pytorch_s_check(name):
    x = torch.randn(4, 6, 10, requires_grad=True)
    along = 10 if name in ("layer_norm", "rms_norm") else 6
    weight, bias = torch.randn(2, along).requires_grad_()
    number = 3 if name == "group_norm" else 1
    torch.library.opcheck(torch.ops.normfast.norm.default, (x, weight, None if name == "rms_norm" else bias, name, number, 1e-5))
    torch.library.opcheck(torch.ops.normfast.norm.default, (x.detach(), None, None, name, number, 1e-5))


def test_operators_of_dropout_pass_pytorch_s_check():
    key = torch.tensor([1, -2])
    x, residual = torch.randn(2, 4, 10).requires_grad_()
    weight, bias = torch.randn(2, 10).requires_grad_()
    torch.library.opcheck(torch.ops.normfast.drop.default, (x, key, 0.3, False))
    torch.library.opcheck(torch.ops.normfast.alpha_drop.default, (x, key, 0.3))
    for name, parameters in (("layer_norm", (weight, bias)), ("rms_norm", (weight, None))):
        torch.library.opcheck(torch.ops.normfast.dropout_add_norm.default, (x, residual, *parameters, key, name, 1, 0.3, 1e-5))


class Everything(nn.Module):
    """Every module once, and dropout twice on the same input."""

    def __init__(self):
        super().__init__()
        self.norms = nn.Sequential(
            nn.LayerNorm(8), nn.RMSNorm(8), nn.GroupNorm(2, 4), nn.BatchNorm1d(4), nn.InstanceNorm1d(4, affine=True), nn.AlphaDropout(0.2)
        )
        self.drop, self.attention = nn.Dropout(0.3), nn.MultiheadAttention(8, 2, 0.2, batch_first=True)
        self.fused = nt.DropoutAddLayerNorm(8, 0.3)

    def forward(self, x):
        x = self.norms(x)
        y = self.drop(x) + 2 * self.drop(x)
        return self.fused(self.attention(y, y, y, need_weights=False)[0], y)


@pytest.mark.parametrize("training", [True, False])
def test_compiled_model_is_the_eager_one(training):
    """One graph, the same masks, the same gradients."""
    torch.manual_seed(0)
    model = nt.accelerate(Everything()).train(training)
    other = copy.deepcopy(model)
    compiled = torch.compile(other, fullgraph=True)
    x = torch.randn(6, 4, 8)
    for _ in range(2):
        results = []
        for call, own in ((model, model), (compiled, other)):
            torch.manual_seed(7)
            y = call(x)
            own.zero_grad()
            y.square().sum().backward()
            results.append([y, *(p.grad for p in own.parameters()), *own.buffers()])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_exported_model_is_made_of_pytorch_s_operators():
    model = nt.accelerate(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Dropout(0.5))).eval()
    x = torch.randn(3, 4)
    program = torch.export.export(model, (x,))
    assert "normfast" not in str(program.graph)
    torch.testing.assert_close(program.module()(x), model(x))

"""Values and gradients of PyTorch, which computes them in float64 by its own operations and automatic differentiation.

Left out, where the two differ by design: batch norm of one value per channel and instance norm of one position (PyTorch raises), values
whose squares overflow or vanish (NaN or 0 in PyTorch), and gradients at kinks and ties (a matter of taste). The data are fixed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from oracle import agree

import normfast as nf
from normfast.ops.activation import activation, activation_backward

torch = pytest.importorskip("torch", reason="PyTorch is what these tests compare with")
torch.set_num_threads(1)  # its threads cost 0.1 s a call where other processes use the cores
F = torch.nn.functional

UNITS = {np.float16: 0.51, np.float32: 8, np.float64: 256}  # eps of the largest value; PyTorch's own error is within the 6e-14 of float64
EPS = (1e-5, 1e-3, 0.5)
ROWS = [((4, 7), 1), ((1, 33), 1), ((3, 5, 8), 1), ((3, 5, 8), 2), ((2, 3, 4, 5), 3), ((6, 1), 1), ((2, 1, 300), 2)]  # how many axes
IMAGES = [(4, 6, 5, 3), (1, 6, 7, 2), (3, 6, 40), (2, 6, 1, 9), (2, 6, 3, 2, 4)]
BATCHES = [*IMAGES, (17, 6), (300, 4), (5, 1), (8, 3, 1, 1)]
LARGE = (3, 6, 150, 110)  # several of the pieces in which 16 bits, masks, activations and other deviations are computed
ACTIVATIONS = {
    "relu": F.relu, "leaky_relu": F.leaky_relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "gelu": F.gelu, "silu": F.silu,
    "softplus": lambda z: F.softplus(z, threshold=100),  # PyTorch's 20 costs 2e-9
}  # fmt: skip


class Case(NamedTuple):
    """A norm of ours with its options, and theirs(x, weight, bias, eps)."""

    name: str
    shape: tuple
    options: dict
    theirs: Callable
    parameters: tuple | None = None  # their shape
    eps: tuple = EPS
    where: np.ndarray | None = None

    def __str__(self):
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        return f"{self.name} {self.shape}{options}{'' if self.where is None else ' where'}"


def channels(axis, norm):
    """A norm of PyTorch, whose channels lie on axis 1, for channels on another one."""
    return lambda x, *rest: norm(x.movedim(axis, 1), *rest).movedim(1, axis)


def layer_norm(shape, k):
    def theirs(x, weight, bias, eps):
        return F.layer_norm(x, shape[-k:], weight, bias, eps)

    return Case("layer_norm", shape, {"axis": tuple(range(-k, 0))}, theirs, shape[-k:])


def rms_norm(shape, k):
    def theirs(x, weight, bias, eps):
        return F.rms_norm(x, shape[-k:], weight, eps)

    return Case("rms_norm", shape, {"axis": tuple(range(-k, 0))}, theirs, shape[-k:])


def group_norm(shape, groups, axis=1):
    def theirs(x, weight, bias, eps):
        return F.group_norm(x, groups, weight, bias, eps)

    return Case("group_norm", shape, {"num_groups": groups, "axis": axis}, channels(axis, theirs), (shape[axis],))


def instance_norm(shape, axis=1):
    def theirs(x, weight, bias, eps):
        return F.instance_norm(x, weight=weight, bias=bias, eps=eps)

    return Case("instance_norm", shape, {"axis": axis}, channels(axis, theirs), (shape[axis],))


def batch_norm(shape, axis=1, **options):
    after = ACTIVATIONS.get(options.get("activation"), lambda z: z)

    def theirs(x, weight, bias, eps):
        return after(F.batch_norm(x, None, None, weight, bias, True, 0.0, eps))

    return Case("batch_norm", shape, {"axis": axis} | options, channels(axis, theirs), (shape[axis],))


def other_deviation(shape, ord):
    """Batch norm by the mean absolute or the largest deviation, spelled out: PyTorch has none."""

    def theirs(x, weight, bias, eps):
        d = x - x.mean(0)
        return d / (torch.linalg.vector_norm(d, ord, 0) / len(x) ** (1 / ord)).square().add(eps).sqrt() * weight + bias

    return Case("batch_norm", shape, {"ord": ord}, theirs, shape[1:])


def mean_variance_norm(shape, axes):
    def theirs(x, weight, bias, eps):
        var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) / torch.sqrt(var + eps)

    return Case("mean_variance_norm", shape, {"axis": axes}, theirs, eps=(1e-9, 1e-3))


def lp_norm(shape, ord, axis, eps=1e-12):
    def theirs(x, weight, bias, _):
        return F.normalize(x, ord, axis, eps)

    return Case("lp_norm", shape, {"ord": ord, "axis": axis, "eps": eps}, theirs, eps=(None,))


def lengths_of(shape):
    return [shape[-1], shape[-1] * 2 // 5, 3]


def packed_batch_norm(shape):
    """Padded sequences (N, C, length): the batch norm of the valid steps alone."""
    where = nf.sequence_mask(shape, lengths=lengths_of(shape), axis=2)
    valid = torch.from_numpy(np.broadcast_to(where, shape)[:, 0].copy())

    def theirs(x, weight, bias, eps):
        steps = F.batch_norm(x.movedim(1, -1)[valid], None, None, weight, bias, True, 0.0, eps)
        return torch.zeros_like(x).movedim(1, -1).index_put((valid,), steps).movedim(-1, 1)

    return Case("batch_norm", shape, {}, theirs, shape[1:2], where=where)


def cut_to_length(name, shape, norm, parameters, **options):
    """Padded sequences whose samples have statistics of their own: the norm of each without its padding."""
    last = shape[-1]

    def theirs(x, weight, bias, eps):
        samples = [norm(x[i : i + 1, ..., :n], weight, bias, eps) for i, n in enumerate(lengths_of(shape))]
        return torch.cat([F.pad(y, (0, last - y.shape[-1])) for y in samples])

    return Case(name, shape, options, theirs, parameters, where=nf.sequence_mask(shape, lengths=lengths_of(shape), axis=-1))


def cut_layer_norm(x, n, weight, bias, eps):
    return F.layer_norm(x, (n,), weight[:n], bias[:n], eps)


CASES = [
    *(layer_norm(*args) for args in ROWS),
    *(rms_norm(*args) for args in ROWS),
    *(group_norm(shape, groups) for shape in IMAGES for groups in (1, 3, 6)),
    *(group_norm(shape, 3, -1) for shape in [(4, 5, 3, 6), (1, 8, 6), (2, 1, 4, 9)]),
    *(instance_norm(shape) for shape in IMAGES),
    *(instance_norm(shape, -1) for shape in [(4, 5, 3, 6), (1, 8, 2)]),
    *(batch_norm(shape) for shape in BATCHES),
    *(batch_norm(shape, -1) for shape in [(4, 5, 3, 6), (1, 8, 2), (7, 1, 1, 3)]),
    *(batch_norm((4, 6, 5, 3), activation=name) for name in ACTIVATIONS),
    *(batch_norm((4, 5, 3, 6), -1, activation=name) for name in ACTIVATIONS),
    *(other_deviation(shape, ord) for shape in [(17, 6), (300, 4)] for ord in (1, np.inf)),
    *(mean_variance_norm((4, 6, 5, 3), axes) for axes in [(0, 2, 3), (0, 1, 2, 3), (1,), (2, 3), (0,)]),
    *(lp_norm((4, 6, 9), ord, axis) for ord in (-np.inf, -2.5, -1, 0, 0.5, 1, 1.5, 2, 3, np.inf) for axis in (-1, 1, (0, 2))),
    *(lp_norm((50, 6), ord, 1, eps=4.1) for ord in (1, 2, 3, np.inf)),  # some norms above eps, some below
    packed_batch_norm((3, 6, 40)),
    cut_to_length("layer_norm", (3, 40), lambda x, *rest: cut_layer_norm(x, x.shape[-1], *rest), (40,)),
    cut_to_length("group_norm", (3, 6, 40), lambda x, *rest: F.group_norm(x, 3, *rest), (6,), num_groups=3),
    *(
        case._replace(eps=(1e-5,))
        for case in (
            layer_norm((2, 300_000), 1), group_norm(LARGE, 3), batch_norm(LARGE), batch_norm(LARGE, activation="silu"),
            batch_norm((3, 150, 110, 6), -1, activation="tanh"), other_deviation((50_000, 6), 1), other_deviation((50_000, 6), np.inf),
            packed_batch_norm((3, 6, 16_000)),
        )
    ),
]  # fmt: skip


def gradients_of(theirs, dy, *arrays):
    """y and the gradients of a function of PyTorch, in float64."""
    tensors = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    y = theirs(*tensors)
    y.backward(torch.tensor(dy, dtype=torch.float64))
    return [y.detach().numpy(), *(np.zeros(t.shape) if t.grad is None else t.grad.numpy() for t in tensors)]


def channels_last(x):
    """The same array, in memory as NHWC."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def ours(case, dy, x, parameters, eps):
    options = case.options | ({} if case.where is None else {"where": case.where})
    y, saved = getattr(nf, f"{case.name}_forward")(x, **parameters, **options, **({} if eps is None else {"eps": eps}))
    if "activation" not in options:
        parameters = {key: value for key, value in parameters.items() if key != "bias"}
    return saved, y, *getattr(nf, f"{case.name}_backward")(dy, x, saved, **parameters, **options)


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_norm(engine, dtype, case):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(0.5, 2, case.shape).astype(dtype), rng.standard_normal(case.shape).astype(dtype)
    weight, bias = rng.standard_normal((2, *(case.parameters or (1,)))).astype(dtype)
    if case.parameters is None:
        choices = [{}]
    elif case.name == "rms_norm":
        choices = [{}, {"weight": weight}]
    else:
        choices = [{}, {"weight": weight}, {"bias": bias}, {"weight": weight, "bias": bias}]
    for eps in case.eps:
        for parameters in choices:
            both = {"weight": np.ones_like(weight), "bias": np.zeros_like(bias)} | parameters
            expected = gradients_of(lambda *tensors, eps=eps: case.theirs(*tensors, eps), dy, x, both["weight"], both["bias"])
            for layout in (np.asarray, channels_last) if x.ndim > 2 else (np.asarray,):
                saved, *actual = ours(case, dy, layout(x), parameters, eps)
                terms = np.max(getattr(saved, "rstd", 1.0)) * np.abs(dy).max() * np.abs(both["weight"]).max()  # of dx, which may cancel
                assert len(actual) == {"rms_norm": 3, "mean_variance_norm": 2, "lp_norm": 2}.get(case.name, 4)
                for name, value, target in zip(("y", "dx", "dweight", "dbias"), actual, expected, strict=False):
                    what = f"{name} of {case} eps={eps} {layout.__name__} {list(parameters)}"
                    scale = max(1.0, np.abs(target).max(), terms if name == "dx" else 0.0)
                    agree(value, target, what, units=UNITS[dtype], scale=float(scale))
                    assert value.dtype == dtype, what


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("n", [500, 300_000])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(engine, dtype, name, n):
    z, da = np.random.default_rng(0).normal(0, 4, (2, n)).astype(dtype)
    expected = gradients_of(ACTIVATIONS[name], da, z)
    for value, target in zip((activation(z, name), activation_backward(da, z, name)), expected, strict=True):
        agree(value, target, name, units=UNITS[dtype])


def test_own_activation(engine, dtype):
    """A pair of functions, fused into batch norm."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(0.5, 2, (2, 40, 6)).astype(dtype)
    weight, bias = rng.standard_normal((2, 6)).astype(dtype)
    pair = np.sin, lambda da, z: da * np.cos(z)
    y, stats = nf.batch_norm_forward(x, weight, bias, activation=pair)
    actual = y, *nf.batch_norm_backward(dy, x, stats, weight, bias=bias, activation=pair)
    expected = gradients_of(lambda x, w, b: torch.sin(F.batch_norm(x, None, None, w, b, True)), dy, x, weight, bias)
    for value, target in zip(actual, expected, strict=True):
        agree(value, target, "sin", units=UNITS[dtype])


@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
@pytest.mark.parametrize(("shape", "axis"), [((4, 6, 5, 3), 1), ((4, 5, 3, 6), -1), ((1, 6), 1), ((300, 6), 1)], ids=str)
def test_batch_norm_inference(engine, dtype, shape, axis, name):
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 2, shape).astype(dtype)
    mean, weight, bias = rng.standard_normal((3, 6)).astype(dtype)
    var = rng.uniform(0.1, 4, 6).astype(dtype)
    tensors = [torch.tensor(array, dtype=torch.float64) for array in (np.moveaxis(x, axis, 1), mean, var, weight, bias)]
    for eps in EPS:
        expected = ACTIVATIONS.get(name, lambda z: z)(F.batch_norm(*tensors, training=False, eps=eps)).movedim(1, axis).numpy()
        agree(nf.batch_norm(x, mean, var, weight, bias, axis=axis, eps=eps, activation=name), expected, name, units=UNITS[dtype])


@pytest.mark.parametrize("momentum", [0.1, 0.3, 1.0, None])
@pytest.mark.parametrize("shape", [(17, 6), (4, 6, 5)])
def test_running_statistics(engine, dtype, shape, momentum):
    """A BatchNorm module in training and then in inference."""
    module = torch.nn.BatchNorm1d(6, momentum=momentum, dtype=torch.float64)
    mean, var = np.zeros(6), np.ones(6)
    for k, x in enumerate(np.random.default_rng(0).normal(3, 2, (5, *shape)).astype(dtype)):
        y, stats = nf.batch_norm_forward(x)
        nf.update_running(mean, var, stats, momentum=momentum, **({"num_batches": k} if momentum is None else {}))
        agree(y, module(torch.tensor(x, dtype=torch.float64)).detach().numpy(), "y", units=UNITS[dtype])
        agree(mean.astype(dtype), module.running_mean.numpy(), "running_mean", units=UNITS[dtype])
        agree(var.astype(dtype), module.running_var.numpy(), "running_var", units=UNITS[dtype])
    module.eval()
    agree(nf.batch_norm(x, mean, var), module(torch.tensor(x, dtype=torch.float64)).detach().numpy(), "y at inference", units=UNITS[dtype])


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout(engine, dtype, p):
    """PyTorch's own mask, given to ours."""
    x, dy = np.random.default_rng(0).standard_normal((2, 40, 30)).astype(dtype)
    tensor = torch.tensor(x, requires_grad=True)
    expected, keep = torch.ops.aten.native_dropout(tensor, p, True)
    expected.backward(torch.tensor(dy))
    y, mask = nf.dropout_forward(x, p, mask=keep.numpy())
    agree(y, expected.detach().numpy(), "y", units=1)
    agree(nf.dropout_backward(dy, mask), tensor.grad.numpy(), "dx", units=1)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout(engine, dtype, p):
    """PyTorch's mask is seen in its result: what it drops has gradient 0."""
    x, dy = np.random.default_rng(0).standard_normal((2, 40, 30)).astype(dtype)
    tensor = torch.tensor(x, requires_grad=True)
    expected = F.alpha_dropout(tensor, p, training=True)
    expected.backward(torch.tensor(dy))
    y, mask = nf.alpha_dropout_forward(x, p, mask=tensor.grad.numpy() != 0)
    agree(y, expected.detach().numpy(), "y", units=UNITS[dtype])
    agree(nf.alpha_dropout_backward(dy, mask), tensor.grad.numpy(), "dx", units=UNITS[dtype])


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)], ids=str)
def test_moments(engine, dtype, axis):
    x = np.random.default_rng(0).normal(3, 2, (7, 5, 40)).astype(dtype)
    m = nf.moments(x, axis)
    for ddof in (0, 0.5, 1, 2):
        var, mean = torch.var_mean(torch.tensor(x, dtype=torch.float64), axis, correction=ddof)
        agree(m.mean, mean.numpy(), "mean", units=16)
        agree(m.var(ddof), var.numpy(), f"var with ddof={ddof}", units=16)
        agree(m.std(ddof), var.sqrt().numpy(), f"std with ddof={ddof}", units=16)

"""normfast.torch's functions: values and gradients beside PyTorch's in float64, gradients of gradients, masks, what falls to PyTorch."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from oracle import agree

import normfast as nf

torch = pytest.importorskip("torch", reason="the bridge to PyTorch needs PyTorch")
torch.set_num_threads(1)  # its threads cost 0.1 s a call where other processes use the cores
F = torch.nn.functional
nt = pytest.importorskip("normfast.torch")

UNITS = {torch.float16: 0.51 * 2**13, torch.bfloat16: 0.51 * 2**16, torch.float32: 8, torch.float64: 256}  # eps of what is compared in
NORMS = {
    "layer_norm": lambda f, x, w, b: f.layer_norm(x, x.shape[-1:], w, b),
    "layer_norm 2": lambda f, x, w, b: f.layer_norm(x, x.shape[-2:], w, b, 1e-3),
    "rms_norm": lambda f, x, w, b: f.rms_norm(x, x.shape[-1:], w),
    "rms_norm 2": lambda f, x, w, b: f.rms_norm(x, x.shape[-2:], w, 0.1),
    "group_norm": lambda f, x, w, b: f.group_norm(x, 3, w, b),
    "instance_norm": lambda f, x, w, b: f.instance_norm(x, None, None, w, b, eps=0.1),
    "batch_norm": lambda f, x, w, b: f.batch_norm(x, None, None, w, b, True),
    "batch_norm inference": lambda f, x, w, b: f.batch_norm(x, x.new_ones(x.shape[1]), 3 * x.new_ones(x.shape[1]), w, b),
}
LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "every second": lambda x: torch.stack([x, x], -1)[..., 0],
}


def widened(values):
    """As an array that NumPy knows, without a loss."""
    return values.detach().to(torch.promote_types(values.dtype, torch.float32)).numpy()


def inputs_of(name, rng, shape=(4, 6, 10), dtype=torch.float64):
    """x, weight and bias that need gradients."""
    along = shape[1:2] if name.split()[0] in ("group_norm", "instance_norm", "batch_norm") else shape[-2:] if "2" in name else shape[-1:]
    arrays = rng.normal(0.5, 2, shape), rng.standard_normal(along), rng.standard_normal(along)
    return [torch.tensor(a).to(dtype).requires_grad_() for a in arrays]


def results(function, namespace, inputs, dy):
    """y and the gradients of those inputs that have one."""
    y = function(namespace, *inputs)
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    return y, *torch.autograd.grad(y, wanted, dy.to(y.dtype), allow_unused=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", UNITS, ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_norms_are_pytorch_s(name, dtype, layout, rng):
    x, weight, bias = inputs_of(name, rng, dtype=dtype)
    x = LAYOUTS[layout](x.detach()).requires_grad_()
    dy = LAYOUTS[layout](torch.tensor(rng.standard_normal(x.shape)).to(dtype))
    for parameters in ((weight, bias), (weight, None), (None, bias), (None, None)):
        wide = [None if t is None else t.detach().double().requires_grad_() for t in (x, *parameters)]
        if wide[1] is None and wide[2] is not None and "group" in name:  # PyTorch's group norm fails at a bias alone
            wide[1] = torch.ones(6, dtype=torch.float64)
        if "inference" in name:  # with gradients it is PyTorch's own
            actual, expected = (results(NORMS[name], f, [x, *parameters], dy) for f in (nt, F))
            assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
            x = x.detach()
            parameters = [None if t is None else t.detach() for t in parameters]
            wide = [None if t is None else t.detach().requires_grad_(i == 0) for i, t in enumerate(wide)]
        expected = results(NORMS[name], F, wide, dy)
        for gradients, actual in (
            *([] if "inference" in name else [(True, results(NORMS[name], nt, [x, *parameters], dy))]),
            (False, [NORMS[name](nt, x.detach(), *(t if t is None else t.detach() for t in parameters))]),
        ):
            for what, value, target in zip(("y", "dx", "dweight", "dbias"), actual, expected, strict=False):
                assert (value is None) == (target is None)
                if value is not None:
                    assert value.dtype == dtype
                    scale = max(1.0, target.abs().max().item())
                    agree(widened(value), target.detach().numpy(), f"{what} of {name} {gradients=}", units=UNITS[dtype], scale=scale)
        x = x.requires_grad_()
        assert actual[0].stride() == NORMS[name](F, x.detach(), *parameters).stride()


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (2, 6, 3, 5, 4)], ids=str)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm"])
def test_memory_formats_of_images(name, shape, rng):
    x, weight, bias = inputs_of(name, rng, shape)
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    x = x.detach().contiguous(memory_format=last).requires_grad_()
    dy = torch.tensor(rng.standard_normal(shape))
    actual, expected = (results(NORMS[name], f, [x, weight, bias], dy) for f in (nt, F))
    for value, target in zip(actual, expected, strict=True):
        assert (value is None) == (target is None)
        if value is not None:
            agree(value.detach().numpy(), target.detach().numpy(), name, units=256, scale=max(1.0, target.abs().max().item()))
    assert name == "layer_norm" or actual[0].is_contiguous(memory_format=last)
    assert name == "instance_norm" or actual[0].stride() == expected[0].stride()  # ours stays channels last


@pytest.mark.parametrize("name", NORMS)
def test_gradients_of_gradients(name, rng):
    inputs = inputs_of(name, rng, (2, 3, 4))
    given = inputs[:2] if "rms" in name else inputs

    def function(x, weight, bias=None):
        return NORMS[name](nt, x, weight, bias)

    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given)
    assert torch.autograd.gradgradcheck(lambda x: NORMS[name](nt, x, None, None), given[:1])


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "group_norm", "batch_norm"])
def test_third_derivatives(name, rng):
    """PyTorch's own layer and batch norm fail here."""
    inputs = inputs_of(name, rng, (2, 3, 4))

    def second(x):
        (g,) = torch.autograd.grad((NORMS[name](nt, x, *(t.detach() for t in inputs[1:])) ** 3).sum(), x, create_graph=True)
        (h,) = torch.autograd.grad((g**2).sum(), x, create_graph=True)
        return h

    assert torch.autograd.gradcheck(second, inputs[:1])


def test_only_wanted_gradients(rng):
    for name in ("layer_norm", "batch_norm", "group_norm"):
        for wanted in (0, 1, 2):
            inputs = [t.detach() for t in inputs_of(name, rng)]
            inputs[wanted].requires_grad_()
            NORMS[name](nt, *inputs).square().sum().backward()
            assert [t.grad is not None for t in inputs] == [i == wanted for i in range(3)]


def test_float32_parameters_beside_16_bits(rng):
    for dtype in (torch.float16, torch.bfloat16):
        for name in ("layer_norm", "group_norm", "batch_norm"):
            x, weight, bias = inputs_of(name, rng, dtype=torch.float32)
            x = x.detach().to(dtype).requires_grad_()
            dy = torch.tensor(rng.standard_normal(x.shape)).to(dtype).double()
            expected = results(NORMS[name], F, [t.detach().double().requires_grad_() for t in (x, weight, bias)], dy)
            for value, target, own in zip(results(NORMS[name], nt, [x, weight, bias], dy), expected, (x, x, weight, bias), strict=True):
                assert value.dtype == own.dtype
                agree(widened(value), target.detach().numpy(), name, units=UNITS[own.dtype], scale=max(1.0, target.abs().max().item()))


def test_no_memory_is_copied(rng):
    """The array that normfast reads is the tensor's memory, the result's memory is what it wrote."""
    from normfast.torch.arrays import array, tensor_of

    for dtype in UNITS:
        x = torch.zeros(4, 6).to(dtype).T
        array(x)[1, 2] = 3
        assert x[1, 2] == 3
        assert array(x).shape == x.shape
        assert tensor_of(array(x)).data_ptr() == x.data_ptr()
        assert tensor_of(array(x)).dtype == dtype
    negative = torch.tensor([1 + 2j]).conj().imag  # a view that says "times -1"
    assert negative.is_neg()
    assert array(negative)[0] == -2


@pytest.mark.parametrize("momentum", [0.1, 1.0])
@pytest.mark.parametrize("running", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics(name, running, momentum, rng):
    x = torch.tensor(rng.normal(3, 2, (4, 6, 10)))
    x = x.to(torch.bfloat16 if running is torch.bfloat16 else running)
    exact = [torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)]
    ours = [t.to(running) for t in exact]
    version = ours[0]._version
    getattr(F, name)(x.double(), *exact, None, None, True, momentum)
    getattr(nt, name)(x, *ours, None, None, True, momentum)
    for value, target in zip(ours, exact, strict=True):
        agree(widened(value), target.numpy(), name, units=UNITS[running])
    assert ours[0]._version > version


def test_dropout_keeps_its_mask(rng):
    x = torch.ones(50, 40, requires_grad=True)
    for function in (nt.dropout, lambda x, p: nt.alpha_dropout(x, p, True)):
        torch.manual_seed(3)
        y = function(x, 0.3)
        assert not torch.equal(y, function(x, 0.3))
        torch.manual_seed(3)
        assert torch.equal(y, function(x, 0.3))
        (dx,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(dx != 0, y == y.max())
        assert 0.6 < (dx != 0).double().mean() < 0.8
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert nt.dropout(x, 0.0) is x
    assert nt.dropout(x, 0.5, training=False) is x
    assert torch.equal(state, torch.get_rng_state())  # no mask, no draw
    assert nt.dropout(torch.full((3,), torch.inf), 1.0).tolist() == [0, 0, 0]
    state = torch.get_rng_state()
    with torch.random.fork_rng():
        nt.dropout(x)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", UNITS, ids=str)
def test_dropout_values(dtype, layout, rng):
    x = LAYOUTS[layout](torch.tensor(rng.normal(5, 1, (8, 6, 10))).to(dtype)).requires_grad_()
    y = nt.dropout(x, 0.25)
    assert y.dtype == dtype
    keep = y != 0
    agree(widened(y), np.where(keep, widened(x).astype(float) / 0.75, 0), "dropout", units=UNITS[dtype])
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    agree(widened(dx), np.where(keep, 1 / 0.75, 0), "dx", units=UNITS[dtype])
    inplace = x.detach().clone()
    assert nt.dropout(inplace, 0.25, inplace=True) is inplace
    assert (inplace == 0).any()


def test_dropout_is_differentiable_again(rng):
    x = torch.tensor(rng.standard_normal((5, 7))).requires_grad_()
    for function in (nt.dropout, lambda x, p: nt.alpha_dropout(x, p, True)):

        def same_mask(x, function=function):
            torch.manual_seed(1)
            return function(x, 0.4)

        assert torch.autograd.gradcheck(same_mask, [x])
        assert torch.autograd.gradgradcheck(lambda x, same=same_mask: same(x) ** 2, [x])


FUSED = {
    "layer_norm": lambda x, r, w, b, **options: nt.dropout_add_layer_norm(x, r, x.shape[-1:], w, b, **options),
    "rms_norm": lambda x, r, w, b, **options: nt.dropout_add_rms_norm(x, r, x.shape[-1:], w, **options),
}


@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", FUSED)
def test_fused_is_its_steps(name, p, prenorm, rng):
    x, weight, bias = inputs_of(name, rng, (2, 2, 4))
    residual = torch.tensor(rng.standard_normal(x.shape)).requires_grad_()
    inputs = (x, residual, weight, bias) if name == "layer_norm" else (x, residual, weight)
    dy, dh = torch.tensor(rng.standard_normal((2, *x.shape)))

    def steps(x, residual, weight, bias=None):
        torch.manual_seed(5)
        h = nt.dropout(x, p) + residual
        return NORMS[name](nt, h, weight, bias), h

    def fused(x, residual, weight, bias=None):
        torch.manual_seed(5)
        return FUSED[name](x, residual, weight, bias, p=p, prenorm=True)

    pairs = [(f(*inputs), f) for f in (fused, steps)]
    used = (lambda y, h: (y * dy).sum() + (h * dh).sum()) if prenorm else (lambda y, h: (y * dy).sum())
    actual, expected = ((*out, *torch.autograd.grad(used(*out), inputs)) for out, _ in pairs)
    for value, target in zip(actual, expected, strict=True):
        agree(value.detach().numpy(), target.detach().numpy(), name, units=64, scale=max(1.0, target.abs().max().item()))
    assert torch.autograd.gradcheck(lambda *args: fused(*args)[: 1 + prenorm], inputs)
    assert torch.autograd.gradgradcheck(lambda *args: fused(*args)[: 1 + prenorm], inputs)
    quiet = FUSED[name](*(t.detach() for t in (x, residual, weight, bias)), p=p, training=False)
    agree(quiet.numpy(), steps_at_inference(name, x, residual, weight, bias).detach().numpy(), name, units=64)


def steps_at_inference(name, x, residual, weight, bias):
    return NORMS[name](nt, x + residual, weight, bias)


def test_fused_takes_what_torch_takes(rng):
    """Other dtypes and shapes of the residual stream go step by step."""
    x, residual = torch.randn(2, 3, 8), torch.randn(8, dtype=torch.float64)
    y, h = nt.dropout_add_layer_norm(x, residual, (8,), p=0.0, prenorm=True)
    assert h.dtype == torch.float64
    assert h.shape == (2, 3, 8)
    agree(y.numpy(), F.layer_norm(x + residual, (8,)).numpy(), "y", units=64)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", NORMS)
def test_what_falls_to_torch(name, rng):
    """Empty tensors, wrong arguments, `torch.func`, forward mode, traces: as PyTorch does it."""
    x, weight, bias = (t.detach() for t in inputs_of(name, rng, dtype=torch.float32))
    outcomes = []
    for f in (nt, F):
        try:
            outcomes.append(NORMS[name](f, x[:0], weight, bias).shape)
        except (IndexError, RuntimeError, ValueError) as error:
            outcomes.append(str(error))
        if name in ("layer_norm", "group_norm", "batch_norm"):
            with pytest.raises(RuntimeError):
                NORMS[name](f, x, weight.double(), bias.double())
        with pytest.raises(RuntimeError):
            f.layer_norm(x, (7,))
    assert outcomes[0] == outcomes[1]
    if "inference" not in name:
        assert NORMS[name](nt, x.to("meta"), weight.to("meta"), bias.to("meta")).shape == x.shape
    if name == "layer_norm":
        for transform in (torch.func.jacrev, torch.func.jacfwd, lambda f: torch.vmap(torch.func.grad(lambda x: f(x).sum()))):
            a, b = (transform(lambda x, f=f: NORMS[name](f, x, weight, bias))(x) for f in (nt, F))
            torch.testing.assert_close(a, b)
        assert torch.equal(
            torch.jit.trace(lambda x: NORMS[name](nt, x, weight, bias), x, check_trace=False)(x + 1), NORMS[name](F, x + 1, weight, bias)
        )


def test_batched_gradients(rng):
    """Vectorized Jacobians bring tensors that hold many gradients at once."""
    for name in ("layer_norm", "rms_norm", "group_norm", "batch_norm"):
        x, weight, bias = (t.detach() for t in inputs_of(name, rng, (2, 6, 4)))
        functions = [partial(lambda f, w, b, norm, x: norm(f, x, w, b), f, weight, bias, NORMS[name]) for f in (nt, F)]
        a, b = (torch.autograd.functional.jacobian(function, x, vectorize=True) for function in functions)
        torch.testing.assert_close(a, b)
    x = torch.ones(6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(nt.dropout, x, vectorize=True)
    assert torch.equal(jacobian, torch.diag(torch.diagonal(jacobian)))
    assert set(torch.diagonal(jacobian).tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("name", NORMS)
def test_autocast_leaves_dtypes_alone(name, rng):
    for dtype in (torch.float32, torch.bfloat16):
        x, weight, bias = inputs_of(name, rng, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            a, b = (NORMS[name](f, x.detach().to(dtype), weight.to(dtype), bias.to(dtype)) for f in (nt, F))
        assert a.dtype == b.dtype


def test_one_value_raises_as_in_torch():
    for f in (F, nt):
        with pytest.raises(ValueError, match="more than 1 value"):
            f.batch_norm(torch.ones(1, 3), None, None, training=True)
        with pytest.raises(ValueError, match="more than 1 spatial"):
            f.instance_norm(torch.ones(2, 3, 1))
        with pytest.raises(ValueError, match="more than 1 value"):
            f.group_norm(torch.ones(1, 3), 3)
        with pytest.raises(ValueError, match="between 0 and 1"):
            f.dropout(torch.ones(3), 1.5)


def test_more_accurate_than_torch(rng):
    """A mean of 10,000 standard deviations."""
    x = torch.tensor(rng.normal(1e4, 1, (64, 256)).astype(np.float32), requires_grad=True)
    exact = F.layer_norm(x.detach().double(), (256,)).numpy()
    agree(nt.layer_norm(x, (256,)).detach().numpy(), exact, "y", units=4)


def test_changed_input_is_noticed():
    x = torch.randn(3, 8, requires_grad=True)
    h = x * 2
    y = nt.layer_norm(h, (8,))
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_both_thread_pools(rng):
    """PyTorch's threads and normfast's in one process, from several Python threads."""
    from concurrent.futures import ThreadPoolExecutor

    x = torch.tensor(rng.standard_normal((600, 512)).astype(np.float32))
    expected = nt.layer_norm(x @ x.T, (600,))

    def work(_):
        with torch.inference_mode():
            return nt.layer_norm(x @ x.T, (600,))

    with nf.threads(2), ThreadPoolExecutor(4) as pool:
        for y in pool.map(work, range(16)):
            agree(y.numpy(), expected.numpy(), "y", units=64)


def test_missing_torch_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None\nimport normfast\ntry:\n    import normfast.torch\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "normfast.torch needs torch: pip install 'normfast[torch]'"

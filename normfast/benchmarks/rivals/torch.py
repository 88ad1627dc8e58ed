"""PyTorch, eager and compiled: `torch.nn.functional` forward, without autograd; ATen's own gradient where there is one, else autograd's."""

from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.nn import functional

from normfast.benchmarks.formulas import EPS, LP_EPS, P
from normfast.benchmarks.rivals import Contender


def tensor(values):
    """A tensor on the memory of an array."""
    return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16) if values.dtype.itemsize == 2 else torch.from_numpy(values)


def arrays(dtype):
    """From a tensor, or several, to arrays of that dtype."""

    def convert(results):
        results = results if isinstance(results, tuple | list) else (results,)
        results = [values.detach().contiguous() for values in results if values is not None]
        return tuple((values.view(torch.int16).numpy().view(dtype) if dtype.itemsize == 2 else values.numpy()) for values in results)

    return convert


@contextmanager
def num_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Inputs:
    """The tensors of a problem; channels last become PyTorch's NCHW with the strides of NHWC, as it wants them."""

    def __init__(self, problem):
        case = problem.case
        self.case = case
        self.x, self.weight, self.bias, self.mean, self.var = (
            tensor(getattr(problem, name)) for name in ("x", "weight", "bias", "mean", "var")
        )
        self.residual, self.dy, self.dh = (
            None if values is None else tensor(values) for values in (problem.residual, problem.dy, problem.dh)
        )
        self.last = case.op.startswith("batch_norm") and case.axis == -1 and len(case.shape) > 2
        if self.last:
            self.x, self.dy = (None if values is None else values.movedim(-1, 1) for values in (self.x, self.dy))

    def rest(self):
        """What the operation takes beside x."""
        return (self.weight, self.bias, self.residual) if self.case.fused else (self.weight, self.bias, self.mean, self.var)

    def parameters(self):
        """What gets a gradient."""
        inputs = [self.x, self.residual] if self.case.fused else [self.x]
        return {"dropout": inputs, "lp_norm": inputs, "rms_norm": [*inputs, self.weight]}.get(
            self.case.inner.op, [*inputs, self.weight, self.bias]
        )

    def results(self, dtype):
        convert = arrays(dtype)

        def in_order(results):
            results = results if isinstance(results, tuple | list) else (results,)
            return convert(tuple(values.movedim(1, -1) if self.last and values.ndim > 1 else values for values in results))

        return in_order


def forward(case):
    """The operation as a function of x, weight, bias, mean and var, or None."""
    if case.fused:
        return fused(case)
    n = case.shape[-1:]
    return {
        "layer_norm": lambda x, w, b, m, v: functional.layer_norm(x, n, w, b, EPS),
        "rms_norm": lambda x, w, b, m, v: functional.rms_norm(x, n, w, EPS),
        "batch_norm": lambda x, w, b, m, v: functional.batch_norm(x, None, None, w, b, True, 0.1, EPS),
        "batch_norm_relu": lambda x, w, b, m, v: functional.relu(functional.batch_norm(x, None, None, w, b, True, 0.1, EPS), inplace=True),
        "batch_norm_inference": lambda x, w, b, m, v: functional.batch_norm(x, m, v, w, b, False, 0.1, EPS),
        "group_norm": lambda x, w, b, m, v: functional.group_norm(x, case.groups, w, b, EPS),
        "instance_norm": lambda x, w, b, m, v: functional.instance_norm(x, None, None, w, b, True, 0.1, EPS),
        "lp_norm": lambda x, w, b, m, v: functional.normalize(x, 2.0, -1, LP_EPS),
        "dropout": lambda x, w, b, m, v: functional.dropout(x, P, True),
        "moments": lambda x, w, b, m, v: torch.var_mean(x, case.axis, correction=0)[::-1],
    }.get(case.op)


def fused(case):
    """Dropout, sum and norm as a function of x, weight, bias and the residual stream: y, and h where it is used."""
    norm, dropped, used = forward(case.inner), case.op.startswith("dropout"), case.direction == "forward" or case.dh

    def operation(x, w, b, residual):
        h = (functional.dropout(x, P, True) if dropped else x) + residual
        y = norm(h, w, b, None, None)
        return (y, h) if used else y

    return operation


def eager(problem, threads):
    """The usual calls."""
    operation = forward(problem.case)
    return None if operation is None else _contender(problem, threads, operation, direct=True)


def compiled(problem, threads):
    """The same by torch.compile, for these very shapes."""
    operation = forward(problem.case)
    if operation is None:
        return None
    import torch._dynamo
    import torch._functorch.config

    torch._dynamo.reset()
    with torch._functorch.config.patch(donated_buffer=False):  # so that the backward pass can run more than once
        return _contender(problem, threads, torch.compile(operation, fullgraph=True, dynamic=False), direct=False)


def _contender(problem, threads, operation, direct):
    case, inputs = problem.case, Inputs(problem)
    rest = inputs.rest()

    def state(inference=case.direction == "forward"):
        stack = ExitStack()
        stack.enter_context(num_threads(threads))
        stack.enter_context(torch.inference_mode(inference))
        return stack

    results, x = inputs.results(problem.dtype), inputs.x
    if case.direction == "forward":
        run = lambda: operation(x, *rest)  # noqa: E731
        with state():
            run()
        return Contender(run, results, state)
    if direct and case.direction == "backward" and case.op in DIRECT:
        with state(True):
            return Contender(DIRECT[case.op](inputs, case), results, lambda: state(True))
    dy = (inputs.dy, inputs.dh) if case.dh else inputs.dy
    parameters, gradient = [values.requires_grad_() for values in inputs.parameters()], torch.autograd.grad

    def both():
        y = operation(x, *rest)
        return y, *gradient(y, parameters, dy)

    with state():
        if case.direction == "both":
            both()
            return Contender(both, results, state)
        y = operation(x, *rest)
        gradient(y, parameters, dy, retain_graph=True)
        return Contender(lambda: gradient(y, parameters, dy, retain_graph=True), results, state)


def layer_norm_backward(inputs, case):
    x, dy, w, b, n = inputs.x, inputs.dy, inputs.weight, inputs.bias, list(case.shape[-1:])
    _, mean, rstd = torch.native_layer_norm(x, n, w, b, EPS)
    call, mask = torch.ops.aten.native_layer_norm_backward.default, [True] * 3
    return lambda: call(dy, x, n, mean, rstd, w, b, mask)


def batch_norm_backward(inputs, case):
    x, dy, w, b = inputs.x, inputs.dy, inputs.weight, inputs.bias
    _, mean, rstd = torch.native_batch_norm(x, w, b, None, None, True, 0.1, EPS)
    call, mask = torch.ops.aten.native_batch_norm_backward.default, [True] * 3
    return lambda: call(dy, x, w, None, None, mean, rstd, True, EPS, mask)


def group_norm_backward(inputs, case):
    x, dy, w, b = inputs.x, inputs.dy, inputs.weight, inputs.bias
    n, c = x.shape[:2]
    sizes = n, c, x.numel() // (n * c)
    _, mean, rstd = torch.native_group_norm(x, w, b, *sizes, case.groups, EPS)
    call, mask = torch.ops.aten.native_group_norm_backward.default, [True] * 3
    return lambda: call(dy, x, mean, rstd, w, *sizes, case.groups, mask)


DIRECT = {"layer_norm": layer_norm_backward, "batch_norm": batch_norm_backward, "group_norm": group_norm_backward}

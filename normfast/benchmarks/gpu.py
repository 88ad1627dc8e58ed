"""The cuda engine against PyTorch (as it is and compiled, which is Triton), CuPy and a copy on the device: verified, then timed.

python -m normfast.benchmarks.gpu [--docs docs/gpu.md] [--small]
"""

import argparse
import itertools
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import normfast as nf
from normfast.benchmarks.page import markdown, table_between
from normfast.extras import needed

torch = needed("torch", "torch", "normfast.benchmarks.gpu")
F = torch.nn.functional

BEGIN, END = "<!-- table: python -m normfast.benchmarks.gpu -->", "<!-- end of table -->"
WARM, ROUNDS, LEAST = 3, 20, 0.02  # calls before, samples, and seconds that a sample lasts at least
DTYPES = ("float32", "bfloat16")
ROWS = {"large": (65536, 4096), "middle": (8192, 4096), "small": (4096, 768)}
IMAGES = {"large": (256, 256, 64, 64), "middle": (128, 64, 56, 56), "small": (32, 64, 28, 28)}
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}  # of the largest value, for sums of thousands of float32 as PyTorch makes them


class Case(NamedTuple):
    """An operation on prepared arrays. `ours`, `eager` and `cupy` take (x, dy) and return the result that is compared."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    streams: int  # arrays of x's size that must pass through memory
    least: float | None  # part of the copy's bandwidth that arrays of 1 GB are to reach
    prepare: Callable[[Any, Any], Any]  # what both sides need besides: statistics, weights
    ours: Callable[..., Any]
    eager: Callable[..., Any] | None
    cupy: Callable[..., Any] | None = None


def weights(x, axis=-1):
    n = x.shape[axis]
    generator = torch.Generator(x.device).manual_seed(1)
    return [torch.randn(n, device=x.device, generator=generator).to(x.dtype) for _ in range(2)]


def rows_forward(x, dy):
    weight, bias = weights(x)
    return {"weight": weight, "bias": bias}


def layer_backward(x, dy):
    weight, bias = weights(x)
    stats = nf.layer_norm_forward(x, weight, bias)[1]
    _y, mean, rstd = torch.ops.aten.native_layer_norm(x, [x.shape[-1]], weight, bias, 1e-5)
    return {"weight": weight, "bias": bias, "stats": stats, "mean": mean, "rstd": rstd}


def channels(x, dy):
    weight, bias = weights(x, 1)
    return {"weight": weight, "bias": bias}


def batch_backward(x, dy):
    weight, bias = weights(x, 1)
    stats = nf.batch_norm_forward(x, weight, bias)[1]
    _y, mean, rstd = torch.ops.aten.native_batch_norm(x, weight, bias, None, None, True, 0.1, 1e-5)
    return {"weight": weight, "bias": bias, "stats": stats, "mean": mean, "rstd": rstd}


def eager_layer_backward(x, dy, weight, bias, stats, mean, rstd):
    return torch.ops.aten.native_layer_norm_backward(dy, x, [x.shape[-1]], mean, rstd, weight, bias, [True] * 3)[0]


def eager_batch_backward(x, dy, weight, bias, stats, mean, rstd):
    return torch.ops.aten.native_batch_norm_backward(dy, x, weight, None, None, mean, rstd, True, 1e-5, [True] * 3)[0]


def cupy_layer_norm(x, dy, weight, bias):
    cupy = needed("cupy", "cuda", "the comparison with CuPy")
    x, weight, bias = (cupy.from_dlpack(values) for values in (x, weight, bias))
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / cupy.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


def keeping(x, dy):
    return {"mask": nf.dropout_forward(x, 0.1, rng=1)[1]}


def none(x, dy):
    return {}


CASES = (
    Case("layer_norm", ROWS, 2, 0.85, rows_forward,
         lambda x, dy, weight, bias: nf.layer_norm(x, weight, bias),
         lambda x, dy, weight, bias: F.layer_norm(x, x.shape[-1:], weight, bias), cupy_layer_norm),
    Case("layer_norm backward", ROWS, 3, 0.75, layer_backward,
         lambda x, dy, weight, bias, stats, mean, rstd: nf.layer_norm_backward(dy, x, stats, weight).dx, eager_layer_backward),
    Case("rms_norm", ROWS, 2, 0.85, rows_forward,
         lambda x, dy, weight, bias: nf.rms_norm(x, weight),
         lambda x, dy, weight, bias: F.rms_norm(x, x.shape[-1:], weight, 1e-5)),
    Case("add_layer_norm", ROWS, 4, None, rows_forward,
         lambda x, dy, weight, bias: nf.add_layer_norm(x, dy, weight, bias),
         lambda x, dy, weight, bias: F.layer_norm(x + dy, x.shape[-1:], weight, bias)),
    Case("dropout", ROWS, 2, 0.9, none, lambda x, dy: nf.dropout(x, 0.1, rng=1), lambda x, dy: F.dropout(x, 0.1)),
    Case("dropout backward", ROWS, 2, 0.9, keeping, lambda x, dy, mask: nf.dropout_backward(dy, mask), None),
    Case("batch_norm, training", IMAGES, 3, 0.8, channels,
         lambda x, dy, weight, bias: nf.batch_norm_forward(x, weight, bias)[0],
         lambda x, dy, weight, bias: F.batch_norm(x, None, None, weight, bias, True)),
    Case("batch_norm backward", IMAGES, 5, None, batch_backward,
         lambda x, dy, weight, bias, stats, mean, rstd: nf.batch_norm_backward(dy, x, stats, weight).dx, eager_batch_backward),
    Case("group_norm", IMAGES, 2, None, channels,
         lambda x, dy, weight, bias: nf.group_norm(x, 32, weight, bias),
         lambda x, dy, weight, bias: F.group_norm(x, 32, weight, bias)),
    Case("instance_norm", IMAGES, 2, None, none, lambda x, dy: nf.instance_norm(x), lambda x, dy: F.instance_norm(x)),
)  # fmt: skip


def arrays(shape, dtype, total):
    """Pairs (x, dy) that together exceed the second cache, so that no call finds its own there."""
    size = 2 * torch.Size(shape).numel() * getattr(torch, dtype).itemsize
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    count = max(2, min(16, -(-3 * cache // size))) if 2 * size < total // 4 else 1
    generator = torch.Generator("cuda").manual_seed(0)

    def one():
        return (torch.randn(shape, device="cuda", generator=generator) + 0.5).to(getattr(torch, dtype))

    return [(one(), one()) for _ in range(count)]


def seconds(call, pairs):
    """Median time of a call by the events of the device, the arrays taken in turn."""
    turn = itertools.cycle(pairs)
    for _ in range(max(WARM, len(pairs))):
        call(*next(turn))
    torch.cuda.synchronize()

    def sample(calls):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            call(*next(turn))
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls

    calls = max(1, round(LEAST / max(sample(len(pairs)), 1e-6)))
    return statistics.median(sample(calls) for _ in range(ROUNDS))


def verified(case, ours, x, dy, own, dtype):
    """The largest difference to PyTorch's result, of the largest value. The mask of dropout must be the CPU's."""
    result = ours(x, dy)
    if "dropout" in case.name:
        _, mask = nf.dropout_forward(torch.empty(x.shape, dtype=x.dtype), 0.1, rng=1)
        apart = ((result != 0) != torch.from_numpy(mask.toarray()).to(x.device) & ((dy if own else x) != 0)).float().mean().item()
        if apart:
            raise AssertionError(f"{case.name}: the mask of {apart:.3%} of the elements is not that of the CPU")
        return 0.0
    expected = case.eager(x, dy, **own).double()
    error = ((result.double() - expected).abs().max() / expected.abs().max()).item()
    if not error <= TOLERANCE[dtype]:
        raise AssertionError(f"{case.name} {tuple(x.shape)} {dtype}: {error:.1e} apart from PyTorch")
    return error


def line(case, size, dtype, total):
    """A row of the table."""
    shape = case.shapes[size]
    pairs = arrays(shape, dtype, total)
    own = [case.prepare(*pair) for pair in pairs]
    jobs = [(x, dy, more) for (x, dy), more in zip(pairs, own, strict=True)]
    contenders = {"normfast": case.ours, "eager": case.eager, "compiled": case.eager and torch.compile(case.eager, dynamic=False)}
    try:
        contenders["CuPy"] = case.cupy if dtype != "bfloat16" and needed("cupy", "cuda", "CuPy") else None
    except ModuleNotFoundError:
        contenders["CuPy"] = None
    error = verified(case, lambda x, dy: case.ours(x, dy, **own[0]), *pairs[0], own[0], dtype)
    times = {name: seconds(lambda x, dy, more, f=f: f(x, dy, **more), jobs) if f else None for name, f in contenders.items()}
    target = torch.empty_like(pairs[0][0])
    copy = seconds(lambda x, dy, more: target.copy_(x), jobs)
    part = case.streams / 2 * copy / times["normfast"]
    asked = "" if case.least is None or size != "large" else f" (asked: {case.least})"
    texts = [f"{value * 1e6:.1f}" if value else "-" for value in (*times.values(), copy)]
    rate = case.streams * pairs[0][0].nbytes / times["normfast"] / 1e9
    return [case.name, "x".join(map(str, shape)), dtype, *texts, f"{rate:.0f}", f"{part:.2f}{asked}", f"{error:.0e}"]


def table(sizes):
    """The machine and the table, as Markdown."""
    properties = torch.cuda.get_device_properties(0)
    config = nf.show_config("dicts")["optional"]
    facts = (
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, second cache {properties.L2_cache_size / 2**20:.0f} MiB; "
        f"torch {torch.__version__}, numba-cuda {config['numba-cuda']}, normfast {nf.__version__}. Microseconds, median of {ROUNDS}; "
        "`of copy`: the bandwidth of the operation's own streams over that of a copy on the device."
    )
    columns = ["operation", "shape", "dtype", "normfast", "eager", "compiled", "CuPy", "copy", "GB/s", "of copy", "error"]
    lines = [line(case, size, dtype, properties.total_memory) for case in CASES for size in sizes for dtype in DTYPES]
    return f"{facts}\n\n{markdown(columns, lines)}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=table_between(BEGIN, END), help="page whose table is written anew")
    parser.add_argument("--small", action="store_true", help="without the arrays of 1 GB")
    options = parser.parse_args(arguments)
    try:
        nf.engines.load("cuda")
    except ImportError as error:
        parser.exit(1, f"{error}\n")
    if not torch.cuda.is_available():
        parser.exit(1, "the benchmark needs PyTorch for CUDA, for its arrays: pip install torch, not its build for the CPU\n")
    text = table(list(ROWS)[options.small :])
    print(text)
    if options.docs:
        options.docs(text)


if __name__ == "__main__":
    main()

"""Time layer norm and batch norm beside a copy of the same bytes, PyTorch and plain NumPy, all in one run.

    python benchmarks/norms.py [--engine cython] [--threads 2] [--seconds 1.0]

Every candidate is checked against float64 first; then all are called in turns, and medians are printed with the ratio to the copy.
PyTorch stands in the table where it is installed. Losing rows stay in.
"""

import argparse
import statistics
import time

import numpy as np

import normfast as nf

SHAPES = {"layer_norm": [(1, 768), (32, 768), (512, 768), (4096, 768), (8192, 4096)], "batch_norm": [(64, 256), (32, 64, 56, 56)]}


def plain(x, axes):
    """The textbook formula in float32."""
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + np.float32(1e-5))


def candidates(op, x, out):
    """Functions that compute the operation on x, by name; the copy stands first."""
    if op == "layer_norm":
        axes, forward, parameters = (1,), nf.layer_norm_forward, x.shape[1:]
    else:
        axes, forward, parameters = tuple(a for a in range(x.ndim) if a != 1), nf.batch_norm_forward, x.shape[1:2]
    weight, bias = np.ones(parameters, np.float32), np.zeros(parameters, np.float32)
    calls = {
        "copy": lambda: np.copyto(out, x),
        f"normfast ({nf.engines.current().name})": lambda: forward(x, weight, bias, out=out)[0],
        "numpy": lambda: plain(x, axes),
    }
    try:
        import torch
    except ImportError:
        return axes, calls
    torch.set_num_threads(nf.get_num_threads())
    tx, tout, tweight, tbias = map(torch.from_numpy, (x, out, weight, bias))
    calls["copy"] = lambda: tout.copy_(tx)  # in parallel
    if op == "layer_norm":
        calls["torch"] = lambda: torch.nn.functional.layer_norm(tx, parameters, tweight, tbias).numpy()
    else:
        calls["torch"] = lambda: torch.nn.functional.batch_norm(tx, None, None, tweight, tbias, training=True).numpy()
    return axes, calls


def measure(calls, seconds):
    """Median seconds of each call, taken in turns."""
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["copy"]) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def rows(shapes, seconds):
    """Rows of the table: operation, shape, candidate, microseconds, ratio to the copy, GB/s and largest error."""
    rng = np.random.default_rng(0)
    for op, sizes in shapes.items():
        for shape in sizes:
            x = (1e2 + rng.standard_normal(shape)).astype(np.float32)
            out = np.empty_like(x)
            axes, calls = candidates(op, x, out)
            exact = plain(x.astype(np.float64), axes)
            errors = {name: float(np.abs(call() - exact).max()) for name, call in calls.items() if name != "copy"}
            if any("normfast" in name and not error < 1e-6 for name, error in errors.items()):
                raise AssertionError(f"{op} {shape} is wrong: {errors}")
            times = measure(calls, seconds)
            for name, taken in times.items():
                yield op, "x".join(map(str, shape)), name, taken * 1e6, taken / times["copy"], 2 * x.nbytes / taken / 1e9, errors.get(name)


def main(arguments=None, shapes=SHAPES):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="auto", choices=("auto", *nf.engines.ENGINES))
    parser.add_argument("--threads", type=int, default=nf.get_num_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="per shape")
    options = parser.parse_args(arguments)
    with nf.use_engine(options.engine), nf.threads(options.threads):
        print(f"{'operation':11}{'shape':15}{'':20}{'us':>10}{'x copy':>9}{'GB/s':>8}{'error':>10}")
        for op, shape, name, us, ratio, rate, error in rows(shapes, options.seconds):
            print(f"{op:11}{shape:15}{name:20}{us:10.1f}{ratio:9.2f}{rate:8.1f}{'' if error is None else f'{error:10.1e}'}")


if __name__ == "__main__":
    main()

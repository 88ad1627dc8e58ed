"""The peak memory of a forward and a backward pass: `python -m normfast.benchmarks.memory`.

Each row is a fresh process, whose inputs and outputs are there and touched. What the peak of its resident memory then gains by the two
calls is what they take for themselves: the statistics of each row, which a fused norm keeps for its backward pass, and more.
"""

import argparse
import ctypes
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import normfast as nf
from normfast.benchmarks.formulas import P
from normfast.engines import ENGINES, load

OPS = {"dropout": (("x", "dy"), ("y", "dx")), "dropout_add_layer_norm": (("x", "residual", "dy"), ("y", "h", "dx", "dresidual"))}
CASES = (("dropout", 1024), ("dropout_add_layer_norm", 1024), ("dropout_add_layer_norm", 4096))  # operation, features
ROWS = 512  # of the calls that load the engine and start its threads: 2 MB and more
MB = 1 << 20


def peak():
    """Bytes of the largest resident memory so far."""
    try:
        # this process's own: the peak of `getrusage` begins with that of the process which started this one
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024
    except FileNotFoundError:
        import resource

        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024


def forget_peak():
    """Give freed memory back and let the peak begin again with what is resident now, where the system can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or the calls might take again, unseen, what was freed before
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except (AttributeError, OSError, TypeError):  # then the peak is at least what was resident before
        pass


def passes(op, arrays):
    """The forward and the backward call; returns the bytes of the statistics that the first one gave."""
    x, y, dy, dx = (arrays[name] for name in ("x", "y", "dy", "dx"))
    if op == "dropout":
        _, mask = nf.dropout_forward(x, P, rng=1, out=y)
        nf.dropout_backward(dy, mask, out=dx)
        return 0
    _, h, stats, mask = nf.dropout_add_layer_norm_forward(x, arrays["residual"], p=P, rng=1, out=y, h_out=arrays["h"])
    nf.dropout_add_layer_norm_backward(dy, h, stats, mask, out=dx, dresidual_out=arrays["dresidual"])
    return sum(values.nbytes for values in stats if isinstance(values, np.ndarray))


def measured(op, features, nbytes, engine="auto"):
    """Bytes of inputs, outputs, statistics and what is taken beside them, for float32 arrays of about that many bytes; in this process."""
    nf.set_engine(engine)
    rows = max(1, nbytes // (4 * features))
    first = np.random.default_rng(0).standard_normal((min(rows, ROWS), features), np.float32)
    arrays = {}
    for name in sum(OPS[op], ()):
        arrays[name] = np.empty((rows, features), np.float32)
        for start in range(0, rows, ROWS):
            arrays[name][start : start + ROWS] = first[: rows - start]
    passes(op, {name: values[:ROWS] for name, values in arrays.items()})
    forget_peak()
    before = peak()
    statistics = passes(op, arrays)
    gained = peak() - before
    inputs, outputs = (len(names) * arrays["x"].nbytes for names in OPS[op])
    return inputs, outputs, statistics, gained - statistics


def fresh(*arguments):
    """`measured` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, *arguments).result()


def main(arguments=None):
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m normfast.benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=1024, help="of one array (default 1024); dropout_add_layer_norm has seven")
    parser.add_argument("--engine", choices=("auto", *ENGINES), default="auto", help="what runs the kernels (default auto)")
    options = parser.parse_args(arguments)
    name = load(options.engine).name
    print(f"MB of a forward and a backward pass over {options.mb} MB of float32, {name} engine, {nf.get_num_threads()} threads")
    print(f"{'':24}{'features':>9}{'inputs':>9}{'outputs':>9}{'statistics':>12}{'more':>8}")
    for op, features in CASES:
        inputs, outputs, statistics, more = (value / MB for value in fresh(op, features, options.mb * MB, options.engine))
        print(f"{op:24}{features:9}{inputs:9.0f}{outputs:9.0f}{statistics:12.2f}{more:8.2f}", flush=True)


if __name__ == "__main__":
    main()

"""The figures of docs/ that stand in a sentence: `python -m normfast.benchmarks.figures [NAME ...]`, without names all of them.

Each prints what its page says, measured anew. Calls take turns where they are compared; the time is the median.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import numpy as np

import normfast as nf


def medians(calls, rounds=150):
    """Microseconds of each call, which take turns after one that is not counted."""
    times = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append((time.perf_counter() - start) * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def said(times):
    return ", ".join(f"{name} {value:.3g} us" for name, value in times.items())


def autograd():
    """docs/torch.md: layer norm of 32 x 768 with its gradient, by PyTorch and by normfast."""
    import torch

    import normfast.torch as nt

    x, dy = torch.randn(2, 32, 768)
    x.requires_grad_()
    weight, bias = torch.ones(768, requires_grad=True), torch.zeros(768, requires_grad=True)
    norms = {"PyTorch": torch.nn.functional.layer_norm, "normfast": nt.layer_norm}
    return said(medians({name: lambda norm=norm: norm(x, (768,), weight, bias).backward(dy) for name, norm in norms.items()}, 500))


def capi():
    """docs/c-and-cython.md: a call by address, in a loop that Numba compiled."""
    import numba

    from normfast import capi

    layer_norm = capi.function("layer_norm_f32")

    @numba.njit(nogil=True)
    def repeat(x, y, rows, calls):
        for _ in range(calls):
            layer_norm(x.ctypes, 0, 0, rows, x.size, 1e-5, y.ctypes, 0, 0, 0)

    calls = 20_000
    result = {}
    for name, rows, n in (("no values", 0, 64), ("64 values", 1, 64), ("768 values", 1, 768)):
        x = np.random.default_rng(0).standard_normal(n, np.float32)
        y = np.empty_like(x)
        repeat(x, y, rows, 1)
        result[name] = 1e3 * medians({name: lambda x=x, y=y, rows=rows: repeat(x, y, rows, calls)}, 20)[name] / calls
    return ", ".join(f"{name} {value:.3g} ns" for name, value in result.items())


def dask():
    """docs/dask.md: the mask of a block that is drawn run by run, and of one long run."""
    from normfast.engines import current

    mask = nf.dropout_forward(np.ones(1), 0.1, rng=0)[1]
    words, short, long = mask.words(), np.empty(16, bool), np.empty(1 << 22, bool)
    times = medians({"a run of 16": lambda: current().keep(words, 0, mask.threshold, short)}, 1000)
    draws = medians({"draw": lambda: current().keep(words, 0, mask.threshold, long)}, 20)["draw"] * 1e3 / long.size
    return f"{said(times)}, a draw {draws:.2g} ns"


def fuse():
    """docs/numba.md: layer norm and squared ReLU of 4096 x 768, fused and one after the other."""
    import numba

    def squared_relu(z):
        return z * z if z > 0 else 0 * z

    def slope(z):
        return 2 * z if z > 0 else 0 * z

    f, df = numba.njit(squared_relu), numba.njit(slope)

    @numba.njit(parallel=True)
    def apply(z, y):
        for i in numba.prange(len(z)):
            for j in range(z.shape[1]):
                y[i, j] = f(z[i, j])

    @numba.njit(parallel=True)
    def differentiate(dy, z, dz):
        for i in numba.prange(len(z)):
            for j in range(z.shape[1]):
                dz[i, j] = dy[i, j] * df(z[i, j])

    norm = nf.fuse(nf.layer_norm, epilogue=squared_relu, derivative=slope)
    x, dy = np.random.default_rng(0).standard_normal((2, 4096, 768), np.float32)
    weight, bias = np.random.default_rng(1).standard_normal((2, 768), np.float32)
    y, z, dx = np.empty((3, *x.shape), np.float32)
    _, stats = nf.layer_norm_forward(x, weight, bias)

    def in_three_sweeps():
        nf.layer_norm(x, weight, bias, out=z)
        differentiate(dy, z, z)
        nf.layer_norm_backward(z, x, stats, weight, out=dx)

    with nf.use_engine("numba"):
        calls = {
            "alone": lambda: nf.layer_norm(x, weight, bias, out=y),
            "fused": lambda: norm(x, weight, bias, out=y),
            "in two sweeps": lambda: (nf.layer_norm(x, weight, bias, out=z), apply(z, y)),
            "gradient fused": lambda: norm.backward(dy, x, stats, weight, bias, out=dx),
            "gradient in three sweeps": in_three_sweeps,
        }
        return said(medians(calls))


def idle():
    """docs/distribution.md: processor time of a call and of the 20 ms after it, with libgomp's default and with normfast's."""
    code = (
        "import time, numpy as np, normfast as nf; x = np.ones((4096, 768), 'f4'); y = nf.layer_norm(x); start = time.process_time()\n"
        "for _ in range(50): nf.layer_norm(x, out=y); time.sleep(0.02)\n"
        "print((time.process_time() - start) / 50 * 1e3)"
    )
    result = []
    for name, more in (("asleep after 20 us", {}), ("libgomp's default", {"GOMP_SPINCOUNT": "300000"})):
        environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"} | more
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        result.append(f"{name} {float(done.stdout):.3g} ms")
    return ", ".join(result)


def merge():
    """docs/mpi.md: two ranks' moments of 64 channels."""
    a, b = (nf.moments(np.random.default_rng(seed).normal(size=(100, 64)), axis=0) for seed in (0, 1))
    return said(medians({"a merge": lambda: a + b}, 2000))


def onnx():
    """docs/onnx.md: ONNX's operators and the exported norms in ONNX Runtime, with errors in eps of the largest value."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from normfast.layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
    from normfast.onnx import export

    def session(proto):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = nf.get_num_threads()
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def operator(kind, shape, parameters, **attributes):
        names = [f"p{i}" for i in range(len(parameters))]
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
        initializers = [numpy_helper.from_array(values, name) for values, name in zip(parameters, names, strict=True)]
        graph = helper.make_graph([helper.make_node(kind, ["x", *names], ["y"], **attributes)], "norm", [x], [y], initializers)
        return session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))

    lines = [f"opset 21, onnx {onnx.__version__}, ONNX Runtime {onnxruntime.__version__}"]
    image, ones, zeros = (8, 64, 28, 28), np.ones(768, np.float32), np.zeros(768, np.float32)
    for shape, layer, kind, attributes in (
        ((64, 768), LayerNorm(768), "LayerNormalization", {"axis": -1}),
        ((4096, 768), LayerNorm(768), "LayerNormalization", {"axis": -1}),
        (image, BatchNorm(64), "BatchNormalization", {}),
        (image, GroupNorm(8, 64), "GroupNormalization", {"num_groups": 8}),
        (image, InstanceNorm(64), "InstanceNormalization", {}),
    ):
        found, n = {"operator": [], "exported": []}, 768 if len(shape) == 2 else 64
        for offset in (0, 1000):
            x = (offset + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
            running = [np.full(n, offset, np.float32), ones[:n]] if kind == "BatchNormalization" else []
            if running:
                layer.running_mean[...] = offset
            exact = layer.eval()(x.astype(np.float64))
            sessions = {
                "operator": operator(kind, shape, [ones[:n], zeros[:n], *running], **attributes),
                "exported": session(export(layer, None, input_shape=shape)),
            }
            calls = {way: lambda one=one, x=x: one.run(None, {one.get_inputs()[0].name: x})[0] for way, one in sessions.items()}
            times = medians(calls, 50)
            for way, call in calls.items():
                error = np.abs(call() - exact).max() / np.abs(exact).max() / np.finfo(np.float32).eps
                found[way] += [f"{times[way]:.3g} us"] * (not offset) + [f"{error:.3g} eps at mean / std = {offset}"]
        size = " x ".join(map(str, shape))
        lines += [f"{type(layer).__name__}, {size}, {way}: {', '.join(figures)}" for way, figures in found.items()]
    return "\n  ".join(lines)


def plan():
    """docs/inference.md: 8 x 768 by the weights as they are, (768, 768) transposed, and by a transposed copy."""
    x, weight = np.random.default_rng(0).standard_normal((776, 768), np.float32)[:8], np.ones((768, 768), np.float32)
    copy, out = np.ascontiguousarray(weight.T), np.empty((8, 768), np.float32)
    return said(medians({"a copy": lambda: np.matmul(x, copy, out=out), "without": lambda: np.matmul(x, weight.T, out=out)}, 500))


def tensor():
    """docs/interoperability.md: a call with a tensor of PyTorch, and with an array of NumPy."""
    import torch

    t = torch.ones(1, 64)
    x = t.numpy()
    return said(medians({"tensor": lambda: nf.layer_norm(t), "array": lambda: nf.layer_norm(x)}, 2000))


FIGURES = {function.__name__: function for function in (autograd, capi, dask, fuse, idle, merge, onnx, plan, tensor)}


def main(arguments=None):
    """Print them."""
    parser = argparse.ArgumentParser(prog="python -m normfast.benchmarks.figures", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(FIGURES)} (default: all)")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(FIGURES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    for name in options.names or FIGURES:
        print(f"{name}: {FIGURES[name]()}", flush=True)


if __name__ == "__main__":
    main()

"""Compiles every kernel that calls of the public functions start, for a GPU that need not be there, and prints what became of each.

    python tests/cuda_compile.py float32 [more]

Arrays are NumPy's, and where a kernel would start it is compiled for the types of its arguments instead. One line of JSON for each
kernel: its name, the call, and what its text for the GPU (PTX) holds; with ptxas also the registers of a thread and the bytes that did
not fit them.
"""

import ctypes
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numba import cuda
from numba.cuda import dispatcher
from numba.cuda.typing.typeof import typeof

from normfast.ops.dropout import DropoutMask

ARCHITECTURE = (9, 0)
DONE = set()
CALL = [""]


def compiled(kernel, blocks, threads, stream, *arguments):
    """In place of `primitives.launch`."""
    signature = tuple(typeof(argument) for argument in arguments)
    if (kernel, signature) in DONE:
        return
    DONE.add((kernel, signature))
    bounds = kernel.targetoptions.get("launch_bounds")
    ptx, _ = cuda.compile(kernel.py_func, signature, cc=ARCHITECTURE, output="ptx", device=False, abi="numba", launch_bounds=bounds)
    found = {
        "kernel": f"{kernel.py_func.__module__.rpartition('.')[2]}.{kernel.py_func.__qualname__.partition('.')[0]}",
        "call": CALL[0],
        "threads": int(threads),
        "local": len(re.findall(r"\.local", ptx)),
        "loads_of_16_bytes": len(re.findall(r"ld\.global\S*\.(?:v4\.[bfu]32|v2\.[bfu]64)", ptx)),
        "stores_of_16_bytes": len(re.findall(r"st\.global\S*\.(?:v4\.[bfu]32|v2\.[bfu]64)", ptx)),
        "shuffles": ptx.count("shfl.sync"),
        "atomics": len(re.findall(r"\b(?:atom|red)\.", ptx)),
        "double_arithmetic": len(re.findall(r"\b(?:add|sub|mul|fma|div|sqrt)\S*\.f64", ptx)),
    }
    print(json.dumps(found | resources(ptx)), flush=True)


def resources(ptx):
    """What ptxas says of registers and spills; nothing where there is no ptxas."""
    tool = next((str(path) for place in sys.path for path in Path(place).glob("nvidia/*/bin/ptxas")), None) or shutil.which("ptxas")
    if tool is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        (source := Path(folder, "kernel.ptx")).write_text(ptx)
        command = [tool, "-v", f"-arch=sm_{ARCHITECTURE[0]}{ARCHITECTURE[1]}", str(source), "-o", str(Path(folder, "kernel.cubin"))]
        done = subprocess.run(command, capture_output=True, text=True)
    if "Unsupported .version" in done.stderr:  # older than what wrote the text
        return {}
    done.check_returncode()
    spills = re.findall(r"(\d+) bytes spill", done.stderr)
    return {"registers": int(re.findall(r"Used (\d+) registers", done.stderr)[0]), "spilled": sum(map(int, spills))}


def numpy_array(address, shape, strides, dtype, owner):
    """In place of `arrays.numba_array`."""
    if 0 in shape:
        return np.empty(shape, dtype)
    memory = (ctypes.c_char * int(sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + dtype.itemsize)).from_address(
        address
    )
    memory.owner = owner
    return np.ndarray(shape, dtype, memory, 0, strides)


def aligned_empty(shape, dtype):
    """An array at a multiple of 16 bytes, as memory of a GPU is."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole = np.empty(size + 16, np.uint8)
    return whole[-whole.ctypes.data % 16 :][:size].view(dtype).reshape(shape)


def without_a_gpu():
    """Let the engine's modules compute with NumPy arrays, of which nothing is read."""
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=ARCHITECTURE)
    from normfast.engines.cuda import add_norms, arrays, callers, dropouts, norms

    class Caller(callers.Caller):
        def __init__(self, *values):
            self.library, self.device, self.handle, self.stream, self.like = "numpy", 0, 0, 0, None

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def upload(self, values):
            run = aligned_empty(values.shape, values.dtype)
            run[...] = values
            return run

        def scratch(self, shape, dtype):
            return aligned_empty(shape, dtype)

        def to_host(self, array):
            return array.memory if array.dtype == "bfloat16" else array.memory.view(array.dtype)

    arrays.address_of = lambda memory: memory.ctypes.data
    arrays.DeviceArray.contiguous = property(lambda self: self.memory.flags.c_contiguous)
    replaced = {"launch": compiled, "numba_array": numpy_array, "Caller": Caller, "address_of": arrays.address_of}
    for name, module in list(sys.modules.items()):
        if name.startswith("normfast.engines.cuda."):
            for word in replaced.keys() & vars(module).keys():
                setattr(module, word, replaced[word])
    return SimpleNamespace(**norms.OPERATIONS, **dropouts.OPERATIONS, **add_norms.OPERATIONS)


def calls(nf, dtype, more):
    """Calls that start every kernel, each with its words in the report; `more`: also those that start variants of the same."""

    def array(*shape):
        return aligned_empty(shape, dtype)

    wide = np.float64 if dtype == np.float64 else np.float32
    for n in (384, 768, 4096, 40000) if more else (768, 4096, 40000):  # a warp's rows, of more and more values, a block's and longer ones
        x, p, stats = array(8, n), aligned_empty(n, wide), SimpleNamespace(mean=np.empty(8), rstd=np.empty(8))
        yield f"layer_norm {n}", lambda x=x, p=p: nf.layer_norm_forward(x, p, p)
        yield f"layer_norm_backward {n}", lambda x=x, p=p, stats=stats: nf.layer_norm_backward(x, x, stats, p)
    yield "layer_norm 33", lambda: nf.layer_norm_forward(array(8, 33))
    yield "strided", lambda: nf.layer_norm_forward(array(8, 8, 16), axis=1)
    for layout, shape, axis in (("NCHW", (4, 8, 16, 16), 1), ("NHWC", (4, 16, 16, 64), -1)):
        x, c = array(*shape), shape[axis]
        p, stats = np.ones(c), SimpleNamespace(mean=np.empty(c), rstd=np.empty(c))
        yield f"batch_norm_forward {layout}", lambda x=x, p=p, axis=axis: nf.batch_norm_forward(x, p, p, axis=axis)
        yield f"batch_norm {layout}", lambda x=x, p=p, axis=axis: nf.batch_norm(x, p, p, p, p, axis=axis)
        yield f"batch_norm_backward {layout}", lambda x=x, p=p, s=stats, axis=axis: nf.batch_norm_backward(x, x, s, p, axis=axis)
    running, stats = array(8), SimpleNamespace(mean=np.empty(8), var=np.empty(8))
    yield "update_running", lambda: nf.update_running(running, running, stats, momentum=0.1, factor=1.0)
    x = array(8, 768)
    yield "dropout", lambda: nf.dropout_forward(x, 0.3, rng=1)
    yield "dropout axis", lambda: nf.dropout_forward(x, 0.3, rng=1, axis=0)
    for shape, axis in (((8, 768), -1), ((8, 4096), -1), ((8, 768), 0)):  # a warp's rows, a block's, and what is no row
        x = array(*shape)
        stats = SimpleNamespace(mean=np.empty(shape[1 + axis]), rstd=np.empty(shape[1 + axis]))
        for p in (None, 0.3) if more else (0.3,):
            mask = None if p is None else DropoutMask(p, shape, key=np.zeros(4, np.uint32))
            options = None, None, p, 1, None, 0, axis, 1e-5, True, None, None
            yield f"add_norm {shape} {p}", lambda x=x, options=options: nf.add_norm_forward(x, x, *options)
            backward = stats, mask, None, x, axis, True, None, None
            yield f"add_norm_backward {shape} {p}", lambda x=x, backward=backward: nf.add_norm_backward(x, x, *backward)
    if more:
        yield from variants(nf, array, wide)


def variants(nf, array, wide):
    """The same kernels in other sizes and with other options."""
    x, p, stats = array(8, 768), aligned_empty(768, wide), SimpleNamespace(rstd=np.empty(8))
    yield "rms_norm", lambda: nf.rms_norm_forward(x, p, zero_centered=True)
    yield "rms_norm_backward", lambda: nf.rms_norm_backward(x, x, stats, p)
    image, weight, channels = array(4, 8, 16, 16), np.ones(8), SimpleNamespace(mean=np.empty(8), rstd=np.empty(8))
    yield "batch_norm gelu", lambda: nf.batch_norm_forward(image, weight, weight, activation="gelu")
    yield "batch_norm_backward gelu", lambda: nf.batch_norm_backward(image, image, channels, weight, bias=weight, activation="gelu")
    groups = SimpleNamespace(mean=np.empty((4, 2)), rstd=np.empty((4, 2)))
    yield "group_norm", lambda: nf.group_norm_forward(image, 2, weight, weight)
    yield "group_norm_backward", lambda: nf.group_norm_backward(image, image, groups, weight, num_groups=2)
    odd = array(4, 3, 7, 7)
    yield "batch_norm odd", lambda: nf.batch_norm_forward(odd)
    yield "moments", lambda: nf.moments(image, 0)


def main(name, more):
    try:
        cuda.compile(lambda: None, (), cc=ARCHITECTURE, output="ptx", device=False, abi="numba")
    except Exception as error:  # of several classes, by what is missing
        print(f"there is no compiler for GPUs here (NVVM): {str(error).strip().splitlines()[0]}")
        sys.exit(3)
    nf = without_a_gpu()
    if name == "bfloat16":
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        dtype = np.dtype(name)
    for CALL[0], call in calls(nf, dtype, more):
        call()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["more"])

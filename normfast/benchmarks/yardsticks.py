"""What memory allows: a copy (one array in, one out), an addition (two in, one out), a pair (two in, two out) and a sum (one in) of the
same bytes. The pair is a loop by Numba whose results need both arrays; NumPy and PyTorch, who have no such call, make two copies.

Each is there in several ways, plain and with stores past the caches, in equal parts for every thread; the fastest of them is the yardstick.
Everything is done on 64-bit integers, so that no value of any dtype is slow.
"""

import functools

import numpy as np

from normfast.benchmarks.rivals import Contender

STREAMED = 1 << 18  # bytes from which stores past the caches are tried
CHUNK = 512  # words between the addition and the store past the caches: 4 kB, in L1


def words(values):
    """An array's bytes as one run of 64-bit integers, up to 7 bytes less."""
    run = values.reshape(-1).view(np.uint8)
    return run[: run.size // 8 * 8].view(np.int64)


def kinds(case):
    """The yardsticks of a case, whose times are added up."""
    if case.op == "moments":
        return ("sum",)
    if case.fused:  # and dh is read beside them
        return {"forward": ("pair",), "backward": ("pair", "sum") if case.dh else ("pair",), "both": ("pair", "pair")}[case.direction]
    back = "copy" if case.op == "dropout" else "add"
    return {"forward": ("copy",), "backward": (back,), "both": ("copy", back)}[case.direction]


def contenders(problem, threads):
    """The ways of each yardstick as {(kind, way): contender}."""
    x, out = words(problem.x), words(problem.out)
    other = x if problem.dy is None else words(problem.dy)
    arguments = {"copy": (x, out), "add": (x, other, out), "sum": (x,)}
    if problem.case.fused:
        arguments["pair"] = (x, words(problem.residual), out, words(problem.h))
    result = {}
    for kind in dict.fromkeys(kinds(problem.case)):
        result[kind, "numpy"] = numpy_way(kind, *arguments[kind])
        for maker in (numba_ways, torch_way):
            try:
                result |= {(kind, way): contender for way, contender in maker(kind, threads, *arguments[kind])}
            except ImportError:  # Numba or PyTorch is not installed: the others remain
                continue
    return result


def numpy_way(kind, *arrays):
    call = {
        "copy": lambda x, out: np.copyto(out, x),
        "add": lambda x, y, out: np.add(x, y, out=out),
        "pair": lambda x, y, out, other: (np.copyto(out, x), np.copyto(other, y)),
        "sum": np.sum,
    }[kind]
    return Contender(functools.partial(call, *arrays), None)


def torch_way(kind, threads, *arrays):
    import torch

    from normfast.benchmarks.rivals.torch import num_threads

    tensors = [torch.from_numpy(values) for values in arrays]
    call = {
        "copy": lambda x, out: out.copy_(x),
        "add": lambda x, y, out: torch.add(x, y, out=out),
        "pair": lambda x, y, out, other: (out.copy_(x), other.copy_(y)),
        "sum": torch.sum,
    }[kind]
    yield "torch", Contender(functools.partial(call, *tensors), None, lambda: num_threads(threads))


def numba_ways(kind, threads, *arrays):
    loops = numba_loops(threads > 1)
    for way in ("plain", "streaming"):
        loop = loops.get((kind, way))
        if loop is not None and (way == "plain" or arrays[0].nbytes >= STREAMED):
            yield way, Contender(functools.partial(loop, *arrays, threads), None)


@functools.cache
def numba_loops(parallel):
    """The loops by Numba, for several threads or for one."""
    from numba import njit, prange

    from normfast.engines.numba.primitives import stream

    def copy(x, out, threads):
        n = x.size
        for t in prange(threads):
            lo, hi = n * t // threads, n * (t + 1) // threads
            out[lo:hi] = x[lo:hi]

    def add(x, y, out, threads):
        n = x.size
        for t in prange(threads):
            for i in range(n * t // threads, n * (t + 1) // threads):
                out[i] = x[i] + y[i]

    def pair(x, y, out, other, threads):
        n = x.size
        for t in prange(threads):
            for i in range(n * t // threads, n * (t + 1) // threads):
                a, b = x[i], y[i]
                out[i] = a + b
                other[i] = a ^ b

    def total(x, threads):
        n = x.size
        result = 0
        for t in prange(threads):
            part = 0
            for i in range(n * t // threads, n * (t + 1) // threads):
                part += x[i]
            result += part
        return result

    def copy_streaming(x, out, threads):
        n = x.size
        for t in prange(threads):
            lo, hi = n * t // threads, n * (t + 1) // threads
            stream(x[lo:hi], hi - lo, out[lo:hi])

    def add_streaming(x, y, out, threads):
        n = x.size
        for t in prange(threads):
            end = n * (t + 1) // threads
            work = np.empty(CHUNK, np.int64)
            for lo in range(n * t // threads, end, CHUNK):
                hi = min(end, lo + CHUNK)
                for i in range(lo, hi):
                    work[i - lo] = x[i] + y[i]
                stream(work, hi - lo, out[lo:hi])

    def pair_streaming(x, y, out, other, threads):
        n = x.size
        for t in prange(threads):
            end = n * (t + 1) // threads
            work, more = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64)
            for lo in range(n * t // threads, end, CHUNK):
                hi = min(end, lo + CHUNK)
                for i in range(lo, hi):
                    a, b = x[i], y[i]
                    work[i - lo] = a + b
                    more[i - lo] = a ^ b
                stream(work, hi - lo, out[lo:hi])
                stream(more, hi - lo, other[lo:hi])

    loops = {
        ("copy", "plain"): copy, ("copy", "streaming"): copy_streaming, ("add", "plain"): add, ("add", "streaming"): add_streaming,
        ("pair", "plain"): pair, ("pair", "streaming"): pair_streaming, ("sum", "plain"): total,
    }  # fmt: skip
    return {key: njit(nogil=True, parallel=parallel)(loop) for key, loop in loops.items()}

"""What `scale` measures on this machine: kernels by byte, merges, storage."""

import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import normfast as nf
from normfast.benchmarks.scale_model import Machine, covariance_bytes, moments_bytes
from normfast.ops.whitening import whitened, whitening_matrices
from normfast.preprocessing import standardize

COLUMNS = (1, 64, 1024, 16384)
FEATURES = (64, 1024)


def seconds(call, budget=0.5, least=3):
    """The shortest of many calls within about that many seconds: what others on the machine take is not ours."""
    best, end, calls = np.inf, time.perf_counter() + budget, 0
    while calls < least or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best


def line(small, large):
    """(fixed, slope) through two measured points (size, seconds), neither below 0."""
    (x0, y0), (x1, y1) = small, large
    slope = max(y1 - y0, 0.0) / (x1 - x0)
    return max(y0 - slope * x0, 0.0), slope


class Measured(NamedTuple):
    """The machine of the model, and the figures that it comes from: seconds by (what, size)."""

    machine: Machine
    figures: dict


def measured(nbytes=1 << 28, budget=2.5, features=FEATURES, columns=COLUMNS):
    """All of this machine but its messages; arrays of so many bytes of float32."""
    rng = np.random.default_rng(0)
    flat = rng.standard_normal(nbytes // 4, np.float32)
    out = np.empty_like(flat)
    figures = {}

    def note(what, size, call):
        figures[what, size] = seconds(call, budget)

    x, y = (values.reshape(-1, columns[1]) for values in (flat, out))
    note("moments", x.nbytes, lambda: nf.moments(x, 0))
    note("standardize", x.nbytes, lambda: standardize(x, out=y))
    for d in features:
        rows = flat[: flat.size // 4 // d * d].reshape(-1, d)
        note("covariance", d, lambda rows=rows: nf.covariance(rows))
        c = nf.covariance(rows)
        note("solve", d, lambda c=c: whitening_matrices(c, "zca", None, 0.0, 1e-12, 0))
        matrix, _ = whitening_matrices(c, "zca", None, 0.0, 1e-12, 0)
        note("whiten", d, lambda rows=rows, c=c, matrix=matrix: whitened(rows, c, matrix))
        figures["bytes", d] = rows.nbytes
    for c in columns:
        a, b = (nf.moments(rng.standard_normal((3, c)), 0) for _ in range(2))
        note("merge", c, lambda a=a, b=b: a + b)
        note("merge bytes", c, lambda a=a, b=b: a + nf.Moments.from_bytes(b.to_bytes()))
    for d in features:
        a, b = (nf.covariance(rng.standard_normal((3, d))) for _ in range(2))
        note("merge covariance", d, lambda a=a, b=b: a + b)
        note("merge covariance bytes", d, lambda a=a, b=b: a + nf.Covariance.from_bytes(b.to_bytes()))
    n = min(2048, max(64, int(flat.size**0.5)))
    square = flat[: n * n].reshape(n, n)
    note("matmul", n, lambda: square @ square)
    small, large = features[0], features[-1]

    def per_byte(what):
        return line(*((d, figures[what, d] / figures["bytes", d]) for d in (small, large)))

    def merge(what, sizes, length):
        return line(*((length(size), figures[what, size]) for size in (sizes[0], sizes[-1])))

    with tempfile.TemporaryDirectory() as folder:
        state = nf.moments(rng.standard_normal((3, columns[1])), 0)
        figures["save", 0] = seconds(lambda: save(state, Path(folder) / "state"), budget)
    machine = Machine(
        moments=figures["moments", x.nbytes] / x.nbytes,
        standardize=max(figures["standardize", x.nbytes] - figures["moments", x.nbytes], 0.0) / x.nbytes,
        covariance=per_byte("covariance"),
        whiten=per_byte("whiten"),
        merge=merge("merge bytes", columns, moments_bytes),
        merge_covariance=merge("merge covariance bytes", features, covariance_bytes),
        solve=figures["solve", large] / large**3,
        save=figures["save", 0],
        flops=2 * n**3 / figures["matmul", n],
    )
    return Measured(machine, figures)


def save(state, path):
    """A state in a file that is whole or is not there, also after a loss of power."""
    new = path.with_suffix(".new")
    with open(new, "wb") as file:
        file.write(state.to_bytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


class Storage(NamedTuple):
    """Bytes per second of a file in the temporary folder: written until safe, read from the page cache, read after that was dropped."""

    written: float
    cached: float
    read: float | None  # where the system drops it when asked


def storage(nbytes=1 << 30, chunk=1 << 23):
    """A file of so many bytes, by calls of `chunk`."""
    block = np.random.default_rng(0).bytes(chunk)
    nbytes = nbytes // chunk * chunk

    def read(path):
        buffer = bytearray(chunk)
        start = time.perf_counter()
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        return nbytes / (time.perf_counter() - start)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        start = time.perf_counter()
        with open(path, "wb", buffering=0) as file:
            for _ in range(nbytes // chunk):
                file.write(block)
            os.fsync(file.fileno())
        written = nbytes / (time.perf_counter() - start)
        cached = max(read(path) for _ in range(2))
        dropped = None
        if hasattr(os, "posix_fadvise"):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            dropped = read(path)
    return Storage(written, cached, dropped)

"""Everything that reads files or bytes of others, as functions of the bytes; shared by the tests of damage and by `fuzz_targets.py`."""

import io
import os
from pathlib import Path

import numpy as np

import normfast as nf
from normfast import safetensors

X = np.random.default_rng(0).normal(3, 1, (40, 5)).astype(np.float32)
EXPECTED = ValueError, TypeError  # nf.stream.FileError is the first


def npy(x=X, **options):
    file = io.BytesIO()
    np.save(file, x, **options, allow_pickle=False)
    return file.getvalue()


def npz(save=np.savez):
    file = io.BytesIO()
    save(file, x=X)
    return file.getvalue()


def parquet():
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.table({f"c{j}": X[:, j] for j in range(5)}), file, row_group_size=16)
    return file.getvalue()


def state():
    """The state file of a pass over x.npy that stopped in the middle."""
    from normfast.stream.grid import grid_for
    from normfast.stream.sources import open_source
    from normfast.stream.state import State
    from normfast.stream.statistics import Collector, MomentsOf

    source = open_source("x.npy")
    kind, grid = MomentsOf((0,)), grid_for(source, (0,))
    run = {"source": source.fingerprint(), "kind": "MomentsOf", "axis": [0], "nan_policy": "propagate", "block": list(grid.block)}
    collector = Collector(kind, source.shape)
    collector.add(grid[0], X)
    keeper = State("x.state", run)
    keeper.save("statistics", 1, collector.snapshot())
    keeper.settle()
    keeper.close()
    source.close()
    return Path("x.state").read_bytes()


def plan(ending):
    layers = nf.layers
    model = layers.Sequential(layers.Dense(5, 3, norm="batch", activation="relu", rng=0), layers.LayerNorm(3)).eval()
    nf.inference.freeze(model).save(f"plan.{ending}")
    return Path(f"plan.{ending}").read_bytes()


def tensors():
    safetensors.write("layer.safetensors", nf.layers.LayerNorm(5).state_dict(), {"by": "test"})
    return Path("layer.safetensors").read_bytes()


def at(name, call):
    """A reader of a file as a function of its bytes."""

    def read(content):
        Path(name).write_bytes(content)
        return call(name)

    return read


def go_on(path):
    """Take up a pass by its state."""
    return nf.stream.moments("x.npy", axis=0, state=path)


def transformed(path):
    """The whole way: a result is there or it is not."""
    Path("y.npy").unlink(missing_ok=True)
    try:
        nf.stream.transform(path, "y.npy", method="standardize")
    except BaseException:
        assert not os.path.exists("y.npy"), "a result of a damaged file"
        raise
    return np.load("y.npy", allow_pickle=False)


def into_layer(path):
    layer = nf.layers.LayerNorm(5)
    before = {name: array.tobytes() for name, array in layer.state_dict().items()}
    try:
        layer.load_state_dict(path)
    except BaseException:
        assert {name: array.tobytes() for name, array in layer.state_dict().items()} == before, "a half-loaded layer"
        raise


def run_plan(path):
    return nf.inference.load(path)(X)


def moments_bytes():
    return nf.moments(X, axis=0, where=X > 2).to_bytes()


def covariance_bytes():
    return nf.covariance(X).to_bytes()


READERS = {  # name: (what makes a whole file, what reads one)
    "npy": (npy, at("d.npy", lambda path: nf.stream.moments(path, axis=0))),
    "npy, Fortran order": (lambda: npy(np.asfortranarray(X)), at("d.npy", lambda path: nf.stream.moments(path, axis=1))),
    "npy, transformed": (npy, at("d.npy", transformed)),
    "npz": (npz, at("d.npz", lambda path: nf.stream.moments(path, axis=0))),
    "npz, compressed": (lambda: npz(np.savez_compressed), at("d.npz", lambda path: nf.stream.covariance(path))),
    "parquet": (parquet, at("d.parquet", lambda path: nf.stream.moments(path, axis=0))),
    "raw": (lambda: X.tobytes(), at("d.raw", lambda path: nf.stream.moments(nf.stream.raw(path, (-1, 5), "f4"), axis=0))),
    "state": (state, at("d.state", go_on)),
    "safetensors": (tensors, at("d.safetensors", into_layer)),
    "plan, safetensors": (lambda: plan("safetensors"), at("d.safetensors", run_plan)),
    "plan, npz": (lambda: plan("npz"), at("d.npz", run_plan)),
    "bytes of moments": (moments_bytes, nf.Moments.from_bytes),
    "bytes of covariance": (covariance_bytes, nf.Covariance.from_bytes),
}
NEEDS = {"parquet": "pyarrow", "safetensors": "safetensors", "plan, safetensors": "safetensors"}


def check(read, content):
    """Read damaged content: a result, or one line of an expected error."""
    try:
        return read(content)
    except EXPECTED as error:
        said = str(error)
        assert said, "an error that says nothing"
        assert "\n" not in said, f"more than a line: {said}"
        return None

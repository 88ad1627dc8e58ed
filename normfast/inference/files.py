"""Plans as files, .safetensors or .npz: arrays, and one line of JSON that names the steps. Nothing in them is run."""

import json
import os
import zlib

import numpy as np

from normfast import safetensors
from normfast.engines.compiled import aligned
from normfast.inference.plans import Plan
from normfast.inference.steps import STEPS
from normfast.ops._arrays import FLOATS, checked_eps
from normfast.ops.activation import ACTIVATIONS

VERSION = 1
ARRAYS = ("weight", "bias", "mean", "var")


def save(plan, path):
    """Write a plan to a file: see `Plan.save`."""
    kind, arrays, steps = _kind(path), {}, []
    for i, step in enumerate(plan.steps):
        fields = step._asdict()
        if isinstance(fields.get("activation"), tuple):
            raise ValueError(f"step {i} of the plan is a function of yours, which no file can hold: pickle the plan, or name an activation")
        arrays |= {f"{i}.{name}": fields[name] for name in ARRAYS if fields.get(name) is not None}
        steps.append({"kind": step.kind} | {name: value for name, value in fields.items() if name not in ARRAYS})
    text = json.dumps({"version": VERSION, "ndim": plan.ndim, "steps": steps})
    metadata = {"normfast_plan": text, "crc32": f"{_sum(text, arrays):08x}"}
    if kind == "safetensors":
        safetensors.write(path, arrays, metadata)
    else:
        texts = {name: np.frombuffer(value.encode(), np.uint8) for name, value in metadata.items()}
        safetensors.replace(path, lambda file: np.savez(file, **texts, **arrays))


def load(path: str | os.PathLike[str]) -> Plan:
    """Read a plan that `Plan.save` wrote.

    Parameters
    ----------
    path : str or path-like
        Ending in .safetensors or .npz.

    Returns
    -------
    Plan
        What was saved, to the bit. Layers, Numba and SciPy are not imported.

    Raises
    ------
    ValueError
        In one line, for a file that is damaged, of another format or of a later version. Checked are the lengths, names and shapes of all
        arrays, and a sum over all bytes.

    Examples
    --------
    >>> import os, tempfile, numpy as np, normfast as nf
    >>> plan = nf.inference.freeze(nf.layers.Dense(3, 2, activation="relu", rng=0))
    >>> x = np.ones((5, 3), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "plan.safetensors")
    ...     plan.save(path)
    ...     bool((nf.inference.load(path)(x) == plan(x)).all())
    True
    """
    if _kind(path) == "safetensors":
        arrays, metadata = safetensors.read(path)
    else:
        arrays = _npz(path)
        metadata = {name: _text(arrays.pop(name, None)) for name in ("normfast_plan", "crc32")}
    try:
        return _plan(metadata.get("normfast_plan"), metadata.get("crc32"), arrays)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} holds no plan that can be read: {' '.join(str(error).split())}") from None


def _kind(path):
    """The format that the ending of a path names."""
    kind = os.path.splitext(os.fspath(path))[1].lower()
    if kind not in (".safetensors", ".npz"):
        raise ValueError(f"{os.fspath(path)} must end in .safetensors or .npz, the formats of plans")
    return kind[1:]


def _npz(path):
    """The arrays of an .npz file."""
    with open(path, "rb") as content:
        try:
            with np.load(content, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception as error:  # zipfile, zlib and NumPy's header each have errors of their own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{os.fspath(path)} is no .npz file, or damaged: {reason}") from None


def _text(values):
    return None if values is None else values.tobytes().decode("utf-8", "replace")


def _sum(text, arrays):
    """CRC-32 of the text, and of the names, shapes and bytes of all arrays."""
    total = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], arrays[name].dtype.newbyteorder("<"), order="C")
        total = zlib.crc32(array.reshape(-1).view(np.uint8), zlib.crc32(f"{name}{array.shape}".encode(), total))
    return total


def _plan(text, total, arrays):
    """The plan, from its JSON and its arrays."""
    if text is None:
        raise ValueError("it has no entry normfast_plan; a PyTorch state_dict is read by nf.layers.load_state")
    described = json.loads(text)
    if not isinstance(described, dict) or described.get("version") != VERSION:
        found = described.get("version") if isinstance(described, dict) else None
        raise ValueError(f"it has version {found!r} and this normfast reads version {VERSION}")
    if total != f"{_sum(text, arrays):08x}":
        raise ValueError("its sum of bytes is wrong: it was damaged or changed by hand")
    ndim, steps = described["ndim"], []
    if ndim is not None:
        _integer("ndim", ndim, 1)
    for i, fields in enumerate(described["steps"]):
        kind = STEPS.get(fields.pop("kind"))
        if kind is None:
            raise ValueError(f"step {i} is of an unknown kind")
        own = {name: _own(arrays.pop(f"{i}.{name}", None)) for name in ARRAYS if name in kind._fields}
        step = kind(**own, **fields)
        _check(i, step)
        steps.append(step)
    if arrays:
        raise ValueError(f"it has arrays that belong to no step: {', '.join(sorted(arrays))}")
    return Plan(steps, ndim)


def _own(array):
    """A copy that begins with a cache line: what lies in a file's buffer keeps all of it alive."""
    if array is None:
        return None
    copy = aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


def _check(i, step):
    """Raise ValueError where a field of a step is none that `freeze` gives."""
    optional = {name for name in ("weight", "bias") if step.kind != "affine" or name == "bias"}
    for name, value in step._asdict().items():
        if name in ARRAYS and not (value is None and name in optional) and (value is None or value.dtype not in FLOATS):
            raise ValueError(f"step {i} ({step.kind}): its {name} must be an array of float32 or float64")
        if name in ("axes", "groups", "axis"):
            _integer(name, value, {"axes": 1, "groups": 0, "axis": -64}[name])
        if name == "activation" and not (value is None or (isinstance(value, str) and value in ACTIVATIONS)):
            raise ValueError(f"step {i} ({step.kind}): unknown activation {value!r}")
        if name == "eps":
            checked_eps(value)
        if name == "centred" and not isinstance(value, bool):
            raise ValueError(f"step {i} ({step.kind}): centred must be true or false, got {value!r}")
    step.check()


def _integer(name, value, least):
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be an integer of {least} or more, got {value!r}")

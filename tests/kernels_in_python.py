"""The kernels as plain Python: their texts with the plain words of `primitives.py`, run by the loops of the Numba engine.

To both compilers a number with a point is a float64, which a float32 joins, and a product of whole numbers has 64 bits. To Python's NumPy a
plain number takes the type of what it meets. So the numbers in the texts are given these types; nothing else is changed.
"""

import ast
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import ml_dtypes  # noqa: F401  (gives NumPy the name bfloat16)
import numpy as np

import normfast
from normfast.engines import compiled
from normfast.engines.compiled import DOUBLE, SINGLE, CompiledEngine, bits_of
from normfast.engines.numba import loops_of, variant
from normfast.engines.numpy import NumpyEngine, kept_of, words_of

FOLDER = Path(normfast.__file__).parent
PREFIX, OWN = "normfast.kernels", "kernels_in_python_"
LINE = 5  # values before a line begins, in the plain engine's memory
EXTREMES = [(np.float32, 1e30), (np.float32, 1e-30), (np.float64, 1e200), (np.float64, 1e-200)]  # whose squares the type does not hold
BAD = (np.nan, np.inf, -np.inf)
by_hand = False  # whether the words that an engine may do by hand are done so


class Typed(ast.NodeTransformer):
    """Numbers become names of numbers with a type, and modules of kernels become those of this engine."""

    def __init__(self):
        self.numbers = {}

    def number(self, node, dtype):
        name = f"{dtype.__name__}_{len(self.numbers)}"
        self.numbers[name] = dtype(node.value)
        return ast.copy_location(ast.Name(name, ast.Load()), node)

    def visit_Constant(self, node):
        return self.number(node, np.float64) if type(node.value) is float else node

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.Mult):
            for side in ("left", "right"):
                operand = getattr(node, side)
                if isinstance(operand, ast.Constant) and type(operand.value) is int:
                    setattr(node, side, self.number(operand, np.int64))
        return node

    def visit_ImportFrom(self, node):
        node.module = node.module.replace(PREFIX + ".", OWN)
        return node


def module(name):
    """A kernel's text, run; the modules that it takes words from first."""
    own = OWN + name
    if own not in sys.modules:
        path = FOLDER / "kernels" / f"{name}.py"
        tree, typed = ast.parse(path.read_text()), Typed()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith(PREFIX):
                module(node.module.removeprefix(PREFIX + "."))
        made = sys.modules[own] = ModuleType(own)
        tree = typed.visit(tree)
        vars(made).update(typed.numbers)
        exec(compile(tree, str(path), "exec"), vars(made))
        if name == "primitives":
            replace_words(made)
        made.__all__ = [word for word in vars(made) if not word.startswith("_") and word not in typed.numbers]
    return sys.modules[own]


def replace_words(words):
    """Lines begin after LINE values, and what an engine may do by hand is done in other words where `by_hand` says so."""
    plain = SimpleNamespace(**vars(words))

    def lead(run, n):
        return min(n, LINE) + plain.lead(run, n)

    def stream(source, n, target):
        assert 0 <= n <= min(len(source), len(target))
        plain.stream(source, n, target)

    def philox_lanes(first, c2, c3, k0, k1, words):
        if by_hand:
            words[:64] = words_of(np.array([k0, k1, c2, c3], np.uint64), int(first) // 16 * 64, 64)
        return by_hand or plain.philox_lanes(first, c2, c3, k0, k1, words)

    def bfloat16_lanes(bits, n, target):
        done = n // 2 if by_hand else plain.bfloat16_lanes(bits, n, target)
        target[:done] = bits[:done].view(np.float32).astype("bfloat16").view(np.uint16)
        return done

    def dropout_lanes(x, n, key, position, threshold, scale, y, streamed):
        done = n // 2 if by_hand else plain.dropout_lanes(x, n, key, position, threshold, scale, y, streamed)
        y[:done] = np.where(kept_of(key, int(position), done, int(threshold)), x[:done] * scale, 0)
        return done

    def select_lanes(x, n, kept, at, scale, y, streamed):
        done = n if by_hand else plain.select_lanes(x, n, kept, at, scale, y, streamed)
        y[:done] = np.where(bits_of(kept, at + done)[at:], x[:done] * scale, 0)
        return done

    def add_lanes(x, n, key, position, threshold, scale, other, words, fresh, total, h, streamed):
        if not by_hand:
            return plain.add_lanes(x, n, key, position, threshold, scale, other, words, fresh, total, h, streamed)
        sums = np.where(kept_of(key, int(position), n, int(threshold)), x[:n] * scale, 0) + other[:n]
        total[:n] = sums
        if streamed:
            h[:n] = sums
        return True

    def gradient_lanes(
        dy, x, weight, n, scale, high, r, p, q, added, more, key, position, threshold, factor, words, fresh, total, dropped, streamed
    ):  # fmt: skip
        if not by_hand:
            return plain.gradient_lanes(*[None] * 20)
        sums = dy[:n] * weight[:n] * r + ((x[:n] * scale - high) * p + q) + (more[:n] if added else 0)
        total[:n] = sums
        dropped[:n] = np.where(kept_of(key, int(position), n, int(threshold)), sums * factor, 0)
        return True

    for own in (lead, stream, philox_lanes, bfloat16_lanes, dropout_lanes, select_lanes, add_lanes, gradient_lanes):
        setattr(words, own.__name__, own)


class Loop:
    """A loop of the drivers, as `normfast.engines.numba.Driver`."""

    def __init__(self, loop):
        self.loop, self.words = loop, loop.__code__.co_varnames[: loop.__code__.co_argcount]

    def __call__(self, *arguments):
        with np.errstate(all="ignore"):  # compilers do not warn
            return self.loop(*arguments)


def judge(call, dtype, units=1024.0, scale=None):
    """Hold what `call(engine, new)` returns to the NumPy engine's in float64; `new(*shape)` makes an array of results of the dtype.

    `units` are eps of the dtype, of the largest value or of `scale`, a list where each result has its own. Values are added one after the
    other, so the longest chain is a row's part of 1024: 512 eps of the largest term at the very most (docs/numerics.md).
    """
    results = [several(call(PYTHON, lambda *shape: np.full(shape, 7, dtype)))]
    with np.errstate(all="ignore"):
        results.append(several(call(NUMPY, lambda *shape: np.full(shape, 7, np.float64))))
    for i, (actual, expected) in enumerate(zip(*results, strict=True)):
        actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
        assert actual.shape == expected.shape, i
        finite = np.isfinite(expected)
        assert np.array_equal(actual[~finite], expected[~finite], equal_nan=True), i
        size = scale[i] if isinstance(scale, list) else scale
        size = np.abs(expected[finite]).max(initial=0.0) if size is None else size
        eps = 2.0**-7 if np.dtype(dtype).name == "bfloat16" else np.finfo(dtype).eps
        unit = eps * np.broadcast_to(np.where(size, size, 1.0), expected.shape)[finite]
        error = (np.abs(actual[finite] - expected[finite]) / unit).max(initial=0.0)
        assert error <= units, f"result {i}: {error:.3g} eps of {np.max(size):.3g}, allowed {units}"


def data(rng, shape, dtype, offset=3.0):
    return (rng.standard_normal(shape) + offset).astype(dtype)


def plain(*shape):
    return np.empty(shape)


def store_past_caches(monkeypatch, always):
    """Results of every size, or of none."""
    monkeypatch.setattr(compiled, "STREAMED", 0 if always else 1 << 60)


def several(results):
    return results if isinstance(results, tuple | list) else (results,)


def engine():
    """The engine whose loops are those of the Numba engine, with `range` for `prange`, over the kernels in Python."""
    path = FOLDER / "engines" / "numba" / "drivers.py"
    tree = ast.parse(path.read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    drivers = ModuleType("drivers_in_python")
    drivers.prange = range
    for alias in imports[1].names:
        setattr(drivers, alias.name, module(alias.name))
    tree.body = [node for node in tree.body if node not in imports]
    exec(compile(tree, str(path), "exec"), vars(drivers))
    loops = {name: Loop(f) for name, f in loops_of(drivers).items()}
    return CompiledEngine("python", {pair: variant(loops, *pair) for pair in ((SINGLE, SINGLE), (SINGLE, DOUBLE), (DOUBLE, DOUBLE))})


PYTHON, NUMPY = engine(), NumpyEngine()

"""What the kernels' text cannot say to the GPU: loads and stores of 16 bytes, 16-bit floats by their bits; and how a kernel is started.

Numba's simulator has no LLVM: there the same words are plain Python, chosen here once. 16-bit floats are words (uint16) to Numba, which
knows no bfloat16.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda import types
from numba.cuda.core.config import ENABLE_CUDASIM

SIMULATED = bool(ENABLE_CUDASIM)


class Kind(NamedTuple):
    """A dtype of values: how they lie in memory and in what type they are computed."""

    name: str
    words: Any  # what Numba sees
    wide: Any
    lanes: int  # values in 16 bytes


KINDS = {
    "float16": Kind("float16", np.uint16, np.float32, 8),
    "bfloat16": Kind("bfloat16", np.uint16, np.float32, 8),
    "float32": Kind("float32", np.float32, np.float32, 4),
    "float64": Kind("float64", np.float64, np.float64, 2),
}


def launch(kernel, blocks, threads, stream, *arguments):
    """Start a kernel; the only place where one starts."""
    kernel[int(blocks), int(threads), stream](*arguments)


def resident(threads, together):
    """The decorator of a kernel for blocks of so many threads, of which a multiprocessor can hold `together`: that bounds the registers."""
    return cuda.jit if SIMULATED else cuda.jit(launch_bounds=(threads, max(1, together // threads)))


def width_of(kind, n, aligned):
    """How many values move at once where runs have n of them: 16 bytes, or one value."""
    return kind.lanes if aligned and n % kind.lanes == 0 else 1


def wide_kind(kind):
    """The kind that values of a kind are computed in."""
    return KINDS[np.dtype(kind.wide).name]


if SIMULATED:

    def widened(kind):
        """The value of a word."""
        if kind.name == "float16":
            return lambda word: np.float32(np.uint16(word).view(np.float16))
        if kind.name == "bfloat16":
            return lambda word: np.uint32(np.uint32(word) << np.uint32(16)).view(np.float32)
        return kind.wide

    def narrowed(kind):
        """The word of a value, rounded to the nearest, ties to even."""
        if kind.name == "float16":
            return lambda value: np.float16(value).view(np.uint16)
        return _bfloat16 if kind.name == "bfloat16" else kind.wide

    def _bfloat16(value):
        if value != value:
            return np.uint16(0x7FC0)
        bits = int(np.float32(value).view(np.uint32))
        return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)

    @cache
    def loader(kind, count):
        """load(x, i, held, at): the values x[i : i + count] to held[at:], where they lie side by side 16 bytes at a time."""
        widen = widened(kind)

        def load(x, i, held, at):
            for k in range(count):
                held[at + k] = widen(x[i + k])

        return load

    @cache
    def storer(kind, count):
        """store(held, at, y, i): the inverse."""
        narrow = narrowed(kind)

        def store(held, at, y, i):
            for k in range(count):
                y[i + k] = narrow(held[at + k])

        return store

else:
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    I16, I32 = ir.IntType(16), ir.IntType(32)
    FLOATS = {"float16": ir.HalfType(), "float32": ir.FloatType(), "float64": ir.DoubleType(), "bfloat16": I16}

    def _place(context, builder, array_type, array, i, k):
        """Pointer to element i + k."""
        data = context.make_array(array_type)(context, builder, array).data
        return builder.gep(data, [builder.add(i, ir.Constant(i.type, k))])

    def _vector(kind, step):
        """LLVM's type of what one load brings; of bfloat16 whole 32-bit words, else NVVM cuts it in two."""
        return ir.VectorType(I32, 4) if kind.name == "bfloat16" and step == 8 else ir.VectorType(FLOATS[kind.name], step)

    def _widened(builder, words, k, kind):
        """Value k of what was loaded."""
        if kind.name != "bfloat16":
            word = builder.extract_element(words, I32(k))
            return builder.fpext(word, ir.FloatType()) if kind.name == "float16" else word
        if words.type.element == I16:
            bits = builder.shl(builder.zext(builder.extract_element(words, I32(k)), I32), I32(16))
        else:
            pair = builder.extract_element(words, I32(k // 2))
            bits = builder.and_(pair, I32(0xFFFF0000)) if k % 2 else builder.shl(pair, I32(16))
        return builder.bitcast(bits, ir.FloatType())

    def _upper(builder, value):
        """The bits of a float32, rounded so that the upper 16 are its bfloat16, ties to even."""
        bits = builder.bitcast(value, I32)
        odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
        rounded = builder.add(builder.add(bits, I32(0x7FFF)), odd)
        return builder.select(builder.fcmp_unordered("uno", value, value), I32(0x7FC00000), rounded)

    def _narrowed(builder, words, value, k, kind):
        """What is to be stored, with value k in its place."""
        if kind.name == "float16":
            value = builder.fptrunc(value, ir.HalfType())
        if kind.name != "bfloat16":
            return builder.insert_element(words, value, I32(k))
        bits = _upper(builder, value)
        if words.type.element == I16:
            return builder.insert_element(words, builder.trunc(builder.lshr(bits, I32(16)), I16), I32(k))
        if k % 2 == 0:
            return builder.insert_element(words, builder.lshr(bits, I32(16)), I32(k // 2))
        low = builder.extract_element(words, I32(k // 2))
        return builder.insert_element(words, builder.or_(low, builder.and_(bits, I32(0xFFFF0000))), I32(k // 2))

    @cache
    def loader(kind, count):
        """load(x, i, held, at): the values x[i : i + count] to held[at:], 16 bytes at a time; x + i must be a multiple of them."""
        step = min(count, kind.lanes)

        @intrinsic
        def load(typing_context, x, i, held, at):
            def generate(context, builder, signature, arguments):
                vector = _vector(kind, step)
                for start in range(0, count, step):
                    source = _place(context, builder, signature.args[0], arguments[0], arguments[1], start)
                    words = builder.load(builder.bitcast(source, vector.as_pointer()), align=step * 16 // kind.lanes)
                    for k in range(step):
                        target = _place(context, builder, signature.args[2], arguments[2], arguments[3], start + k)
                        builder.store(_widened(builder, words, k, kind), target)
                return context.get_dummy_value()

            return types.void(x, i, held, at), generate

        return load

    @cache
    def storer(kind, count):
        """store(held, at, y, i): the inverse; rounded to the nearest, ties to even."""
        step = min(count, kind.lanes)

        @intrinsic
        def store(typing_context, held, at, y, i):
            def generate(context, builder, signature, arguments):
                vector = _vector(kind, step)
                for start in range(0, count, step):
                    words = ir.Constant(vector, ir.Undefined)
                    for k in range(step):
                        value = builder.load(_place(context, builder, signature.args[0], arguments[0], arguments[1], start + k))
                        words = _narrowed(builder, words, value, k, kind)
                    target = _place(context, builder, signature.args[2], arguments[2], arguments[3], start)
                    builder.store(words, builder.bitcast(target, vector.as_pointer()), align=step * 16 // kind.lanes)
                return context.get_dummy_value()

            return types.void(held, at, y, i), generate

        return store

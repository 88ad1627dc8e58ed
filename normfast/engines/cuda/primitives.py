"""What the kernels' text cannot say to the GPU: loads of 16 bytes, 16-bit floats by their bits, sums over the threads of a team.

A team is the threads that share a row: 1 to 32 neighbours in a warp, or a whole block. All of them get the result of a reduction, which is
taken in a fixed order. Numba's simulator has neither shuffles nor LLVM: there the same words are plain Python over shared memory, chosen
here once. 16-bit floats are words (uint16) to Numba, which knows no bfloat16.
"""

import threading
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda import types
from numba.cuda.core.config import ENABLE_CUDASIM

SIMULATED = bool(ENABLE_CUDASIM)
WARP = 32
EVERY = 0xFFFFFFFF  # lanes of a warp
BLOCK = 1024  # threads of a block at most


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

    @cuda.jit(device=True)
    def shuffled(value, mask):
        """The value of the thread whose number differs in the bits of the mask. Two sets of slots take turns: one barrier is enough."""
        slots = cuda.shared.array((2, BLOCK), types.float64)
        thread = threading.current_thread()
        turn = thread.turn = 1 - getattr(thread, "turn", 1)
        slots[turn, cuda.threadIdx.x] = value
        cuda.syncthreads()
        return slots[turn, cuda.threadIdx.x ^ mask]

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

    @cuda.jit(device=True)
    def shuffled(value, mask):
        """The value of the lane whose number differs in the bits of the mask."""
        return cuda.shfl_xor_sync(EVERY, value, mask)


# Reductions over a team, all in float64. A block's warps leave their results in shared memory; each thread then takes them in their order.
# A kernel must come to each of them on one way only: NVVM finds the shared memory of what two functions call defined twice.


@cache
def adder(team, threads):
    """add(a, b): both sums over the team."""
    warp, warps = min(team, WARP), max(team // WARP, 1)

    @cuda.jit(device=True)
    def add(a, b):
        mask = warp // 2
        while mask > 0:
            a += shuffled(a, mask)
            b += shuffled(b, mask)
            mask //= 2
        if warps > 1:
            sums = cuda.shared.array((2, 32), types.float64)
            cuda.syncthreads()
            if cuda.threadIdx.x % 32 == 0:
                sums[0, cuda.threadIdx.x // 32] = a
                sums[1, cuda.threadIdx.x // 32] = b
            cuda.syncthreads()
            a = sums[0, 0]
            b = sums[1, 0]
            for i in range(1, warps):
                a += sums[0, i]
                b += sums[1, i]
        return a, b

    return add


@cache
def leader(team, threads):
    """first(value): that of the team's first thread, in each of them."""
    warp, warps = min(team, WARP), max(team // WARP, 1)

    @cuda.jit(device=True)
    def first(value):
        value = value if cuda.threadIdx.x % team == 0 else 0.0
        mask = warp // 2
        while mask > 0:
            value += shuffled(value, mask)
            mask //= 2
        if warps > 1:
            found = cuda.shared.array(1, types.float64)
            cuda.syncthreads()
            if cuda.threadIdx.x == 0:
                found[0] = value
            cuda.syncthreads()
            value = found[0]
        return value

    return first


@cache
def greatest(team, threads):
    """most(a): the largest over the team of values of 0 or more, NaN if one is NaN."""
    warp, warps = min(team, WARP), max(team // WARP, 1)

    @cuda.jit(device=True)
    def most(a):
        mask = warp // 2
        while mask > 0:
            b = shuffled(a, mask)
            a = a if b <= a or a != a else b
            mask //= 2
        if warps > 1:
            found = cuda.shared.array(32, types.float64)
            cuda.syncthreads()
            if cuda.threadIdx.x % 32 == 0:
                found[cuda.threadIdx.x // 32] = a
            cuda.syncthreads()
            a = found[0]
            for i in range(1, warps):
                b = found[i]
                a = a if b <= a or a != a else b
        return a

    return most


@cuda.jit(device=True)
def merged(count_a, mean_a, m2_a, count_b, mean_b, m2_b):
    """Chan's formula, also for sets without values."""
    if count_b == 0.0:
        return count_a, mean_a, m2_a
    if count_a == 0.0:
        return count_b, mean_b, m2_b
    count = count_a + count_b
    d = mean_b - mean_a
    share = count_b / count
    return count, mean_a + d * share, m2_a + m2_b + d * d * (count_a * share)


@cache
def merger(threads):
    """merge(count, mean, m2): the moments of a block's threads together."""
    warp, warps = min(threads, WARP), max(threads // WARP, 1)

    @cuda.jit(device=True)
    def merge(count, mean, m2):
        mask = 1
        while mask < warp:  # lower lanes first, so that a pair's two lanes merge in one order and get the same bits
            count_b = shuffled(count, mask)
            mean_b = shuffled(mean, mask)
            m2_b = shuffled(m2, mask)
            if cuda.threadIdx.x & mask:
                count, mean, m2 = merged(count_b, mean_b, m2_b, count, mean, m2)
            else:
                count, mean, m2 = merged(count, mean, m2, count_b, mean_b, m2_b)
            mask *= 2
        if warps > 1:
            parts = cuda.shared.array((3, 32), types.float64)
            cuda.syncthreads()
            if cuda.threadIdx.x % 32 == 0:
                parts[0, cuda.threadIdx.x // 32] = count
                parts[1, cuda.threadIdx.x // 32] = mean
                parts[2, cuda.threadIdx.x // 32] = m2
            cuda.syncthreads()
            count = parts[0, 0]
            mean = parts[1, 0]
            m2 = parts[2, 0]
            for i in range(1, warps):
                count, mean, m2 = merged(count, mean, m2, parts[0, i], parts[1, i], parts[2, i])
        return count, mean, m2

    return merge

"""The words of `normfast/kernels/primitives.py` for Numba."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from normfast.engines.numba.runs import Equal

VECTOR = 32  # bytes stored at once
LINE = 64  # bytes of a cache line


@intrinsic
def cast(typing_context, value, like):
    def convert(context, builder, signature, arguments):
        return context.cast(builder, arguments[0], signature.args[0], signature.return_type)

    return like(value, like), convert


def _view(context, builder, array_type, source, offset, n):
    """A run of n values of an array, from an offset on, that owns nothing.

    A slice counts a reference, atomically: with two threads on one array that took a third of layer norm's time at 4096 x 768.
    """
    view = make_array(array_type)(context, builder)
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
    if array_type.layout == "C":
        first, stride = builder.gep(source.data, [offset]), itemsize
    else:
        stride = builder.extract_value(source.strides, 0)
        first = cgutils.pointer_add(builder, source.data, builder.mul(offset, stride))
    populate_array(view, first, [n], [stride], itemsize, meminfo=None)
    return view._getvalue()


@intrinsic
def row(typing_context, block, i, n):
    if block.layout != "C":
        raise TypingError(f"rows are taken from C-contiguous arrays, got {block}: pass a copy, np.ascontiguousarray(...)")
    run = types.Array(block.dtype, 1, "C", readonly=not block.mutable)

    def view(context, builder, signature, arguments):
        source = make_array(signature.args[0])(context, builder, arguments[0])
        return _view(context, builder, run, source, builder.mul(arguments[1], arguments[2]), arguments[2])

    return run(block, types.intp, types.intp), view


@intrinsic
def chunk(typing_context, run, lo, hi):
    if isinstance(run, Equal):
        return run(run, types.intp, types.intp), lambda context, builder, signature, arguments: arguments[0]

    def view(context, builder, signature, arguments):
        source = make_array(signature.args[0])(context, builder, arguments[0])
        return _view(context, builder, run, source, arguments[1], builder.sub(arguments[2], arguments[1]))

    return run(run, types.intp, types.intp), view


@intrinsic
def power_of_two(typing_context, t):
    def shift(context, builder, signature, arguments):
        i64 = ir.IntType(64)
        bits = builder.add(builder.bitcast(arguments[0], i64), i64(1023))
        return builder.bitcast(builder.shl(bits, i64(52)), ir.DoubleType())

    return types.float64(types.float64), shift


@intrinsic
def _address(typing_context, run, j):
    def point(context, builder, signature, arguments):
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(builder.gep(data, [arguments[1]]), context.get_value_type(types.uintp))

    return types.uintp(run, types.intp), point


@intrinsic
def _store_past_caches(typing_context, source, target):
    """Copy VECTOR bytes between two addresses, the second a multiple of VECTOR."""

    def store(context, builder, signature, arguments):
        vector = ir.VectorType(ir.FloatType(), VECTOR // 4).as_pointer()
        value = builder.load(builder.inttoptr(arguments[0], vector), align=4)
        instruction = builder.store(value, builder.inttoptr(arguments[1], vector), align=VECTOR)
        instruction.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), store


@intrinsic
def _prefetch_line(typing_context, address):
    def touch(context, builder, signature, arguments):
        i32 = ir.IntType(32)
        pointer = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32]), "llvm.prefetch.p0i8"
        )
        builder.call(function, [builder.inttoptr(arguments[0], pointer), i32(0), i32(2), i32(1)])  # to be read, into the second cache
        return context.get_dummy_value()

    return types.void(types.uintp), touch


@njit(nogil=True)
def lead(run, n):
    return min(n, (LINE - _address(run, 0) % LINE) % LINE // run.itemsize)


@njit(nogil=True)
def stream(source, n, target):
    head = lead(target, n)
    lines = (n - head) // (LINE // target.itemsize)
    for j in range(head):
        target[j] = source[j]
    read, write = _address(source, head), _address(target, head)
    for k in range(0, lines * LINE, LINE):
        _store_past_caches(read + k, write + k)
        _store_past_caches(read + k + VECTOR, write + k + VECTOR)
    for j in range(head + lines * (LINE // target.itemsize), n):
        target[j] = source[j]


@njit(nogil=True)
def prefetch(run, n):
    step = LINE // run.itemsize
    for j in range(0, n, step):
        _prefetch_line(_address(run, j))


def _compared(builder, relation, address, byte):
    """How 64 bytes compare with one, as the bits of an integer."""
    vector = ir.VectorType(ir.IntType(8), 64)
    run = builder.load(builder.inttoptr(address, vector.as_pointer()), align=1)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), byte, ir.IntType(32)(0))
    every = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64))
    return builder.bitcast(builder.icmp_unsigned(relation, run, every), ir.IntType(64))


@intrinsic
def _equal_bytes(typing_context, address, byte):
    def compare(context, builder, signature, arguments):
        return _compared(builder, "==", *arguments)

    return types.uint64(types.uintp, types.uint8), compare


@intrinsic
def _large_bytes(typing_context, address, byte):
    def compare(context, builder, signature, arguments):
        return _compared(builder, ">=", *arguments)

    return types.uint64(types.uintp, types.uint8), compare


@njit(nogil=True)
def equal_bytes(run, byte):
    return _equal_bytes(_address(run, 0), np.uint8(byte))


@njit(nogil=True)
def large_bytes(run, byte):
    return _large_bytes(_address(run, 0), np.uint8(byte))


@intrinsic
def lowest_bit(typing_context, flags):
    def count(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), count

"""Runs that take no memory of the heap: equal values in place of a weight that is not given, and working space on the stack."""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload, register_model
from numba.np.arrayobj import make_array, populate_array


class Equal(types.Type):
    """A run of any length whose values are one number: each of them, and each part of it, is that number, whatever is written to it."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(f"Equal({dtype})")


@register_model(Equal)
class EqualModel(models.PrimitiveModel):
    """Equal values are kept as the number."""

    def __init__(self, manager, run):
        super().__init__(manager, run, manager.lookup(run.dtype).get_value_type())


@intrinsic
def equal(typing_context, value):
    """The run whose values are this number."""
    return Equal(value)(value), _first_argument


@intrinsic
def _number(typing_context, run):
    return run.dtype(run), _first_argument


def _first_argument(context, builder, signature, arguments):
    return arguments[0]


@overload(operator.getitem)
def _value(run, j):
    if isinstance(run, Equal):
        return lambda run, j: _number(run)
    return None


@overload(operator.setitem)
def _ignore(run, j, value):
    if isinstance(run, Equal):
        return lambda run, j, value: None
    return None


def given(run, value):
    """The run, or equal values in place of None."""
    return run


@overload(given)
def _given(run, value):
    if isinstance(run, types.NoneType) or (isinstance(run, types.Omitted) and run.value is None):
        return lambda run, value: equal(value)
    if isinstance(run, types.Number):
        return lambda run, value: equal(run)
    return lambda run, value: run


@intrinsic
def space(typing_context, n, like):
    """An array of n values, a literal, of the type of `like`, on the stack: for the function that asks for it and those that it calls."""
    if not isinstance(n, types.IntegerLiteral):
        return None
    run = types.Array(like, 1, "C")

    def allocate(context, builder, signature, arguments):
        size = n.literal_value
        memory = cgutils.alloca_once(builder, ir.ArrayType(context.get_data_type(like), size))
        memory.align = 64
        view = make_array(run)(context, builder)
        length, itemsize = (context.get_constant(types.intp, k) for k in (size, context.get_abi_sizeof(context.get_data_type(like))))
        data = builder.bitcast(memory, context.get_data_type(like).as_pointer())
        populate_array(view, data, [length], [itemsize], itemsize, meminfo=None)
        return view._getvalue()

    return run(n, like), allocate


@intrinsic
def bytes_of(typing_context, run, like):
    """The memory of a contiguous run as values of the type of `like`."""
    if run.layout != "C":
        raise TypingError(f"a contiguous array is needed, got {run}")
    result = types.Array(like, 1, "C")

    def view(context, builder, signature, arguments):
        source = make_array(run)(context, builder, arguments[0])
        itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(like)))
        length = builder.udiv(builder.mul(source.nitems, source.itemsize), itemsize)
        same = make_array(result)(context, builder)
        data = builder.bitcast(source.data, context.get_data_type(like).as_pointer())
        populate_array(same, data, [length], [itemsize], itemsize, meminfo=None)
        return same._getvalue()

    return result(run, like), view

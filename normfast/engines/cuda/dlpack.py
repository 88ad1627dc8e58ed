"""DLPack by ctypes: the address in a capsule that another library gives, and a capsule over memory that it can take.

dmlc.github.io/dlpack defines the structures; a capsule of the name `dltensor` is taken once, by whoever renames it.
"""

import ctypes
import math
from typing import NamedTuple

NAMES = {(2, 16): "float16", (4, 16): "bfloat16", (2, 32): "float32", (2, 64): "float64", (6, 8): "bool", (1, 8): "uint8"}  # (code, bits)
CODES = {name: code for code, name in NAMES.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_address_taker = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_api = ctypes.pythonapi
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
NEW, TAKEN = b"dltensor", b"used_dltensor"
_lent: dict[int, tuple] = {}  # what capsules given away must keep alive, by the address of their structure


class Taken(NamedTuple):
    """Memory that a capsule described; it is the owner's until `owner` goes."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes
    dtype: str
    device: int
    owner: object


class _Owner:
    """Tells the library that lent the memory when nobody looks at it any more."""

    def __init__(self, managed):
        self.managed = managed

    def __del__(self):
        if self.managed.contents.deleter:
            _address_taker(self.managed.contents.deleter)(ctypes.addressof(self.managed.contents))


def take(x, stream):
    """The memory of x, safe to be read on the stream of that number; None for a stream says nothing about one."""
    capsule = x.__dlpack__(stream=stream)
    managed = ctypes.cast(_pointer_of(capsule, NEW), ctypes.POINTER(_Managed))
    _rename(capsule, TAKEN)
    t = managed.contents.tensor
    shape = tuple(t.shape[: t.ndim])
    steps = t.strides[: t.ndim] if t.strides else [math.prod(shape[i + 1 :]) for i in range(t.ndim)]
    strides = tuple(step * t.bits // 8 for step in steps)
    name = NAMES.get((t.code, t.bits), f"type {t.code} of {t.bits} bits") if t.lanes == 1 else f"{t.lanes} lanes"
    return Taken((t.data or 0) + t.offset, shape, strides, name, t.device_id, _Owner(managed))


def give(address, shape, strides, dtype, device, owner):
    """A capsule over memory of a (CUDA) device, which keeps the owner alive; strides in elements, device as (type, number)."""
    n = len(shape)
    sizes, steps = (ctypes.c_int64 * n)(*shape), (ctypes.c_int64 * n)(*strides)
    managed = _Managed()
    t = managed.tensor
    t.data, (t.device_type, t.device_id), t.ndim, t.lanes, t.offset = address, device, n, 1, 0
    t.code, t.bits = CODES[dtype]
    t.shape, t.strides = (ctypes.cast(values, ctypes.POINTER(ctypes.c_int64)) for values in (sizes, steps))
    managed.deleter = ctypes.cast(_forget, ctypes.c_void_p).value
    place = ctypes.addressof(managed)
    _lent[place] = managed, sizes, steps, owner
    return _new(place, NEW, ctypes.cast(_dropped, ctypes.c_void_p).value)


@_address_taker
def _forget(place):
    """Called by who took the capsule, once that has no more use for the memory."""
    _lent.pop(place, None)


@_address_taker
def _dropped(capsule):
    """Called where a capsule goes away; nobody may have taken it."""
    if _is_valid(capsule, NEW):
        _lent.pop(_pointer_in(capsule, NEW), None)

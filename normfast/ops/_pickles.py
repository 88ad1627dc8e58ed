"""What pickles of normfast's objects carry: a version, and a sum over what they hold, checked where they are loaded.

That finds accidents: bytes that changed on a disk, a pickle of a later release. It is no protection against attacks: Python's pickle runs
what it reads. Pickles without the two, of releases before, load as they did.
"""

import struct
import zlib
from typing import Any

import numpy as np

VERSION = 1
SEAL = "normfast pickle"  # the name of an entry, which no attribute can have


def sum_of(value: Any, total: int = 0) -> int:
    """CRC-32 of numbers, texts, arrays and what is made of them; of other objects, which have sums of their own or none, the type alone."""
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.hasobject:
            return sum_of(array.tolist(), total)
        total = zlib.crc32(f"{array.dtype.str}{array.shape}".encode(), total)
        return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, total)
    kind = type(value)
    total = zlib.crc32(kind.__name__.encode(), total)
    if value is None or kind in (bool, int, complex):
        return zlib.crc32(repr(value).encode(), total)
    if kind is float:
        return zlib.crc32(struct.pack("<d", value), total)
    if kind is str:
        return zlib.crc32(value.encode("utf-8", "surrogatepass"), total)
    if kind is bytes:
        return zlib.crc32(value, total)
    if isinstance(value, np.random.Generator):
        source = value.bit_generator
        seeds = getattr(source, "seed_seq", None)
        value = source.state, getattr(seeds, "state", None), getattr(seeds, "pool", None)
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        for item in value:
            total = sum_of(item, total)
    return total


def sealed(state: dict[str, Any]) -> dict[str, Any]:
    """A state with its version and sum."""
    return state | {SEAL: (VERSION, sum_of(state))}


def opened(state: dict[str, Any], name: str) -> dict[str, Any]:
    """The state without them; ValueError where they do not fit. A state that has none is taken as it is."""
    if SEAL not in state:
        return state
    state = dict(state)
    check(state.pop(SEAL), state, name)
    return state


def check(seal: Any, content: Any, name: str) -> None:
    """Raise a ValueError unless version and sum are those of the content."""
    if not isinstance(seal, tuple) or len(seal) != 2 or seal[0] != VERSION:
        found = seal[0] if isinstance(seal, tuple) and seal else seal
        raise ValueError(f"this pickle of a {name} has version {found!r} and this normfast reads version {VERSION}")
    if seal[1] != sum_of(content):
        raise ValueError(f"this pickle of a {name} is damaged: the sum over its content is wrong")


class Sealed:
    """Objects whose attributes are pickled with a version and a sum, but for subclasses that have a way of their own."""

    def __getstate__(self) -> Any:
        return seal_of(self, dict(vars(self)), Sealed)

    def __setstate__(self, state: Any) -> None:
        vars(self).update(opened(state, type(self).__name__))


class SealedSlots:
    """As `Sealed`, for objects whose attributes are slots; subclasses, which may have others, pickle in Python's own way."""

    __slots__: tuple[str, ...] = ()

    def __getstate__(self) -> Any:
        cls = type(self)
        if SealedSlots not in cls.__bases__:
            return super().__getstate__()
        return sealed({name: getattr(self, name) for name in cls.__slots__})

    def __setstate__(self, state: Any) -> None:
        state = state if isinstance(state, dict) else state[1]  # Python's own way, of releases before too
        for name, value in opened(state, type(self).__name__).items():
            setattr(self, name, value)


def seal_of(self: Any, state: dict[str, Any], owner: type) -> dict[str, Any]:
    """The state of an object, sealed where nobody who inherits from the owner changes it before or after."""
    cls = type(self)
    own = cls.__getstate__ is owner.__getstate__ and cls.__setstate__ is owner.__setstate__  # type: ignore[attr-defined]
    return sealed(state) if own else state

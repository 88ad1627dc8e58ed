"""Dropout of arrays on a device: named, called and answering as the public functions."""

import math

import numpy as np

from normfast.engines.cuda import dropout as kernels
from normfast.engines.cuda.callers import Caller
from normfast.engines.cuda.primitives import KINDS
from normfast.kernels.dropout import DRAWS
from normfast.ops.dropout import DropoutMask, checked_p, mask_for


def dropout(x, p=0.5, *, rng=None, mask=None, axis=None, offset=0, out=None):
    return dropout_forward(x, p, rng=rng, mask=mask, axis=axis, offset=offset, out=out)[0]


def dropout_forward(x, p=0.5, *, rng=None, mask=None, axis=None, offset=0, out=None):
    p = checked_p(p)
    with Caller(x) as caller:
        x = caller.floating(x)
        y = caller.target(out, x)
        mask = mask_for(x, p, rng, caller.on_host(mask, "mask"), axis, offset)
        return caller.leave(dropped(caller, x, mask, y, "x")), mask


def dropout_backward(dy, mask, *, out=None):
    if not isinstance(mask, DropoutMask):
        raise TypeError(f"mask must be the DropoutMask that dropout_forward returned, got {type(mask).__name__}")
    with Caller(dy) as caller:
        dy = caller.floating(dy, "dy")
        dx = caller.target(out, dy)
        return caller.leave(dropped(caller, dy, mask, dx, "dy"))


def dropped(caller, x, mask, y, name):
    """y, filled with x * scale where the mask keeps, else 0."""
    if x.shape != mask.shape:
        raise ValueError(f"{name} has shape {x.shape} and the mask has {mask.shape}: they must be the same")
    if x.size == 0:
        return y
    if mask.p == 0.0 and mask.given is None:
        return caller.copy(x, y)
    source, target = caller.dense(x, y), caller.dense_target(y)
    kind, runs = KINDS[x.dtype], (source.flat(), target.flat())
    if drawn_in_order(mask):
        aligned = source.address % 16 == 0 and target.address % 16 == 0
        kernels.drop(runs[0], kind, mask.key, mask.offset, mask.threshold, mask.scale, runs[1], caller.stream, aligned=aligned)
    else:
        words, at = flags_of(caller, mask)
        kernels.select(runs[0], kind, words, at, *steps_of(mask), mask.scale, runs[1], caller.stream)
    return caller.copy(target, y)


def drawn_in_order(mask):
    """Whether element after element of the mask takes the next draw."""
    return mask.given is None and mask.drawn_shape == mask.shape and mask.p < 1.0


def flags_of(caller, mask):
    """The flags of a mask, of its drawn shape in C order, as words on the device, and the bit of the first of them."""
    if mask.p == 1.0:  # none is looked at
        return caller.scratch(1, np.uint32), 0
    if mask.given is not None:
        return caller.upload(mask.given), 0
    words = caller.scratch(kernels.flag_words(mask.offset, math.prod(mask.drawn_shape)), np.uint32)
    kernels.flag(mask.key, mask.offset, mask.threshold, words, caller.stream)
    return words, mask.offset % DRAWS


def steps_of(mask):
    """Sizes of the mask's shape and how many flags lie between neighbours along each, as few of them as tell that."""
    sizes, steps, step = [], [], 1
    for size, drawn in zip(reversed(mask.shape), reversed(mask.drawn_shape), strict=True):
        own = step if drawn == size else 0
        if sizes and (steps[-1] == 0) == (own == 0):
            sizes[-1] *= size
        elif size > 1:
            sizes.append(size)
            steps.append(own)
        step *= drawn
    return sizes[::-1] or [1], steps[::-1] or [0]


OPERATIONS = {f.__name__: f for f in (dropout, dropout_forward, dropout_backward)}

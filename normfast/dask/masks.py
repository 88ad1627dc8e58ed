"""Dropout of Dask arrays, by the mask that NumPy's array of the same shape has, however it is cut into chunks."""

import math
from collections.abc import Sequence
from typing import SupportsIndex

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from normfast import engines
from normfast.dask.blocks import checked, mapped, on_blocks, sample
from normfast.ops._arrays import floating
from normfast.ops.dropout import DropoutMask, checked_p, mask_for
from normfast.ops.dropout import dropout as whole_dropout
from normfast.ops.dropout import dropout_backward as apply_mask
from normfast.typing import Axis, Rng

# Measured in draws of 0.25 ns: what a call on a run costs beside its draws (2.2 us), a call that draws bits (6.4 us), and to
# pick an element's bit and use it (1 ns).
CALL, DRAWING, PICKING = 9_000, 25_000, 4
MOST = 1 << 20  # bits drawn at a time


def dropout(x: da.Array, p: float = 0.5, *, rng: Rng = None, axis: Axis | None = None, offset: SupportsIndex = 0) -> da.Array:
    """Drop elements of a Dask array with probability p and divide the others by 1 - p, as `nf.dropout`, lazily.

    Parameters
    ----------
    x : dask.array.Array
        Floating-point numbers of any shape, in chunks of known size.
    p, axis, offset
        As in `nf.dropout`.
    rng : None, int, SeedSequence or Generator
        As in `nf.dropout`. The key is drawn when the graph is built: a Generator advances once, and each computation has the same mask.

    Returns
    -------
    dask.array.Array
        Of x's shape, chunks and dtype: the bits of `nf.dropout` of the whole array, whatever the chunks. The gradient is `dropout` of dy by
        the same integer.

    Raises
    ------
    TypeError, ValueError
        As `nf.dropout`, and for chunks of unknown size.

    Examples
    --------
    >>> import dask.array as da, numpy as np, normfast as nf
    >>> import normfast.dask as nfd
    >>> x = np.ones((100, 30), np.float32)
    >>> y = nfd.dropout(da.from_array(x, chunks=(40, 7)), p=0.3, rng=1)
    >>> bool((y.compute() == nf.dropout(x, p=0.3, rng=1)).all())
    True
    """
    dtype, p = floating(sample(checked(x))).dtype, checked_p(p)
    if any(map(math.isnan, x.shape)):
        raise ValueError("x has chunks of unknown size, and so its elements have no place in a mask: call x.compute_chunk_sizes() first")
    drawn = mask_for(_shape_alone(x.shape, dtype), p, rng, None, axis, offset)
    starts = [np.cumsum((0, *sizes)) for sizes in x.chunks]
    return mapped(_dropped, x, dtype=dtype, mask=drawn, starts=starts)


def _shape_alone(shape, dtype):
    """An array of that shape over the memory of one value."""
    return np.broadcast_to(np.zeros((), dtype), shape)


@on_blocks
def _dropped(x, mask, starts, block_id=None):
    """Dropout of the block at that place of the array."""
    start = [int(begins[i]) for begins, i in zip(starts, block_id, strict=True)]
    if mask.p in (0.0, 1.0) or x.size == 0:
        return whole_dropout(x, mask.p, rng=0)
    if mask.drawn_shape != mask.shape:
        drawn = [n > 1 or whole == 1 for n, whole in zip(mask.drawn_shape, mask.shape, strict=True)]
        kept = kept_part(
            mask,
            [s if own else 0 for s, own in zip(start, drawn, strict=True)],
            [n if own else 1 for n, own in zip(x.shape, drawn, strict=True)],
        )
        return whole_dropout(x, mask.p, mask=np.broadcast_to(kept, x.shape))
    strides = _strides(mask.shape)
    whole = max((axis for axis in range(x.ndim) if x.shape[axis] != mask.shape[axis]), default=0)  # from which on a run is contiguous
    runs, length = math.prod(x.shape[:whole]), math.prod(x.shape[whole:])
    if runs > 1 and runs * (CALL + length) > _cheapest(mask.shape, x.shape)[0] + PICKING * x.size:
        return whole_dropout(x, mask.p, mask=kept_part(mask, start, x.shape))
    x = floating(x)
    y = np.empty(x.shape, x.dtype)
    first = mask.offset + sum(map(int.__mul__, start, strides))
    sources, results = x.reshape(runs, length), y.reshape(runs, length)
    for i, index in enumerate(np.ndindex(*x.shape[:whole])):
        run = DropoutMask(mask.p, (length,), key=mask.key, offset=first + sum(map(int.__mul__, index, strides)))
        apply_mask(sources[i], run, out=results[i])
    return y


def _strides(shape: Sequence[int]) -> list[int]:
    """Elements from one index of an axis to the next, in C order."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _cheapest(shape, part):
    """What it costs to draw the bits of a part, and the axis from which on all are drawn that lie between."""
    strides = _strides(shape)
    costs = [math.prod(part[:axis]) * (DRAWING + part[axis] * strides[axis]) for axis in range(len(shape))]
    return min(zip(costs, range(len(shape)), strict=True), default=(0, 0))


def kept_part(mask: DropoutMask, start: Sequence[int], part: Sequence[int]) -> NDArray[np.bool_]:
    """The bits of a part of a drawn mask: which of its elements are kept.

    Bits of whole rows are drawn and those of the columns picked, where that is cheaper than a call for each short run.
    """
    shape, strides = mask.drawn_shape, _strides(mask.drawn_shape)
    axis = _cheapest(shape, part)[1]
    inner = tuple(slice(s, s + n) for s, n in zip(start[axis + 1 :], part[axis + 1 :], strict=True))
    step = max(1, MOST // strides[axis])
    first = mask.offset + sum(map(int.__mul__, start, strides[: axis + 1]))
    kept = np.empty(part, bool)
    words, threshold = mask.words(), mask.threshold
    for index in np.ndindex(*part[:axis]):
        for lo in range(0, part[axis], step):
            hi = min(lo + step, part[axis])
            position = first + sum(map(int.__mul__, (*index, lo), strides))
            bits = np.empty((hi - lo, *shape[axis + 1 :]), bool)
            engines.current().keep(words, position, threshold, bits.reshape(-1))
            kept[(*index, slice(lo, hi))] = bits[(slice(None), *inner)]
    return kept

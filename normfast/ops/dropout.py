"""Dropout (Srivastava et al. 2014) whose mask is a key: whether element k is kept is a function of the key and k alone."""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from normfast import engines
from normfast.engines.compiled import bits_of
from normfast.ops._arrays import FLOATS, apart, axes_of, checked_out, computing, floating, number
from normfast.ops._device import device, on_device
from normfast.ops._foreign import borrowed
from normfast.ops._pickles import VERSION, check, sum_of
from normfast.ops._pieces import Staged, elementwise, shape_of
from normfast.typing import Array, ArrayLike, Axis, Rng, Writeable


class DropoutMask:
    """Which elements a dropout keeps: a 16-byte key, or a bit for each element of a mask that the user gave.

    Attributes
    ----------
    p : float
        Probability that an element is dropped.
    shape : tuple of int
        Shape of the array that was dropped from.
    axis : None or tuple of int
        The axes that drew independently; the others share. None: all drew.
    key : ndarray of 4 uint32, or None for a given mask
        Philox4x32-10 key and the upper half of its counter.
    offset : int
        Position of the first element in the stream of the key.
    given : ndarray of uint32, or None for a drawn mask
        The bits of a given mask in C order, lowest first.

    Notes
    -----
    Element k of the drawn shape, in C order, is kept where draw `offset + k` of the stream, 32 bits, reaches round(p * 2**32): the same on
    every machine, engine, thread count, memory layout and dtype. The lower 24 bits are drawn only where the upper ones do not decide.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, mask = nf.dropout_forward(np.ones(8, np.float32), p=0.5, rng=1)
    >>> bool((mask.toarray() == (y != 0)).all())
    True
    """

    __slots__ = ("axis", "given", "key", "offset", "p", "shape")

    def __init__(
        self,
        p: float,
        shape: Iterable[int],
        *,
        key: NDArray[np.uint32] | None = None,
        offset: int = 0,
        axis: tuple[int, ...] | None = None,
        given: NDArray[np.uint64] | None = None,
    ) -> None:
        self.p, self.shape, self.offset, self.axis = p, tuple(shape), offset, axis
        self.key: Any = key  # an array, and None for a given mask
        self.given: Any = given  # the other way round

    @property
    def scale(self) -> float:
        """Factor of the kept elements, 1 / (1 - p); 0 where none is kept."""
        return scale_of(self.p)

    @property
    def threshold(self) -> int:
        """Draws of 32 bits below it drop their element."""
        return threshold_of(self.p)

    @property
    def drawn_shape(self) -> tuple[int, ...]:
        """The shape with 1 for each axis whose elements share."""
        if self.axis is None:
            return self.shape
        return tuple([size if axis in self.axis else 1 for axis, size in enumerate(self.shape)])

    def words(self) -> NDArray[np.uint64]:
        """The generator's key and counter half, as the engines take them."""
        return self.key.astype(np.uint64)

    def stream(self, position: int = 0) -> tuple[NDArray[np.uint64], int, int, float] | None:
        """What an engine needs to draw from a position on: key, position, threshold and scale; None where nothing is dropped."""
        return None if self.p == 0.0 else (self.words(), self.offset + position, self.threshold, self.scale)

    def toarray(self) -> NDArray[np.bool_]:
        """Boolean array of the mask's shape: True where an element is kept."""
        return np.array(self._kept())

    def _kept(self) -> NDArray[np.bool_]:
        """The same, perhaps a read-only view in which elements share memory."""
        if self.given is not None:
            return bits_of(self.given, math.prod(self.shape)).reshape(self.shape)
        if self.p == 1.0:
            return np.broadcast_to(np.False_, self.shape)
        drawn = self.drawn_shape
        kept = np.empty(math.prod(drawn), bool)
        engines.current().keep(self.words(), self.offset, self.threshold, kept)
        return np.broadcast_to(kept.reshape(drawn), self.shape)

    def packbits(self) -> NDArray[np.uint8]:
        """The mask as bytes of 8 elements in C order, lowest bit first: `np.packbits(..., bitorder="little")`; `mask=` takes them too."""
        return np.packbits(self.toarray(), bitorder="little")

    def __reduce__(self) -> tuple[Any, ...]:
        content = self.p, self.shape, self.key, self.offset, self.axis, self.given
        return _restored, (*content, (VERSION, sum_of(content)))

    def __repr__(self) -> str:
        source = "given" if self.given is not None else f"key={self.key.tolist()}, offset={self.offset}"
        return f"DropoutMask(p={self.p}, shape={self.shape}, axis={self.axis}, {source})"


def scale_of(p):
    """Factor of the kept elements; 0 where none is kept."""
    return 0.0 if p == 1.0 else 1.0 / (1.0 - p)


def threshold_of(p):
    """Draws of 32 bits below it drop their element."""
    return min(round(p * 2**32), 2**32 - 1)


def _restored(p, shape, key, offset, axis, given, seal=None):
    if seal is not None:
        check(seal, (p, shape, key, offset, axis, given), "DropoutMask")
    return DropoutMask(p, shape, key=key, offset=offset, axis=axis, given=given)


def checked_p(p: float) -> float:
    """The probability as a float in [0, 1]."""
    if isinstance(p, bool):
        raise TypeError(f"p must be a number, got {p!r}")
    value = number(p, "p")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"p must lie in [0, 1], got {p}")
    return value


def key_of(rng):
    """Four uint32 from a source of randomness, by the rules of NumPy's SPEC 7."""
    if type(rng) is int and rng >= 0:
        return _key_of_integer(rng)
    if isinstance(rng, np.random.Generator):
        return rng.integers(0, 2**32, size=4, dtype=np.uint32)
    if isinstance(rng, np.random.BitGenerator):
        return key_of(np.random.Generator(rng))
    if isinstance(rng, bool) or not (rng is None or hasattr(rng, "__index__") or isinstance(rng, np.random.SeedSequence)):
        raise TypeError(f"rng must be None, an integer, a SeedSequence or a Generator, got {type(rng).__name__}")
    if rng is not None and not isinstance(rng, np.random.SeedSequence) and rng.__index__() < 0:
        raise ValueError(f"rng must be 0 or more, got {rng}")
    sequence = rng if isinstance(rng, np.random.SeedSequence) else np.random.SeedSequence(rng)
    return sequence.generate_state(4)


@lru_cache(maxsize=256)
def _key_of_integer(seed: int) -> NDArray[np.uint32]:
    """The same key each time, at a tenth of the 4.5 us that NumPy takes to hash the seed."""
    key = np.random.SeedSequence(seed).generate_state(4).astype(np.uint32, copy=False)
    key.flags.writeable = False
    return key


def mask_for(x: Array, p: float, rng: Rng, mask: DropoutMask | ArrayLike | None, axis: Axis | None, offset: SupportsIndex) -> DropoutMask:
    """The mask that was given, checked, or a new one."""
    if mask is None:
        if not hasattr(offset, "__index__") or not 0 <= offset.__index__() < 2**63 - x.size:
            raise ValueError(f"offset must be an integer of 0 or more that leaves the stream below 2**63, got {offset!r}")
        axes = None if axis is None else axes_of(axis, x.ndim)
        return DropoutMask(p, x.shape, key=key_of(rng), offset=offset.__index__(), axis=axes)
    if not isinstance(mask, DropoutMask):
        mask = given_mask(borrowed(mask, "mask"), p, x.shape)
    if mask.p != p:
        raise ValueError(f"the mask was drawn with p={mask.p} and p={p} is asked for: give the same")
    if mask.shape != x.shape:
        raise ValueError(f"x has shape {x.shape} and the mask has {mask.shape}: they must be the same")
    return mask


def given_mask(mask, p, shape):
    """The mask of a boolean array, or of such an array's bits by `np.packbits(..., bitorder="little")`."""
    size = (math.prod(shape) + 7) // 8
    if mask.dtype == bool:
        shape, mask = mask.shape, np.packbits(mask, bitorder="little")
    elif mask.dtype != np.uint8 or mask.shape != (size,):
        needed = f"boolean (True keeps an element), or its bits, {size} of uint8"
        raise TypeError(f"mask must be {needed}, got {mask.dtype} of shape {mask.shape}")
    words = np.zeros((mask.size + 3) // 4, "<u4")
    words.view(np.uint8)[: mask.size] = mask
    return DropoutMask(p, shape, given=words.astype(np.uint32, copy=False))


def dropout(
    x: ArrayLike,
    p: float = 0.5,
    *,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    axis: Axis | None = None,
    offset: SupportsIndex = 0,
    out: Writeable | None = None,
) -> Array:
    """Drop elements with probability p and divide the others by 1 - p.

    Parameters
    ----------
    x : array_like, float16, bfloat16, float32 or float64
        Of any shape and strides.
    p : float in [0, 1]
        Probability of dropping. 0 returns x bit for bit, 1 zeros, also for infinite x.
    rng : None, int, SeedSequence or Generator
        Source of the key (SPEC 7). An int or SeedSequence gives the same mask each time, a Generator advances, None is fresh entropy.
    mask : array_like of bool, or of its bits (uint8, as `DropoutMask.packbits` gives them), or DropoutMask, optional
        The elements to keep, in place of drawing; they are divided by 1 - p all the same. A backward pass keeps one bit an element.
    axis : int or tuple of int, optional
        The axes that draw independently, the others share: axis=(0, 1) of NCHW drops whole channels. None: all axes.
    offset : int
        Position of the first element in the stream of the key, so that a stream can be continued.
    out : ndarray, optional
        Of x's shape and dtype; takes y. It may be x itself or overlap it.

    Returns
    -------
    ndarray
        y, of x's shape and dtype: `out` if that was given.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong type, shape or range; nothing is written then.

    References
    ----------
    N. Srivastava et al., JMLR 15 (2014); J. K. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011 (Philox).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y = nf.dropout(np.ones(1000, np.float32), p=0.25, rng=7)
    >>> np.unique(y)
    array([0.       , 1.3333334], dtype=float32)
    """
    return dropout_forward(x, p, rng=rng, mask=mask, axis=axis, offset=offset, out=out)[0]


def dropout_forward(
    x: ArrayLike,
    p: float = 0.5,
    *,
    rng: Rng = None,
    mask: DropoutMask | ArrayLike | None = None,
    axis: Axis | None = None,
    offset: SupportsIndex = 0,
    out: Writeable | None = None,
) -> tuple[Array, DropoutMask]:
    """As `dropout`, and the mask that `dropout_backward` needs.

    Returns
    -------
    y : ndarray
    mask : DropoutMask

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.ones((2, 3), np.float32)
    >>> y, mask = nf.dropout_forward(x, 0.5, mask=[[True, False, True], [False, False, True]])
    >>> y
    array([[2., 0., 2.],
           [0., 0., 2.]], dtype=float32)
    """
    p = checked_p(p)
    if mask is None and axis is None and offset == 0 and type(x) is np.ndarray and 0.0 < p < 1.0:
        simple = engines.current().dropout_at_once(x, lambda: DropoutMask(p, x.shape, key=key_of(rng)), out)
        if simple is not None:
            return simple
    if on_device(x):
        return device("dropout_forward")(x, p, rng=rng, mask=mask, axis=axis, offset=offset, out=out)
    x = floating(x)
    out = checked_out(out, x)
    mask = mask_for(x, p, rng, mask, axis, offset)
    return _apply(x, mask, out, "x"), mask


def dropout_backward(dy: ArrayLike, mask: DropoutMask, *, out: Writeable | None = None) -> Array:
    """Gradient of `dropout` with respect to x, from the gradient dy of y: dy / (1 - p) where x was kept, else 0.

    Parameters
    ----------
    dy : array_like, float16, bfloat16, float32 or float64
        Of the shape that was dropped from.
    mask : DropoutMask
        What `dropout_forward` returned.
    out : ndarray, optional
        Of dy's shape and dtype; takes dx.

    Returns
    -------
    ndarray
        dx, of dy's shape and dtype: `out` if that was given.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, mask = nf.dropout_forward(np.ones(100), 0.5, rng=0)
    >>> bool((nf.dropout_backward(np.ones(100), mask) == y).all())
    True
    """
    if not isinstance(mask, DropoutMask):
        raise TypeError(f"mask must be the DropoutMask that dropout_forward returned, got {type(mask).__name__}")
    if mask.given is None and mask.axis is None and type(dy) is np.ndarray and dy.shape == mask.shape and 0.0 < mask.p < 1.0:
        simple = engines.current().dropout_at_once(dy, lambda: mask, out)
        if simple is not None:
            return simple[0]
    if on_device(dy):
        return device("dropout_backward")(dy, mask, out=out)
    dy = floating(dy, "dy")
    out = checked_out(out, dy)
    return _apply(dy, mask, out, "dy")


def _apply(x, mask, out, name):
    """x * scale where the mask keeps, else 0."""
    if x.shape != mask.shape:
        raise ValueError(f"{name} has shape {x.shape} and the mask has {mask.shape}: they must be the same")
    y = np.empty(x.shape, x.dtype) if out is None else out
    drawn = mask.given is None and mask.drawn_shape == mask.shape
    if mask.p == 1.0:
        y[...] = 0
    elif mask.p == 0.0 and drawn:
        y[...] = x
    else:
        x, y_of = apart(x, out), engines.current().dropout
        key, threshold, scale = mask.words() if drawn else None, mask.threshold, mask.scale
        if x.flags.c_contiguous and y.flags.c_contiguous and y.flags.aligned and x.size:
            if drawn:
                y_of(x.reshape(-1), key, mask.offset, threshold, scale, y.reshape(-1))
                return y
            if mask.given is not None and x.dtype in FLOATS:
                engines.current().drop_given(x.reshape(-1), mask.given, scale, y.reshape(-1))
                return y
        pieces = elementwise(x, y)
        source, target = (Staged(array, range(x.ndim), computing(x.dtype), pieces) for array in (x, y))
        kept: Any = None if drawn else mask._kept()
        position = mask.offset
        for piece in pieces:
            run, result = source.load(piece), target.place(piece)
            if drawn:
                y_of(run, key, position, threshold, scale, result)
            else:
                np.copyto(result, run)
                scale_kept(result.reshape(shape_of(piece)), kept[piece], scale)
            target.keep(piece, result)
            position += run.size
    return y


def drawn_in_order(mask, layout):
    """Whether an engine draws the mask itself, row after row of the layout."""
    return layout.natural and mask.given is None and mask.drawn_shape == mask.shape and mask.p < 1.0


def drawn_alone(mask):
    """Whether every element has a draw of its own, and some are dropped."""
    return mask.given is None and mask.axis is None and 0.0 < mask.p < 1.0


def scale_kept(values, keep, scale):
    """Multiply what is kept by the scale, and clear the rest, in place."""
    with np.errstate(all="ignore"):
        values *= values.dtype.type(scale)
    np.copyto(values, 0, where=~keep if scale else True)  # p = 1: also of infinite values

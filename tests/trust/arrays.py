"""Arrays of any shape, layout and content, as hypothesis draws them: the layout equals the values, however it lies in memory."""

import numpy as np
from hypothesis import strategies as st
from trust.judging import WIDE

DTYPES = ["float32", "float32", "float64", "float64", "float16"] if WIDE else ["float32", "float16"]
try:
    import ml_dtypes  # noqa: F401  (gives NumPy the dtype's name)

    DTYPES.append("bfloat16")
except ImportError:
    pass
LAYOUTS = ["C", "C", "F", "reversed", "steps", "permuted", "swapped", "unaligned", "read-only", "broadcast", "list"]
KINDS = ["normal", "normal", "offset", "far offset", "constant", "zeros", "large", "small", "subnormal", "heavy tails", "mixed", "integers"]
AROUND = -7  # what lies beside the values of a view
OUTS = [None, None, "new", "steps", "F", "same", "overlapping"]


@st.composite
def shapes(draw, least=0, most=4, empty=True):
    """Shapes of up to 4096 values: most small, some with one long axis."""
    ndim = draw(st.integers(least, most))
    shape = [draw(st.integers(0 if empty and draw(st.integers(0, 9)) == 0 else 1, 7)) for _ in range(ndim)]
    if shape and draw(st.integers(0, 3)) == 0:
        shape[draw(st.integers(0, ndim - 1))] = draw(st.sampled_from([31, 33, 64, 127, 257, 1023, 1100]))
        while np.prod(shape) > 4096:
            shape[shape.index(max(n for n in shape if n != max(shape)) if len(set(shape)) > 1 else shape[0])] = 1
    return tuple(shape)


def values_of(kind, shape, dtype, rng, edges=False):
    """Values of a kind, of float64 rounded to the dtype; with edges a NaN or an infinity somewhere."""
    half = np.dtype(dtype).itemsize == 2
    top = {"float16": 13, "bfloat16": 120, "float32": 125, "float64": 1020}[np.dtype(dtype).name]
    bottom = {"float16": -20, "bfloat16": -130, "float32": -145, "float64": -1068}[np.dtype(dtype).name]
    x = rng.standard_normal(shape)
    if kind == "offset":
        x = x + 3 if half else x + rng.normal(0, 100)
    elif kind == "far offset":
        x = x + (20 if half else rng.choice([-1e5, 1e4, 1e5]))
    elif kind == "constant":
        x = np.full(shape, rng.standard_normal())
    elif kind == "zeros":
        x = np.zeros(shape)
    elif kind == "large":
        x = np.ldexp(np.clip(x, -3, 3), top)
    elif kind == "small":
        x = np.ldexp(x, -bottom * -1 // 2)
    elif kind == "subnormal":
        x = np.ldexp(np.rint(4 * x), bottom)
    elif kind == "heavy tails":
        x = rng.standard_t(2, shape)
    elif kind == "mixed":
        x = np.ldexp(x, rng.integers(bottom // 2, top // 2, shape))
    elif kind == "integers":
        x = rng.integers(-9, 9, shape).astype(float)
    x = np.asarray(x).astype(dtype)
    if edges and x.size:
        x.reshape(-1)[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return x


def laid_out(x, layout, rng):
    """An array of these values in the layout ("broadcast" repeats the first along an axis)."""
    if layout == "F" and x.ndim:
        return np.asfortranarray(x)
    if layout == "permuted" and x.ndim:
        order = rng.permutation(x.ndim)
        return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    if layout == "reversed" and x.ndim:
        back = tuple(slice(None, None, -1 if rng.integers(2) else 1) for _ in x.shape)
        return np.ascontiguousarray(x[back])[back]
    if layout == "steps" and x.ndim:
        steps = rng.integers(1, 4, x.ndim)
        canvas = np.full([n * step + 2 for n, step in zip(x.shape, steps, strict=True)], AROUND if x.dtype.kind in "fV" else 1, x.dtype)
        view = canvas[tuple(slice(1, 1 + n * step, step) for n, step in zip(x.shape, steps, strict=True))]
        view[...] = x
        return view
    if layout == "swapped" and x.dtype.name != "bfloat16":  # which ml_dtypes has in native order alone
        return x.astype(x.dtype.newbyteorder())
    if layout == "unaligned":
        view = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
        view[...] = x
        return view
    if layout == "broadcast" and x.ndim and x.size:
        axis = rng.integers(x.ndim)
        return np.broadcast_to(x.take([0], axis=axis), x.shape)
    if layout == "list" and x.dtype == np.float64 and x.size:
        return x.tolist()
    x = x.copy()
    x.flags.writeable = layout != "read-only"
    return x


class Output:
    """What takes a result, and the memory around it, which must stay as it is. `x` may be replaced by one that shares memory."""

    def __init__(self, kind, x, rng):
        values = np.asarray(x)
        native = values.dtype.newbyteorder("=")
        self.x, self.given = x, None
        if kind in ("same", "overlapping") and values.size:
            canvas, shift = np.zeros(values.size + 5, native), 0 if kind == "same" else int(rng.integers(1, 5))
            source, target = canvas[2 : 2 + values.size], canvas[shift : shift + values.size] if shift else canvas[2 : 2 + values.size]
            self.x, self.given = source.reshape(values.shape), target.reshape(values.shape)
            self.x[...] = values
            self.given = self.x if kind == "same" else self.given
        elif kind == "steps" and values.ndim:
            self.given = laid_out(np.zeros(values.shape, native), "steps", rng)
        elif kind is not None:
            self.given = np.zeros(values.shape, native, order="F" if kind == "F" else "C")

    def check(self, y):
        """It was written, and nothing beside it."""
        assert self.given is None or y is self.given, "out is not what was returned"
        base = None if self.given is None else self.given.base
        if base is not None and base.ndim == self.given.ndim and base.size and np.asarray(base).reshape(-1)[0] == AROUND:
            around = np.ones(base.shape, bool)
            start = (self.given.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // base.itemsize
            inside = np.lib.stride_tricks.as_strided(
                around.reshape(-1)[start:], self.given.shape, [s // base.itemsize for s in self.given.strides]
            )
            inside[...] = False
            assert (base[around] == AROUND).all(), "something was written beside out"

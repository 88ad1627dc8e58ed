"""A frozen model that runs: its steps, and for each thread the arrays that they work on."""

import math
import os
import threading

import numpy as np

from normfast import engines
from normfast.engines.compiled import aligned
from normfast.ops._arrays import FLOATS, HALVES, apart, checked_out, computing, plain
from normfast.ops._pickles import opened, sealed
from normfast.typing import Array, ArrayLike, Writeable

SHAPES = 4  # inputs of so many shapes have a workspace at a time, in each thread
PIECE = 1 << 20  # values: where an array between steps would be larger, the samples are taken in pieces (4 MB of float32)
LARGEST = 16 << 20  # bytes: a workspace larger than that is not kept


class Plan:
    """A frozen model, called on x: what the model returns at inference, in the dtype in which it does.

    `freeze` makes it of a model and `load` of a file. It may be called from any number of threads, pickled and copied.

    Notes
    -----
    A call is checked, and its arrays are allocated, when an input comes with a shape, strides or dtype that is not among the last four that
    this thread has seen. From then on `plan(x, out=y)` allocates nothing of the batch's size, and `plan(x)` its result alone. Large batches
    go through in pieces of some thousand samples, so that a thread keeps a few megabytes.

    The same input gives the same bits, in any thread. One sample alone and the same sample in a batch may differ in the last bits, since
    BLAS adds up in another order for other shapes.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> plan = nf.inference.freeze(nf.layers.Dense(3, 2, activation="relu", rng=0))
    >>> x, y = np.ones((5, 3), np.float32), np.empty((5, 2), np.float32)
    >>> plan(x, out=y) is y
    True
    >>> plan
    Plan(affine)
    """

    def __init__(self, steps, ndim=None):
        self.__setstate__({"steps": tuple(steps), "ndim": ndim})

    def __getstate__(self):
        return sealed({"steps": self.steps, "ndim": self.ndim})

    def __setstate__(self, state):
        self.steps, self.ndim = opened(state, "Plan").values() if isinstance(state, dict) else state  # a tuple of releases before
        self._copies, self._local = {}, threading.local()

    def __call__(self, x: ArrayLike, out: Writeable | None = None) -> Array:
        """Run the plan.

        Parameters
        ----------
        x : array_like, float16, bfloat16, float32 or float64
            What the model takes, of any strides.
        out : ndarray, optional
            Of the result's shape and dtype; takes it. It may overlap x, or be x.

        Returns
        -------
        ndarray
            `out` if that was given.

        Raises
        ------
        TypeError, ValueError
            For an x that the model does not take and an `out` that does not fit; nothing is written then.
        """
        if type(x) is not np.ndarray:
            x = plain(x, "x")
        try:
            spaces = self._local.spaces
        except AttributeError:
            spaces = self._local.spaces = {}
        key = x.shape, x.strides, x.dtype, x.flags.aligned
        space = spaces.pop(key, None) or Workspace(self, x)  # out of reach of a call within this one
        if out is None:
            y = np.empty(space.shape, space.dtype)
            space.run(x, y)
        else:
            y = space.checked(out)
            if space.reads_late:
                x = apart(x, y)
            if y.flags.carray or space.in_pieces:
                space.run(x, y)
            else:
                y[...] = space.run(x, space.aside())
        if space.nbytes <= LARGEST:
            spaces[key] = space
            if len(spaces) > SHAPES:
                del spaces[next(iter(spaces))]
        return y

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to a file that `load` reads, by its ending `.safetensors` or `.npz`.

        Raises
        ------
        ValueError
            For another ending, and for activations that are functions of the user's: such plans can be pickled.
        """
        from normfast.inference.files import save

        save(self, path)

    def __repr__(self):
        return f"Plan({', '.join(step.kind for step in self.steps)})"


class Workspace:
    """The steps bound to arrays for inputs of one shape, strides and dtype.

    Attributes
    ----------
    shape, dtype : of the result.
    nbytes : how much the arrays take.
    reads_late : whether x is still read when the result is being written.
    """

    @property
    def in_pieces(self):
        """Whether the samples go through the plan in pieces."""
        return self._pieces is not None

    def __init__(self, plan, x):
        steps = plan.steps
        dtype = x.dtype.newbyteorder("=")
        if dtype not in FLOATS and dtype.name not in HALVES:
            raise TypeError(f"x must be float16, bfloat16, float32 or float64, got {x.dtype}: convert it with astype(np.float32)")
        shapes, dtypes = [x.shape], [computing(dtype)]
        if plan.ndim not in (None, x.ndim):
            raise ValueError(f"x has shape {x.shape}: the plan takes {plan.ndim} axes; for others freeze the model with ndim={x.ndim}")
        for i, step in enumerate(steps):
            try:
                shapes.append(step.shape_after(shapes[-1]))
            except ValueError as error:
                where = "" if i == 0 else f" has shape {shapes[-1]} by then and"
                raise ValueError(f"x has shape {x.shape}: step {i} of the plan ({step.kind}){where} {error}") from None
            dtypes.append(step.dtype_after(dtypes[-1]))
        self.shape, self.dtype = shapes[-1], dtype if dtype.itemsize == 2 else dtypes[-1]
        as_it_is = x.dtype.isnative and x.flags.c_contiguous and x.flags.aligned
        self._words = as_it_is and dtype.itemsize == 2
        self.reads_late = True
        self._aside, self._pieces, self.nbytes = None, None, 24 * len(x) if x.ndim else 0  # statistics of rows
        if 0 in self.shape or not steps:
            self._last = self._calls = self._entry = self._exit = None
            return
        staged = dtype not in FLOATS or not as_it_is
        self._last = len(steps) - 1  # from here on the steps work on the result
        while self._last and steps[self._last].in_place:
            self._last -= 1
        narrowed = self.dtype != dtypes[-1]
        sizes = [math.prod(shape) for shape in shapes]
        most = max([*sizes[0 if staged else 1 : self._last + 1], sizes[-1] if narrowed else 0])
        if most > PIECE and len(x) > 1 and all(step.per_sample(x.ndim) for step in steps):
            self._pieces = plan, -(-len(x) // min(-(-most // PIECE), len(x)))
            return
        self.reads_late = not (staged or self._last or narrowed)
        self._exit = aligned(shapes[-1], dtypes[-1]) if narrowed else None
        memory = [aligned((most * dtypes[-1].itemsize,), np.dtype(np.uint8)) for _ in range(min(2, staged + self._last))]
        self.nbytes += sum(array.nbytes for array in (*memory, self._exit) if array is not None)

        def place(i):
            """An array for what stands before step i, beside the one that stands before the last step."""
            memory.reverse()
            return memory[0][: sizes[i] * dtypes[i].itemsize].view(dtypes[i]).reshape(shapes[i])

        source = self._entry = place(0) if staged else None
        self._calls, self._tail = [], []
        for i, step in enumerate(steps):
            run = step.bind(shapes[i], dtypes[i], plan._copies)
            if i > self._last:
                self._tail.append(run)
                continue
            target = None if i == self._last else source if step.in_place and source is not None else place(i + 1)
            self._calls.append((run, source, target))
            source = target

    def run(self, x, y):
        """Write the result for x into a C-contiguous y; returns y."""
        if self._pieces is not None:
            plan, samples = self._pieces
            for start in range(0, len(x), samples):
                plan(x[start : start + samples], y[start : start + samples])
            return y
        if self._calls is None:  # no steps, or no samples
            if x.size:
                y[...] = x
            return y
        if self._entry is not None:
            self._enter(x)
        result = y if self._exit is None else self._exit
        for step, source, target in self._calls:
            step(x if source is None else source, result if target is None else target)
        for step in self._tail:
            step(result, result)
        if result.dtype == np.float32 != y.dtype:
            engines.current().narrow(result.reshape(-1), y.reshape(-1))
        elif result is not y:
            y[...] = result
        return y

    def _enter(self, x):
        """Bring x to a C-contiguous array of the type that is computed in."""
        if self._words:
            engines.current().widen(x.reshape(-1), self._entry.reshape(-1))
        else:
            self._entry[...] = x

    def checked(self, out):
        """out, which can take the result."""
        if type(out) is np.ndarray and out.shape == self.shape and out.dtype == self.dtype and out.flags.carray:
            return out
        if isinstance(out, np.ndarray) and (out.shape != self.shape or out.dtype != self.dtype):
            raise ValueError(
                f"out has shape {out.shape} and dtype {out.dtype}: it needs {self.shape} and {self.dtype}, those of the result"
            )
        checked_out(out, np.broadcast_to(np.empty((), self.dtype), self.shape))
        return out

    def aside(self):
        """A contiguous array for the result, where `out` is not."""
        if self._aside is None:
            self._aside = aligned(self.shape, self.dtype)
            self.nbytes += self._aside.nbytes
        return self._aside

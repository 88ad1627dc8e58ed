"""The steps of a frozen model: what each holds, which shapes it takes, and how it is bound to arrays of one shape.

A bound step is a function of two C-contiguous arrays of float32 or float64, source and target, and allocates nothing of their size. Steps
that keep shape and dtype may write over their source. The engine is asked for at each call, so that a bound step serves all of them.
"""

import math
from typing import NamedTuple

import numpy as np

from normfast import engines
from normfast.engines.compiled import constant
from normfast.engines.policy import SERIAL
from normfast.inference.folding import inverse_deviations
from normfast.kernels.activations import IDENTITY
from normfast.ops.activation import checked_activation
from normfast.ops.group_norm import group_norm, instance_norm
from normfast.ops.layer_norm import layer_norm
from normfast.ops.rms_norm import rms_norm

FEW = 4  # rows up to which one matrix times vector each is faster than a matrix product: 4 x 768 by (768, 768) takes 61 us so and 182 not
WIDE = 65536  # values of a weight from which that pays
TRANSPOSED = 64  # rows up to which a transposed copy of the weight pays: 8 x 768 takes 174 us without and 101 with, 64 x 768 the same
SWEPT = SERIAL // 8  # values from which bias and activation are one sweep: setting it up takes 5 us


class Affine(NamedTuple):
    """x @ weight.T + bias along the last axis, then an activation; weight is (outputs, inputs)."""

    weight: np.ndarray
    bias: np.ndarray | None
    activation: str | None

    kind = "affine"
    in_place = False

    def check(self):
        """Raise ValueError where the arrays do not fit each other."""
        if self.weight.ndim != 2:
            raise ValueError(f"its weight must have 2 axes, got shape {self.weight.shape}")
        _same(self.weight.shape[:1], bias=self.bias)

    def shape_after(self, shape):
        """The shape of the result; raises ValueError where the step does not take the shape."""
        _along(shape, -1, self.weight.shape[1])
        return (*shape[:-1], self.weight.shape[0])

    def dtype_after(self, dtype):
        """The dtype of the result."""
        return np.promote_types(dtype, self.weight.dtype)

    def per_sample(self, ndim):
        """Whether the samples along axis 0 do not know of each other."""
        return ndim > 1

    def bind(self, shape, dtype, copies):
        """The step as a function of source and target; `copies` holds copies of weights that all threads share."""
        outputs, inputs = self.weight.shape
        rows, wide = math.prod(shape[:-1]), self.dtype_after(dtype)
        multiply = self._multiply(rows, wide, copies)
        finish = self._finish(rows, wide)
        if len(shape) == 2 and dtype == wide:
            if finish is None:
                return multiply

            def run(x, y):
                multiply(x, y)
                finish(y)

            return run
        widened = np.empty((rows, inputs), wide) if dtype != wide else None

        def run_rows(x, y):
            x, y = x.reshape(rows, inputs), y.reshape(rows, outputs)
            if widened is not None:
                np.copyto(widened, x)
                x = widened
            multiply(x, y)
            if finish is not None:
                finish(y)

        return run_rows

    def _multiply(self, rows, dtype, copies):
        """x @ weight.T of (rows, inputs), the way that BLAS does it fastest."""
        many = rows > FEW or (rows > 1 and self.weight.size < WIDE)
        weight = _copy(self.weight, dtype, many and rows <= TRANSPOSED, copies)
        matmul = np.matmul
        if many or rows == 1:
            right = weight if many and rows <= TRANSPOSED else weight.T

            def multiply(x, y):
                matmul(x, right, y)

            return multiply

        def multiply_each(x, y):
            for i in range(rows):
                matmul(weight, x[i], y[i])

        return multiply_each

    def _finish(self, rows, dtype):
        """Bias and activation in place, or None."""
        code, outputs = checked_activation(self.activation), len(self.weight)
        if self.bias is None and code == IDENTITY:
            return None
        bias = constant(outputs, dtype, 0) if self.bias is None else self.bias.astype(dtype, copy=False)
        if rows * outputs >= SWEPT and (code != IDENTITY or rows * outputs >= SERIAL):
            return lambda y: engines.current().bias_activation(y, bias, code, None, y)
        add = np.add
        if code == IDENTITY:
            return lambda y: add(y, bias, y)

        def finish(y):
            if self.bias is not None:
                add(y, bias, y)
            run = y.reshape(-1)
            engines.current().activate(run, code, run)

        return finish


class RowNorm(NamedTuple):
    """Layer norm (centred) or RMS norm over the last axes; weight and bias have their shape."""

    weight: np.ndarray | None
    bias: np.ndarray | None
    axes: int
    eps: float
    centred: bool

    kind = "row_norm"
    in_place = True

    def check(self):
        for values in (self.weight, self.bias):
            if values is not None and values.ndim != self.axes:
                raise ValueError(f"its parameters must have {self.axes} axes, got shape {values.shape}")
        if self.weight is not None and self.bias is not None:
            _same(self.weight.shape, bias=self.bias)
        if self.bias is not None and not self.centred:
            raise ValueError("a norm that is not centred has no bias")

    def shape_after(self, shape):
        if len(shape) < self.axes:
            raise ValueError(f"needs {self.axes} axes and finds {len(shape)}")
        given = self.weight if self.weight is not None else self.bias
        for axis in range(-self.axes, 0) if given is not None else ():
            _along(shape, axis, given.shape[axis])
        return shape

    def dtype_after(self, dtype):
        return dtype

    def per_sample(self, ndim):
        return ndim > self.axes

    def bind(self, shape, dtype, copies):
        n = math.prod(shape[-self.axes :])
        rows, eps = math.prod(shape) // n, float(self.eps)
        weight, bias = (None if values is None else values.astype(dtype, copy=False).ravel() for values in (self.weight, self.bias))
        if self.axes == 1 and rows * n < SERIAL:  # checked in C, in 1 us
            if self.centred:
                return lambda x, y: layer_norm(x, weight, bias, eps=eps, out=y)
            return lambda x, y: rms_norm(x, weight, eps=eps, out=y)
        weight, bias = (constant(n, dtype, value) if run is None else run for run, value in ((weight, 1), (bias, 0)))
        statistics, block, centred = np.empty((3, rows)), (rows, n), self.centred

        def run(x, y):
            engines.current().layer_norm_forward(x.reshape(block), weight, bias, eps, centred, y.reshape(block), *statistics)

        return run


class Channels(NamedTuple):
    """Batch norm by running statistics along an axis, then an activation; all arrays have the shape (channels,)."""

    mean: np.ndarray
    var: np.ndarray
    weight: np.ndarray | None
    bias: np.ndarray | None
    axis: int
    eps: float
    activation: str | None

    kind = "channels"
    in_place = True

    def check(self):
        if self.mean.ndim != 1:
            raise ValueError(f"its mean must have 1 axis, got shape {self.mean.shape}")
        _same(self.mean.shape, var=self.var, weight=self.weight, bias=self.bias)
        if (self.var < 0).any():
            raise ValueError(f"var must be 0 or more, got {self.var.min()}")

    def shape_after(self, shape):
        _along(shape, self.axis, len(self.mean))
        return shape

    def dtype_after(self, dtype):
        return dtype

    def per_sample(self, ndim):
        return self.axis % ndim > 0

    def bind(self, shape, dtype, copies):
        axis, code = self.axis % len(shape), checked_activation(self.activation)
        block = (1, math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        given = self.mean, inverse_deviations(self.var, self.eps), self.weight, self.bias
        factors = [
            constant(shape[axis], np.dtype(np.float64), value) if f is None else f for f, value in zip(given, (0, 0, 1, 0), strict=True)
        ]
        factors = [values.astype(np.float64).reshape(1, -1) for values in factors]
        return lambda x, y: engines.current().batch_norm(x.reshape(block), *factors, code, y.reshape(block))


class Groups(NamedTuple):
    """Group norm, or instance norm with groups=0; weight and bias have the shape (channels,)."""

    weight: np.ndarray | None
    bias: np.ndarray | None
    groups: int
    axis: int
    eps: float

    kind = "groups"
    in_place = True

    def check(self):
        given = self.weight if self.weight is not None else self.bias
        if given is not None:
            _same((given.size,), weight=self.weight, bias=self.bias)

    def shape_after(self, shape):
        given = self.weight if self.weight is not None else self.bias
        _along(shape, self.axis, None if given is None else len(given))
        if self.axis % len(shape) == 0:
            raise ValueError("needs samples along axis 0 and channels along another one")
        if self.groups and shape[self.axis] % self.groups:
            raise ValueError(f"needs channels in {self.groups} groups along axis {self.axis} and finds {shape[self.axis]} channels")
        return shape

    def dtype_after(self, dtype):
        return dtype

    def per_sample(self, ndim):
        return True

    def bind(self, shape, dtype, copies):
        weight, bias = (None if values is None else values.astype(np.float64) for values in (self.weight, self.bias))
        axis, eps, groups = self.axis, float(self.eps), self.groups
        if not groups:
            return lambda x, y: instance_norm(x, weight, bias, axis=axis, eps=eps, out=y)
        return lambda x, y: group_norm(x, groups, weight, bias, axis=axis, eps=eps, out=y)


class Activate(NamedTuple):
    """An activation by its name, or a user's pair of functions."""

    activation: str | tuple

    kind = "activate"
    in_place = True

    def check(self):
        pass

    def shape_after(self, shape):
        return shape

    def dtype_after(self, dtype):
        return dtype

    def per_sample(self, ndim):
        return ndim > 0

    def bind(self, shape, dtype, copies):
        code = checked_activation(self.activation)
        if isinstance(code, tuple):

            def own(x, y):
                y.reshape(-1)[...] = code[0](x.reshape(-1))

            return own
        return lambda x, y: engines.current().activate(x.reshape(-1), code, y.reshape(-1))


STEPS = {step.kind: step for step in (Affine, RowNorm, Channels, Groups, Activate)}


def _same(shape, **given):
    """Raise unless all arrays that are there have the shape."""
    for name, values in given.items():
        if values is not None and values.shape != shape:
            raise ValueError(f"its {name} must have shape {shape}, got {values.shape}")


def _along(shape, axis, size):
    """Raise unless the shape has the axis, and so many values along it where a size is given."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"needs an axis {axis} and finds {len(shape)} axes")
    if size is not None and shape[axis] != size:
        raise ValueError(f"needs {size} values along axis {axis} and finds {shape[axis]}")


def _copy(weight, dtype, transposed, copies):
    """The weight, or a copy of it in another dtype or transposed, made once."""
    if weight.dtype == dtype and not transposed:
        return weight
    key = id(weight), dtype, transposed
    if key not in copies:
        copies[key] = np.array(weight.T if transposed else weight, dtype, order="C")
    return copies[key]

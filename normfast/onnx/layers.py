"""Each layer in basic operators of ONNX, as it computes at inference."""

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from normfast.layers import Activation, BatchNorm, Dense, Dropout, GroupNorm, InstanceNorm, LayerNorm, RMSNorm, Sequential
from normfast.onnx.graph import Value
from normfast.ops._arrays import computing


def write(graph, layer, x, name=""):
    """Add a layer, which takes the value x; returns the value that it gives, rounded to the dtype of an x of 16 bits."""
    forward = getattr(type(layer), "forward", None)  # a subclass that computes something else has another one
    if forward is Sequential.forward:
        for position, inner in layer._children().items():
            x = write(graph, inner, x, f"{name}.{position}" if name else position)
        return x
    graph.layer = name
    if forward not in WRITERS:
        raise TypeError(f"cannot export {here(graph, layer)}: only Dense, Activation, Dropout, the norms and Sequential")
    if forward is Dropout.forward:
        return dropout(graph, layer, x)
    y = WRITERS[forward](graph, layer, graph.cast(x, computing(x.dtype)))
    graph.layer = name
    return graph.cast(y, x.dtype) if x.dtype.itemsize == 2 else y


def here(graph, layer):
    """The layer as errors name it."""
    return f"layer {graph.layer} ({type(layer).__name__})" if graph.layer else f"the {type(layer).__name__}"


def dropout(graph, layer, x):
    """x itself."""
    if layer.always_on:
        raise ValueError(f"cannot export {here(graph, layer)} with always_on=True: its outputs are random")
    return x


def dense(graph, layer, x):
    """Weighted sum and bias, in the wider dtype of x and weight, then norm and activation."""
    weight, name = layer.weight.data, graph.layer
    check_sizes(graph, layer, x, range(-1, 0), weight.shape[1:])
    dtype = np.promote_types(x.dtype, weight.dtype)
    columns = graph.constant(weight.T, "weight")  # in their own dtype: a file of 16-bit weights stays small
    columns = graph.cast(Value(columns, weight.shape[::-1], weight.dtype), dtype).name
    y = graph.add("MatMul", graph.cast(x, dtype).name, columns)
    if layer.bias is not None:
        y = graph.add("Add", y, graph.constant(layer.bias.data.astype(dtype), "bias"))
    y = Value(y, (*x.shape[:-1], len(weight)), dtype)
    for part in ("norm", "function", "dropout"):
        if (inner := getattr(layer, part)) is not None:
            y = write(graph, inner, y, f"{name}.{part}" if name else part)
    return y


def activation(graph, layer, z):
    """The named function."""
    return activated(graph, layer, z, layer.activation)


def activated(graph, layer, z, name):
    """z through the function of that name."""
    if not (name is None or isinstance(name, str)):
        raise TypeError(f"cannot export {here(graph, layer)} with functions of your own: name an activation, such as 'relu'")
    if name in (None, "identity"):
        return z
    return z._replace(name=ACTIVATIONS[name](graph, z.name, z.dtype.type))


def leaky_relu(graph, z, number):
    """max(z, 0.01 z): the slope of ONNX's LeakyRelu is float32."""
    return graph.add("Max", z, graph.add("Mul", z, graph.constant(number(0.01), "slope")))


def silu(graph, z, number):
    """z / (1 + exp(-z)): as z * Sigmoid(z), ONNX Runtime 1.20 fuses it to a function that it lacks for float64."""
    return graph.add("Div", z, graph.add("Add", graph.add("Exp", graph.add("Neg", z)), graph.constant(number(1))))


def gelu(graph, z, number):
    """z (1 + erf(z / sqrt(2))) / 2."""
    one, half, root = (graph.constant(number(value)) for value in (1, 0.5, 0.5**0.5))
    twice = graph.add("Add", graph.add("Erf", graph.add("Mul", z, root)), one)
    return graph.add("Mul", graph.add("Mul", z, half), twice)


ACTIVATIONS = {
    "relu": lambda graph, z, number: graph.add("Relu", z),
    "leaky_relu": leaky_relu,
    "sigmoid": lambda graph, z, number: graph.add("Sigmoid", z),
    "tanh": lambda graph, z, number: graph.add("Tanh", z),
    "gelu": gelu,
    "silu": silu,
    "softplus": lambda graph, z, number: graph.add("Softplus", z),
}


def batch_norm(graph, layer, x):
    """(x - mean) / sqrt(var + eps) * weight + bias with the running statistics, and the activation."""
    axis = channel_axis(graph, layer, x, len(layer.running_mean))
    mean, var = layer.running_mean.astype(np.float64), layer.running_var.astype(np.float64)
    if (var < 0).any():
        raise ValueError(f"cannot export {here(graph, layer)}: its running_var is {var.min()}, which must be 0 or more")
    weight, bias = layer._affine()
    total = var + layer.eps
    factor = np.where(total == 0, 0, 1 / np.sqrt(np.where(total == 0, 1, total)))  # a channel without variance gives the bias
    factor = factor if weight is None else factor * weight.astype(np.float64)
    high = mean.astype(x.dtype)
    low = (mean - high).astype(x.dtype)
    steps = [("Sub", high, "mean"), ("Sub", low if low.any() else None, "mean"), ("Mul", factor, "weight"), ("Add", bias, "bias")]
    y = by_channel(graph, x, axis, steps)
    return activated(graph, layer, y, getattr(layer, "activation", None))


def instance_norm(graph, layer, x):
    """Groups of one channel, or a batch norm where running statistics are tracked."""
    return grouped(graph, layer, x, None) if layer.running_mean is None else batch_norm(graph, layer, x)


def group_norm(graph, layer, x):
    """Groups of channels."""
    return grouped(graph, layer, x, layer.num_groups)


def grouped(graph, layer, x, groups):
    """The norm of groups of channels, or of each channel alone, which is brought to x of shape (samples, ..., groups, channels, ...)."""
    weight, bias = layer._affine()
    axis = channel_axis(graph, layer, x, None if weight is None else len(weight))
    channels = x.shape[axis]
    if not isinstance(channels, int):
        raise ValueError(f"cannot export {here(graph, layer)} without the number of channels: give axis {axis} in input_shape")
    groups = groups or channels
    if axis == 0 or channels % groups:
        raise ValueError(f"cannot export {here(graph, layer)}: axis {axis}, of {channels} channels, cannot be split into {groups} groups")
    sizes = graph.constant(np.array([groups, channels // groups]), "groups")
    around = graph.add("Shape", x.name, end=axis), sizes, graph.add("Shape", x.name, start=axis + 1)
    split = graph.add("Reshape", x.name, graph.add("Concat", *around, axis=0), allowzero=1)
    others = [a for a in range(1, len(x.shape) + 1) if a != axis]
    normalized = graph.add("Div", *deviations(graph, layer, x._replace(name=split), others))
    y = graph.add("Reshape", normalized, graph.add("Shape", x.name), allowzero=1)
    return by_channel(graph, x._replace(name=y), axis, [("Mul", weight, "weight"), ("Add", bias, "bias")])


def norm_of_last_axes(graph, layer, x):
    """Layer norm and RMS norm."""
    weight, bias = layer._affine()
    if weight is not None:
        check_sizes(graph, layer, x, layer.axis, weight.shape)
    elif len(x.shape) < len(layer.axis):
        raise ValueError(f"cannot export {here(graph, layer)}: it normalizes {len(layer.axis)} axes and its x has shape {x.shape}")
    y, std = deviations(graph, layer, x, layer.axis, centred=type(layer).forward is LayerNorm.forward)
    if weight is not None:  # ahead of std: a last Mul by a single number becomes a float32 factor of the next MatMul in ONNX Runtime
        y = graph.add("Mul", y, graph.constant(weight.astype(x.dtype), "weight"))
    y = graph.add("Div", y, std)
    if bias is not None:
        y = graph.add("Add", y, graph.constant(bias.astype(x.dtype), "bias"))
    return x._replace(name=y)


def deviations(graph, layer, x, axes, *, centred=True):
    """The names of x - mean and of sqrt(mean((x - mean)**2) + eps), over the axes."""
    eps, y = x.dtype.type(layer.eps), x.name
    if not eps > 0:
        raise ValueError(f"cannot export {here(graph, layer)} with eps={layer.eps}: equal values would give 0 / 0, give more")
    axes = graph.constant(np.array(axes), "axes")
    for _ in range(2 if centred else 0):  # the second mean is what rounding left of the first
        y = graph.add("Sub", y, graph.add("ReduceMean", y, axes))
    var = graph.add("ReduceMean", graph.add("Mul", y, y), axes)
    return y, graph.add("Sqrt", graph.add("Add", var, graph.constant(eps, "eps")))


def by_channel(graph, x, axis, steps):
    """x through steps of an operator with an entry for each channel; an entry of None is no step."""
    y = x.name
    for operator, values, kind in steps:
        if values is not None:
            values = values.astype(x.dtype).reshape(-1, *(1,) * (len(x.shape) - 1 - axis))
            y = graph.add(operator, y, graph.constant(values, kind))
    return x._replace(name=y)


def channel_axis(graph, layer, x, channels):
    """The axis of the channels, counted from the front, where x has so many of them."""
    axis = normalize_axis_index(layer.axis, len(x.shape))
    if channels is not None:
        check_sizes(graph, layer, x, [axis], (channels,))
    return axis


def check_sizes(graph, layer, x, axes, sizes):
    """Raise unless x has these sizes along the axes; an open size would let ONNX broadcast what does not fit."""
    if len(x.shape) < len(sizes) or tuple(x.shape[axis] for axis in axes) != tuple(sizes):
        needed = f"needs {tuple(sizes)} along {tuple(axes)}: give another input_shape"
        raise ValueError(f"cannot export {here(graph, layer)}: its x has shape {x.shape} and {needed}")


WRITERS = {
    Dense.forward: dense,
    Activation.forward: activation,
    Dropout.forward: dropout,
    BatchNorm.forward: batch_norm,
    InstanceNorm.forward: instance_norm,
    GroupNorm.forward: group_norm,
    LayerNorm.forward: norm_of_last_axes,
    RMSNorm.forward: norm_of_last_axes,
}

"""An ONNX graph as it grows: nodes, initializers, and names that are those of the layers."""

from typing import NamedTuple

import numpy as np
from onnx import TensorProto, helper

TYPES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


class Value(NamedTuple):
    """What a layer takes or gives.

    Attributes
    ----------
    name : str
        In the graph.
    shape : tuple of int and str
        A name stands for a size that is known at the run alone.
    dtype : dtype
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: np.dtype

    def info(self):
        """As ONNX declares inputs and outputs."""
        return helper.make_tensor_value_info(self.name, TYPES[self.dtype.name], self.shape)


class Graph:
    """Nodes and initializers.

    Attributes
    ----------
    layer : str
        The layer that is being written, of which new names begin.
    """

    def __init__(self):
        self.nodes, self.initializers, self.layer = [], [], ""
        self.used = set()

    def name(self, kind):
        """A new name: of the layer and the kind, and a number from the second of a kind on."""
        first = name = f"{self.layer}.{kind}" if self.layer else kind
        number = 1
        while name in self.used:
            number += 1
            name = f"{first}_{number}"
        self.used.add(name)
        return name

    def add(self, operator, *inputs, **attributes):
        """A node of one output, whose name is returned."""
        name = self.name(operator)
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, array, kind="constant"):
        """The name of an initializer, of a float or of int64."""
        array = np.asarray(array)
        name, code = self.name(kind), TYPES.get(array.dtype.name, TensorProto.INT64)
        little = array.astype(array.dtype.newbyteorder("<"), order="C")
        self.initializers.append(helper.make_tensor(name, code, array.shape, little.tobytes(), raw=True))
        return name

    def cast(self, value, dtype):
        """The value in another dtype."""
        if value.dtype == dtype:
            return value
        return Value(self.add("Cast", value.name, to=TYPES[np.dtype(dtype).name]), value.shape, np.dtype(dtype))

    def renamed(self, value, name):
        """The value under a name of its own, as the output of the last node that was added."""
        if self.nodes and self.nodes[-1].output[0] == value.name:
            self.nodes[-1].output[0] = name
        else:
            self.nodes.append(helper.make_node("Identity", [value.name], [name]))
        return value._replace(name=name)

"""Models as ONNX files."""

import operator

import numpy as np
import onnx
from onnx import helper

import normfast as nf
from normfast.layers import Activation, Dense, Dropout, Layer, LayerNorm, RMSNorm, Sequential
from normfast.onnx.graph import TYPES, Graph, Value
from normfast.onnx.layers import write

OPSET = 18  # the first whose ReduceMean takes the axes as an input


def export(model, path, *, input_shape=None, dtype=None, opset=OPSET):
    """Write a model, as it computes at inference, to an ONNX file.

    Parameters
    ----------
    model : Dense, Activation, Dropout, AlphaDropout, a norm, or a Sequential of them
        Its parameters and running statistics are copied; neither they nor its mode change.
    path : str, PathLike, binary file or None
        Where to write; None writes nothing.
    input_shape : tuple of int or None, optional
        Shape of the input x; None stands for an axis of any size. Not needed where x is (batch, features) and a Dense, LayerNorm or RMSNorm
        layer, which knows its features, comes before any other norm.
    dtype : dtype, optional
        Of x: float16, bfloat16, float32 or float64. None takes that of the model's first parameter, float32 where it has none.
    opset : int
        Version of ONNX's operators, 18 or more: every runtime of opset 18 or later takes the default.

    Returns
    -------
    onnx.ModelProto
        With input "x" and output "y", checked by `onnx.checker`.

    Raises
    ------
    TypeError
        For a layer of another kind, and an activation given as functions.
    ValueError
        For a shape that does not fit or is not known, a Dropout with always_on=True, and eps=0 where the data might make it 0 / 0.
        Nothing is written then.

    Notes
    -----
    Norms are spelt out in basic operators, which subtract the mean before they square and carry a float64 eps: ONNX's own norms have eps in
    float32, and ONNX Runtime's subtract mean^2 from the mean square. As in the layers, 16-bit values are computed in float32 and rounded
    once a layer.

    Examples
    --------
    >>> from normfast.layers import BatchNorm, Dense, Sequential
    >>> from normfast.onnx import export
    >>> model = export(Sequential(Dense(4, 8, norm="batch", activation="relu"), Dense(8, 2)), None)
    >>> [node.op_type for node in model.graph.node]
    ['MatMul', 'Add', 'Sub', 'Mul', 'Add', 'Relu', 'MatMul', 'Add']
    >>> export(BatchNorm(3), None, input_shape=(None, 3, None, None)).graph.node[0].name
    'Sub'
    """
    if not isinstance(model, Layer):
        raise TypeError(f"model must be a layer of normfast.layers, got {type(model).__name__}")
    x = Value("x", shape_of_input(model, input_shape), dtype_of_input(model, dtype))
    opset = checked_opset(opset)
    graph = Graph()
    graph.used.update(("x", "y"))
    y = graph.renamed(write(graph, model, x), "y")
    imports = [helper.make_opsetid("", opset)]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "normfast", [x.info()], [y.info()], graph.initializers),
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
        producer_name="normfast",
        producer_version=nf.__version__,
    )
    onnx.checker.check_model(proto, full_check=True)
    if path is not None:
        onnx.save(proto, path)
    return proto


def _flat(model):
    """The layers of nested Sequentials in their order."""
    return [inner for layer in model.layers for inner in _flat(layer)] if isinstance(model, Sequential) else [model]


def shape_of_input(model, shape):
    """The shape of x with names for the sizes that are open, from what the user gives or what the first layers know."""
    if shape is None:
        shape = (None, *known_features(model))
    if not isinstance(shape, tuple | list):
        raise TypeError(f"input_shape must be a tuple of sizes, such as (None, 3, 32, 32), got {type(shape).__name__}")
    sizes = []
    for axis, size in enumerate(shape):
        if size is not None and (isinstance(size, bool) or not hasattr(size, "__index__") or size < 0):
            raise ValueError(f"input_shape must hold sizes, or None for any size, got {size!r}: give such as (None, 3, 32, 32)")
        sizes.append(operator.index(size) if size is not None else f"size_{axis}" if axis else "batch")
    return tuple(sizes)


def known_features(model):
    """The sizes of a sample's axes, from the first layer that has some."""
    for layer in _flat(model):
        if isinstance(layer, Dense):
            return layer.weight.data.shape[1:]
        if isinstance(layer, LayerNorm | RMSNorm) and layer.weight is not None:
            return layer.weight.data.shape
        if not isinstance(layer, Activation | Dropout):
            break
    raise ValueError("the model takes inputs of several shapes: give input_shape, such as (None, 3, 32, 32), with None for an open size")


def dtype_of_input(model, dtype):
    """The dtype of x: float16, bfloat16, float32 or float64."""
    if dtype is None:
        parameters = model.parameters()
        dtype = parameters[0].data.dtype if parameters else np.float32
    dtype = np.dtype(dtype)
    if dtype.name not in TYPES:
        raise TypeError(f"dtype must be float16, bfloat16, float32 or float64, got {dtype}")
    return dtype.newbyteorder("=")


def checked_opset(opset):
    """The version as an integer that is written here and known to the onnx package."""
    newest = onnx.defs.onnx_opset_version()
    if isinstance(opset, bool) or not hasattr(opset, "__index__") or not OPSET <= opset <= newest:
        raise ValueError(f"opset must be an integer from {OPSET} to {newest}, the newest that onnx {onnx.__version__} knows, got {opset!r}")
    return operator.index(opset)

"""ONNX Runtime on the CPU: a model of the one operator, inputs and result bound to memory that is there; it has no gradients."""

import functools

import numpy as np
import onnxruntime as ort
from onnx import helper, numpy_helper

from normfast.benchmarks.formulas import EPS, P
from normfast.benchmarks.rivals import Contender

OPSET = 21


def operator(case):
    """(name, names of the parameters, attributes) of the operation in ONNX, or None; that of a fused one is ONNX Runtime's own."""
    return {
        "layer_norm": ("LayerNormalization", ("weight", "bias"), {"axis": -1, "epsilon": EPS}),
        "rms_norm": ("SimplifiedLayerNormalization", ("weight",), {"axis": -1, "epsilon": EPS}),  # the one with a kernel
        "add_layer_norm": ("SkipLayerNormalization", ("weight", "bias"), {"epsilon": EPS}),
        "add_rms_norm": ("SkipSimplifiedLayerNormalization", ("weight",), {"epsilon": EPS}),
        "batch_norm_inference": ("BatchNormalization", ("weight", "bias", "mean", "var"), {"epsilon": EPS}),
        "group_norm": ("GroupNormalization", ("weight", "bias"), {"num_groups": case.groups, "epsilon": EPS}),
        "instance_norm": ("InstanceNormalization", ("weight", "bias"), {"epsilon": EPS}),
        "lp_norm": ("LpNormalization", (), {"axis": -1, "p": 2}),
        "standardize": ("MeanVarianceNormalization", (), {"axes": [0]}),
        "dropout": ("Dropout", ("ratio", "training"), {}),
    }.get(case.op)


def contender(problem, threads):
    case = problem.case
    described = operator(case)
    if described is None or case.direction != "forward" or case.dtype == "bfloat16":
        return None
    name, parameters, attributes = described
    dtype = helper.np_dtype_to_tensor_dtype(problem.dtype)
    values = {"ratio": np.array(P, problem.dtype), "training": np.array(True)}
    inputs, outputs = {"x": problem.x}, {"y": problem.out}
    if case.fused:
        inputs["residual"], outputs["h"] = problem.residual, problem.h
    infos = [[helper.make_tensor_value_info(key, dtype, case.shape) for key in arrays] for arrays in (inputs, outputs)]
    constants = [numpy_helper.from_array(values[key] if key in values else getattr(problem, key), key) for key in parameters]
    results, domain = (["y", "", "", "h"], "com.microsoft") if case.fused else (["y"], "")  # mean and rstd are not asked for
    node = helper.make_node(name, [*inputs, *parameters], results, domain=domain, **attributes)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], name, *infos, constants), opset_imports=opsets, ir_version=10)

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:  # not for this dtype
        return None
    binding = session.io_binding()
    for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for key, values in arrays.items():
            bind(key, "cpu", 0, problem.dtype, case.shape, values.ctypes.data)
    return Contender(functools.partial(session.run_with_iobinding, binding), lambda _: tuple(outputs.values()))

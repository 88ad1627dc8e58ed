"""OpenVINO on the CPU: a model of the operators of its opset, in float32, with memory that is there; it has no gradients."""

import sys

import numpy as np

# with this package, the import of OpenVINO forks a child that reports to its makers; beside JAX's threads that may hang
sys.modules.setdefault("openvino_telemetry", None)

import openvino as ov  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

from normfast.benchmarks.formulas import EPS, LP_EPS  # noqa: E402
from normfast.benchmarks.rivals import Contender  # noqa: E402


def forward(problem, case, x):
    """The operation on a node x, or None. The patterns of layer and RMS norm are those of exported models."""
    weight, bias, mean, var = problem.weight, problem.bias, problem.mean, problem.var
    if case.op == "layer_norm":
        return ops.add(ops.multiply(ops.mvn(x, np.array([-1]), True, EPS, "inside_sqrt"), weight), bias)
    if case.op == "rms_norm":
        square = ops.reduce_mean(ops.power(x, np.float32(2)), np.array([-1]), True)
        return ops.multiply(ops.multiply(x, ops.divide(np.float32(1), ops.sqrt(ops.add(square, np.float32(EPS))))), weight)
    if case.op == "batch_norm_inference":
        return ops.batch_norm_inference(x, weight, bias, mean, var, EPS)
    if case.op == "group_norm":
        return ops.group_normalization(x, weight, bias, case.groups, EPS)
    if case.op == "instance_norm":
        shape = (1, -1, 1, 1)
        xhat = ops.mvn(x, np.array([2, 3]), True, EPS, "inside_sqrt")
        return ops.add(ops.multiply(xhat, weight.reshape(shape)), bias.reshape(shape))
    if case.op == "lp_norm":
        return ops.normalize_l2(x, np.array([-1]), LP_EPS, "max")
    if case.op == "standardize":
        return ops.mvn(x, np.array([0]), True, 0.0, "inside_sqrt")
    return None


def contender(problem, threads):
    case = problem.case
    if case.direction != "forward" or case.dtype != "float32":
        return None
    inputs = [ops.parameter(list(case.shape), np.float32) for _ in range(1 + case.fused)]
    arrays, targets = ([problem.x, problem.residual], [problem.out, problem.h]) if case.fused else ([problem.x], [problem.out])
    summed = ops.add(*inputs) if case.fused else inputs[0]
    y = None if case.op.startswith("dropout") else forward(problem, case.inner, summed)
    if y is None:
        return None
    results = [y, summed] if case.fused else [y]
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(ov.Model(results, inputs), "CPU", settings).create_infer_request()
    for setter, given in ((request.set_input_tensor, arrays), (request.set_output_tensor, targets)):
        for i, values in enumerate(given):
            setter(i, ov.Tensor(values, shared_memory=True))
    return Contender(request.infer, lambda _: tuple(targets))

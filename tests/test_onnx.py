"""ONNX's own node test cases of the normalizations and of dropout, each through an adapter of a few lines."""

import warnings
from collections import Counter

import numpy as np
import pytest

import normfast as nf

onnx = pytest.importorskip("onnx", minversion="1.23", reason="the onnx package holds the test cases")


def batch_normalization(x, scale, bias, mean, var, *, epsilon, momentum, training_mode):
    if not training_mode:
        return (nf.batch_norm(x, mean, var, scale, bias, eps=epsilon),)
    y, stats = nf.batch_norm_forward(x, scale, bias, eps=epsilon)
    running_mean, running_var = mean.copy(), var.copy()
    nf.update_running(running_mean, running_var, stats, momentum=1 - momentum, ddof=0)
    return y, running_mean, running_var


def layer_normalization(x, scale, bias=None, *, axis, epsilon, stash_type):
    axes = tuple(range(axis % x.ndim, x.ndim))
    y, stats = nf.layer_norm_forward(x, scale, bias, axis=axes, eps=epsilon)
    kept = [1 if a in axes else size for a, size in enumerate(x.shape)]
    return y, *(values.reshape(kept).astype(np.float32) for values in (stats.mean, stats.rstd))


def rms_normalization(x, scale, *, axis, epsilon, stash_type):
    return (nf.rms_norm(x, scale, axis=tuple(range(axis % x.ndim, x.ndim)), eps=epsilon),)


def group_normalization(x, scale, bias, *, num_groups, epsilon, stash_type):
    return (nf.group_norm(x, num_groups, scale, bias, eps=epsilon),)


def instance_normalization(x, scale, bias, *, epsilon):
    return (nf.instance_norm(x, scale, bias, eps=epsilon),)


def lp_normalization(x, *, axis, p):
    """x / norm, and 0 where the norm is 0: any eps below the smallest norm."""
    return (nf.lp_norm(x, p, axis=axis, eps=np.finfo(x.dtype).tiny),)


def mean_variance_normalization(x, *, axes):
    return (nf.mean_variance_norm(x, axis=tuple(axes)),)


def dropout(x, ratio=0.5, training_mode=False, *, seed=0):
    """The mask of the cases is that of NumPy's legacy generator; before opset 12 the ratio is an attribute and there is no training."""
    p = float(ratio) if training_mode else 0.0
    keep = np.random.RandomState(seed).uniform(0, 1, x.shape) >= p
    y, mask = nf.dropout_forward(x, p, mask=keep)
    return y, mask.toarray()


OPERATORS = {
    "BatchNormalization": batch_normalization, "LayerNormalization": layer_normalization, "RMSNormalization": rms_normalization,
    "GroupNormalization": group_normalization, "InstanceNormalization": instance_normalization, "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization, "Dropout": dropout,
}  # fmt: skip


def collected():
    """The cases of the operators. Those named expanded spell the same data out in other operators, which are not normfast's."""
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # their reference formulas divide 0 by 0
        from onnx.backend.test.case.node import (  # noqa: F401  (each puts its cases on the list; all modules of the package take 6 s)
            batch_normalization,
            dropout,
            groupnormalization,
            instance_normalization,
            layernormalization,
            lpnormalization,
            meanvariancenormalization,
            rmsnormalization,
        )
    return [case for case in node._NodeTestCases if "_expanded" not in case.name]


CASES = collected()


def attributes_of(case):
    """The attributes of the case's node, with the defaults of its opset."""
    (node,) = case.model.graph.node
    schema = onnx.defs.get_schema(node.op_type, case.model.opset_import[0].version)
    defaults = [attribute.default_value for attribute in schema.attributes.values() if attribute.default_value.name]
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in [*defaults, *node.attribute]}


def test_every_operator_has_its_cases():
    counts = Counter(case.model.graph.node[0].op_type for case in CASES)
    assert set(counts) == set(OPERATORS)
    assert counts.total() >= 65, "the 65 cases of onnx 1.23 were not all collected"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_onnx(engine, case):
    operator = case.model.graph.node[0].op_type
    exact = operator == "Dropout"
    for inputs, expected in case.data_sets:
        outputs = OPERATORS[operator](*inputs, **attributes_of(case))
        for output, value in zip(outputs[: len(expected)], expected, strict=True):
            tolerance = (0, 0) if exact else (case.rtol, case.atol)
            np.testing.assert_allclose(output, value, *tolerance, equal_nan=False, strict=True)

"""normfast.onnx.OPERATORS: ONNX's own node test cases, whole models in its reference evaluator, and what the cases leave out."""

import warnings
from collections import Counter

import numpy as np
import pytest
from operations import BOUNDS
from oracle import agree, exact

import normfast as nf

onnx = pytest.importorskip("onnx", minversion="1.23", reason="the onnx package holds the test cases")

from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from normfast.onnx import OPERATORS  # noqa: E402

NEWEST = onnx.defs.onnx_opset_version()


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


def evaluated(proto, feeds):
    """The outputs of a model or node, all of whose nodes normfast computes."""
    evaluator = ReferenceEvaluator(proto, new_ops=OPERATORS)
    assert all(type(node) in OPERATORS for node in evaluator.rt_nodes_)
    return evaluator.run(None, feeds)


def run(operator, *inputs, opset=NEWEST, outputs=1, **attributes):
    """The outputs of one operator; an input of None is left out."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    node = helper.make_node(operator, names, [f"y{i}" for i in range(outputs)], **attributes)
    feeds = {name: np.asarray(value) for name, value in zip(names, inputs, strict=True) if name}
    infos = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for name, v in feeds.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "test", infos, results)
    return evaluated(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), feeds)


def test_every_operator_has_its_cases():
    counts = Counter(case.model.graph.node[0].op_type for case in CASES)
    assert set(counts) == {operator.__name__ for operator in OPERATORS}
    assert counts.total() >= 65, "the 65 cases of onnx 1.23 were not all collected"


def test_no_norm_of_the_opset_is_missing():
    """LRN divides by a window of neighbouring channels and has no mean, var or norm of its own among normfast's operations."""
    named = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == "" and "Normalization" in schema.name}
    assert named | {"Dropout"} == {operator.__name__ for operator in OPERATORS}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_onnx(engine, case):
    exactly = case.model.graph.node[0].op_type == "Dropout"
    for inputs, expected in case.data_sets:
        names = [value.name for value in case.model.graph.input]
        outputs = evaluated(case.model, dict(zip(names, inputs, strict=True)))
        for output, value in zip(outputs, expected, strict=True):
            tolerance = (0, 0) if exactly else (case.rtol, case.atol)
            np.testing.assert_allclose(output, value, *tolerance, equal_nan=False, strict=True)


@pytest.fixture(params=["float16", "bfloat16", "float32", "float64"])
def any_dtype(request):
    return np.dtype(request.param)  # bfloat16 is known by name once onnx has brought ml_dtypes


def drawn(rng, shape, dtype):
    return (rng.standard_normal(shape) * 2 + 1).astype(dtype)


def test_every_dtype(engine, any_dtype, rng):
    """With scale and bias of x's own dtype, and eps as the attribute holds it, in float32."""
    x, scale, bias, var = (drawn(rng, shape, any_dtype) for shape in ((3, 4, 5, 6), 4, 4, 4))
    var, eps = np.abs(var), float(np.float32(1e-5))
    wide = x.astype(np.longdouble)
    w, b, v = (values.astype(np.longdouble).reshape(4, 1, 1) for values in (scale, bias, var))
    expected = {
        "BatchNormalization": (run("BatchNormalization", x, scale, bias, bias, var), (wide - b) / np.sqrt(v + eps) * w + b),
        "InstanceNormalization": (run("InstanceNormalization", x, scale, bias), exact(x, (2, 3), eps, w, b)[0]),
        "LayerNormalization": (run("LayerNormalization", x, x[0], x[1], axis=1), exact(x, (1, 2, 3), eps, x[0], x[1])[0]),
        "RMSNormalization": (run("RMSNormalization", x, x[0, 0], axis=2), wide / rms(wide, (2, 3), eps) * wide[0, 0]),
        "LpNormalization": (run("LpNormalization", x, axis=1, p=1), wide / np.abs(wide).sum(axis=1, keepdims=True)),
        "MeanVarianceNormalization": (run("MeanVarianceNormalization", x), mean_variance_normalized(x, (0, 2, 3))),
    }
    for name, ((y,), value) in expected.items():
        assert y.dtype == any_dtype
        agree(y, value, name, units=BOUNDS[any_dtype.name])
    (y,) = run("GroupNormalization", x, scale, bias, num_groups=2)
    grouped = exact(x.reshape(3, 2, 60), (2,), eps)[0].reshape(x.shape)
    agree(y, grouped * w + b, "GroupNormalization", units=BOUNDS[any_dtype.name])


def rms(x, axes, eps):
    return np.sqrt((x * x).mean(axis=axes, keepdims=True) + np.longdouble(eps))


def mean_variance_normalized(x, axes):
    """By the function of the operator's schema, in longdouble."""
    wide = x.astype(np.longdouble)
    deviation = wide - wide.mean(axis=axes, keepdims=True)
    return deviation / (np.sqrt((deviation * deviation).mean(axis=axes, keepdims=True)) + np.longdouble(1e-9))


def test_group_norm_has_an_entry_for_each_group_before_opset_21(engine, rng):
    x = drawn(rng, (2, 6, 5), np.float32)
    scale, bias = drawn(rng, 2, np.float32), drawn(rng, 2, np.float32)
    normalized = exact(x.reshape(2, 2, 15), (2,), float(np.float32(1e-5)))[0]
    expected = (normalized * scale[:, None] + bias[:, None]).reshape(x.shape)
    for opset in (18, 20):
        (y,) = run("GroupNormalization", x, scale, bias, opset=opset, num_groups=2)
        agree(y, expected, f"GroupNormalization of opset {opset}")
    with pytest.raises(ValueError, match=r"weight has shape \(2,\): .* needs \(6,\)"):
        run("GroupNormalization", x, scale, bias, opset=21, num_groups=2)


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 14, 15])
def test_batch_norm_at_inference_of_every_opset(engine, opset, rng):
    attributes = {1: {"is_test": 1, "consumed_inputs": [0]}, 6: {"is_test": 1}}.get(opset, {})
    x = drawn(rng, (5, 3, 2), np.float32)
    scale, bias, mean, var = np.abs(drawn(rng, (4, 3), np.float32))
    (y,) = run("BatchNormalization", x, scale, bias, mean, var, opset=opset, epsilon=0.25, **attributes)
    scale, bias, mean, var = (values.astype(np.longdouble)[:, None] for values in (scale, bias, mean, var))
    agree(y, (x - mean) / np.sqrt(var + 0.25) * scale + bias, f"opset {opset}")


def test_batch_norm_of_single_features(engine, rng):
    """spatial=0, up to opset 8: statistics of every position."""
    x, (scale, bias, mean, var) = drawn(rng, (5, 3, 2), np.float64), np.abs(drawn(rng, (4, 3, 2), np.float64))
    (y,) = run("BatchNormalization", x, scale, bias, mean, var, opset=7, spatial=0, epsilon=0.25)
    agree(y, (x.astype(np.longdouble) - mean) / np.sqrt(var.astype(np.longdouble) + 0.25) * scale + bias, "spatial=0")


def test_batch_norm_of_one_axis_has_one_channel(engine, rng):
    x, one = drawn(rng, 9, np.float64), np.ones(1)
    outputs = run("BatchNormalization", x, one, 0 * one, 0 * one, one, outputs=3, training_mode=1, momentum=0.75, epsilon=0.25)
    agree(outputs[0], exact(x, (0,), 0.25)[0], "y")
    agree(outputs[1], x.mean(keepdims=True) / 4, "running mean")
    agree(outputs[2], 0.75 + x.var(keepdims=True) / 4, "running var")


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_running_statistics_keep_their_own_dtype(engine, half, rng):
    x, ones = drawn(rng, (50, 3), half), np.ones(3, half)
    _, mean, var = run("BatchNormalization", x, ones, ones, ones, ones, outputs=3, training_mode=1, momentum=0.5)
    wide = x.astype(np.longdouble)
    assert mean.dtype == var.dtype == half
    agree(mean, (1 + wide.mean(axis=0)) / 2, "running mean", units=0.51)
    agree(var, (1 + wide.var(axis=0)) / 2, "running var", units=0.51)


@pytest.mark.parametrize(("opset", "outputs", "attributes"), [(1, 1, {"consumed_inputs": [0]}), (6, 5, {}), (7, 5, {}), (9, 5, {})])
def test_batch_norm_of_old_opsets_does_not_train(opset, outputs, attributes):
    with pytest.raises(ValueError, match=rf"BatchNormalization-{opset} cannot train here: convert the model to opset 14 or later"):
        run("BatchNormalization", np.ones((4, 3)), *np.ones((4, 3)), opset=opset, outputs=outputs, **attributes)


def test_layer_norm_gives_its_statistics(engine, rng):
    x, scale = drawn(rng, (3, 4, 5), np.float32), np.ones((4, 5), np.float32)
    _, mean, _, rstd = exact(x, (1, 2), 0.25)
    for stash, dtype in ((TensorProto.FLOAT, "float32"), (TensorProto.BFLOAT16, "bfloat16")):
        outputs = run("LayerNormalization", x, scale, outputs=3, axis=-2, epsilon=0.25, stash_type=stash)
        assert [output.dtype.name for output in outputs] == ["float32", dtype, dtype]
        agree(outputs[1], mean.reshape(3, 1, 1), "mean", units=BOUNDS[dtype])
        agree(outputs[2], rstd.reshape(3, 1, 1), "inverse standard deviation", units=BOUNDS[dtype])
    _, mean, _ = run("LayerNormalization", x, scale, None, outputs=3, axis=1)
    assert mean.shape == (3, 1, 1)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 1), (1, 1, 5), (3, 1, 1), (3, 4, 5), (4, 5)])
@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_scale_and_bias_broadcast_to_x(engine, name, shape, axis, rng):
    """Also where they differ from sample to sample."""
    dtype = np.dtype(name)
    x, scale, bias = (drawn(rng, size, dtype) for size in ((3, 4, 5), shape, shape))
    axes = tuple(range(axis, 3))
    wide, w, b = (values.astype(np.longdouble) for values in (x, scale, bias))
    (y,) = run("LayerNormalization", x, scale, bias, axis=axis, epsilon=0.25)
    agree(y, exact(x, axes, 0.25, w, b)[0], "LayerNormalization", units=BOUNDS[dtype.name])
    (y,) = run("RMSNormalization", x, scale, axis=axis, epsilon=0.25)
    agree(y, wide / rms(wide, axes, 0.25) * w, "RMSNormalization", units=BOUNDS[dtype.name])


def test_scale_that_is_larger_than_x_is_refused():
    for shape in ((2, 4), (3, 3, 4)):
        with pytest.raises(ValueError, match=r"broadcast|must be"):
            run("LayerNormalization", np.ones((3, 4)), np.ones(shape))
    with pytest.raises(ValueError, match="axis 2 is out of bounds"):
        run("LayerNormalization", np.ones((3, 4)), np.ones(4), axis=2)


@pytest.mark.parametrize(("x_dtype", "scale_dtype"), [("float16", "float32"), ("float32", "bfloat16"), ("bfloat16", "float16")])
def test_rms_norm_has_the_type_of_scale(engine, x_dtype, scale_dtype, rng):
    x, scale = drawn(rng, (3, 8), x_dtype), drawn(rng, 8, scale_dtype)
    (y,) = run("RMSNormalization", x, scale, epsilon=0.25)
    assert y.dtype == scale_dtype
    wide = x.astype(np.longdouble)
    agree(y, wide / rms(wide, (1,), 0.25) * scale.astype(np.longdouble), "y", units=BOUNDS[y.dtype.name])


@pytest.mark.parametrize("spread", [0.0, 1e-10, 1e-9, 1e-5, 1.0, 1e5])
@pytest.mark.parametrize("axes", [[0, 2, 3], [-1], [0, 1, 2, 3]])
def test_mean_variance_norm_adds_its_eps_to_the_deviation(engine, spread, axes, rng):
    x = rng.standard_normal((3, 4, 5, 6)) * spread
    (y,) = run("MeanVarianceNormalization", x, axes=axes)
    expected = mean_variance_normalized(x, tuple(axes))
    agree(y, expected, f"spread {spread}", units=BOUNDS[y.dtype.name], scale=max(1.0, float(np.abs(expected).max())))


def test_lp_norm_of_zeros_is_zero(engine):
    for p in (1, 2):
        (y,) = run("LpNormalization", np.array([[0.0, 0.0], [4.0, -1e-300], [1e-200, 0.0]]), p=p)
        assert y.tolist() == [[0, 0], [1, -1e-300 / 4], [1, 0]]


@pytest.mark.parametrize("opset", [12, 13, 22])
def test_dropout_with_a_seed_is_that_of_the_reference(engine, opset, any_dtype, rng):
    x = drawn(rng, (20, 30), any_dtype)
    node = helper.make_node("Dropout", ["x", "p", "training"], ["y", "mask"], seed=7)
    feeds = {"x": x, "p": np.float32(0.25), "training": np.array(True)}
    y, mask = run("Dropout", *feeds.values(), opset=opset, outputs=2, seed=7)
    _, kept = ReferenceEvaluator(node).run(None, feeds)
    assert mask.dtype == bool
    assert (mask == kept).all()
    agree(y, np.where(kept, x.astype(np.longdouble) / 0.75, 0), "y", units=BOUNDS[any_dtype.name])


def test_dropout_without_a_seed_draws_anew(engine):
    x = np.ones(10_000, np.float32)
    (y, mask), (other, _) = (run("Dropout", x, np.array(0.25), np.array(True), outputs=2) for _ in range(2))
    assert (y == np.where(mask, np.float32(1 / 0.75), 0)).all()
    assert (y != other).any()
    assert abs(mask.mean() - 0.75) < 0.03  # 7 standard deviations
    assert (run("Dropout", x, None, np.array(True))[0] == 2).mean() == pytest.approx(0.5, abs=0.04)  # ratio 0.5 where there is none


@pytest.mark.parametrize(
    ("opset", "attributes"), [(1, {"is_test": 1}), (6, {"is_test": 1}), (7, {}), (10, {}), (12, {}), (13, {}), (22, {})]
)
def test_dropout_at_inference_of_every_opset(opset, attributes):
    x = np.array([1.0, np.nan, np.inf])
    y, mask = run("Dropout", x, opset=opset, outputs=2, **attributes)
    assert y.tobytes() == x.tobytes()
    assert y is not x
    assert mask.dtype == (float if opset < 10 else bool)
    assert mask.all()


def test_dropout_of_opset_6_trains_unless_told(engine):
    y, mask = run("Dropout", np.ones(1000), opset=6, outputs=2, ratio=0.75)
    assert set(y) == {0, 4}
    assert mask.dtype == float
    assert ((y == 4) == mask).all()


def test_attributes_have_the_defaults_of_the_model(engine):
    """A node names its output and x alone."""
    x = np.arange(6.0).reshape(2, 3)
    assert (run("LpNormalization", x)[0] == nf.lp_norm(x, 2, axis=-1)).all()
    assert (run("LayerNormalization", x, np.ones(3))[0] == nf.layer_norm(x, eps=float(np.float32(1e-5)))).all()


def test_empty_arrays(engine):
    x, four = np.ones((0, 4, 3), np.float32), np.ones(4, np.float32)
    assert run("LayerNormalization", x, np.ones(3, np.float32))[0].shape == x.shape
    assert run("RMSNormalization", x, np.ones((1, 1, 3), np.float32))[0].shape == x.shape
    assert run("InstanceNormalization", x, four, four)[0].shape == x.shape
    assert run("BatchNormalization", x, *[four] * 4)[0].shape == x.shape
    assert run("GroupNormalization", x, four, four, num_groups=2)[0].shape == x.shape
    assert run("Dropout", x, np.array(0.5), np.array(True))[0].shape == x.shape

"""normfast.onnx.export: what ONNX Runtime and ONNX's own evaluator make of the file is what the model gives at inference."""

import doctest
import io
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NAMED, model, shaken
from operations import BOUNDS
from oracle import agree, exact

from normfast.layers import (
    Activation,
    AlphaDropout,
    BatchNorm,
    Dense,
    Dropout,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
    Sequential,
)

onnx = pytest.importorskip("onnx", minversion="1.23", reason="onnx, which writes the files, is not installed, or too old for these tests")
pytest.importorskip("ml_dtypes", reason="bfloat16 comes with ml_dtypes")

from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx.reference.op_run import OpRun  # noqa: E402

from normfast.onnx import OPERATORS, export  # noqa: E402

UNITS = {name: 2 * bound for name, bound in BOUNDS.items()}  # either side may have that error


class Erf(OpRun):
    """That of ONNX's evaluator rounds to float32."""

    op_domain = ""

    def _run(self, x):
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


def by_reference(proto):
    evaluator = ReferenceEvaluator(proto, new_ops=[*OPERATORS, Erf])

    def run(x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # infinity minus infinity, exp(-z) of silu, means of nothing
            return evaluator.run(["y"], {"x": x})[0]

    return run


def by_runtime(proto):
    """ONNX Runtime on one CPU. NumPy has no bfloat16 to hand it, so those go in and out as their bits."""
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime, which runs the files, is not installed")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # it warns of sizes that an empty batch makes 0
    session = runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(x):
        if x.dtype.name != "bfloat16":
            return session.run(["y"], {"x": x})[0]
        given = runtime.OrtValue.ortvalue_from_numpy_with_onnx_type(x.view(np.uint16), onnx.TensorProto.BFLOAT16)
        taken = np.empty((len(x), *session.get_outputs()[0].shape[1:]), np.uint16)
        result = runtime.OrtValue.ortvalue_from_numpy_with_onnx_type(taken, onnx.TensorProto.BFLOAT16)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", given)
        binding.bind_ortvalue_output("y", result)
        session.run_with_iobinding(binding)
        return taken.view(x.dtype)

    return run


@pytest.fixture(params=[by_runtime, by_reference], ids=["onnxruntime", "reference"])
def runner(request):
    return request.param


@pytest.fixture(params=["float16", "bfloat16", "float32", "float64"])
def any_dtype(request):
    return np.dtype(request.param)


def check(net, x, runner, *, units=None, **options):
    """Export the net for x with an open batch axis; the runner gives what the net gives."""
    proto = export(net, None, input_shape=(None, *x.shape[1:]), dtype=x.dtype, **options)
    expected, actual = net.eval()(x), runner(proto)(x)
    assert actual.dtype == expected.dtype
    agree(actual, expected.astype(np.longdouble), [node.op_type for node in proto.graph.node], units=units or UNITS[x.dtype.name])
    return proto


def moved(net, rng):
    """The net with parameters, and running statistics, that are neither 0 nor 1."""
    for layer in (layer for _, layer in net.named_modules() if getattr(layer, "running_mean", None) is not None):
        layer.running_mean[...] = rng.standard_normal(layer.running_mean.shape)
        layer.running_var[...] = rng.uniform(0.5, 2, layer.running_var.shape)
    return shaken(net, rng)


IMAGES = {
    "batch": lambda: BatchNorm(4),
    "batch, silu": lambda: BatchNorm(4, activation="silu"),
    "batch, NHWC": lambda: BatchNorm(6, axis=-1),
    "batch, middle axis, plain": lambda: BatchNorm(5, axis=2, affine=False),
    "group": lambda: GroupNorm(2, 4),
    "group, NHWC": lambda: GroupNorm(3, 6, axis=-1),
    "group, plain": lambda: GroupNorm(1, 4, affine=False),
    "instance": lambda: InstanceNorm(4, affine=True),
    "instance, middle axis": lambda: InstanceNorm(5, axis=2),
    "instance, tracked": lambda: InstanceNorm(4, affine=True, track_running_stats=True),
    "layer": lambda: LayerNorm(6),
    "layer, three axes": lambda: LayerNorm((4, 5, 6)),
    "layer, no bias": lambda: LayerNorm((5, 6), bias=False),
    "layer, plain": lambda: LayerNorm((5, 6), elementwise_affine=False),
    "rms": lambda: RMSNorm(6),
    "rms, two axes": lambda: RMSNorm((5, 6)),
    "rms, plain": lambda: RMSNorm(6, elementwise_affine=False),
    "dropouts": lambda: Sequential(Dropout(), AlphaDropout()),
    "nothing": lambda: Sequential(),
}


@pytest.mark.parametrize("name", IMAGES)
def test_norms_of_images(runner, any_dtype, name, rng):
    x = (rng.standard_normal((3, 4, 5, 6)) * 2 + 1).astype(any_dtype)
    check(moved(IMAGES[name](), rng), x, runner)


@pytest.mark.parametrize("name", NAMED)
def test_activations(runner, any_dtype, name, rng):
    if name == "gelu" and any_dtype == np.float64 and runner is by_runtime:
        pytest.skip("ONNX Runtime has no Erf for float64")
    x = (rng.standard_normal((50, 9)) * 4).astype(any_dtype)
    x[0, :3] = 0, 80, -80
    check(Activation(name), x, runner)


@pytest.mark.parametrize("norm", [None, "batch", "layer", "rms", pytest.param(GroupNorm(3, 9, eps=0.5), id="group")])
def test_dense(runner, any_dtype, norm, rng):
    x = rng.standard_normal((5, 6)).astype(any_dtype)
    for dtype in (any_dtype, np.dtype(np.float32)):
        net = moved(Dense(6, 9, norm=norm, activation="relu", dropout=0.5, dtype=dtype, rng=1), rng)
        check(net, x, runner, units=10)  # a weighted sum of six and its norm


def test_dense_of_more_axes(runner, rng):
    x = rng.standard_normal((2, 3, 6)).astype(np.float32)
    check(moved(Dense(6, 9, norm="batch", bias=False), rng), x, runner)
    check(moved(Dense(6, 9, norm=BatchNorm(9, axis=-1, activation="tanh"), activation="relu"), rng), x, runner)


def test_float32_through_float64_layers(runner, rng):
    x = rng.standard_normal((5, 6)).astype(np.float32)
    proto = check(moved(model(np.float64), rng), x, runner, units=100)  # the y of three norms, in float64
    assert proto.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE


@st.composite
def networks(draw):
    """Nested models of (batch, features); the large eps of their norms keeps errors from growing through small variances."""
    dtype, rng = draw(st.sampled_from([np.float32, np.float64])), draw(st.integers(0, 2**32 - 1))
    names = [name for name in (*NAMED, None) if name != "gelu" or dtype == np.float32]  # no Erf for float64 in ONNX Runtime
    options = {"eps": 0.5, "dtype": dtype}

    def norm(size):
        kinds = [BatchNorm, LayerNorm, RMSNorm, lambda n, **k: GroupNorm(1, n, **k), lambda n, **k: InstanceNorm(n, affine=True, **k)]
        return draw(st.sampled_from(kinds))(size, **options)

    def layers(size, depth):
        chosen = []
        for kind in draw(st.lists(st.sampled_from(["dense", "norm", "activation", "dropout", "inner"]), max_size=4)):
            if kind == "dense":
                wide = draw(st.integers(1, 9))
                inner = draw(st.booleans()) and norm(wide)
                more = {"norm": inner or None, "activation": draw(st.sampled_from(names)), "bias": draw(st.booleans())}
                chosen.append(Dense(size, wide, dropout=draw(st.sampled_from([0.0, 0.5])), dtype=dtype, rng=rng, **more))
                size = wide
            elif kind == "inner" and depth < 3:
                inner, size = layers(size, depth + 1)
                chosen.append(inner)
            elif kind == "norm":
                chosen.append(norm(size))
            else:
                chosen.append(Activation(draw(st.sampled_from(names))) if kind == "activation" else Dropout(rng=0))
        return Sequential(*chosen), size

    size = draw(st.integers(1, 9))
    x = np.random.default_rng(rng).standard_normal((draw(st.integers(1, 5)), size)).astype(dtype)
    return layers(size, 0)[0], x


@settings(max_examples=60, deadline=None)
@given(networks())
def test_any_nested_model(drawn):
    """Each layer adds a few eps; sixteen layers of nine features stay below 200."""
    net, x = drawn
    net = moved(net, np.random.default_rng(x.size))
    for runner in (by_runtime, by_reference):
        check(net, x, runner, units=200)


@pytest.mark.parametrize("layer", [LayerNorm(64), GroupNorm(2, 64), BatchNorm(64)], ids=lambda layer: type(layer).__name__)
def test_a_large_mean_does_not_cancel(runner, layer, rng):
    """ONNX Runtime's own LayerNormalization is wrong by 6,000 eps here, its GroupNormalization is NaN."""
    x = (rng.standard_normal((9, 64)) + 1e5).astype(np.float32)
    if isinstance(layer, BatchNorm):
        layer = BatchNorm(64, dtype=np.float64)
        layer.running_mean[...], layer.running_var[...] = x.astype(float).mean(axis=0), x.astype(float).var(axis=0)
        expected = exact(x, (0,))[0]
    else:
        expected = exact(x.reshape(9, -1, 64 // getattr(layer, "num_groups", 1)), (2,))[0].reshape(x.shape)
    y = runner(export(layer, None, input_shape=(None, 64), dtype=np.float32))(x)
    agree(y, expected, type(layer).__name__, units=10)


def test_nan_stays_in_its_row(runner, rng):
    net = moved(Sequential(LayerNorm(6), Dense(6, 4, norm="rms", activation="sigmoid")), rng)
    x = rng.standard_normal((4, 6)).astype(np.float32)
    x[1, 2], x[2, 3] = np.nan, np.inf
    y = runner(export(net, None))(x)
    assert (np.isnan(y).any(axis=1) == [False, True, True, False]).all()
    agree(y[[0, 3]], net.eval()(x)[[0, 3]].astype(np.longdouble), "the other rows", units=10)


@pytest.mark.parametrize("name", IMAGES)
def test_empty_batches(runner, name):
    proto = export(IMAGES[name](), None, input_shape=(None, 4, 5, 6))
    assert runner(proto)(np.ones((0, 4, 5, 6), np.float32)).shape == (0, 4, 5, 6)


@pytest.mark.parametrize("name", ["batch", "group", "instance"])
def test_empty_spaces(runner, name):
    run = runner(export(IMAGES[name](), None, input_shape=(None, 4, None, None)))
    for shape in ((2, 4, 0, 6), (2, 4, 5, 0), (0, 4, 0, 0)):
        assert run(np.ones(shape, np.float32)).shape == shape


def test_any_batch_and_any_space(runner, rng):
    """One file for every size of the axes that were left open."""
    net = moved(Sequential(BatchNorm(4), GroupNorm(2, 4), InstanceNorm(4, affine=True), Activation("relu")), rng).eval()
    proto = export(net, None, input_shape=(None, 4, None, None))
    (x,) = proto.graph.input
    assert [dim.dim_param or dim.dim_value for dim in x.type.tensor_type.shape.dim] == ["batch", 4, "size_2", "size_3"]
    run = runner(proto)
    for shape in ((1, 4, 3, 3), (5, 4, 1, 7), (2, 4, 8, 2)):
        x = rng.standard_normal(shape).astype(np.float32)
        agree(run(x), net(x).astype(np.longdouble), str(shape), units=10)


def test_the_shape_follows_from_the_first_layer_with_features():
    for net, shape in (
        (Sequential(Dropout(), Activation("relu"), Sequential(Dense(6, 2))), ["batch", 6]),
        (LayerNorm((3, 4)), ["batch", 3, 4]),
        (Sequential(RMSNorm(5), BatchNorm(5)), ["batch", 5]),
    ):
        (x,) = export(net, None).graph.input
        assert [dim.dim_param or dim.dim_value for dim in x.type.tensor_type.shape.dim] == shape


def test_the_file(tmp_path):
    """What is returned is what is written: standard operators, named as the layers, in a version that older runtimes read."""
    net = Sequential(Dense(4, 8, norm="layer"), Sequential(Dense(8, 2)))
    path = tmp_path / "net.onnx"
    proto = export(net, path)
    written = onnx.load(path)
    assert written == proto == onnx.load_from_string(bytes(proto.SerializeToString()))
    buffer = io.BytesIO()
    export(net, buffer)
    assert buffer.getvalue() == path.read_bytes()
    onnx.checker.check_model(str(path), full_check=True)
    assert (proto.opset_import[0].version, proto.ir_version, proto.producer_name) == (18, 8, "normfast")
    assert {node.domain for node in proto.graph.node} == {""}
    names = [tensor.name for tensor in proto.graph.initializer]
    assert {"0.weight", "0.bias", "0.norm.weight", "0.norm.bias", "1.0.weight", "1.0.bias"} <= set(names)
    assert len(set(names)) == len(names)
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["x", "y"]


def test_16_bit_weights_are_stored_as_such():
    for name, code in (("float16", onnx.TensorProto.FLOAT16), ("bfloat16", onnx.TensorProto.BFLOAT16)):
        proto = export(Dense(100, 50, dtype=np.dtype(name)), None)
        assert [tensor.data_type for tensor in proto.graph.initializer if tensor.name == "weight"] == [code]
        assert proto.graph.input[0].type.tensor_type.elem_type == code


def test_the_model_is_left_alone(rng):
    net = moved(model(), rng).train()
    before = net.state_dict()
    proto = export(net, None)
    assert net.training
    assert all((before[name] == array).all() for name, array in net.state_dict().items())
    net.layers[0].weight.data[...] = 0
    assert by_reference(proto)(np.ones((1, 6))).any()


@pytest.mark.parametrize("opset", range(18, onnx.defs.onnx_opset_version() + 1))
def test_every_opset(opset, rng):
    """The same graph is right in all of them."""
    net = moved(Sequential(Dense(6, 4, norm="layer", activation="softplus"), GroupNorm(2, 4, eps=0.5), RMSNorm(4)), rng)
    proto = check(net, rng.standard_normal((3, 6)).astype(np.float32), by_reference, units=20, opset=opset)
    assert proto.opset_import[0].version == opset


class Named(Sequential):
    """A subclass that computes the same."""

    def __init__(self):
        super().__init__(Dense(3, 2))


def test_subclasses_count_by_what_they_compute(rng):
    check(Named(), rng.standard_normal((2, 3)).astype(np.float32), by_reference)


def test_a_channel_without_variance_gives_the_bias(runner):
    layer = BatchNorm(4, eps=0.0)
    layer.running_var[...] = 0
    layer.bias.data[...] = range(4)
    x = np.full((2, 4), 7, np.float32)
    assert (runner(export(layer, None, input_shape=(None, 4)))(x) == layer.eval()(x)).all()


def test_the_page(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime, which the page runs, is not installed")
    monkeypatch.chdir(tmp_path)  # it writes net.onnx
    page = Path(__file__).parent.parent / "docs" / "onnx.md"
    assert doctest.testfile(str(page), module_relative=False).failed == 0


def test_onnx_is_asked_for_in_one_line():
    code = "import sys, normfast; assert 'onnx' not in sys.modules; sys.modules['onnx'] = None; import normfast.onnx"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: normfast.onnx needs onnx: pip install 'normfast[onnx]'"

"""normfast.onnx.export: what it refuses, in one line and before anything is written."""

import numpy as np
import pytest
from networks import SQUARE

from normfast.layers import Activation, AlphaDropout, BatchNorm, Dense, Dropout, GroupNorm, Layer, LayerNorm, RMSNorm, Sequential

pytest.importorskip("onnx", reason="onnx, which writes the files, is not installed")

from normfast.onnx import export


class Doubled(Dense):
    """A subclass that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


def negative():
    layer = BatchNorm(4)
    layer.running_var[1] = -1
    return layer


CASES = [
    (lambda: export(Activation(SQUARE), None, input_shape=(None, 2)), TypeError, "cannot export the Activation with functions of your own"),
    (lambda: export(Dense(3, 2, activation=SQUARE), None), TypeError, r"cannot export layer function \(Activation\) with functions"),
    (
        lambda: export(Sequential(Dense(3, 4, norm="batch", activation=SQUARE)), None),
        TypeError,
        r"layer 0.norm \(BatchNorm\) with",
    ),
    (lambda: export(Dense(3, 4, dropout=Dropout(always_on=True)), None), ValueError, r"layer dropout \(Dropout\) with always_on=True"),
    (lambda: export(Sequential(AlphaDropout(always_on=True), Dense(3, 2)), None), ValueError, r"layer 0 \(AlphaDropout\) with always_on"),
    (lambda: export(Sequential(Dense(3, 2), Doubled(2, 2)), None), TypeError, r"layer 1 \(Doubled\): only Dense, Activation, Dropout"),
    (lambda: export(Layer(), None, input_shape=(2,)), TypeError, "cannot export the Layer: only Dense"),
    (lambda: export(np.tanh, None), TypeError, "model must be a layer of normfast.layers, got ufunc"),
    (lambda: export(BatchNorm(4), None), ValueError, "takes inputs of several shapes: give input_shape"),
    (lambda: export(Activation("relu"), None), ValueError, "takes inputs of several shapes: give input_shape"),
    (lambda: export(LayerNorm(4, elementwise_affine=False), None), ValueError, "takes inputs of several shapes: give input_shape"),
    (lambda: export(Sequential(GroupNorm(1, 4), Dense(4, 2)), None), ValueError, "takes inputs of several shapes: give input_shape"),
    (lambda: export(Dense(3, 2), None, input_shape=(None, 4)), ValueError, r"the Dense: its x has shape \('batch', 4\) and needs \(3,\)"),
    (lambda: export(Dense(3, 2), None, input_shape=(None, None)), ValueError, r"shape \('batch', 'size_1'\) and needs \(3,\)"),
    (lambda: export(Dense(3, 2), None, input_shape=()), ValueError, r"shape \(\) and needs \(3,\)"),
    (lambda: export(Sequential(Dense(3, 2), LayerNorm(4)), None), ValueError, r"layer 1 \(LayerNorm\): its x has shape \('batch', 2\)"),
    (lambda: export(BatchNorm(4), None, input_shape=(None, 3)), ValueError, r"shape \('batch', 3\) and needs \(4,\) along \(1,\)"),
    (lambda: export(BatchNorm(4), None, input_shape=(4,)), ValueError, "axis 1 is out of bounds"),
    (
        lambda: export(GroupNorm(2, 4, affine=False), None, input_shape=(None, 3)),
        ValueError,
        "of 3 channels, cannot be split into 2",
    ),
    (
        lambda: export(GroupNorm(2, 4, affine=False), None, input_shape=(None, None)),
        ValueError,
        "without the number of channels: give",
    ),
    (lambda: export(GroupNorm(2, 4, axis=0), None, input_shape=(4, 3)), ValueError, "axis 0, of 4 channels, cannot be split"),
    (lambda: export(LayerNorm((2, 3), elementwise_affine=False), None, input_shape=(3,)), ValueError, "normalizes 2 axes and its x has"),
    (lambda: export(LayerNorm(3, eps=0), None), ValueError, "with eps=0: equal values would give 0 / 0, give more"),
    (lambda: export(RMSNorm(3, eps=1e-50), None), ValueError, "with eps=1e-50: equal values"),
    (lambda: export(negative(), None, input_shape=(None, 4)), ValueError, "its running_var is -1.0, which must be 0 or more"),
    (lambda: export(Dense(3, 2), None, input_shape=(None, -3)), ValueError, "input_shape must hold sizes, or None for any size, got -3"),
    (lambda: export(Dense(3, 2), None, input_shape=(True, 3)), ValueError, "got True"),
    (lambda: export(Dense(3, 2), None, input_shape=("n", 3)), ValueError, "got 'n'"),
    (lambda: export(Dense(3, 2), None, input_shape=3), TypeError, "input_shape must be a tuple of sizes, .* got int"),
    (lambda: export(Dense(3, 2), None, dtype=int), TypeError, "dtype must be float16, bfloat16, float32 or float64, got int64"),
    (lambda: export(Dense(3, 2), None, opset=17), ValueError, "opset must be an integer from 18 to .*, got 17"),
    (lambda: export(Dense(3, 2), None, opset=1000), ValueError, "opset must be an integer from 18 to .*, got 1000"),
    (lambda: export(Dense(3, 2), None, opset="18"), ValueError, "opset must be an integer from 18 to .*, got '18'"),
]


@pytest.mark.parametrize(("call", "error", "message"), CASES, ids=[message for _, _, message in CASES])
def test_errors(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_nothing_is_written_when_it_fails(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(ValueError, match="cannot export"):
        export(Sequential(Dense(3, 2), Dense(3, 2)), path)
    assert not path.exists()

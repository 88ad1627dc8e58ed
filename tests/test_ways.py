"""Which loops of the engine a call takes. A detour gives the same result, only later, so no other test would see it."""

import numpy as np
import pytest

import normfast as nf
from normfast import engines

RNG = np.random.default_rng(0)
X, IMAGES = RNG.standard_normal((4, 8, 32), np.float32), RNG.standard_normal((4, 8, 16, 16), np.float32)
NHWC, HALVES, FLAGS = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1)), X.astype(np.float16), np.ones((4, 8, 1), bool)
WIDE = RNG.standard_normal((8, 16, 16, 16), np.float32).astype(np.float16)
COLUMNS = np.ones((512, 1024), np.float16)
ONES = np.ones(32, np.float32)
LAYER, BATCH, GROUP = nf.layer_norm_forward(X)[1], nf.batch_norm_forward(IMAGES)[1], nf.group_norm_forward(IMAGES, 2)[1]
_, SUM, STATS = nf.add_layer_norm_forward(X, X)
MASK = nf.dropout_forward(X, 0.3, rng=0)[1]
IN_TWO_STEPS = ["scaled_moments", "batch_norm"]

WAYS = {
    "layer norm": (lambda: nf.layer_norm(X, ONES, ONES), ["layer_norm_at_once"]),
    "layer norm, 16 bits": (lambda: nf.layer_norm(HALVES, ONES, ONES), ["layer_norm_at_once"]),
    "layer norm, where": (lambda: nf.layer_norm(X, where=FLAGS), IN_TWO_STEPS),
    "layer norm's gradient": (lambda: nf.layer_norm_backward(X, X, LAYER, ONES), ["layer_norm_gradients_at_once"]),
    "rms norm": (lambda: nf.rms_norm(X), ["layer_norm_at_once"]),
    "batch norm": (lambda: nf.batch_norm_forward(IMAGES), ["batch_norm_forward"]),
    "batch norm, 16 bits": (lambda: nf.batch_norm_forward(WIDE), ["batch_norm_forward"]),
    "group norm, 16 bits": (lambda: nf.group_norm(WIDE, 2), ["group_norm_at_once"]),
    "batch norm, short runs of 16 bits": (lambda: nf.batch_norm_forward(WIDE[:, :, :4, :4]), ["widen", "batch_norm_forward", "narrow"]),
    "batch norm, many 16-bit columns": (lambda: nf.batch_norm_forward(COLUMNS), ["widen", "batch_norm_forward", "narrow"] * 2),
    "batch norm, relu": (lambda: nf.batch_norm_forward(IMAGES, activation="relu"), ["batch_norm_forward"]),
    "batch norm, own activation": (lambda: nf.batch_norm_forward(IMAGES, activation=(np.abs, np.sign)), ["batch_norm_forward"]),
    "batch norm, NHWC": (lambda: nf.batch_norm_forward(NHWC, axis=-1), ["batch_norm_forward"]),
    "batch norm, L1": (lambda: nf.batch_norm_forward(IMAGES, ord=1), ["scaled_moments", "absolute_deviations", "batch_norm"]),
    "batch norm, where": (lambda: nf.batch_norm_forward(X, where=FLAGS), IN_TWO_STEPS),
    "batch norm's inference": (lambda: nf.batch_norm(IMAGES, BATCH.mean, BATCH.var), ["batch_norm_at_once"]),
    "batch norm's gradient": (lambda: nf.batch_norm_backward(IMAGES, IMAGES, BATCH), ["batch_norm_backward"]),
    "group norm": (lambda: nf.group_norm(IMAGES, 2), ["group_norm_at_once"]),
    "group norm, NHWC": (lambda: nf.group_norm(NHWC, 2, axis=-1), IN_TWO_STEPS),
    "group norm of many short runs": (lambda: nf.group_norm(np.ones((9, 2048, 2, 2)), 2), IN_TWO_STEPS),
    "group norm of strides": (lambda: nf.group_norm(IMAGES[:, :, :, ::2], 2), ["group_norm_forward"]),
    "group norm's gradient": (lambda: nf.group_norm_backward(IMAGES, IMAGES, GROUP, num_groups=2), ["group_norm_gradients_at_once"]),
    "instance norm": (lambda: nf.instance_norm(IMAGES), ["group_norm_at_once"]),
    "mean-variance norm": (lambda: nf.mean_variance_norm(IMAGES), ["batch_norm_forward"]),
    "lp norm": (lambda: nf.lp_norm(X), ["lp_norm_forward"]),
    "dropout": (lambda: nf.dropout(X, 0.3, rng=0), ["dropout_at_once"]),
    "dropout of a later part": (lambda: nf.dropout(X, 0.3, rng=0, offset=5), ["dropout"]),
    "dropout of nothing": (lambda: nf.dropout(X, 0.0, rng=0), []),
    "dropout of everything": (lambda: nf.dropout(X, 1.0, rng=0), []),
    "dropout's gradient": (lambda: nf.dropout_backward(X, MASK), ["dropout_at_once"]),
    "sum and norm": (lambda: nf.add_layer_norm(X, X), ["add_norm_at_once"]),
    "dropout, sum and norm": (lambda: nf.dropout_add_rms_norm(X, X, p=0.3, rng=0), ["add_norm_at_once"]),
    "the gradient of sum and norm": (lambda: nf.add_layer_norm_backward(X, SUM, STATS, ONES), ["add_norm_gradients_at_once"]),
    "bias, activation and dropout": (lambda: nf.bias_activation_dropout(X, ONES, p=0.3, rng=0), ["bias_activation"]),
    "moments": (lambda: nf.moments(X, 0), ["moments"]),
    "moments, where": (lambda: nf.moments(X, 0, where=X > 0), ["scaled_moments"]),
    "activation": (lambda: nf.activation(X, "gelu"), ["activate"]),
}


class Recorder:
    """An engine, and the names of its loops that were called and gave a result: those that decline a call give None."""

    def __init__(self, engine):
        self.engine, self.names = engine, []

    def __getattr__(self, name):
        loop = getattr(self.engine, name)

        def call(*arguments, **options):
            result = loop(*arguments, **options)
            if result is not None or not name.endswith("_at_once"):
                self.names.append(name)
            return result

        return call if callable(loop) else loop


@pytest.mark.parametrize("name", WAYS)
def test_way(name, monkeypatch):
    try:
        recorder = Recorder(engines.load("cython"))
    except ImportError as error:
        pytest.skip(f"the cython engine is not installed here: {error}")
    monkeypatch.setattr(engines, "current", lambda: recorder)
    call, names = WAYS[name]
    call()
    assert recorder.names == names

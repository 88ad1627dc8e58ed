"""Empty arrays, one value, a batch of one, no channels: defined results for every norm, in every dtype."""

import numpy as np
import pytest
from oracle import agree

import normfast as nf

NORMS = {
    "layer": (nf.layer_norm_forward, nf.layer_norm_backward, {}),
    "layer axis 0": (nf.layer_norm_forward, nf.layer_norm_backward, {"axis": 0}),
    "rms": (nf.rms_norm_forward, nf.rms_norm_backward, {}),
    "batch": (nf.batch_norm_forward, nf.batch_norm_backward, {}),
    "batch relu": (nf.batch_norm_forward, nf.batch_norm_backward, {"activation": "relu"}),
    "batch L1": (nf.batch_norm_forward, nf.batch_norm_backward, {"ord": 1}),
    "batch Linf": (nf.batch_norm_forward, nf.batch_norm_backward, {"ord": np.inf}),
    "group": (
        lambda x, **k: nf.group_norm_forward(x, 1, **k),
        lambda *a, **k: nf.group_norm_backward(*a, num_groups=1, **k),
        {},
    ),
    "instance": (nf.instance_norm_forward, nf.instance_norm_backward, {}),
    "mean variance": (nf.mean_variance_norm_forward, nf.mean_variance_norm_backward, {"axis": -1}),
    "lp": (nf.lp_norm_forward, nf.lp_norm_backward, {}),
}
SHAPES = [(0, 4), (4, 0), (0, 0), (2, 0, 3), (0, 3, 2), (2, 3, 0)]


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_empty_arrays(engine, name, shape):
    forward, backward, options = NORMS[name]
    for dtype in (np.float16, np.float32, np.float64):
        x = np.empty(shape, dtype)
        y, stats = forward(x, **options)
        assert (y.shape, y.dtype) == (shape, x.dtype)
        gradients = backward(x, x, stats, **options)
        assert (gradients.dx.shape, gradients.dx.dtype) == (shape, x.dtype)
        for values in gradients[1:]:
            assert (values == 0).all()
        for values in stats[:3] if isinstance(stats, tuple) else ():
            assert values is None or np.isnan(values).all()
        assert forward(x, out=y, **options)[0] is y
        assert backward(x, x, stats, out=y, **options).dx is y


@pytest.mark.parametrize("name", [name for name in NORMS if name not in ("rms", "lp")])
@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_one_value_gives_zero(engine, dtype, name, eps):
    """One value per statistic: its deviation is 0, y is 0 (plus bias), dx is 0."""
    forward, backward, options = NORMS[name]
    x = np.array([[2.5]], dtype)
    y, stats = forward(x, eps=eps, **options)
    assert y == 0
    assert stats.mean == 2.5
    assert stats.var == 0
    gradients = backward(np.full_like(x, 1.7), x, stats, **options)
    assert gradients.dx == 0
    assert np.isfinite(gradients.dx).all()


def test_one_value_of_rms_and_lp(engine, dtype):
    x = np.array([[-3.0], [0.0]], dtype)
    assert nf.rms_norm(x, eps=0).tolist() == [[-1], [0]]
    for ord in (0.5, 1, 2, 3, np.inf, -np.inf, -1):
        assert nf.lp_norm(x, ord, eps=0).tolist() == [[-1], [0]]
        _, saved = nf.lp_norm_forward(x, ord)
        assert abs(nf.lp_norm_backward(np.ones_like(x), x, saved, ord=ord).dx[0]) < np.finfo(dtype).eps


def test_a_batch_of_one_with_more_values(engine, dtype, rng):
    x = rng.standard_normal((1, 3, 4, 5)).astype(dtype)
    y, _ = nf.batch_norm_forward(x)
    agree(y, nf.instance_norm(x), "instance norm", units=4)
    agree(y, nf.group_norm(x, 3), "group norm", units=4)


@pytest.mark.parametrize("name", NORMS)
def test_nan_and_inf_stay_where_they_are(engine, dtype, name, rng):
    """A bad value spoils its own statistic and no other, forward and backward."""
    forward, backward, options = NORMS[name]
    x, dy = rng.standard_normal((2, 6, 4, 5)).astype(dtype)
    options = {"axis": (0, 2)} if name == "mean variance" else options
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = x.copy()
        spoilt[2, 1, 3] = bad
        y, stats = forward(spoilt, **options)
        clean_y, clean = forward(x, **options)
        dx, clean_dx = backward(dy, spoilt, stats, **options).dx, backward(dy, x, clean, **options).dx
        own = np.zeros(x.shape, bool)
        index = {
            "layer": np.s_[2, 1], "layer axis 0": np.s_[:, 1, 3], "rms": np.s_[2, 1], "lp": np.s_[2, 1], "group": np.s_[2],
            "instance": np.s_[2, 1],
        }.get(name, np.s_[:, 1])  # fmt: skip
        own[index] = True
        assert (y[~own] == clean_y[~own]).all()
        assert (dx[~own] == clean_dx[~own]).all()
        if name not in ("rms", "lp") or np.isnan(bad):
            assert np.isnan(y[own]).all() or name == "batch relu"

"""`where`: masked values take no part, forward and backward, whatever they hold; lengths of padded sequences."""

import numpy as np
import pytest
from oracle import agree, exact

import normfast as nf

# operation, its backward, axes of the statistics and of the parameters in a 4-D array (groups: as (n, g, c, ...))
NORMS = {
    "batch NCHW": ({"axis": 1}, (0, 2, 3), (1,)),
    "batch NHWC": ({"axis": -1}, (0, 1, 2), (3,)),
    "layer last": ({"axis": -1}, (3,), (3,)),
    "layer many": ({"axis": (1, 3)}, (1, 3), (1, 3)),
    "group": ({"axis": 1}, None, (1,)),
}


def trio(name):
    family = name.split()[0]
    forward, backward = getattr(nf, f"{family}_norm_forward"), getattr(nf, f"{family}_norm_backward")
    if family != "group":
        return forward, backward
    return lambda x, *a, **k: forward(x, 2, *a, **k), lambda *a, **k: backward(*a, num_groups=2, **k)


def masked_exact(x, mask, axes, dy, weight):
    """y, dx and the terms of dweight and dbias in longdouble, from the definition, masked values left out."""
    wide, n = np.where(mask, x, 0).astype(np.longdouble), mask.sum(axis=axes, keepdims=True)
    mean = wide.sum(axis=axes, keepdims=True) / n
    d = np.where(mask, wide - mean, 0)
    rstd = 1 / np.sqrt((d * d).sum(axis=axes, keepdims=True) / n + np.longdouble(1e-5))
    xhat, dy = d * rstd, np.where(mask, dy, 0).astype(np.longdouble)
    g = dy * weight
    c1, c2 = (t.sum(axis=axes, keepdims=True) / n for t in (g, g * xhat))
    return np.where(mask, xhat * weight, 0), np.where(mask, rstd * (g - c1 - xhat * c2), 0), dy * xhat, dy


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("garbage", [0.0, np.nan, np.inf, 1e30])
def test_masked_values_take_no_part(engine, dtype, name, garbage, rng):
    options, axes, parameters = NORMS[name]
    forward, backward = trio(name)
    x = (50 + rng.standard_normal((5, 6, 3, 24))).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    mask = rng.random(x.shape) < 0.6
    mask[:, :, :, 0] = mask[:, 0] = True  # no statistic without values
    x[~mask] = dy[~mask] = garbage
    weight = rng.standard_normal([x.shape[a] for a in parameters]).astype(dtype)
    broadcast = weight.reshape([n if a in parameters else 1 for a, n in enumerate(x.shape)])
    before = x.copy(), dy.copy()
    y, stats = forward(x, weight, where=mask, **options)
    gradients = backward(dy, x, stats, weight, where=mask, **options)
    assert np.array_equal(x, before[0], equal_nan=True)
    assert np.array_equal(dy, before[1], equal_nan=True)
    shape, at = x.shape, axes
    if axes is None:
        shape, at = (5, 2, 3, 3, 24), (2, 3, 4)
    arguments = (x, mask, dy, np.broadcast_to(broadcast, x.shape))
    sx, smask, sdy, sweight = (values.reshape(shape) for values in arguments)
    expected = [values.reshape(x.shape) for values in masked_exact(sx, smask, at, sdy, sweight)]
    units = 400 if dtype == np.float64 else 16  # |mean| / std = 50 enters the float64 mean
    agree(y, expected[0], f"y {name}", units=units)
    agree(gradients.dx, expected[1], f"dx {name}", units=4 * units)
    others = tuple(a for a in range(4) if a not in parameters)
    for actual, terms, what in zip(gradients[1:], expected[2:], ("dweight", "dbias"), strict=True):
        agree(actual, terms.sum(axis=others), f"{what} {name}", units=4 * units, scale=float(np.abs(terms).sum(axis=others).max()))
    assert (y[~mask] == 0).all()
    assert (gradients.dx[~mask] == 0).all()
    assert (stats.count == smask.sum(axis=at)).all()
    everything = forward(np.where(mask, x, 1), weight, where=np.ones(1, bool), **options)[0]
    agree(everything, forward(np.where(mask, x, 1), weight, **options)[0].astype(np.longdouble), "a mask of ones", units=64)


def test_what_a_mask_leaves_empty(engine, rng):
    x = rng.standard_normal((4, 3))
    mask = np.ones((4, 3), bool)
    mask[:, 1] = False
    y, stats = nf.batch_norm_forward(x, where=mask)
    assert stats.count.tolist() == [4, 0, 4]
    assert np.isnan(stats.mean[1])
    assert (y[:, 1] == 0).all()
    gradients = nf.batch_norm_backward(np.ones((4, 3)), x, stats, where=mask)
    assert (gradients.dx[:, 1] == 0).all()
    assert gradients.dbias.tolist() == [4, 0, 4]
    assert np.isfinite(gradients.dx).all()


def test_huge_and_tiny_masked_rows(engine, dtype, rng):
    info = np.finfo(dtype)
    for size in (float(info.max) / 2, float(info.tiny) * 4):
        x = (rng.uniform(-1, 1, (5, 90)) * size).astype(dtype)
        mask = np.arange(90) < 60
        y = nf.layer_norm(x, where=mask, eps=0)
        agree(y[:, :60], exact(x[:, :60], (1,), 0)[0], f"rows of {size:g}", units=64, scale=1)


def test_padded_sequences(engine, rng):
    """A padded batch gives what its sequences give without padding."""
    lengths = [5, 1, 7]
    x, dy = rng.standard_normal((2, 3, 7, 4))
    mask = nf.sequence_mask(x.shape, lengths=lengths)
    packed = np.concatenate([x[i, :n] for i, n in enumerate(lengths)])
    packed_dy = np.concatenate([dy[i, :n] for i, n in enumerate(lengths)])
    y, stats = nf.batch_norm_forward(x, axis=-1, where=mask)
    expected, alone = nf.batch_norm_forward(packed)
    agree(np.concatenate([y[i, :n] for i, n in enumerate(lengths)]), expected, "y", units=16)
    dx = nf.batch_norm_backward(dy, x, stats, axis=-1, where=mask).dx
    agree(np.concatenate([dx[i, :n] for i, n in enumerate(lengths)]), nf.batch_norm_backward(packed_dy, packed, alone).dx, "dx", units=64)
    running = np.zeros(4), np.ones(4)
    nf.update_running(*running, stats)
    same = np.zeros(4), np.ones(4)
    nf.update_running(*same, alone)
    agree(running[1], same[1], "running variance", units=16)
    shape = (3, 2, 7, 5)
    assert nf.sequence_mask(shape, lengths=lengths, axis=2).shape == (3, 1, 7, 1)
    assert nf.sequence_mask(shape, lengths=lengths, axis=-2).sum() == 13


@pytest.mark.parametrize("ord", [1, 2, np.inf])
def test_masks_with_other_orders_and_activations(engine, ord, rng):
    """As the values that are left do alone."""
    x, dy = rng.standard_normal((2, 40, 3))
    mask = np.zeros((40, 3), bool)
    mask[:25] = True
    weight, bias = rng.standard_normal((2, 3))
    y, stats = nf.batch_norm_forward(x, weight, bias, ord=ord, where=mask, activation="tanh")
    alone, its = nf.batch_norm_forward(x[:25], weight, bias, ord=ord, activation="tanh")
    agree(y[:25], alone, "y", units=64)
    options = {"bias": bias, "ord": ord, "activation": "tanh"}
    gradients = nf.batch_norm_backward(dy, x, stats, weight, where=mask, **options)
    expected = nf.batch_norm_backward(dy[:25], x[:25], its, weight, **options)
    agree(gradients.dx[:25], expected.dx, "dx", units=256)
    agree(gradients.dweight, expected.dweight, "dweight", units=256, scale=25.0)
    assert (gradients.dx[25:] == 0).all()


def test_errors():
    x = np.zeros((4, 3, 2))
    for call in (nf.layer_norm, nf.batch_norm_forward, lambda x, **k: nf.group_norm(x, 3, **k)):
        with pytest.raises(TypeError, match=r"where must be boolean .* got int64"):
            call(x, where=np.ones((4, 3, 2), int))
        with pytest.raises(ValueError, match=r"where has shape \(5,\), which does not broadcast to \(4, 3, 2\)"):
            call(x, where=np.ones(5, bool))
    with pytest.raises(ValueError, match=r"lengths has shape \(2,\): 4 samples need \(4,\)"):
        nf.sequence_mask(x.shape, lengths=[1, 2])
    with pytest.raises(ValueError, match="between 0 and 3, got 1 to 9"):
        nf.sequence_mask(x.shape, lengths=[1, 2, 3, 9])
    with pytest.raises(TypeError, match="lengths must be integers, got float64"):
        nf.sequence_mask(x.shape, lengths=[1.0, 2, 3, 3])
    with pytest.raises(ValueError, match="axis is 0"):
        nf.sequence_mask(x.shape, lengths=[1, 2, 3, 3], axis=0)

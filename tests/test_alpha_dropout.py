"""Alpha dropout: its formula, its mask, and the mean and variance that it keeps."""

import math

import numpy as np
import pytest
from oracle import agree

import normfast as nf
from normfast.ops.alpha_dropout import alpha_dropout, alpha_dropout_backward, alpha_dropout_forward

SHAPES = [(), (0,), (7,), (64, 1023), (3, 5, 7), (40_000,)]


def expected(x, p, keep):
    """The formula of Klambauer et al., in longdouble: kept or the lowest value of SELU, then a and b."""
    alpha, scale = np.longdouble("1.6732632423543772848170429916717"), np.longdouble("1.0507009873554804934193349852946")
    lowest, q = -alpha * scale, 1 - np.longdouble(p)
    a = (q + lowest**2 * q * (1 - q)) ** np.longdouble(-0.5)
    b = -a * (1 - q) * lowest
    return a * np.where(keep, x.astype(np.longdouble), lowest) + b, np.where(keep, a, 0)


def dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 comes with ml_dtypes")
    return [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def eps_of(dtype):
    return 2.0**-7 if np.dtype(dtype).name == "bfloat16" else float(np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_the_formula(engine, p, shape, rng):
    for dtype in dtypes():
        x, dy = (np.asarray(rng.standard_normal(shape)).astype(dtype) for _ in range(2))
        y, mask = alpha_dropout_forward(x, p, rng=3)
        right, slope = expected(x, p, mask.toarray())
        dx = alpha_dropout_backward(dy, mask)
        assert y.dtype == dx.dtype == dtype
        assert y.shape == dx.shape == shape
        for actual, exact, units in ((y, right, 0.51), (dx, slope * dy.astype(np.longdouble), 1.01)):  # one rounding to dtype, and two
            error = np.abs(actual.astype(np.longdouble) - exact)
            left = 2.0**-50 * (2 + np.abs(x.astype(float)).max(initial=0.0)) + (dtype is np.float16) * 2.0**-24  # float64, subnormals
            assert (error <= units * eps_of(dtype) * np.abs(exact) + left).all()


def test_the_mask_is_that_of_dropout(engine, rng):
    x = rng.standard_normal((50, 70))
    y, mask = alpha_dropout_forward(x, 0.3, rng=5, offset=11)
    other = nf.dropout_forward(x, 0.3, rng=5, offset=11)[1]
    assert (mask.toarray() == other.toarray()).all()
    assert type(mask) is type(other)
    assert (alpha_dropout(x, 0.3, mask=other) == y).all()
    assert (alpha_dropout(x, 0.3, mask=other.toarray()) == y).all()
    shared = nf.dropout_forward(x, 0.3, rng=5, axis=0)[1]
    agree(alpha_dropout(x, 0.3, mask=shared), expected(x, 0.3, shared.toarray())[0], "mask that is shared along an axis")


def test_mean_and_variance_are_kept():
    x = np.random.default_rng(0).standard_normal(1_000_000)
    for p in (0.05, 0.5, 0.9):
        y = alpha_dropout(x, p, rng=1)
        assert abs(y.mean()) < 5 / math.sqrt(x.size)
        assert abs(y.var() - 1) < 5 * math.sqrt(max(((y**2 - 1) ** 2).mean(), 1) / x.size)


def test_the_ends_of_p(rng):
    x = np.array([1.0, -0.0, np.inf, np.nan], np.float32)
    assert alpha_dropout(x, 0.0).tobytes() == x.tobytes()
    for y in (alpha_dropout(x, 1.0), alpha_dropout_backward(x, alpha_dropout_forward(x, 1.0)[1])):
        assert (y == 0).all()
    assert alpha_dropout([2.0, 3.0], 0.0, mask=[True, False]).round(3).tolist() == [2.0, -1.758]
    kept = alpha_dropout(np.full(1000, np.inf), 0.5, rng=0)
    assert set(np.isinf(kept).tolist()) == {True, False}
    assert not np.isnan(kept).any()


def test_out_and_strides(engine, rng):
    x = rng.standard_normal((30, 40)).astype(np.float32)
    y = alpha_dropout(x, 0.4, rng=2)
    out = np.empty_like(x)
    assert alpha_dropout(x, 0.4, rng=2, out=out) is out
    assert (out == y).all()
    strided = np.empty((40, 60), np.float32).T[::2]
    assert alpha_dropout(x, 0.4, rng=2, out=strided) is strided
    assert (strided == y).all()
    turned = np.asfortranarray(x)
    assert (alpha_dropout(turned, 0.4, rng=2) == y).all()
    assert (alpha_dropout(turned, 0.4, rng=2, out=turned) == y).all()
    copy = x.copy()
    assert (alpha_dropout(copy, 0.4, rng=2, out=copy) == y).all()
    run = rng.standard_normal(30_001)
    right = alpha_dropout(run[:-1], 0.4, rng=2)
    assert (alpha_dropout(run[:-1], 0.4, rng=2, out=run[1:]) == right).all()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: alpha_dropout(x, 1.5), ValueError, r"p must lie in \[0, 1\], got 1.5"),
        (lambda x: alpha_dropout(x, "half"), TypeError, "p must be a number"),
        (lambda x: alpha_dropout(np.ones(3, int)), TypeError, "x must be float16, bfloat16, float32 or float64, got int64"),
        (lambda x: alpha_dropout(x, offset=-1), ValueError, "offset must be an integer of 0 or more"),
        (lambda x: alpha_dropout(x, mask=np.ones(3)), TypeError, "mask must be boolean"),
        (lambda x: alpha_dropout(x, mask=np.ones(4, bool)), ValueError, r"x has shape \(3,\) and the mask has \(4,\)"),
        (lambda x: alpha_dropout(x, 0.4, mask=nf.dropout_forward(x, 0.3)[1]), ValueError, "drawn with p=0.3 and p=0.4 is asked for"),
        (lambda x: alpha_dropout(x, out=np.ones(2)), ValueError, r"out has shape \(2,\)"),
        (lambda x: alpha_dropout_backward(x, np.ones(3, bool)), TypeError, "must be the DropoutMask that alpha_dropout_forward returned"),
        (lambda x: alpha_dropout_backward(np.ones(4), alpha_dropout_forward(x)[1]), ValueError, r"dy has shape \(4,\)"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(np.ones(3))


def test_against_pytorch(rng):
    """PyTorch's own constants, by the two values that it gives for an input of 0."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.nn.functional.alpha_dropout(torch.zeros(1000, dtype=torch.float64), 0.3, training=True).unique().numpy()
    agree(np.unique(alpha_dropout(np.zeros(1000), 0.3, rng=0)), theirs, "values for an input of 0")

"""Wrong input raises ValueError or TypeError that says what came and what is needed, and nothing is written."""

import inspect

import numpy as np
import pytest

import normfast as nf

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
LN, BN = nf.layer_norm_forward(X)[1], nf.batch_norm_forward(X)[1]
GN, IN = nf.group_norm_forward(X, 2)[1], nf.instance_norm_forward(X)[1]
MASK = nf.dropout_forward(X, 0.5, rng=0)[1]
LARGER = np.zeros((7, 4), np.float32)
READ_ONLY = np.zeros((6, 4), np.float32)
READ_ONLY.flags.writeable = False
SELF_OVERLAPPING = np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (6, 4), (0, 4), writeable=True)

CASES = [
    # what x may be
    (lambda f: f(X.astype(int)), TypeError, "x must be float16, bfloat16, float32 or float64, got int64"),
    (lambda f: f(X.astype(object)), TypeError, "got dtype object"),
    (lambda f: f(X.astype(complex)), TypeError, "x must be float16, bfloat16, float32 or float64, got complex128"),
    (lambda f: f(np.ma.masked_array(X)), TypeError, "x is a masked array"),
    (lambda f: f("abc"), TypeError, "got dtype <U3"),
    # what out may be
    (lambda f: f(X, out=READ_ONLY), ValueError, "out is read-only"),
    (lambda f: f(X, out=np.full((4, 6), 7, np.float32)), ValueError, r"out has shape \(4, 6\).*it needs \(6, 4\)"),
    (lambda f: f(X, out=np.full((6, 4), 7, np.float64)), ValueError, "dtype float64: it needs .* float32"),
    (lambda f: f(X, out=[1, 2]), TypeError, "out must be a NumPy array, got list"),
    (lambda f: f(X, out=SELF_OVERLAPPING), ValueError, "out overlaps itself"),
]
NORM_CASES = [
    (lambda f: f(X, axis=2), ValueError, "axis 2 is out of bounds for array of dimension 2"),
    (lambda f: f(X, axis=(0, 0)), ValueError, "repeated axis"),
    (lambda f: f(X, axis=1.5), TypeError, "axis must be an integer or a tuple of integers, got 1.5"),
    (lambda f: f(X, axis="1"), TypeError, "axis must be an integer"),
    (lambda f: f(X, np.ones(5, np.float32)), ValueError, r"weight has shape \(5,\): an x of shape \(6, 4\) needs \(4,\)"),
    (lambda f: f(X, np.ones((4, 1), np.float32)), ValueError, r"weight has shape \(4, 1\)"),
    (lambda f: f(X, np.ones(4, int)), TypeError, "weight must be float16, bfloat16, float32 or float64, got int64"),
    (lambda f: f(X, None, np.ones(3, np.float32)), ValueError, r"bias has shape \(3,\)"),
    (lambda f: f(X, eps=-1e-5), ValueError, "eps must be a finite number of 0 or more, got -1e-05"),
    (lambda f: f(X, eps=np.nan), ValueError, "eps must be a finite number"),
    (lambda f: f(X, eps="small"), TypeError, "eps must be a number, got str"),
    (lambda f: f(X, eps="1"), TypeError, "eps must be a number, got str"),
    (lambda f: f(np.float32(1)), ValueError, "out of bounds for array of dimension 0"),
]


def cases(functions, table):
    return [(f, *case) for f in functions for case in table]


def batch_norm(x, weight=None, bias=None, **options):
    return nf.batch_norm(x, BN.mean, BN.var, weight, bias, **options)


def group_norm(x, weight=None, bias=None, **options):
    return nf.group_norm(x, 2, weight, bias, **options)


def activation(x, **options):
    return nf.activation(x, "gelu", **options)


PLAIN = [nf.dropout, nf.dropout_forward, nf.rms_norm, nf.instance_norm, nf.mean_variance_norm, nf.lp_norm, group_norm]
ALL = [
    *cases([nf.layer_norm, nf.layer_norm_forward, batch_norm, nf.batch_norm_forward, *PLAIN], CASES),
    *[
        (activation, call, error, text.replace("x must", "z must").replace("x is", "z is").replace("those of x", "those of x"))
        for call, error, text in CASES
    ],
    *cases([nf.rms_norm, nf.rms_norm_forward], [case for case in NORM_CASES if "bias" not in case[2]]),
    *cases([nf.layer_norm, nf.layer_norm_forward, batch_norm, nf.batch_norm_forward], NORM_CASES),
    *cases(
        [
            lambda dy, **o: nf.layer_norm_backward(dy, X, LN, **o),
            lambda dy, **o: nf.rms_norm_backward(dy, X, LN, **o),
            lambda dy, **o: nf.group_norm_backward(dy, X, GN, num_groups=2, **o),
            lambda dy, **o: nf.instance_norm_backward(dy, X, IN, **o),
            lambda dy, **o: nf.batch_norm_backward(dy, X, BN, **o),
            lambda dy, **o: nf.lp_norm_backward(dy, X, LN.mean, **o),
            lambda dy, **o: nf.mean_variance_norm_backward(dy, X, LN, axis=1, **o),
            lambda dy, **o: nf.dropout_backward(dy, MASK, **o),
            lambda dy, **o: nf.alpha_dropout_backward(dy, MASK, **o),
            lambda dy, **o: nf.activation_backward(dy, X, "gelu", **o),
        ],
        [case for case in CASES if "out" in case[2] or "it needs" in case[2]],
    ),
]


@pytest.mark.parametrize(("function", "call", "error", "text"), ALL)
def test_forward(function, call, error, text):
    with pytest.raises(error, match=text):
        call(function)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nf.layer_norm_backward(X[:3], X, LN), ValueError, r"dy has shape \(3, 4\) and x has \(6, 4\)"),
        (lambda: nf.layer_norm_backward(X.astype(int), X, LN), TypeError, "dy must be float16, bfloat16, float32 or float64"),
        (lambda: nf.layer_norm_backward(X, X, BN), ValueError, r"stats.mean has shape \(4,\): an x of shape \(6, 4\) needs \(6,\)"),
        (lambda: nf.layer_norm_backward(X, X, (1, 2)), TypeError, "stats must be what the forward call returned"),
        (lambda: nf.layer_norm_backward(X, X, LN, np.ones(3)), ValueError, r"weight has shape \(3,\)"),
        (lambda: nf.batch_norm_backward(X, X[:3], BN), ValueError, "they must be the same"),
        (lambda: nf.batch_norm_backward(X, X, LN), ValueError, r"stats.mean has shape \(6,\)"),
        (lambda: nf.batch_norm_backward(X, X, None), TypeError, "got NoneType"),
        (lambda: nf.batch_norm(X, BN.mean[:2], BN.var), ValueError, r"mean has shape \(2,\)"),
        (lambda: nf.batch_norm(X, None, BN.var), TypeError, "mean is needed, got None"),
        (lambda: nf.batch_norm(X, BN.mean, [1, 2, 3, 4]), TypeError, "var must be float16, bfloat16, float32 or float64, got int64"),
        (lambda: nf.batch_norm(X, BN.mean, -BN.var), ValueError, "var must be 0 or more"),
        (lambda: nf.dropout(X, 1.5), ValueError, r"p must lie in \[0, 1\], got 1.5"),
        (lambda: nf.dropout(X, -0.1), ValueError, r"p must lie in \[0, 1\], got -0.1"),
        (lambda: nf.dropout(X, np.nan), ValueError, r"p must lie in \[0, 1\], got nan"),
        (lambda: nf.dropout(X, "half"), TypeError, "p must be a number, got str"),
        (lambda: nf.dropout(X, [0.5]), TypeError, "p must be a number"),
        (lambda: nf.dropout(X, rng="seed"), TypeError, "rng must be None, an integer, a SeedSequence or a Generator, got str"),
        (lambda: nf.dropout(X, rng=-1), ValueError, "rng must be 0 or more, got -1"),
        (lambda: nf.dropout(X, offset=-1), ValueError, "offset must be an integer of 0 or more"),
        (lambda: nf.dropout(X, axis=5), ValueError, "axis 5 is out of bounds"),
        (lambda: nf.dropout(X, mask=np.ones((6, 4))), TypeError, "mask must be boolean .* got float64"),
        (lambda: nf.dropout(X, mask=np.ones((4, 6), bool)), ValueError, r"x has shape \(6, 4\) and the mask has \(4, 6\)"),
        (lambda: nf.dropout(X, 0.3, mask=MASK), ValueError, "drawn with p=0.5 and p=0.3 is asked for"),
        (lambda: nf.dropout_backward(X[:2], MASK), ValueError, r"dy has shape \(2, 4\) and the mask has \(6, 4\)"),
        (lambda: nf.bias_activation_dropout_backward(X[:2], X[:2], MASK), ValueError, r"x has shape \(2, 4\) and the mask has \(6, 4\)"),
        (lambda: nf.bias_activation_dropout_backward(LARGER, LARGER, MASK), ValueError, r"\(7, 4\) and the mask has \(6, 4\)"),
        (lambda: nf.dropout_backward(X, np.ones((6, 4), bool)), TypeError, "mask must be the DropoutMask .* got ndarray"),
        (lambda: nf.moments(np.array(["a"])), TypeError, "got dtype <U1"),
        (lambda: nf.moments(np.array([1j])), TypeError, "x must be real"),
        (lambda: nf.moments(np.ma.masked_array([1.0])), TypeError, "masked array"),
        (lambda: nf.moments(X, axis=3), ValueError, "axis 3 is out of bounds"),
        (lambda: nf.moments(X, where=np.ones(4)), TypeError, r"where must be boolean .* got float64"),
        (lambda: nf.moments(X, where=np.ones(5, bool)), ValueError, r"where has shape \(5,\), which does not broadcast to \(6, 4\)"),
        (lambda: nf.moments(X, weights=np.ones(6)), ValueError, "weights belong to one axis, and axis names 2"),
        (lambda: nf.moments(X, axis=0, weights=np.ones(4)), ValueError, r"weights has shape \(4,\): axis 0 of x needs \(6,\)"),
        (lambda: nf.moments(X, axis=0, weights=[1, 1, 1, 1, 1, -1]), ValueError, "weights must be finite and 0 or more"),
        (lambda: nf.moments(X, axis=0, weights=["a"] * 6), TypeError, "weights must be real numbers, got <U1"),
        (lambda: nf.moments(X, nan_policy="skip"), ValueError, "nan_policy must be one of propagate, omit, raise, got 'skip'"),
        (lambda: nf.moments([1.0, np.nan], nan_policy="raise"), ValueError, "x holds a NaN"),
        (lambda: nf.moments(np.array([1, np.nan], np.float16), nan_policy="raise"), ValueError, "x holds a NaN"),
        (lambda: nf.Moments.from_bytes(b"nonsense"), ValueError, "they must begin with"),
        (lambda: nf.Moments.from_bytes(nf.moments(X).to_bytes()[:20]), ValueError, "they end too early"),
        (lambda: nf.Moments.from_bytes(nf.moments(X).to_bytes()[:-1]), ValueError, r"moments of shape \(\) have 56 bytes, got 55"),
        (lambda: nf.Moments([1, 2], [0.0], [0.0]), ValueError, r"count has shape \(2,\)"),
        (lambda: nf.rms_norm_backward(X, X, LN, np.ones(3)), ValueError, r"weight has shape \(3,\)"),
        (lambda: nf.rms_norm_backward(X, X, None), TypeError, "stats must be what the forward call returned"),
        (lambda: nf.rms_norm_forward(X)[1].moments, ValueError, "RMS norm takes no mean"),
        (lambda: nf.group_norm(X, 3), ValueError, "num_groups must divide the 4 channels, got 3"),
        (lambda: nf.group_norm(X, 0), ValueError, "num_groups must divide the 4 channels, got 0"),
        (lambda: nf.group_norm(X, 2.0), TypeError, "num_groups must be an integer, got float"),
        (lambda: nf.group_norm(X, 2, axis=0), ValueError, "axis is 0, that of the samples"),
        (lambda: nf.group_norm(X, 2, axis=(0, 1)), ValueError, "axis must be one axis"),
        (lambda: nf.group_norm(X, 2, np.ones(3)), ValueError, r"weight has shape \(3,\).* needs \(4,\)"),
        (lambda: nf.group_norm_backward(X, X, LN, num_groups=2), ValueError, r"stats.mean has shape \(6,\).*needs \(6, 2\)"),
        (lambda: nf.group_norm_backward(X[:2], X, LN, num_groups=2), ValueError, r"dy has shape \(2, 4\)"),
        (lambda: nf.instance_norm(X, np.ones(3)), ValueError, r"weight has shape \(3,\)"),
        (lambda: nf.instance_norm(X, axis=0), ValueError, "axis is 0"),
        (lambda: nf.mean_variance_norm(X, axis=4), ValueError, "axis 4 is out of bounds"),
        (lambda: nf.mean_variance_norm(X, eps=-1), ValueError, "eps must be a finite number"),
        (lambda: nf.mean_variance_norm_backward(X, X, LN), ValueError, r"stats.mean has shape \(6,\)"),
        (lambda: nf.lp_norm(X, "2"), TypeError, "ord must be a real number, got '2'"),
        (lambda: nf.lp_norm(X, np.nan), ValueError, r"ord must be a number or \+-inf, got nan"),
        (lambda: nf.lp_norm(X, axis=2), ValueError, "axis 2 is out of bounds"),
        (lambda: nf.lp_norm(X, eps=-1), ValueError, "eps must be a finite number"),
        (lambda: nf.lp_norm_backward(X, X, np.ones(4)), ValueError, r"saved has shape \(4,\).* needs \(6,\)"),
        (lambda: nf.batch_norm_forward(X, ord=3), ValueError, "ord must be 1, 2 or inf, got 3"),
        (
            lambda: nf.batch_norm_forward(X, activation="step"),
            ValueError,
            "unknown activation 'step': choose one of None, 'identity', 'relu'",
        ),
        (lambda: nf.batch_norm(X, BN.mean, BN.var, activation=3), TypeError, "activation must be a name or a pair of functions"),
        (lambda: nf.batch_norm_backward(X, X, BN, activation="relu", bias=np.ones(3)), ValueError, r"bias has shape \(3,\)"),
        (lambda: nf.activation(X, "step"), ValueError, "unknown activation 'step'"),
        (lambda: nf.activation(X, (np.tanh,)), TypeError, "pair of functions"),
        (lambda: nf.activation_backward(X[:2], X, "relu"), ValueError, r"da has shape \(2, 4\)"),
        (lambda: nf.set_engine("fortran"), ValueError, "unknown engine 'fortran': choose one of 'auto'"),
        (lambda: nf.set_engine(None), TypeError, "engine must be a string, got NoneType"),
        (lambda: nf.use_engine("fortran").__enter__(), ValueError, "unknown engine"),
        (lambda: nf.set_num_threads(0), ValueError, "must be 1 or more, got 0"),
        (lambda: nf.set_num_threads(1.5), TypeError, "must be an integer, got float"),
        (lambda: nf.set_num_threads(True), TypeError, "must be an integer, got bool"),
        (lambda: nf.show_config("html"), ValueError, "mode must be"),
        (lambda: nf.update_running([0.0] * 4, np.ones(4), BN), TypeError, "running_mean must be a floating-point NumPy array"),
        (lambda: nf.update_running(np.zeros(4, int), np.ones(4), BN), TypeError, "running_mean must be a floating-point"),
        (lambda: nf.update_running(np.zeros(3), np.ones(4), BN), ValueError, r"running_mean has shape \(3,\)"),
        (lambda: nf.update_running(np.zeros(4), READ_ONLY[0], BN), ValueError, "running_var is read-only"),
        (lambda: nf.update_running(np.zeros(4), np.ones(4), BN, momentum=2), ValueError, r"momentum must lie in \[0, 1\]"),
        (lambda: nf.update_running(np.zeros(4), np.ones(4), BN, momentum=None), ValueError, "num_batches must say"),
        (lambda: nf.update_running(np.zeros(4), np.ones(4), BN, ddof=6), ValueError, "6 values per channel has no variance with ddof=6"),
    ],
)
def test_the_rest(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_nothing_is_written_when_something_is_wrong():
    out = np.full((6, 4), 7, np.float32)
    for call in (
        lambda: nf.layer_norm(X, np.ones(5, np.float32), out=out),
        lambda: nf.layer_norm(X, eps=-1, out=out),
        lambda: nf.batch_norm_forward(X, bias=np.ones(5, np.float32), out=out),
        lambda: nf.batch_norm(X, BN.mean, BN.var, eps=-1, out=out),
        lambda: nf.dropout(X, 2, out=out),
        lambda: nf.dropout(X, rng="x", out=out),
        lambda: nf.dropout(X, mask=np.ones(3, bool), out=out),
        lambda: nf.rms_norm(X, np.ones(5, np.float32), out=out),
        lambda: nf.group_norm(X, 3, out=out),
        lambda: nf.group_norm(X, 2, eps=-1, out=out),
        lambda: nf.instance_norm(X, np.ones(5, np.float32), out=out),
        lambda: nf.lp_norm(X, "a", out=out),
        lambda: nf.mean_variance_norm(X, axis=7, out=out),
        lambda: nf.batch_norm_forward(X, activation="step", out=out),
        lambda: nf.batch_norm_forward(X, where=np.ones(7, bool), out=out),
        lambda: nf.activation(X, "step", out=out),
        lambda: nf.layer_norm_backward(X, X, LN, np.ones(5), out=out),
        lambda: nf.layer_norm_backward(X, X, LN, where=np.ones(7, bool), out=out),
        lambda: nf.rms_norm_backward(X, X, BN, out=out),
        lambda: nf.group_norm_backward(X, X, LN, num_groups=2, out=out),
        lambda: nf.instance_norm_backward(X, X, IN, np.ones(5), out=out),
        lambda: nf.batch_norm_backward(X, X, LN, out=out),
        lambda: nf.batch_norm_backward(X, X, BN, activation="relu", bias=np.ones(5), out=out),
        lambda: nf.lp_norm_backward(X, X, np.ones(4), out=out),
        lambda: nf.mean_variance_norm_backward(X, X, LN, out=out),
        lambda: nf.dropout_backward(X[:2], MASK, out=out[:2]),
        lambda: nf.alpha_dropout_backward(X, None, out=out),
        lambda: nf.activation_backward(X[:2], X, "relu", out=out),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
        assert (out == 7).all()
    mean, var = np.zeros(4), np.ones(4)
    with pytest.raises(ValueError, match="momentum"):
        nf.update_running(mean, var, BN, momentum=7)
    assert (mean == 0).all()
    assert (var == 1).all()


BY_NAME = {"out", "h_out", "dresidual_out", "dh", "where", "eps", "rng", "nan_policy", "weights", "ddof"}


@pytest.mark.parametrize("name", [name for name in nf.__all__ if inspect.isfunction(getattr(nf, name))])
def test_every_argument_may_be_named_and_options_must_be(name):
    """So that no array lands in `out` because one before it was left out."""
    kinds = {parameter.name: parameter.kind for parameter in inspect.signature(getattr(nf, name)).parameters.values()}
    assert inspect.Parameter.POSITIONAL_ONLY not in kinds.values()
    assert {kinds[option] for option in BY_NAME & kinds.keys()} <= {inspect.Parameter.KEYWORD_ONLY}

"""The oracle, NumPy formulas in longdouble, and the one comparison that all tests use.

The formulas are those of `normfast.engines.numpy`; `test_oracle.py` ties them to textbook numbers and to complex-step derivatives.
"""

import numpy as np

from normfast.engines.numpy import gradient_of_normalized, normalized


def exact(x, axes, eps=1e-5, weight=None, bias=None):
    """y, mean, var, rstd of a norm over the axes, in longdouble; weight and bias broadcast."""
    wide = np.asarray(x, np.longdouble)
    with np.errstate(all="ignore"):
        xhat, mean, var, rstd = normalized(wide, axes, np.longdouble(eps))
        y = xhat * (1 if weight is None else np.asarray(weight, np.longdouble))
        return y + (0 if bias is None else np.asarray(bias, np.longdouble)), mean, var, rstd


def exact_gradients(dy, x, axes, eps=1e-5, weight=None):
    """dx, and dy * xhat and dy whose sums are dweight and dbias, in longdouble."""
    wide, dy = np.asarray(x, np.longdouble), np.asarray(dy, np.longdouble)
    with np.errstate(all="ignore"):
        xhat, _, _, rstd = normalized(wide, axes, np.longdouble(eps))
    g = dy if weight is None else dy * np.asarray(weight, np.longdouble)
    return gradient_of_normalized(g, xhat, rstd, axes), dy * xhat, dy


def agree(actual, expected, what, *, units=4.0, scale=None):
    """Assert that two arrays differ by at most `units` eps of actual's dtype, relative to the scale (the largest expected value).

    NaN agrees with nothing.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}"
    if not actual.size:
        return
    scale = float(np.abs(expected).max()) if scale is None else scale
    worst = float(np.abs(actual.astype(np.longdouble) - expected).max())
    eps = 2.0**-7 if actual.dtype.name == "bfloat16" else float(np.finfo(actual.dtype).eps)
    error = worst / (eps * scale) if scale else worst / eps
    assert error <= units, f"{what} {actual.dtype} {actual.shape}: {error:.3g} eps of {scale:.3g}, allowed {units}"

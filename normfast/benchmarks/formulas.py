"""The operations as people write them in NumPy: a rival in x's dtype, the exact results in a wider one."""

import numpy as np

EPS, LP_EPS, P = 1e-5, 1e-12, 0.1


def parameter_axes(case):
    """The axes of x along which weight and bias lie."""
    return (case.axis % len(case.shape),)


def along(parameter, case):
    """The parameter in a shape that broadcasts with x."""
    axes = parameter_axes(case)
    return parameter.reshape([-1 if axis in axes else 1 for axis in range(len(case.shape))])


def reduced(case, shape):
    """The axes over which the statistics of an array of this shape run; group norm has (samples, groups, the rest)."""
    if case.op in ("layer_norm", "rms_norm", "lp_norm"):
        return (len(shape) - 1,)
    if case.op == "group_norm":
        return (2,)
    if case.op == "instance_norm":
        return tuple(range(2, len(shape)))
    return tuple(axis for axis in range(len(shape)) if axis != case.axis % len(shape))


def grouped(case, x):
    return x.reshape(len(x), case.groups, -1) if case.op == "group_norm" else x


def normalized(case, x):
    """xhat of x's shape and rstd that broadcasts with the groups of x."""
    groups = grouped(case, x)
    axes = reduced(case, groups.shape)
    if case.op == "rms_norm":
        rstd = 1 / np.sqrt((groups * groups).mean(axis=axes, keepdims=True) + x.dtype.type(EPS))
        return groups * rstd, rstd
    rstd = 1 / np.sqrt(groups.var(axis=axes, keepdims=True) + x.dtype.type(EPS))
    return ((groups - groups.mean(axis=axes, keepdims=True)) * rstd).reshape(x.shape), rstd


def forward(case, x, weight, bias, mean, var):
    """The results of the forward call, as a tuple."""
    if case.op == "moments":
        return x.mean(axis=case.axis), x.var(axis=case.axis)
    if case.op == "standardize":
        return ((x - x.mean(axis=case.axis)) / x.std(axis=case.axis),)
    if case.op == "lp_norm":
        return (x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), x.dtype.type(LP_EPS)),)
    if case.op == "batch_norm_inference":
        mean, var, weight, bias = (along(values, case) for values in (mean, var, weight, bias))
        return ((x - mean) / np.sqrt(var + x.dtype.type(EPS)) * weight + bias,)
    y = normalized(case, x)[0] * along(weight, case)
    if case.op != "rms_norm":
        y += along(bias, case)
    return (np.maximum(y, 0) if case.op == "batch_norm_relu" else y,)


def saved(case, x, weight, bias):
    """What the forward call keeps for the backward one."""
    if case.op == "lp_norm":
        norm = np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), x.dtype.type(LP_EPS))
        return x / norm, norm
    xhat, rstd = normalized(case, x)
    if case.op == "batch_norm_relu":
        return xhat, rstd, xhat * along(weight, case) + along(bias, case) > 0
    return xhat, rstd


def backward(case, dy, weight, xhat, factor, positive=None):
    """The gradients with respect to x, weight and bias, as far as there are any."""
    if case.op == "lp_norm":
        return ((dy - xhat * (dy * xhat).sum(axis=-1, keepdims=True)) / factor,)
    if positive is not None:
        dy = dy * positive
    g, groups = grouped(case, dy * along(weight, case)), grouped(case, xhat)
    axes = reduced(case, g.shape)
    centre = 0 if case.op == "rms_norm" else g.mean(axis=axes, keepdims=True)
    dx = factor * (g - centre - groups * (g * groups).mean(axis=axes, keepdims=True))
    others = tuple(axis for axis in range(dy.ndim) if axis not in parameter_axes(case))
    gradients = (dx.reshape(dy.shape), (dy * xhat).sum(axis=others), dy.sum(axis=others))
    return gradients[:2] if case.op == "rms_norm" else gradients


def evaluate(case, x, dy, weight, bias, mean, var):
    """All results of the case: those of the forward call, then the gradients."""
    results = () if case.direction == "backward" else forward(case, x, weight, bias, mean, var)
    return results if case.direction == "forward" else results + backward(case, dy, weight, *saved(case, x, weight, bias))


def summed(x, residual, kept):
    """h = dropout(x) + residual; without a mask nothing is dropped."""
    return residual + (x if kept is None else x * kept * x.dtype.type(1 / (1 - P)))


def fused_backward(case, dy, dh, weight, kept, xhat, factor):
    """The gradients of dropout, sum and norm with respect to x, the residual stream, weight and bias, as far as there is one."""
    dresidual, *gradients = backward(case.inner, dy, weight, xhat, factor)
    dresidual = dresidual if dh is None else dresidual + dh
    return dresidual * kept * dy.dtype.type(1 / (1 - P)), dresidual, *gradients

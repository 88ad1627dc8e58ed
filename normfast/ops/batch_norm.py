"""Batch normalization (Ioffe, Szegedy 2015): statistics of each channel over the batch."""

import numpy as np

from normfast import engines
from normfast.engines.policy import takes_halves
from normfast.kernels.activations import IDENTITY
from normfast.ops._arrays import (
    DOUBLE,
    apart,
    checked_eps,
    checked_out,
    checked_where,
    floating,
    gradient_dtype,
    layout_of,
    number,
    parameter,
    same_shape,
    shown,
    statistics,
    unset_statistics,
)
from normfast.ops._device import device, lies_on_device, on_device
from normfast.ops._foreign import writeable
from normfast.ops._norm import Course, gradients, normalize
from normfast.ops._pieces import parts_along
from normfast.ops._rows import without_dependence
from normfast.ops._stats import NormGradients, NormStats
from normfast.ops.activation import checked_activation, code_of, run_activation_backward, run_own
from normfast.typing import Activation, Array, ArrayLike, Axis, Writeable


def batch_norm(
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: Axis = 1,
    eps: float = 1e-5,
    activation: Activation = None,
    out: Writeable | None = None,
) -> Array:
    """Normalize each channel by given statistics, as at inference: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : array_like, float16, bfloat16, float32 or float64
        Of any shape and strides: (N, C), NCHW with axis=1, NHWC with axis=-1, ...
    mean, var : array_like
        Population statistics of the channels: of the shape of x along `axis`. float64 is used in full, whatever x's dtype.
    weight, bias : array_like, optional
        Of the shape of x along `axis`.
    axis : int or tuple of int
        The axis of the channels, which is kept; the statistics run over all others.
    eps : float
        Added to the variance, 0 or more.
    activation : str, pair of functions or None
        Applied to y while it is in the cache: see `activation`.
    out : ndarray, optional
        Of x's shape and dtype; takes y. It may be x itself or overlap it.

    Returns
    -------
    ndarray
        y, of x's shape and dtype: `out` if that was given.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong type, shape or range; nothing is written then.

    References
    ----------
    S. Ioffe, C. Szegedy, Batch Normalization, arXiv:1502.03167 (2015).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.batch_norm(np.array([[1.0, 10.0], [3.0, 30.0]]), mean=[2.0, 20.0], var=[1.0, 100.0], eps=0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    activation_name, activation = activation, checked_activation(activation)
    if not isinstance(activation, tuple):
        y = engines.current().batch_norm_at_once(x, mean, var, weight, bias, axis, eps, activation, out)
        if y is not None:
            return y
        if on_device(x):
            return device("batch_norm")(x, mean, var, weight, bias, axis=axis, eps=eps, activation=activation_name, out=out)
    x = floating(x)
    layout = layout_of(x, axis, kept=True)
    out = checked_out(out, x)
    mean, var = _channels(mean, layout, "mean", None, out), _channels(var, layout, "var", None, out)
    weight, bias = _channels(weight, layout, "weight", 1, out), _channels(bias, layout, "bias", 0, out)
    if (var < 0).any():
        raise ValueError(f"var must be 0 or more, got {var.min()}")
    total = var + checked_eps(eps)
    constant = total == 0
    rstd = 1.0 / np.sqrt(np.where(constant, np.inf, total) if constant.any() else total)
    x = apart(x, out)
    y = np.empty_like(x) if out is None else out
    parts = _parts(layout, x, y, halves=not isinstance(activation, tuple))
    if parts is None:
        weight, bias = (layout.unpack(values, layout.kept) for values in (weight, bias))
        Course(x, layout, layout.kept, weight, bias, activation=activation).apply((mean, rstd, var), y)
        return y
    for own, block, result in parts:
        factors = (values[:, own] for values in (mean, rstd, weight, bias))
        engines.current().batch_norm(block, *factors, code_of(activation), result)
        run_own(activation, result.reshape(-1))
    return y


def _parts(layout, *arrays, halves):
    """Parts of the channels that a kernel takes in one call (`parts_along`), as blocks; `halves`: the function takes 16-bit values too."""
    if not arrays[0].size:
        return ()
    a, r, _, s = layout.block
    axes = [axis for axis in layout.kept if layout.shape[axis] > 1]
    parts = parts_along(layout, axes[0] if len(axes) == 1 else None, *arrays, halves=halves and takes_halves(s))
    return None if parts is None else ((own, *(run.reshape(a, r, -1, s) for run in runs)) for own, *runs in parts)


def _channels(values, layout, name, default=None, out=None):
    """A parameter or statistic of the channels as float64 of shape (a, c), apart from `out`."""
    return parameter(values, layout, layout.kept, DOUBLE, name, default, out).reshape(layout.block[::2])


def batch_norm_forward(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: Axis = 1,
    eps: float = 1e-5,
    activation: Activation = None,
    ord: float = 2,
    where: ArrayLike | None = None,
    out: Writeable | None = None,
) -> tuple[Array, NormStats]:
    """Normalize each channel by the statistics of this batch, as in training.

    Parameters
    ----------
    x, weight, bias, axis, eps, activation, out
        As in `batch_norm`.
    ord : {2, 1, inf}
        How the deviation of a channel is measured: root mean square, mean or maximum of |x - mean|. Its square takes the place of the
        variance, also in `update_running` and `batch_norm`.
    where : array_like of bool, optional
        Broadcasts to x; values where it is False take no part in the statistics, and their y is 0.

    Returns
    -------
    y : ndarray
        Of x's shape and dtype: `out` if that was given.
    stats : NormStats
        (mean, rstd, var, count) of the shape of x along `axis`, float64; var is the population variance.

    See Also
    --------
    update_running : folds the statistics into running ones.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, stats = nf.batch_norm_forward(np.array([[1.0, 10.0], [3.0, 30.0]]), eps=0)
    >>> y
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> stats.mean, stats.var, stats.count
    (array([ 2., 20.]), array([  1., 100.]), 2)
    """
    if ord == 2 and where is None and not isinstance(activation, tuple) and on_device(x):
        return device("batch_norm_forward")(x, weight, bias, axis=axis, eps=eps, activation=activation, out=out)
    x = floating(x)
    layout = layout_of(x, axis, kept=True, rows=checked_ord(ord) != 2)
    out = checked_out(out, x)
    eps, activation, where = checked_eps(eps), checked_activation(activation), checked_where(where, x)
    weight, bias = _channels(weight, layout, "weight", 1, out), _channels(bias, layout, "bias", 0, out)
    x = apart(x, out)
    y = np.empty_like(x) if out is None else out
    parts = _parts(layout, x, y, halves=not isinstance(activation, tuple)) if ord == 2 and where is None else None
    if parts is None:
        weight, bias = (layout.unpack(values, layout.kept) for values in (weight, bias))
        return normalize(x, layout, layout.kept, weight, bias, eps, y, where, ord=ord, activation=activation)
    a, r, c, s = layout.block
    mean, rstd, var = unset_statistics(x, a, c)
    for own, block, result in parts:
        statistics_ = (values[:, own] for values in (mean, rstd, var))
        engines.current().batch_norm_forward(block, weight[:, own], bias[:, own], eps, code_of(activation), result, *statistics_)
        run_own(activation, result.reshape(-1))
    kept = layout.kept
    return y, NormStats(layout.unpack(mean, kept), layout.unpack(rstd, kept), layout.unpack(var, kept), r * s)


def checked_ord(ord):
    """Raise unless ord is 1, 2 or infinity."""
    if ord not in (1, 2, np.inf):
        raise ValueError(f"ord must be 1, 2 or inf, got {shown(ord)}")
    return ord


def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    stats: NormStats,
    weight: ArrayLike | None = None,
    *,
    bias: ArrayLike | None = None,
    axis: Axis = 1,
    activation: Activation = None,
    ord: float = 2,
    where: ArrayLike | None = None,
    out: Writeable | None = None,
) -> NormGradients:
    """Gradients of `batch_norm_forward`, from the gradient dy of y.

    Parameters
    ----------
    dy : array_like
        Gradient of the loss with respect to y, of x's shape.
    x : array_like
        The input of the forward call.
    stats : NormStats
        What `batch_norm_forward` returned for x.
    weight : array_like, optional
        The weight of the forward call.
    bias : array_like, optional
        The bias of the forward call; needed where it had an activation, whose argument is computed again.
    axis, activation, ord, where
        As in the forward call.
    out : ndarray, optional
        Of x's shape and dtype; takes dx. It may be dy or x themselves or overlap them.

    Returns
    -------
    NormGradients
        dx of x's shape and dtype, dweight and dbias of the shape of x along `axis` (also where there is no weight). With
        xhat = (x - mean) * rstd it is dx = weight * rstd * (dy - mean(dy) - xhat * mean(dy * xhat)) for ord=2. Where a mask leaves out
        values their dy is not read and their dx is 0.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0], [2.0], [4.0]])
    >>> y, stats = nf.batch_norm_forward(x)
    >>> gradients = nf.batch_norm_backward(np.array([[1.0], [0.0], [0.0]]), x, stats)
    >>> gradients.dx.ravel().round(4), gradients.dbias
    (array([ 0.2291, -0.3436,  0.1145]), array([1.]))
    """
    if ord == 2 and where is None and not isinstance(activation, tuple) and on_device(x):
        return device("batch_norm_backward")(dy, x, stats, weight, bias=bias, axis=axis, activation=activation, out=out)
    x = floating(x)
    dy = same_shape(dy, x, "dy")
    layout = layout_of(x, axis, kept=True, rows=checked_ord(ord) != 2)
    dtype, activation, where = gradient_dtype(x, weight), checked_activation(activation), checked_where(where, x)
    out = checked_out(out, x)
    weight, bias = _channels(weight, layout, "weight", 1, out), _channels(bias, layout, "bias", 0, out)
    dy, x = apart(dy, out), apart(x, out)
    dx = np.empty_like(x) if out is None else out
    parts = _parts(layout, dy, x, dx, halves=activation == IDENTITY) if ord == 2 and where is None else None
    if parts is None:
        weight, bias = (layout.unpack(values, layout.kept) for values in (weight, bias))
        return gradients(dy, x, stats, layout, layout.kept, weight, dtype, dx, bias=bias, ord=ord, activation=activation, where=where)
    mean, rstd = (run.reshape(weight.shape) for run in statistics(stats, layout, out=out))
    dweight, dbias = np.zeros((2, *weight.shape))
    for own, dy_block, x_block, target in parts:
        factors, code = [values[:, own] for values in (mean, rstd, weight, bias)], code_of(activation)
        if activation != IDENTITY:  # its gradient stands where dx will be, which x must outlive
            x_block = x_block.copy() if np.may_share_memory(x_block, target) else x_block
            if np.may_share_memory(dy_block, target):
                parameters = (layout.unpack(values, layout.kept) for values in (weight, bias))  # the arrays are one part, as they lie
                Course(x, layout, layout.kept, *parameters, activation=activation).differentiate((mean, rstd), dx)
                dy_block, code = target, IDENTITY
            elif isinstance(activation, tuple):
                engines.current().batch_norm(x_block, *factors, IDENTITY, target)
                run_activation_backward(dy_block.reshape(-1), target.reshape(-1), activation, target.reshape(-1))
                dy_block = target
        dweight[:, own], dbias[:, own] = engines.current().batch_norm_backward(dy_block, x_block, *factors, code, target)
    dx = without_dependence(dx, layout.block[1] * layout.block[3], True)
    return NormGradients(dx, layout.unpack(dweight.astype(dtype), layout.kept), layout.unpack(dbias.astype(dtype), layout.kept))


def update_running(
    running_mean: Writeable,
    running_var: Writeable,
    stats: NormStats,
    *,
    momentum: float | None = 0.1,
    ddof: float = 1,
    num_batches: int | None = None,
) -> None:
    """Fold the statistics of a batch into running ones, in place: running += momentum * (batch - running).

    Parameters
    ----------
    running_mean, running_var : ndarray, float32 or float64
        Running statistics of the channels, updated in place.
    stats : NormStats
        What `batch_norm_forward` returned.
    momentum : float in [0, 1] or None
        Weight of the new batch. None takes the cumulative average over the batches, which is the population average
        E[mean], E[var] of the original paper.
    ddof : int
        The variance of the batch is taken as m2 / (count - ddof).
    num_batches : int, optional
        With momentum=None: how many batches the running statistics hold already.

    Notes
    -----
    ============================  ==================  ====
    convention                    momentum            ddof
    ============================  ==================  ====
    PyTorch, momentum=m           m                   1
    ONNX and Keras, momentum=m    1 - m               0
    population average (paper)    None                1
    ============================  ==================  ====

    Raises
    ------
    TypeError
        If the running statistics are no arrays: they could not be updated.
    ValueError
        For wrong shapes, a momentum outside [0, 1], or count <= ddof, which leaves no variance.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, stats = nf.batch_norm_forward(np.array([[1.0], [3.0]]))
    >>> mean, var = np.zeros(1), np.ones(1)
    >>> nf.update_running(mean, var, stats, momentum=0.5)
    >>> mean, var
    (array([1.]), array([1.5]))
    """
    if type(running_mean) is not np.ndarray and lies_on_device(running_mean):
        momentum = checked_momentum(momentum, num_batches)
        device("update_running")(running_mean, running_var, stats, momentum=momentum, factor=unbiased(stats.count, ddof))
        return
    if not all(hasattr(stats, field) for field in ("mean", "var", "count")):
        raise TypeError(f"stats must be what batch_norm_forward returned, with fields mean, var and count, got {type(stats).__name__}")
    needed = "a floating-point NumPy array, since it is updated in place"
    running_mean, running_var = writeable(running_mean, "running_mean", needed), writeable(running_var, "running_var", needed)
    for array, found, name in ((running_mean, stats.mean, "running_mean"), (running_var, stats.var, "running_var")):
        if array.dtype.kind != "f":
            raise TypeError(f"{name} must be {needed}, got {array.dtype}")
        if array.shape != np.shape(found):
            raise ValueError(f"{name} has shape {array.shape} and the statistics have {np.shape(found)}: they must be the same")
        if not array.flags.writeable:
            raise ValueError(f"{name} is read-only: it must be writeable")
    momentum, factor = checked_momentum(momentum, num_batches), unbiased(stats.count, ddof)
    change_of_mean, change_of_var = momentum * (stats.mean - running_mean), momentum * (stats.var * factor - running_var)
    if change_of_var.shape != running_var.shape:
        raise ValueError(
            f"the count of the statistics has shape {np.shape(stats.count)}: it must be one number or of shape {running_var.shape}"
        )
    running_mean += change_of_mean  # nothing is written before both are known
    running_var += change_of_var


def checked_momentum(momentum, num_batches):
    """The weight of the new batch."""
    if momentum is None:
        if num_batches is None or num_batches < 0:
            raise ValueError(f"momentum=None averages over all batches: num_batches must say how many there were, got {num_batches}")
        momentum = 1.0 / (num_batches + 1)
    momentum = number(momentum, "momentum")
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum must lie in [0, 1] or be None, got {momentum}")
    return momentum


def unbiased(count, ddof):
    """What turns the population variance into m2 / (count - ddof)."""
    count = np.asarray(count)
    number(ddof, "ddof")
    if (count <= ddof).any():
        raise ValueError(f"a batch of {count.min():g} values per channel has no variance with ddof={ddof}: give more than {ddof}")
    return count / (count - ddof)

"""Mean-variance normalization over any axes: no parameters, as ONNX's MeanVarianceNormalization."""

from normfast.ops._arrays import floating, layout_of
from normfast.ops._stats import InputGradient, NormStats
from normfast.ops.batch_norm import batch_norm_backward, batch_norm_forward
from normfast.ops.layer_norm import layer_norm_backward, layer_norm_forward
from normfast.typing import Array, ArrayLike, Axis, Writeable

ROWS = 64  # fewer are long enough to be cut, so that every core has its part


def mean_variance_norm(x: ArrayLike, *, axis: Axis | None = None, eps: float = 1e-9, out: Writeable | None = None) -> Array:
    """Bring to mean 0 and variance 1 over the axes: y = (x - mean) / sqrt(var + eps).

    Parameters
    ----------
    x : array_like, float16, bfloat16, float32 or float64
        Of any shape and strides.
    axis : None, int or tuple of int
        Axes of the statistics; None takes all. ONNX's default is (0, 2, 3).
    eps : float
        Added to the population variance, 0 or more. With eps = 0 constants still give zeros.
    out : ndarray, optional
        Of x's shape and dtype; takes y. It may be x itself or overlap it.

    Returns
    -------
    ndarray
        y, of x's shape and dtype: `out` if that was given.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> nf.mean_variance_norm(np.array([[1.0, 3.0], [5.0, 7.0]]), axis=0, eps=0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    return mean_variance_norm_forward(x, axis=axis, eps=eps, out=out)[0]


def mean_variance_norm_forward(
    x: ArrayLike, *, axis: Axis | None = None, eps: float = 1e-9, out: Writeable | None = None
) -> tuple[Array, NormStats]:
    """As `mean_variance_norm`, and the statistics that `mean_variance_norm_backward` needs.

    Returns
    -------
    y : ndarray
    stats : NormStats
        (mean, rstd, var, count) of the shape of x without `axis`, float64.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> y, stats = nf.mean_variance_norm_forward(np.array([[1.0, 3.0], [5.0, 7.0]]))
    >>> float(stats.mean), float(stats.var), stats.count
    (4.0, 5.0, 4)
    """
    x = floating(x)
    rows, axes = _as_rows(x, axis)
    return (layer_norm_forward if rows else batch_norm_forward)(x, axis=axes, eps=eps, out=out)


def mean_variance_norm_backward(
    dy: ArrayLike, x: ArrayLike, stats: NormStats, *, axis: Axis | None = None, out: Writeable | None = None
) -> InputGradient:
    """Gradient of `mean_variance_norm`, from the gradient dy of y.

    Parameters
    ----------
    dy, x : array_like
        Gradient of the loss with respect to y, and the input of the forward call; of the same shape.
    stats : NormStats
        What `mean_variance_norm_forward` returned for x.
    axis : None, int or tuple of int
        The axes of the forward call.
    out : ndarray, optional
        Of x's shape and dtype; takes dx. It may be dy or x themselves or overlap them.

    Returns
    -------
    InputGradient
        (dx,) of x's shape and dtype: dx = rstd * (dy - mean(dy) - xhat * mean(dy * xhat)).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([1.0, 2.0, 4.0])
    >>> y, stats = nf.mean_variance_norm_forward(x)
    >>> nf.mean_variance_norm_backward(np.array([1.0, 0.0, 0.0]), x, stats).dx.round(4)
    array([ 0.2291, -0.3436,  0.1145])
    """
    x = floating(x)
    rows, axes = _as_rows(x, axis)
    return InputGradient((layer_norm_backward if rows else batch_norm_backward)(dy, x, stats, axis=axes, out=out).dx)


def _as_rows(x, axis):
    """Whether there are rows in plenty to normalize, as layer norm does, and their axes; else those that are kept, as batch norm's."""
    layout = layout_of(x, tuple(range(x.ndim)) if axis is None else axis)
    a, r, c, _ = layout.block
    rows = r == 1 and a * c >= ROWS
    return rows, layout.reduced if rows else layout.kept

"""What the norms return beside y: `NormStats` forward, `NormGradients` backward."""

from typing import Any, NamedTuple

from normfast.ops.moments import Moments
from normfast.typing import Array, Float64Array


class NormStats(NamedTuple):
    """Statistics of a normalization, float64 whatever the dtype of x.

    Attributes
    ----------
    mean, rstd, var : ndarray
        Mean, 1 / sqrt(var + eps) and population variance, with the shape of x along the axes that were kept. RMS norm has no mean (None)
        and the mean square as var; batch norm with ord=1 or inf the square of the mean or largest absolute deviation.
    count : int, or ndarray where a mask leaves out values
        Number of values behind each of them.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> _, stats = nf.layer_norm_forward(np.array([[1.0, 3.0], [5.0, 5.0]]), eps=0.0)
    >>> stats.mean.ravel(), stats.var.ravel(), stats.count
    (array([2., 5.]), array([1., 0.]), 2)
    >>> (stats.moments + stats.moments).count
    4
    """

    mean: Float64Array | Any  # None, of RMS norm, is left to who asks
    rstd: Float64Array
    var: Float64Array
    count: int | Array  # type: ignore[assignment]  # tuples have a method of that name

    @property
    def moments(self) -> Moments:
        """The same as `Moments`, which merge."""
        if self.mean is None:
            raise ValueError("RMS norm takes no mean, so its statistics have no moments")
        return Moments(self.count, self.mean, self.var * self.count)


class NormGradients(NamedTuple):
    """Gradients of a normalization with respect to x, weight and bias.

    Attributes
    ----------
    dx : ndarray
        Of x's shape and dtype.
    dweight, dbias : ndarray
        Of the shape of x along the axes of the parameters; in the dtype of weight, else of x. They are there without weight and bias too.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, 3.0], [5.0, 9.0]])
    >>> y, stats = nf.layer_norm_forward(x, eps=0.0)
    >>> gradients = nf.layer_norm_backward(np.ones_like(y), x, stats)
    >>> gradients.dx.round(12) + 0.0, gradients.dweight, gradients.dbias
    (array([[0., 0.],
           [0., 0.]]), array([-2.,  2.]), array([2., 2.]))
    """

    dx: Array
    dweight: Array
    dbias: Array


class InputGradient(NamedTuple):
    """Gradient of a normalization without parameters.

    Attributes
    ----------
    dx : ndarray
        Of x's shape and dtype.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[3.0, 4.0]])
    >>> _, saved = nf.lp_norm_forward(x)
    >>> nf.lp_norm_backward(np.array([[1.0, 0.0]]), x, saved).dx.round(3)
    array([[ 0.128, -0.096]])
    """

    dx: Array

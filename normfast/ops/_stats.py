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
    """Gradients of a normalization with respect to x, weight and bias."""

    dx: Array
    dweight: Array
    dbias: Array


class InputGradient(NamedTuple):
    """Gradient of a normalization without parameters."""

    dx: Array

"""What a forward call returns beside y: `NormStats`."""

from typing import NamedTuple

import numpy as np

from normfast.ops.moments import Moments


class NormStats(NamedTuple):
    """Statistics of a normalization, float64 whatever the dtype of x.

    Attributes
    ----------
    mean, rstd, var : ndarray
        Mean, 1 / sqrt(var + eps) and population variance, with the shape of x along the axes that were kept.
    count : int
        Number of values behind each of them.
    """

    mean: np.ndarray
    rstd: np.ndarray
    var: np.ndarray
    count: int

    @property
    def moments(self):
        """The same as `Moments`, which merge."""
        return Moments(self.count, self.mean, self.var * self.count)

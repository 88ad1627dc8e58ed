"""Standardizing, min-max scaling and whitening: functions on arrays, and estimators that learn from samples in rows, also in chunks.

The estimators keep scikit-learn's protocol (`Pipeline`, `clone`, `set_output`) and are subclasses of its own where it is installed (1.6 or
newer); else they work alone. Statistics are float64, results have the dtype of x. They take Dask arrays too: `fit` and `partial_fit`
compute statistics block by block, `transform` and `inverse_transform` return Dask arrays.

>>> import numpy as np
>>> from normfast.preprocessing import Standardizer
>>> scaler = Standardizer()
>>> for chunk in ([[0.0, 1.0], [2.0, 1.0]], [[4.0, 1.0]]):
...     scaler = scaler.partial_fit(np.array(chunk))
>>> scaler.mean_, scaler.var_.round(3)
(array([2., 1.]), array([2.667, 0.   ]))
>>> scaler.transform(np.array([[2.0, 1.0]]))
array([[0., 0.]])
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from normfast.estimators import Transformer, bridge, check_is_fitted, like, samples, weights_of
from normfast.ops.batch_norm import batch_norm
from normfast.ops.covariance import Covariance, covariance
from normfast.ops.scaling import (
    checked_range,
    merged_in_units,
    minmax_scale,
    moments_in_units,
    real,
    rescaled,
    scale_in_units,
    standardize,
    standardized,
)
from normfast.ops.whitening import coloured, whiten, whitened, whitening_matrices
from normfast.typing import Array, ArrayLike, Float64Array, Whitening

__all__ = ["MinMaxScaler", "Standardizer", "Whitener", "minmax_scale", "standardize", "whiten"]


class Standardizer(Transformer):
    """Bring each column to mean 0 and standard deviation 1, by the statistics of the samples that it has learned.

    Parameters
    ----------
    with_mean, with_std : bool
        Whether to centre, and whether to divide by the standard deviation.
    ddof : int or float
        The variance is m2 / (count - ddof).
    copy : bool
        False writes the result over x where x is a writeable floating-point array.

    Attributes
    ----------
    mean_, var_, scale_ : ndarray, shape (n_features_in_,)
        float64; scale_ is the standard deviation, and 1 for constant columns (see `standardize`).
    n_samples_seen_ : int, float or ndarray
        Number of samples or sum of their weights; an array where NaN, which take no part and stay, make the columns differ.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.preprocessing import Standardizer
    >>> scaler = Standardizer().fit(np.array([[1.0, 10.0], [3.0, 30.0]]))
    >>> scaler.transform(np.array([[4.0, np.nan]]))
    array([[ 2., nan]])
    >>> scaler.inverse_transform(np.array([[2.0, 0.0]]))
    array([[ 4., 20.]])
    """

    mean_: Float64Array
    var_: Float64Array
    scale_: Float64Array
    n_samples_seen_: Any

    def __init__(self, *, with_mean: bool = True, with_std: bool = True, ddof: float = 0, copy: bool = True) -> None:
        self.with_mean = with_mean
        self.with_std = with_std
        self.ddof = ddof
        self.copy = copy

    def fit(self, x: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from the rows of x alone; returns self."""
        return self._learn(x, *self._measured(x, sample_weight, reset=True))

    def partial_fit(self, x: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from the rows of x besides those before; returns self."""
        if not hasattr(self, "mean_"):
            return self.fit(x, y, sample_weight)
        return self._learn(x, *merged_in_units(*self._learned[:2], *self._measured(x, sample_weight)))

    def _measured(self, x, sample_weight, reset=False):
        measure = lazy.moments_in_units if (lazy := bridge(x)) else moments_in_units
        return measure(self._checked(x, reset=reset), (0,), weights_of(sample_weight))

    def _learn(self, x, m, unit):
        scale = scale_in_units(m, unit, self.ddof)
        self._learned = m, unit, scale
        with np.errstate(over="ignore"):
            self._show(x, mean_=m.mean / unit, var_=m.var(self.ddof) / unit / unit, scale_=scale / unit)
        self._show(x, n_samples_seen_=m.count if np.ptp(m.count) else np.max(m.count).item())
        return self

    def transform(self, x: ArrayLike) -> Array:
        """(x - mean_) / scale_, of x's dtype."""
        check_is_fitted(self)
        m, unit, scale = self._learned
        mean = m.mean if self.with_mean else np.zeros_like(m.mean)
        return self._by_columns(_standardized, x, mean, scale if self.with_std else unit, unit)

    def inverse_transform(self, x: ArrayLike) -> Array:
        """x * scale_ + mean_, of x's dtype."""
        check_is_fitted(self)
        m, unit, scale = self._learned
        with np.errstate(over="ignore"):
            weight, bias = scale / unit if self.with_std else None, m.mean / unit if self.with_mean else None
        return self._by_columns(_scaled, x, weight, bias)


def _standardized(x, mean, scale, unit, out=None):
    return standardized(x, mean, scale, unit, (1,), out)


def _scaled(x, weight, bias, out=None):
    return batch_norm(x, np.zeros(x.shape[1]), np.ones(x.shape[1]), weight, bias, axis=1, eps=0, out=out)


class MinMaxScaler(Transformer):
    """Bring the smallest value of each column to the one end of a range and the largest to the other, both exactly.

    Parameters
    ----------
    feature_range : (float, float)
        The ends, in ascending order.
    copy : bool
        False writes the result over x where x is a writeable floating-point array.
    clip : bool
        Whether to clip values beyond those learned to the range.

    Attributes
    ----------
    data_min_, data_max_, data_range_ : ndarray, shape (n_features_in_,)
        Of the columns without their NaN, which stay.
    n_samples_seen_ : int
        Number of samples.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.preprocessing import MinMaxScaler
    >>> scaler = MinMaxScaler().fit(np.array([[1.0], [5.0]]))
    >>> scaler.transform(np.array([[2.0], [7.0]]))
    array([[0.25],
           [1.5 ]])
    >>> scaler.inverse_transform(np.array([[0.25]]))
    array([[2.]])
    """

    data_min_: Float64Array
    data_max_: Float64Array
    data_range_: Float64Array
    n_samples_seen_: int

    def __init__(self, feature_range: tuple[float, float] = (0, 1), *, copy: bool = True, clip: bool = False) -> None:
        self.feature_range = feature_range
        self.copy = copy
        self.clip = clip

    def fit(self, x: ArrayLike, y: Any = None) -> Self:
        """Learn from the rows of x alone; returns self."""
        return self._learn(x, self._measured(x, reset=True), np.nan, np.nan, 0)

    def partial_fit(self, x: ArrayLike, y: Any = None) -> Self:
        """Learn from the rows of x besides those before; returns self."""
        if not hasattr(self, "data_min_"):
            return self.fit(x)
        return self._learn(x, self._measured(x), *self._learned, self.n_samples_seen_)

    def _measured(self, x, reset=False):
        checked_range(self.feature_range)
        values = self._checked(x, reset=reset)
        return lazy.extremes(values) if (lazy := bridge(x)) else (len(values), np.fmin.reduce(values), np.fmax.reduce(values))

    def _learn(self, x, found, smallest, largest, count):
        smallest = np.fmin(smallest, found[1], dtype=np.float64)
        largest = np.fmax(largest, found[2], dtype=np.float64)
        self._learned = smallest, largest
        with np.errstate(over="ignore"):
            self._show(x, data_min_=smallest, data_max_=largest, data_range_=largest - smallest)
        self.n_samples_seen_ = count + found[0]
        return self

    def transform(self, x: ArrayLike) -> Array:
        """low + (x - data_min_) / data_range_ * (high - low), of x's dtype."""
        check_is_fitted(self)
        return self._by_columns(_rescaled, x, *self._learned, *checked_range(self.feature_range), clip=self.clip)

    def inverse_transform(self, x: ArrayLike) -> Array:
        """What `transform` brings to x, of x's dtype."""
        check_is_fitted(self)
        smallest, largest = self._learned
        largest = np.where(largest == smallest, smallest + 1, largest)
        return self._by_columns(_rescaled, x, *checked_range(self.feature_range), smallest, largest)


def _rescaled(x, old_low, old_high, low, high, clip=False, out=None):
    y = rescaled(x, (old_low, old_high), (low, high), out)
    return np.clip(y, low, high, out=y) if clip else y


class Whitener(Transformer):
    """Bring samples to mean 0 and the identity as covariance, by the statistics of the samples that it has learned.

    Parameters
    ----------
    method, n_components, shrinkage, eps, ddof
        As in `whiten`.

    Attributes
    ----------
    mean_ : ndarray, shape (n_features_in_,)
    covariance_ : Covariance
        Of the samples, before shrinkage.
    whitening_, coloring_ : ndarray, shapes (k, n_features_in_) and (n_features_in_, k)
        The matrix that whitens, and its inverse or pseudo-inverse; float64.
    n_samples_seen_ : int or float
        Number of samples or sum of their weights.

    Notes
    -----
    Each `partial_fit` computes the matrices anew, in d**3 steps: give it chunks of d rows or more.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.preprocessing import Whitener
    >>> x = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 6.0], [4.0, 5.0]])
    >>> whitener = Whitener("cholesky").fit(x)
    >>> y = whitener.transform(x)
    >>> (y.T @ y / 4).round(12) + 0.0
    array([[1., 0.],
           [0., 1.]])
    >>> whitener.inverse_transform(y).round(12)
    array([[1., 2.],
           [2., 1.],
           [3., 6.],
           [4., 5.]])
    """

    _keeps_nan = False
    mean_: Float64Array
    covariance_: Covariance
    whitening_: Float64Array
    coloring_: Float64Array
    n_samples_seen_: float

    def __init__(
        self,
        method: Whitening = "zca",
        *,
        n_components: int | None = None,
        shrinkage: float | Literal["oas"] = 0.0,
        eps: float = 1e-12,
        ddof: float = 0,
    ) -> None:
        self.method = method
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.eps = eps
        self.ddof = ddof

    def fit(self, x: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from the rows of x alone; returns self."""
        return self._learn(x, self._measured(x, sample_weight, reset=True))

    def partial_fit(self, x: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from the rows of x besides those before; returns self."""
        if not hasattr(self, "covariance_"):
            return self.fit(x, y, sample_weight)
        return self._learn(x, self.covariance_ + self._measured(x, sample_weight))

    def _measured(self, x, sample_weight, reset=False):
        measure = lazy.covariance if (lazy := bridge(x)) else covariance
        return measure(self._checked(x, reset=reset), weights=weights_of(sample_weight))

    def _learn(self, x, c):
        self._learned = whitening_matrices(c, self.method, self.n_components, self.shrinkage, self.eps, self.ddof)
        self.covariance_, self.n_samples_seen_ = c, c.count
        self._show(x, mean_=c.mean, whitening_=self._learned[0], coloring_=self._learned[1])
        return self

    def transform(self, x: ArrayLike) -> Array:
        """(x - mean_) @ whitening_.T, of x's dtype."""
        check_is_fitted(self)
        return self._by_rows(whitened, x, self._checked(x), self._learned[0])

    def inverse_transform(self, x: ArrayLike) -> Array:
        """x @ coloring_.T + mean_, of x's dtype; what lies in the span of the learned samples comes back."""
        check_is_fitted(self)
        values: Any = x if bridge(x) else real(samples(x))
        coloring = self._learned[1]
        if values.ndim != 2 or values.shape[1] != coloring.shape[1]:
            raise ValueError(f"x has shape {values.shape}: it must be (n_samples, {coloring.shape[1]}), what transform gave")
        return self._by_rows(coloured, x, values, coloring)

    def _by_rows(self, function, x, values, matrix):
        if lazy := bridge(x):
            return lazy.by_rows(function, values, self.covariance_, matrix)
        return like(x, function(values, self.covariance_, matrix))

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[np.object_]:
        """Names of the columns that `transform` returns: those of the input for "zca", else whitener0, whitener1, ..."""
        names = super().get_feature_names_out(input_features)
        return names if self.method == "zca" else np.array([f"whitener{j}" for j in range(len(self.whitening_))], object)

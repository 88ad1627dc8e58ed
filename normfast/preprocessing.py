"""Standardizing, min-max scaling and whitening: functions on arrays, and estimators that learn from samples in rows, also in chunks.

The estimators keep scikit-learn's protocol (`Pipeline`, `clone`, `set_output`) and are subclasses of its own where it is installed (1.6 or
newer); else they work alone. Statistics are float64, results have the dtype of x.

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

import inspect

import numpy as np

from normfast.ops.batch_norm import batch_norm
from normfast.ops.covariance import covariance
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

try:
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:

    class BaseEstimator:
        def get_params(self, deep=True):
            return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

        def set_params(self, **params):
            if unknown := params.keys() - self.get_params().keys():
                raise ValueError(f"{type(self).__name__} has no parameters {sorted(unknown)}: it has {sorted(self.get_params())}")
            vars(self).update(params)
            return self

    class OneToOneFeatureMixin:
        def get_feature_names_out(self, input_features=None):
            check_is_fitted(self)
            return np.array([f"x{j}" for j in range(self.n_features_in_)] if input_features is None else input_features, object)

    class TransformerMixin:
        def fit_transform(self, x, y=None, **options):
            return self.fit(x, y, **options).transform(x)

    def check_is_fitted(estimator):
        if not hasattr(estimator, "n_features_in_"):
            raise ValueError(f"this {type(estimator).__name__} has learned nothing yet: call fit or partial_fit first")

    def validate_data(estimator, x, *, reset, dtype, ensure_all_finite):
        x = real(x)
        if x.ndim != 2 or x.size == 0:
            raise ValueError(f"x has shape {x.shape}: it must be (n_samples, n_features) with one or more of each")
        if np.isinf(x).any() or (ensure_all_finite is True and np.isnan(x).any()):
            raise ValueError("x has NaN or infinity: take them out first")
        if reset:
            estimator.n_features_in_ = x.shape[1]
        if x.shape[1] != estimator.n_features_in_:
            raise ValueError(f"x has {x.shape[1]} features, but {type(estimator).__name__} has learned {estimator.n_features_in_}")
        return x


__all__ = ["MinMaxScaler", "Standardizer", "Whitener", "minmax_scale", "standardize", "whiten"]


class _Transformer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """What the estimators share."""

    _keeps_nan = True

    def _checked(self, x, *, reset=False):
        finite = "allow-nan" if self._keeps_nan else True
        return validate_data(self, x, reset=reset, dtype=[np.float64, np.float32, np.float16], ensure_all_finite=finite)

    def _ready(self, x):
        """x, and where to write its transform: None for a new array."""
        check_is_fitted(self)
        x = self._checked(x)
        return x, None if self.copy or not x.flags.writeable else x

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._keeps_nan
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags


def _weights(sample_weight):
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    if not weights.any():
        raise ValueError("sample_weight is zero everywhere: one sample at least must take part")
    return weights


class Standardizer(_Transformer):
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

    def __init__(self, *, with_mean=True, with_std=True, ddof=0, copy=True):
        self.with_mean = with_mean
        self.with_std = with_std
        self.ddof = ddof
        self.copy = copy

    def fit(self, x, y=None, sample_weight=None):
        """Learn from the rows of x alone; returns self."""
        return self._learn(moments_in_units(self._checked(x, reset=True), (0,), _weights(sample_weight)))

    def partial_fit(self, x, y=None, sample_weight=None):
        """Learn from the rows of x besides those before; returns self."""
        if not hasattr(self, "mean_"):
            return self.fit(x, y, sample_weight)
        chunk = moments_in_units(self._checked(x), (0,), _weights(sample_weight))
        return self._learn(merged_in_units(self._moments, self._unit, *chunk))

    def _learn(self, moments_and_unit):
        self._moments, self._unit = m, unit = moments_and_unit
        self._scale = scale_in_units(m, unit, self.ddof)
        with np.errstate(over="ignore"):
            self.mean_, self.var_, self.scale_ = m.mean / unit, m.var(self.ddof) / unit / unit, self._scale / unit
        self.n_samples_seen_ = m.count if np.ptp(m.count) else np.max(m.count).item()
        return self

    def transform(self, x):
        """(x - mean_) / scale_, of x's dtype."""
        x, out = self._ready(x)
        mean = self._moments.mean if self.with_mean else np.zeros_like(self.mean_)
        scale = self._scale if self.with_std else self._unit
        return standardized(x, mean, scale, self._unit, (1,), out)

    def inverse_transform(self, x):
        """x * scale_ + mean_, of x's dtype."""
        x, out = self._ready(x)
        one = np.ones_like(self.mean_)
        scale, mean = self.scale_ if self.with_std else None, self.mean_ if self.with_mean else None
        return batch_norm(x, 0 * one, one, scale, mean, axis=1, eps=0, out=out)


class MinMaxScaler(_Transformer):
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

    def __init__(self, feature_range=(0, 1), *, copy=True, clip=False):
        self.feature_range = feature_range
        self.copy = copy
        self.clip = clip

    def fit(self, x, y=None):
        """Learn from the rows of x alone; returns self."""
        return self._learn(self._checked(x, reset=True), np.nan, np.nan, 0)

    def partial_fit(self, x, y=None):
        """Learn from the rows of x besides those before; returns self."""
        if not hasattr(self, "data_min_"):
            return self.fit(x)
        return self._learn(self._checked(x), self.data_min_, self.data_max_, self.n_samples_seen_)

    def _learn(self, x, smallest, largest, count):
        checked_range(self.feature_range)
        self.data_min_ = np.fmin(smallest, np.fmin.reduce(x, axis=0), dtype=np.float64)
        self.data_max_ = np.fmax(largest, np.fmax.reduce(x, axis=0), dtype=np.float64)
        with np.errstate(over="ignore"):
            self.data_range_ = self.data_max_ - self.data_min_
        self.n_samples_seen_ = count + len(x)
        return self

    def transform(self, x):
        """low + (x - data_min_) / data_range_ * (high - low), of x's dtype."""
        x, out = self._ready(x)
        ends = checked_range(self.feature_range)
        y = rescaled(x, (self.data_min_, self.data_max_), ends, out)
        return np.clip(y, *ends, out=y) if self.clip else y

    def inverse_transform(self, x):
        """What `transform` brings to x, of x's dtype."""
        x, out = self._ready(x)
        largest = np.where(self.data_max_ == self.data_min_, self.data_min_ + 1, self.data_max_)
        return rescaled(x, checked_range(self.feature_range), (self.data_min_, largest), out)


class Whitener(_Transformer):
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

    def __init__(self, method="zca", *, n_components=None, shrinkage=0.0, eps=1e-12, ddof=0):
        self.method = method
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.eps = eps
        self.ddof = ddof

    def fit(self, x, y=None, sample_weight=None):
        """Learn from the rows of x alone; returns self."""
        return self._learn(covariance(self._checked(x, reset=True), weights=_weights(sample_weight)))

    def partial_fit(self, x, y=None, sample_weight=None):
        """Learn from the rows of x besides those before; returns self."""
        if not hasattr(self, "covariance_"):
            return self.fit(x, y, sample_weight)
        return self._learn(self.covariance_ + covariance(self._checked(x), weights=_weights(sample_weight)))

    def _learn(self, c):
        options = self.method, self.n_components, self.shrinkage, self.eps, self.ddof
        self.whitening_, self.coloring_ = whitening_matrices(c, *options)
        self.covariance_, self.mean_, self.n_samples_seen_ = c, c.mean, c.count
        return self

    def transform(self, x):
        """(x - mean_) @ whitening_.T, of x's dtype."""
        check_is_fitted(self)
        return whitened(self._checked(x), self.covariance_, self.whitening_)

    def inverse_transform(self, x):
        """x @ coloring_.T + mean_, of x's dtype; what lies in the span of the learned samples comes back."""
        check_is_fitted(self)
        x = real(x)
        if x.ndim != 2 or x.shape[1] != len(self.whitening_):
            raise ValueError(f"x has shape {x.shape}: it must be (n_samples, {len(self.whitening_)}), what transform gave")
        return coloured(x, self.covariance_, self.coloring_)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns that `transform` returns: those of the input for "zca", else whitener0, whitener1, ..."""
        names = super().get_feature_names_out(input_features)
        return names if self.method == "zca" else np.array([f"whitener{j}" for j in range(len(self.whitening_))], object)

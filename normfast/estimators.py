"""What an estimator is: scikit-learn's protocol, with that library or without, and arrays of other libraries in and out.

Where scikit-learn is installed (1.6 or newer), estimators are subclasses of its own and follow its rules: columns and index of a frame with
`set_output`, and with `set_config(array_api_dispatch=True)` results of the input's own library. Without it they work alone, on arrays.
Of Dask arrays they learn block by block, and their transforms are Dask arrays.
"""

import inspect
import sys
from importlib import import_module
from typing import Any

import numpy as np

from normfast.ops._foreign import borrowed, is_tensor
from normfast.ops._pickles import Sealed
from normfast.ops.scaling import real
from normfast.typing import Array

try:
    from sklearn import get_config
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:

    def get_config():
        return {"array_api_dispatch": False}

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
            if input_features is None:
                input_features = getattr(self, "feature_names_in_", [f"x{j}" for j in range(self.n_features_in_)])
            return np.array(input_features, object)

    class TransformerMixin:
        def fit_transform(self, x, y=None, **options):
            return self.fit(x, y, **options).transform(x)

    def check_is_fitted(estimator):
        if not hasattr(estimator, "n_features_in_"):
            raise ValueError(f"this {type(estimator).__name__} has learned nothing yet: call fit or partial_fit first")

    def validate_data(estimator, x, *, reset, dtype, ensure_all_finite):
        names = [name for name in getattr(x, "columns", ()) if isinstance(name, str)]
        x = real(x)
        if x.ndim != 2 or x.size == 0:
            raise ValueError(f"x has shape {x.shape}: it must be (n_samples, n_features) with one or more of each")
        if np.isinf(x).any() or (ensure_all_finite is True and np.isnan(x).any()):
            raise ValueError("x has NaN or infinity: take them out first")
        if reset:
            vars(estimator).pop("feature_names_in_", None)
            estimator.n_features_in_ = x.shape[1]
            if len(names) == x.shape[1]:
                estimator.feature_names_in_ = np.array(names, object)
        if x.shape[1] != estimator.n_features_in_:
            raise ValueError(f"x has {x.shape[1]} features, but {type(estimator).__name__} has learned {estimator.n_features_in_}")
        learned = getattr(estimator, "feature_names_in_", names)
        if names and list(learned) != names:
            raise ValueError(f"x has the feature names {names}, but {type(estimator).__name__} has learned {list(learned)}")
        return x


class Transformer(Sealed, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """What the estimators share."""

    _keeps_nan = True
    n_features_in_: int

    def _checked(self, x: Any, *, reset: bool = False) -> Any:
        """The samples as an ndarray of floats, or a Dask array as it is, and the names of a frame's columns learned or compared."""
        if lazy := bridge(x):
            features = lazy.checked_samples(x, None if reset else self.n_features_in_)
            if reset:
                self.n_features_in_ = features
                vars(self).pop("feature_names_in_", None)
            return x
        x = samples(x)
        wide = x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.name == "bfloat16" else x  # a dtype unknown to scikit-learn
        finite = "allow-nan" if self._keeps_nan else True
        checked = validate_data(self, wide, reset=reset, dtype=[np.float64, np.float32, np.float16], ensure_all_finite=finite)
        return checked if wide is x else x

    def _ready(self, x: Any) -> tuple[Any, Array | None]:
        """x, and where to write its transform: None for a new array."""
        check_is_fitted(self)
        x = self._checked(x)
        return x, None if self.copy or bridge(x) or not x.flags.writeable else x

    def _by_columns(self, function, x, *columns, **options):
        """function(x, *columns), where the columns have a value for each of x, or lazily of a Dask array."""
        values, out = self._ready(x)
        if lazy := bridge(x):
            return lazy.by_columns(function, values, *columns, **options)
        return like(x, function(values, *columns, out=out, **options))

    def _show(self, x, **learned):
        """Take what was learned as attributes, arrays of x's library where scikit-learn is to dispatch."""
        for name, value in learned.items():
            setattr(self, name, like(x, value))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._keeps_nan
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags


def bridge(x: Any) -> Any:
    """The module that takes the place of the operations on arrays where x is a Dask array, else None; Dask is not imported to find out."""
    arrays = sys.modules.get("dask.array")
    return import_module("normfast.dask.learning") if arrays is not None and isinstance(x, arrays.Array) else None


def samples(x: Any) -> Any:
    """Arrays of other libraries as NumPy arrays; frames, whose names matter, and lists as they are."""
    return borrowed(x) if hasattr(x, "__dlpack__") else x


def weights_of(sample_weight: Any) -> Any:
    """The weights of the samples as an array, a Dask array as it is, or None."""
    if sample_weight is None or bridge(sample_weight):
        return sample_weight
    weights = borrowed(sample_weight, "sample_weight")
    if not weights.any():
        raise ValueError("sample_weight is zero everywhere: one sample at least must take part")
    return weights


def like(x: Any, y: Any) -> Any:
    """The ndarray y as an array of x's library, over the same memory, where scikit-learn's `array_api_dispatch` asks for that; else y."""
    if isinstance(x, np.ndarray) or not isinstance(y, np.ndarray) or bridge(x) or not get_config()["array_api_dispatch"]:
        return y
    if is_tensor(x):
        torch = sys.modules["torch"]
        return torch.from_numpy(y.view(np.int16)).view(torch.bfloat16) if y.dtype.name == "bfloat16" else torch.from_numpy(y)
    return x.__array_namespace__().asarray(y) if hasattr(x, "__array_namespace__") else y

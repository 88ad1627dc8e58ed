"""Inference: frozen models, batch norm folded into its neighbours, exact running statistics, and dropout left on for a spread.

A service needs `load` and the plan that it returns, which import no layers; what works on layers is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from normfast.inference.files import load
from normfast.inference.folding import fold_batch_norm
from normfast.inference.plans import Plan

__all__ = ["Plan", "Prediction", "fold_batch_norm", "freeze", "load", "mc_predict", "recalibrate"]

if TYPE_CHECKING:
    from normfast.inference.freezing import freeze
    from normfast.inference.monte_carlo import Prediction, mc_predict
    from normfast.inference.recalibration import recalibrate
else:
    _LATER = {"freeze": "freezing", "mc_predict": "monte_carlo", "Prediction": "monte_carlo", "recalibrate": "recalibration"}

    def __getattr__(name):
        if name in _LATER:
            return getattr(import_module(f"normfast.inference.{_LATER[name]}"), name)
        raise AttributeError(f"module 'normfast.inference' has no attribute {name!r}")

"""The bridge to ONNX: normfast's norms and dropout as operators of ONNX's reference evaluator, and networks written as ONNX files.

>>> import numpy as np
>>> from onnx.reference import ReferenceEvaluator
>>> from normfast.layers import Dense, Sequential
>>> from normfast.onnx import OPERATORS, export
>>> model = Sequential(Dense(4, 8, norm="layer", activation="relu", rng=0), Dense(8, 2, rng=1)).eval()
>>> evaluator = ReferenceEvaluator(export(model, None), new_ops=OPERATORS)
>>> x = np.ones((3, 4), np.float32)
>>> bool(np.allclose(evaluator.run(["y"], {"x": x})[0], model(x), atol=1e-6))
True
"""

from normfast.extras import needed

needed("onnx", "onnx", "normfast.onnx")

from normfast.onnx.exporter import export  # noqa: E402  (in one line, what is missing, comes first)
from normfast.onnx.operators import OPERATORS  # noqa: E402

__all__ = ["OPERATORS", "export"]

"""Holds `nearest.py` to plain NumPy formulas."""

import numpy as np
from nearest import nearest, problem

x, prototypes, kind = problem(rows=3001)
rng = np.random.default_rng(1)
weight, bias = rng.uniform(0.5, 1.5, x.shape[1]).astype(np.float32), rng.standard_normal(x.shape[1]).astype(np.float32)
result = np.full(len(x), -1)
nearest(x, weight, bias, prototypes, result)

wide = x.astype(np.float64)
y = (wide - wide.mean(axis=1, keepdims=True)) / np.sqrt(wide.var(axis=1, keepdims=True) + 1e-5) * weight + bias
products = y @ prototypes.T.astype(np.float64)
lost = products.max(axis=1) - products[np.arange(len(x)), result]
assert lost.max() <= 1e-4, lost.max()  # ties of float32 results may go either way
plain = np.empty(len(x), np.int64)
nearest(x, np.ones_like(weight), np.zeros_like(bias), prototypes, plain)
assert (plain == kind).mean() > 0.99, (plain == kind).mean()
print("nearest.py agrees with NumPy")

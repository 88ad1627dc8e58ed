"""Holds `squared_relu.py` to differences of its own loss, and sees that it learns."""

import numpy as np
from squared_relu import loss_and_gradients, problem, train

data, parameters = problem()
_, gradients = loss_and_gradients(*data, *parameters)
rng = np.random.default_rng(1)
for parameter, gradient in zip(parameters, gradients, strict=True):
    direction = rng.standard_normal(parameter.shape)
    h = 1e-5
    parameter += h * direction
    above, _ = loss_and_gradients(*data, *parameters)
    parameter -= 2 * h * direction
    below, _ = loss_and_gradients(*data, *parameters)
    parameter += h * direction
    slope = (above - below) / (2 * h)
    assert abs((gradient * direction).sum() - slope) <= 1e-6 * max(1.0, abs(slope)), ((gradient * direction).sum(), slope)
losses = train(*problem(np.float32))
assert losses[-1] < losses[0] / 3, (losses[0], losses[-1])
print("squared_relu.py has the gradient of its loss, and learns")

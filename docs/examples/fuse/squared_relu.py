"""A network with the squared ReLU of Primer (So et al. 2021) compiled into its layer norm, forward and backward."""

import sys

import numpy as np

import normfast as nf


def squared_relu(z):
    return z * z if z > 0 else 0 * z


def slope(z):
    return 2 * z if z > 0 else 0 * z


norm = nf.fuse(nf.layer_norm, epilogue=squared_relu, derivative=slope)


def loss_and_gradients(x, target, first, weight, bias, last):
    """Half the mean squared error of last @ squared_relu(layer_norm(first @ x)), and its gradients in the order of the parameters."""
    z = x @ first
    a, stats = norm.forward(z, weight, bias)
    error = a @ last - target
    d = error / len(x)
    dz, dweight, dbias = norm.backward(d @ last.T, z, stats, weight, bias)
    return 0.5 * (error**2).sum() / len(x), (x.T @ dz, dweight, dbias, a.T @ d)


def problem(dtype=np.float64, samples=256, features=8, hidden=32, seed=0):
    """Data of a smooth function, and parameters to begin with."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, features)).astype(dtype)
    target = np.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    first = rng.standard_normal((features, hidden)).astype(dtype) / np.sqrt(features)
    last = rng.standard_normal((hidden, 1)).astype(dtype) / hidden
    return (x, target), [first.astype(dtype), np.ones(hidden, dtype), np.zeros(hidden, dtype), last.astype(dtype)]


def train(data, parameters, steps=300, rate=0.05):
    """Gradient descent; the losses of all steps."""
    losses = []
    for _ in range(steps):
        loss, gradients = loss_and_gradients(*data, *parameters)
        losses.append(float(loss))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= rate * gradient
    return losses


def main():
    losses = train(*problem(np.float32))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")


if __name__ == "__main__":
    sys.exit(main())

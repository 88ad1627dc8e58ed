"""The nearest prototype of each row after layer norm, in one sweep: the normalized array never exists."""

import sys

import numpy as np
from numba import njit, prange

from normfast import numba as nfn


@njit(parallel=True, nogil=True, cache=True)
def nearest(x, weight, bias, prototypes, result):
    """For each row of x: which row of the prototypes has the largest inner product with the row's layer norm."""
    parts = 64
    for part in prange(parts):
        y = np.empty(x.shape[1], x.dtype)  # a row, in the first cache from here on
        for i in range(len(x) * part // parts, len(x) * (part + 1) // parts):
            nfn.layer_norm(nfn.row(x, i), weight, bias, 1e-5, y)
            best = -np.inf
            for k in range(len(prototypes)):
                product = 0.0
                for j in range(y.size):
                    product += y[j] * prototypes[k, j]
                if product > best:
                    best = product
                    result[i] = k


def problem(rows=20_000, n=96, kinds=5, seed=0):
    """Rows scattered around prototypes, each with an offset and a scale of its own that layer norm takes away."""
    rng = np.random.default_rng(seed)
    prototypes = rng.standard_normal((kinds, n)).astype(np.float32)
    kind = rng.integers(kinds, size=rows)
    x = prototypes[kind] + rng.standard_normal((rows, n)) / 2
    x = x * rng.uniform(0.1, 10, (rows, 1)) + rng.normal(0, 1000, (rows, 1))
    return x.astype(np.float32), prototypes, kind


def main():
    x, prototypes, kind = problem()
    weight, bias = np.ones(x.shape[1], np.float32), np.zeros(x.shape[1], np.float32)
    result = np.empty(len(x), np.int64)
    nearest(x, weight, bias, prototypes, result)
    print(f"{(result == kind).mean():.4f} of {len(x)} rows found their prototype")


if __name__ == "__main__":
    sys.exit(main())

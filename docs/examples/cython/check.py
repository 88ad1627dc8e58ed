"""What the extension computes is what normfast computes, also on four threads at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from pooling import pooled

import normfast as nf

rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    x = rng.normal(100, 1, (64, 20, 768)).astype(dtype)
    weight, bias = rng.normal(1, 0.1, (2, 768)).astype(dtype)
    out = np.empty((64, 768), dtype)
    with ThreadPoolExecutor(4) as pool:
        parts = [slice(i, i + 16) for i in range(0, 64, 16)]
        for done in [pool.submit(pooled, x[part], weight, bias, out[part]) for part in parts]:
            done.result()
    y = nf.layer_norm(x, weight, bias)
    expected = np.zeros_like(out)
    for t in range(20):  # in the order of the extension, so to the bit
        expected += y[:, t] / dtype(20)
    assert np.array_equal(out, expected), np.abs(out - expected).max()
print("pooled: the bits of nf.layer_norm")

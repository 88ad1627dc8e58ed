"""What the extension computes is what normfast computes, also on four threads at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scoring import score

import normfast as nf

rng = np.random.default_rng(0)
x = rng.normal(3, 1, (1000, 768)).astype(np.float32)
weight, head = rng.normal(1, 0.1, (2, 768)).astype(np.float32)
scores = np.empty(1000, np.float32)
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda i: score(x[i : i + 250], weight, head, scores[i : i + 250]), range(0, 1000, 250)))
expected = nf.rms_norm(x, weight, eps=1e-6).astype(np.float64) @ head
assert np.abs(scores - expected).max() <= 2e-7 * np.abs(expected).max(), np.abs(scores - expected).max()
print("score: rms_norm as nf.rms_norm")
for wrong in (np.float64(x), x[0], x[::2]):
    try:
        score(wrong, weight, head, scores)
    except (TypeError, ValueError, BufferError) as error:
        print(f"refused: {error}")
    else:
        raise AssertionError(f"took {wrong.dtype} of shape {wrong.shape}")

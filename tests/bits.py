"""The bits of every operation, as digests: `python tests/bits.py` prints those of one processor, to be compared with another's.

The inputs are multiples of 1/128, exact in every dtype, so that no processor's own rounding enters by them.
"""

import hashlib
import json
import sys

import numpy as np
from operations import cases, several

from normfast.engines.cython import level


def digest(case, dtype):
    """Of all that an operation returns, forward and backward, in its order."""
    rng = np.random.default_rng(0)
    arrays = {name: (rng.integers(-500, 500, shape) / 128).astype(dtype) for name, shape in case.shapes.items()}
    dy = (rng.integers(-500, 500, case.shapes["x"]) / 128).astype(dtype)
    y, saved = case.forward(**arrays)
    results = [*several(y), *(case.backward(dy, saved, **arrays) if case.backward else ())]
    return hashlib.sha256(b"".join(np.asarray(result).tobytes() for result in results)).hexdigest()[:16]


def digests(dtypes=("float16", "float32", "float64")):
    """For each case and dtype."""
    return {f"{case.name}, {dtype}": digest(case, dtype) for case in cases() for dtype in dtypes}


if __name__ == "__main__":
    json.dump({"level": level(), "digests": digests()}, sys.stdout)

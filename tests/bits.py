"""The bits of every operation, as digests: `python tests/bits.py` prints those of one processor, to be compared with another's.

The inputs are multiples of 1/128, exact in every dtype, so that no processor's own rounding enters by them. `python tests/bits.py FILE`
keeps the results themselves in FILE (.npz), on the data of `operations.py`.
"""

import hashlib
import json
import sys

import numpy as np
from operations import arrays_of, cases, several

from normfast.engines.cython import level

DTYPES = ("float16", "float32", "float64")


def everything(case, arrays, dy):
    """All that an operation returns, forward and backward, in its order."""
    y, saved = case.forward(**arrays)
    return [np.asarray(part) for part in (*several(y), *(case.backward(dy, saved, **arrays) if case.backward else ()))]


def digest(case, dtype):
    """Of all that an operation returns."""
    rng = np.random.default_rng(0)
    arrays = {name: (rng.integers(-500, 500, shape) / 128).astype(dtype) for name, shape in case.shapes.items()}
    dy = (rng.integers(-500, 500, case.shapes["x"]) / 128).astype(dtype)
    return hashlib.sha256(b"".join(part.tobytes() for part in everything(case, arrays, dy))).hexdigest()[:16]


def digests(dtypes=DTYPES):
    """For each case and dtype."""
    return {f"{case.name}, {dtype}": digest(case, dtype) for case in cases() for dtype in dtypes}


def results(dtypes=DTYPES):
    """The arrays, for each case, dtype and place among the results."""
    found = {}
    for case in cases():
        for dtype in dtypes:
            arrays, dy = arrays_of(case, dtype, dtype)
            found |= {f"{case.name}, {dtype}, {place}": part for place, part in enumerate(everything(case, arrays, dy))}
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        np.savez(sys.argv[1], **results())
    json.dump({"level": level(), "digests": digests()}, sys.stdout)

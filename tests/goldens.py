"""What has the same bits everywhere, as SHA-256: `python tests/goldens.py > tests/goldens.json` writes what test_bits.py compares.

Only what docs/reproducibility.md promises for every machine, engine and build stands here. The inputs are whole numbers over 16, exact in
every dtype and made by integer arithmetic, so that no library's stream of random numbers enters. Bytes are taken as little-endian.
"""

import hashlib
import json
import sys

import numpy as np

import normfast as nf

PROBABILITIES = (0.1, 0.25, 1 / 3, 0.5, 0.9, 2.0**-32)
SIZES = (1, 63, 64, 65, 4095, 4096, 4097, 100_003)
OFFSETS = (0, 1, 5, 4095, 4096, 2**32 + 3)
SHAPE = (37, 131)
DTYPES = ("float16", "bfloat16", "float32", "float64")


def numbers(shape, dtype, start=0):
    """Whole numbers over 16, between -8 and 8, none of them 0."""
    count = np.arange(start, start + np.prod(shape), dtype=np.int64) * 48271 % 2147483647 % 255 - 127
    return (np.where(count == 0, 128, count) / 16).astype(dtype).reshape(shape)


def sha(*arrays):
    parts = (np.ascontiguousarray(array) for array in arrays)
    little = (part if part.dtype.kind == "V" and sys.byteorder == "little" else part.astype(part.dtype.newbyteorder("<")) for part in parts)
    return hashlib.sha256(b"".join(part.tobytes() for part in little)).hexdigest()


def plain_masks():
    """Which elements are kept, by p and length."""
    for p in PROBABILITIES:
        for n in SIZES:
            x = np.ones(n, np.float32)
            mask = nf.dropout_forward(x, p, rng=7)[1]
            yield f"mask, p={p:.4g}, {n} values", sha(mask.toarray())
            yield f"packed mask, p={p:.4g}, {n} values", sha(mask.packbits())


def further_masks():
    """By key, offset and shared axes, and those of other operations."""
    for offset in OFFSETS:
        _, mask = nf.dropout_forward(np.ones(10_000), 0.3, rng=2**40 + 1, offset=offset)
        yield f"mask, offset={offset}", sha(mask.toarray())
    _, mask = nf.dropout_forward(np.ones(SHAPE), 0.3, rng=np.random.SeedSequence(5))
    yield "mask, SeedSequence(5)", sha(mask.toarray())
    for axis in (0, 1, (0, 1)):
        _, mask = nf.dropout_forward(np.ones((9, 7, 5, 6), np.float32), 0.4, rng=3, axis=axis)
        yield f"mask, axis={axis}", sha(mask.toarray())
    _, mask = nf.alpha_dropout_forward(np.ones(SHAPE), 0.3, rng=3)
    yield "mask, alpha_dropout", sha(mask.toarray())
    *_, mask = nf.dropout_add_layer_norm_forward(np.ones(SHAPE), np.ones(SHAPE), p=0.3, rng=3)
    yield "mask, dropout_add_layer_norm", sha(mask.toarray())
    *_, mask = nf.dropout_add_rms_norm_forward(np.ones(SHAPE), np.ones(SHAPE), p=0.3, rng=3)
    yield "mask, dropout_add_rms_norm", sha(mask.toarray())


def values(dtype):
    """Results whose every rounding is that of one operation: dropout, both ways, and norms of constants."""
    x, dy = numbers(SHAPE, dtype), numbers(SHAPE, dtype, start=10**6)
    for p in (0.0, 0.3, 0.5, 1.0):
        y, mask = nf.dropout_forward(x, p, rng=11)
        yield f"dropout, p={p}, {dtype}", sha(y, nf.dropout_backward(dy, mask))
    y, mask = nf.dropout_forward(x, 0.3, rng=11, axis=0)
    yield f"dropout, axis=0, {dtype}", sha(y, nf.dropout_backward(dy, mask))
    yield f"activation, identity, {dtype}", sha(nf.activation(x, "identity"))
    yield f"activation, relu, {dtype}", sha(nf.activation(x, "relu"))
    constant, bias = np.repeat(numbers((37, 1), dtype), 131, axis=1), numbers(131, dtype, start=5)
    y, stats = nf.layer_norm_forward(constant, None, bias)
    yield f"layer_norm of constants, {dtype}", sha(y, stats.mean, stats.var)
    y, stats = nf.batch_norm_forward(np.ascontiguousarray(constant.T), None, numbers(37, dtype))
    yield f"batch_norm of constants, {dtype}", sha(y, stats.mean, stats.var)
    m = nf.moments(constant, 1)
    yield f"moments of constants, {dtype}", sha(m.mean, m.m2)


def goldens(dtypes=DTYPES):
    """All of them, on the engine in use."""
    return dict(plain_masks()) | dict(further_masks()) | {name: digest for dtype in dtypes for name, digest in values(dtype)}


if __name__ == "__main__":
    import ml_dtypes  # noqa: F401  (gives NumPy the name bfloat16)

    json.dump(goldens(), sys.stdout, indent=0)
    print()

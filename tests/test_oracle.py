"""The chain of trust: textbook numbers and complex-step derivatives confirm the formulas that everything else is held against."""

import numpy as np
from oracle import agree, exact

from normfast.engines.numpy import gradient_of_normalized, normalized, philox4x32
from normfast.kernels import philox


def test_textbook_numbers():
    y, mean, var, rstd = exact([[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]], (1,), eps=0)
    assert (mean.item(), var.item(), rstd.item()) == (5.0, 4.0, 0.5)
    assert y.tolist() == [[-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]]


def test_a_constant_has_no_variance():
    y, mean, var, _ = exact(np.full((2, 1000), 0.1, np.float32), (1,), eps=0)
    assert (mean == np.float32(0.1)).all()
    assert (var == 0).all()
    assert (y == 0).all()


def test_gradient_by_complex_step(rng):
    """Squire and Trapp (1998): the derivative along u is the imaginary part of f(x + ih u) / h, with no cancellation."""
    x, u, dy = rng.normal(3, 2, (3, 4, 7))
    h = 1e-30
    moved = normalized(x + 1j * h * u, (1,), 1e-5)[0]
    along = (dy * moved.imag / h).sum()
    xhat, _, _, rstd = normalized(x, (1,), 1e-5)
    dx = gradient_of_normalized(dy, xhat, rstd, (1,))
    agree((dx * u).sum(), along, "gradient", units=200, scale=float(np.abs(dx * u).sum()))


# Random123 (github.com/DEShawResearch/random123, tests/kat_vectors): rounds, counter, key, words
KNOWN_ANSWERS = [
    (7, [0] * 4, [0] * 2, [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]),
    (7, [0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662]),
    (10, [0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (10, [0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        10,
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def test_philox_known_answers():
    for rounds, counter, key, words in KNOWN_ANSWERS:
        key = [np.uint64(k) for k in key]
        assert philox4x32(np.array(counter, np.uint64)[:, None], key, rounds)[:, 0].tolist() == words
        assert [int(w) for w in philox.philox4x32(*map(np.uint64, counter), *key, rounds)] == words

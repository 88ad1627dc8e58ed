"""Dropout's bits are as fair and independent as can be measured in seconds; docs/randomness.md has what takes hours.

Every statistic is a number of standard deviations from what fair bits give, and 5 of them are allowed: chance exceeds that once in 1.7
million. Seeds are fixed, so that each run says the same; `test_a_bad_generator_is_found` shows that every statistic can fail.
"""

import numpy as np
import pytest

import normfast as nf
from normfast import engines

BOUND, BOUND_OF_PAIRS = 5, 6  # there are thousands of pairs
LAGS = 1, 2, 3, 4, 16, 64, 256, 512, 768, 1024, 2048, 4096
RATES = 0.001, 0.1, 0.5, 0.9, 0.999


def kept(n, p, rng=0, offset=0):
    return nf.dropout_forward(np.broadcast_to(np.float32(1), n), p, rng=rng, offset=offset)[1].toarray()


def rate(keep, p):
    """How far the number of kept elements is off."""
    return (keep.sum() - keep.size * (1 - p)) / (keep.size * p * (1 - p)) ** 0.5


def correlation(a, b, p):
    """How far the covariance of two masks is off 0; it is not estimated but known to be p * (1 - p) if they are the same."""
    centred = a.reshape(-1) - (1 - p), b.reshape(-1) - (1 - p)
    return centred[0] @ centred[1] / (p * (1 - p) * a.size**0.5)


def lagged(keep, p):
    """A mask and itself, shifted by each of the lags."""
    return np.array([correlation(keep[lag:], keep[:-lag], p) for lag in LAGS])


def pairs(masks, p):
    """Each pair of some masks, and the squares of all of these together: there are too many, or too few, outliers if that is off."""
    centred = (np.array(masks) - (1 - p)) / (p * (1 - p)) ** 0.5
    z = (centred @ centred.T)[np.triu_indices(len(masks), 1)] / centred.shape[1] ** 0.5
    return np.append(z, chi_square((z**2).sum(), z.size))


def chi_square(x, freedom, excess=0.0):
    """A sum of `freedom` squares, each of mean 1 and variance 2 + excess."""
    return (x - freedom) / (freedom * (2 + excess)) ** 0.5


def sums(table, p):
    """The spread of the numbers of kept elements in the rows of a table."""
    n, variance = table.shape[1], table.shape[1] * p * (1 - p)
    squares = (table.sum(axis=1) - n * (1 - p)) ** 2 / variance
    return chi_square(squares.sum(), len(table), (1 - 6 * p * (1 - p)) / variance)


def runs(keep, p):
    """The number of runs of kept elements: they begin n q p times, and no two beginnings are neighbours."""
    begins, n, r = (keep[1:] & ~keep[:-1]).sum(), keep.size - 1, p * (1 - p)
    return (begins - n * r) / (n * (r - 3 * r * r)) ** 0.5


def patterns(keep, p):
    """The numbers of the 256 patterns that 8 neighbours can have."""
    counts = np.bincount(np.packbits(keep), minlength=256)
    ones = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)
    expected = counts.sum() * (1 - p) ** ones * p ** (8 - ones)
    return chi_square(((counts - expected) ** 2 / expected).sum(), 255)


def bits(words):
    """How often each of the 32 bits of some words is set."""
    ones = np.unpackbits(words.reshape(-1, 1).view(np.uint8), axis=1).sum(axis=0)
    return (ones - words.size / 2) / (words.size / 4) ** 0.5


def within(z, bound=BOUND):
    return bool((np.abs(z) < bound).all())


def check(z, bound=BOUND):
    assert within(z, bound), f"{np.abs(z).max():.1f} standard deviations: {z}"


@pytest.mark.parametrize(
    "p", [0.001, 1 / 300, 1 / 256, 0.01, 0.05, 0.1, 0.123456789, 0.3, 1 / 3, 0.5, 0.5 + 1 / 512, 2 / 3, 0.77, 0.9, 0.99, 0.9967, 0.999]
)
def test_keep_rate(p):
    check(rate(kept(1 << 22, p), p))


def test_keep_rate_of_two_hundred_probabilities():
    """Each with a seed of its own; their squares together see a bias that is below five deviations in each."""
    z = np.array([rate(kept(1 << 16, p, rng=seed), p) for seed, p in enumerate(np.linspace(0.001, 0.999, 200))])
    check(np.append(z, chi_square((z**2).sum(), z.size)))


@pytest.mark.parametrize("p", [0.001, 0.2500001, 1 / 3, 0.5])
@pytest.mark.parametrize("step", [2**-17, 2**-10])
def test_a_little_more_is_dropped(p, step):
    """What p drops, p + step drops too, and of the others as many as it should: twice as many, or none, if p were rounded to 16 bits."""
    less, more = kept(1 << 23, p, rng=3), kept(1 << 23, p + step, rng=3)
    assert not (more & ~less).any()
    check(rate(~(less & ~more), step))


def test_draws_that_are_nearly_p():
    """Where one more 256th of p decides, the rest of the draw says how: whatever it is made from, half of it is kept, without pattern."""
    less, half, more = (kept(1 << 24, p, rng=4) for p in (77 / 256, 77.5 / 256, 78 / 256))
    keep = half[less & ~more]
    check(rate(keep, 0.5))
    check(lagged(keep, 0.5))
    check(runs(keep, 0.5))
    check(patterns(keep, 0.5))


@pytest.mark.parametrize("p", RATES)
def test_neighbours_and_lags(p):
    keep = kept(1 << 20, p)
    check(lagged(keep, p))
    check(runs(keep, p))


@pytest.mark.parametrize("p", [0.3, 0.5, 0.8])
def test_patterns_of_neighbours(p):
    """At every one of the 8 places at which a pattern can begin."""
    keep = kept(1 << 22, p)
    check(np.array([patterns(keep[start:], p) for start in range(8)]))


@pytest.mark.parametrize("p", RATES)
@pytest.mark.parametrize("length", [768, 1000, 1024, 4096])
def test_rows_and_columns(p, length):
    table = kept((1 << 21) // length * length, p, rng=1).reshape(-1, length)
    check(correlation(table[1:], table[:-1], p))
    check(sums(table, p))
    check(sums(table.T, p))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_seeds(p):
    """Small ones, those that differ in one bit, and those beyond 32 and 64 bits."""
    check(pairs([kept(1 << 14, p, rng=seed) for seed in range(100)], p), BOUND_OF_PAIRS)
    check(pairs([kept(1 << 14, p, rng=seed) for seed in (0, *(1 << bit for bit in range(100)))], p), BOUND_OF_PAIRS)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_steps(p):
    """A Generator that draws one mask after the other, and the children of a SeedSequence."""
    generator = np.random.default_rng(0)
    check(pairs([kept(1 << 14, p, rng=generator) for _ in range(100)], p), BOUND_OF_PAIRS)
    check(pairs([kept(1 << 14, p, rng=child) for child in np.random.SeedSequence(0).spawn(100)], p), BOUND_OF_PAIRS)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_streams(p):
    """Parts of the stream of one key, from next to each other to as far apart as offsets go."""
    n = 1 << 14
    check(pairs([kept(n, p, offset=offset) for offset in (*range(0, 50 * n, n), *(1 << bit for bit in range(20, 63)))], p), BOUND_OF_PAIRS)


def test_words():
    """The bits of the words of a key, of keys that differ in one bit, and what consecutive seeds change; bytes and their neighbours."""
    words = words_of(nf.dropout_forward(np.ones(1), rng=0)[1].words(), 1 << 20)
    check(bits(words))
    check(bits(words[1:] ^ words[:-1]))
    check(np.array([chi_square(uniform(words >> np.uint32(shift) & np.uint32(0xFFFF), 1 << 16), (1 << 16) - 1) for shift in (0, 8, 16)]))
    seeds = np.array([words_of(nf.dropout_forward(np.ones(1), rng=seed)[1].words(), 256) for seed in range(1000)])
    check(bits(seeds))
    check(bits(seeds[1:] ^ seeds[:-1]))
    near = np.array([words_of(one_bit(bit), 1024) for bit in range(128)])
    check(bits(near))
    check(bits(near ^ words_of(np.zeros(4, np.uint64), 1024)))


def words_of(key, n):
    words = np.empty(n, np.uint32)
    engines.current().random_words(key, 0, words)
    return words


def one_bit(bit):
    key = np.zeros(4, np.uint64)
    key[bit // 32] = 1 << bit % 32
    return key


def uniform(values, cells):
    """The sum of squares for values that should have equal chances."""
    expected = values.size / cells
    return ((np.bincount(values, minlength=cells) - expected) ** 2).sum() / expected


def test_a_bad_generator_is_found():
    """A counter in the place of the draws, whose rate is right; p rounded to 8 bits, or to 16; masks that are the same."""
    n, p = 1 << 20, 0.3
    ramp = np.arange(n, dtype=np.uint32)
    keep = (ramp & 0xFFFF) >= round(p * 2**16)
    assert within(rate(keep, p))
    assert not within(rate(kept(1 << 22, 0.5), 0.5 + 1 / 512))
    assert not within(rate(np.ones(1 << 23, bool), 2**-17))
    assert not any(np.abs(lagged(keep, p)) < BOUND)
    assert not within(runs(keep, p))
    assert not within(patterns(keep, p))
    assert not within(sums(keep.reshape(-1, 1024), p))
    assert not within(correlation(keep, keep, p))
    assert not within(pairs([keep[:4096], keep[4096:8192]], p), BOUND_OF_PAIRS)
    same = kept(1 << 14, p)
    assert not within(pairs([kept(1 << 14, p, rng=1), same, kept(1 << 14, p, rng=2), same], p), BOUND_OF_PAIRS)
    assert not within(bits(ramp))
    assert not within(bits(ramp[1:] ^ ramp[:-1]))
    assert not within(chi_square(uniform(ramp & np.uint32(0xFFFF), 1 << 16), (1 << 16) - 1))
    assert not within(np.array([0.0, np.nan]))

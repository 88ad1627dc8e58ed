"""Dropout: the mask is the same on every engine and in both directions. How random it is: test_randomness.py."""

import pickle

import numpy as np
import pytest
from test_oracle import KNOWN_ANSWERS

import normfast as nf
from normfast import engines
from normfast.engines.numpy import kept_of, words_of


def test_words_are_philox_4x32_10(engine):
    """The engines' block of counters 0, 1, 2, ... holds Random123's known answers for counter 0 and key 0."""
    words = np.empty(2048, np.uint32)
    engines.current().random_words(np.zeros(4, np.uint64), 0, words)
    assert words[:64:16].tolist() == KNOWN_ANSWERS[2][3]
    key = np.array([*KNOWN_ANSWERS[4][2], *KNOWN_ANSWERS[4][1][2:]], np.uint64)
    for position in (0, 1, 1023, 2**50 + 77, 2**62):
        engines.current().random_words(key, position, words)
        assert (words == words_of(key, position, words.size)).all()


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_engines_agree(p, dtype, rng):
    x = rng.standard_normal((37, 1000)).astype(dtype)
    with nf.use_engine("numpy"):
        expected, mask = nf.dropout_forward(x, p, rng=3, offset=12345)
        keep = mask.toarray()
    assert (expected == np.where(keep, x * dtype(1 / (1 - p)), 0)).all()
    for name in ("cython", "numba"):
        try:
            nf.engines.load(name)
        except ImportError:
            continue
        with nf.use_engine(name):
            for threads in (1, 2, 5):
                with nf.threads(threads):
                    y, other = nf.dropout_forward(x, p, rng=3, offset=12345)
                    assert y.tobytes() == expected.tobytes()
                    assert (other.toarray() == keep).all()
                    assert nf.dropout_backward(x, mask).tobytes() == expected.tobytes()


@pytest.mark.parametrize("p", [2e-6, 0.1, 0.1 + 2**-20, 0.996, 1 - 2e-6])
def test_the_lower_bits_of_a_draw(p, engine):
    """They decide for one element in 256, which so has the chance p as the others have, and the same answer on every engine."""
    n, key = 1 << 21, np.arange(4, dtype=np.uint64)
    threshold = round(p * 2**32)
    kept, upper_alone, every = np.empty((3, n), bool)
    engines.current().keep(key, 77, threshold, kept)
    assert (kept == kept_of(key, 77, n, threshold)).all()
    engines.current().keep(key, 77, threshold & 0xFF000000, every)  # a tie is kept
    if threshold >> 24 < 255:
        engines.current().keep(key, 77, (threshold | 0xFFFFFF) + 1, upper_alone)  # a tie is dropped
    else:
        upper_alone[...] = False
    ties = every & ~upper_alone
    assert abs(ties.sum() - n / 256) < 5 * (n / 256) ** 0.5
    assert (kept[~ties] == every[~ties]).all()
    share = 1 - (threshold & 0xFFFFFF) / 2**24
    assert abs(kept[ties].sum() - share * ties.sum()) <= 1 + 5 * (share * (1 - share) * ties.sum()) ** 0.5


def test_the_mask_depends_on_key_and_position_alone(engine, rng):
    x = rng.standard_normal((60, 50)).astype(np.float32)
    y = nf.dropout(x, 0.4, rng=11)
    assert (nf.dropout(x.astype(np.float64), 0.4, rng=11) != 0).tolist() == (y != 0).tolist()
    assert (nf.dropout(np.asfortranarray(x), 0.4, rng=11) == y).all()
    assert (nf.dropout(x.reshape(-1)[:1700], 0.4, rng=11) == y.reshape(-1)[:1700]).all()
    assert (nf.dropout(x.reshape(-1)[1700:], 0.4, rng=11, offset=1700) == y.reshape(-1)[1700:]).all()
    assert (nf.dropout(x, 0.4, rng=12) != y).any()


def test_sources_of_randomness():
    x = np.ones(1000)
    seeds = np.random.SeedSequence(5), np.random.SeedSequence(5)
    assert (nf.dropout(x, rng=5) == nf.dropout(x, rng=5)).all()
    assert (nf.dropout(x, rng=seeds[0]) == nf.dropout(x, rng=seeds[0])).all()
    assert (nf.dropout(x, rng=seeds[0]) == nf.dropout(x, rng=5)).all()
    assert (nf.dropout(x) != nf.dropout(x)).any()
    generator = np.random.default_rng(5)
    first, second = nf.dropout(x, rng=generator), nf.dropout(x, rng=generator)
    assert (first != second).any()
    assert (nf.dropout(x, rng=np.random.default_rng(5)) == first).all()


def test_ends_of_p(engine):
    x = np.array([1.5, -0.0, np.inf, np.nan, -np.inf, 5e-324])
    assert nf.dropout(x, 0.0, rng=1).tobytes() == x.tobytes()
    assert nf.dropout(x, 1.0, rng=1).tobytes() == np.zeros(6).tobytes()
    y = nf.dropout(np.full(1000, np.inf), 0.5, rng=1)
    assert set(y.tolist()) == {0.0, np.inf}
    assert not nf.dropout_forward(x, 1.0)[1].toarray().any()
    assert nf.dropout_forward(x, 0.0)[1].toarray().all()


def test_given_masks_and_shared_axes(engine, rng):
    x = rng.standard_normal((4, 3, 5, 6)).astype(np.float32)
    keep = rng.random(x.shape) < 0.3
    y, mask = nf.dropout_forward(x, 0.2, mask=keep)
    assert (y == np.where(keep, x * np.float32(1 / 0.8), 0)).all()
    assert (nf.dropout_backward(x, mask) == y).all()
    y, mask = nf.dropout_forward(x, 0.5, rng=2, axis=(0, 1))
    whole = mask.toarray()
    assert (whole == whole[:, :, :1, :1]).all()
    drawn = nf.dropout_forward(np.ones((4, 3)), 0.5, rng=2)[1].toarray()
    assert (whole[:, :, 0, 0] == drawn).all()
    again, _ = nf.dropout_forward(x, 0.5, mask=mask)
    assert (again == y).all()
    inplace = x.copy()
    assert nf.dropout(inplace, 0.5, mask=mask, out=inplace) is inplace
    assert (inplace == y).all()


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 4097, 200_001])
def test_bits_of_a_given_mask(engine, dtype, n, rng):
    """A mask given by its bits is that of the flags, and a backward pass keeps an eighth of a byte an element."""
    x = rng.standard_normal(n).astype(dtype)
    keep = rng.random(n) < 0.3
    bits = np.packbits(keep, bitorder="little")
    for threads in (1, 2, 5):
        with nf.threads(threads):
            y, mask = nf.dropout_forward(x, 0.5, mask=bits)
            assert (y == np.where(keep, 2 * x, 0)).all()
            assert (nf.dropout_backward(x, mask) == y).all()
    assert mask.given.nbytes <= n / 8 + 8
    assert (mask.toarray() == keep).all()
    assert (mask.packbits() == bits).all()
    assert (nf.dropout(x, 0.5, mask=keep) == y).all()
    assert (pickle.loads(pickle.dumps(mask)).toarray() == keep).all()
    if n > 1:
        bits[0] ^= 1  # the caller's array is not the mask's
        assert (mask.toarray() == keep).all()
        with pytest.raises(TypeError, match=f"or its bits, {len(bits)} of uint8, got uint8 of shape"):
            nf.dropout(x, 0.5, mask=bits[1:])


def test_masks_are_small_and_travel():
    _, mask = nf.dropout_forward(np.ones((1000, 1000), np.float32), 0.1, rng=9, offset=7)
    data = pickle.dumps(mask)
    assert len(data) < 1000
    assert mask.key.nbytes == 16
    other = pickle.loads(data)
    assert (other.toarray() == mask.toarray()).all()
    assert (mask.packbits() == np.packbits(mask.toarray(), bitorder="little")).all()


def test_every_start_length_and_place(compiled_engine, rng):
    """Vectors begin with a cache line of the result and draws with a block of the stream: neither shows, and no neighbour is written."""
    for case in range(150):
        dtype = (np.float32, np.float64)[case % 2]
        n = int(rng.integers(1, 70) if case % 3 else rng.integers(1, 9000))
        before, offset = int(rng.integers(0, 20)), int(rng.choice([0, rng.integers(1, 10_000), 2**40 + 3]))
        p = float(rng.choice([0.003, 0.1, 0.25, 0.5, 0.9, 1e-9]))
        memory = np.full(before + n + 40, 7, dtype)
        x, y = rng.standard_normal(n + before).astype(dtype)[before:], memory[before : before + n]
        _, mask = nf.dropout_forward(x, p, rng=case, offset=offset, out=y)
        keep = kept_of(mask.words(), offset, n, mask.threshold)
        place = f"n={n}, p={p}, {dtype.__name__}, {before} values before, offset {offset}"
        assert (y == np.where(keep, x * dtype(mask.scale), 0)).all(), place
        assert (memory[:before] == 7).all(), place
        assert (memory[before + n :] == 7).all(), place
        assert (mask.toarray() == keep).all(), place
        assert (nf.dropout_backward(y, mask, out=y) == np.where(keep, x * dtype(mask.scale) * dtype(mask.scale), 0)).all(), place


def test_masks_of_every_kind_in_fused_blocks(engine, rng):
    """Drawn, shared along axes, continued and given masks, of arrays in any order of memory, leave what `dropout` leaves."""
    x, bias = rng.standard_normal((6, 8, 40)), rng.standard_normal(40)
    masks = [
        nf.dropout_forward(x, 0.4, rng=1)[1], nf.dropout_forward(x, 0.4, rng=1, offset=37)[1], nf.dropout_forward(x, 0.4, rng=1, axis=1)[1],
        nf.dropout_forward(x, 0.4, rng=1, axis=(0, 2))[1], nf.dropout_forward(x, mask=rng.random(x.shape) < 0.6)[1],
        nf.dropout_forward(x, 0.0, rng=1)[1], nf.dropout_forward(x, 1.0, rng=1)[1],
    ]  # fmt: skip
    for mask in masks:
        for own in (x, np.asfortranarray(x)):
            expected = nf.dropout(own + bias, mask.p, mask=mask)
            assert np.allclose(
                nf.bias_activation_dropout(own, bias, activation="identity", p=mask.p, mask=mask), expected, rtol=1e-14, atol=1e-14
            )
            z = expected + own
            y = nf.dropout_add_rms_norm(own + bias, own, p=mask.p, mask=mask, eps=0.0)
            assert np.allclose(y, z / np.sqrt((z * z).mean(axis=-1, keepdims=True)), rtol=1e-12, atol=1e-12)
            gradient = nf.bias_activation_dropout_backward(x, own, mask, bias, activation="identity").dx
            assert np.allclose(gradient, nf.dropout_backward(x, mask), rtol=1e-14, atol=1e-14)

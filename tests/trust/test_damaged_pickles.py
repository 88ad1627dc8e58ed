"""Pickles: from a wrong version or with damaged bytes they raise; whole ones, and those of releases before, load as they are."""

import copy
import pickle
import pickletools

import numpy as np
import pytest
from profiles import cases

import normfast as nf
from normfast.layers import BatchNorm, Dense, Dropout, LayerNorm, Sequential
from normfast.ops import _pickles
from normfast.preprocessing import MinMaxScaler, Standardizer, Whitener

X = np.random.default_rng(0).normal(3, 1, (40, 5)).astype(np.float32)


def trained():
    model = Sequential(Dense(5, 4, norm="batch", activation="relu", rng=0), Dropout(0.1, rng=1), LayerNorm(4))
    model(X)
    return model.eval()


OBJECTS = {  # name: (an object, what tells two of them apart)
    "mask": (lambda: nf.dropout_forward(X, 0.3, rng=1)[1], lambda mask: mask.toarray()),
    "given mask": (lambda: nf.dropout_forward(X, 0.5, mask=X > 3)[1], lambda mask: mask.toarray()),
    "moments": (lambda: nf.moments(X, axis=0), lambda m: m.to_bytes()),
    "covariance": (lambda: nf.covariance(X), lambda c: c.to_bytes()),
    "statistics": (lambda: nf.covariance(X).moments, lambda m: m.to_bytes()),
    "layer": (lambda: BatchNorm(5), lambda layer: layer.state_dict()),
    "model": (trained, lambda model: model(X)),
    "plan": (lambda: nf.inference.freeze(trained()), lambda plan: plan(X)),
    "standardizer": (lambda: Standardizer().fit(X), lambda scaler: scaler.transform(X)),
    "scaler": (lambda: MinMaxScaler((-1, 1)).fit(X), lambda scaler: scaler.transform(X)),
    "whitener": (lambda: Whitener().fit(X), lambda whitener: whitener.transform(X)),
}


SUMS = [
    (None, 3036405122), (True, 1408786383), (7, 3603798082), (-2.5, 594868821), (1j, 177016925), ("text", 1233293675),
    ("\ud800", 328568046), (b"bytes", 1627520545),
    ([1, 2], 1377370625), ([2, 1], 2360355179), ((1, 2), 1977693578), ({"a": 1}, 2931552742), ({"a": 2}, 934453340),
    (np.float32(3), 3308243886), (np.arange(3.0), 1983076180), (np.arange(3, dtype="<f4"), 2379977190), (np.zeros((2, 0)), 3695702309),
    (np.zeros((0, 2)), 2494677191), (np.array(["a", None], object), 532555510),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), SUMS, ids=[repr(value) for value, _ in SUMS])
def test_sums_stay(value, expected):
    """Pickles of this release are read by later ones, whose sums must be the same."""
    assert _pickles.sum_of(value) == expected


def test_generators_have_sums_of_their_own():
    one, same_again, other = (_pickles.sum_of(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same_again != other


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return a == b if isinstance(a, bytes) else np.array_equal(a, b)


@pytest.mark.parametrize("name", OBJECTS)
def test_whole_pickles(name):
    make, seen = OBJECTS[name]
    value = make()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert same(seen(pickle.loads(pickle.dumps(value, protocol))), seen(value))
    for again in (copy.copy(value), copy.deepcopy(value)):
        assert same(seen(again), seen(value))
        assert _pickles.SEAL not in getattr(again, "__dict__", {})


def test_a_copy_shares_and_a_deep_copy_does_not():
    layer = LayerNorm(3)
    assert copy.copy(layer).weight is layer.weight
    assert not np.may_share_memory(copy.deepcopy(layer).weight.data, layer.weight.data)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_later_version(name, monkeypatch):
    make, _ = OBJECTS[name]
    value = make()
    with monkeypatch.context() as later:
        for module in (_pickles, nf.ops.dropout):
            later.setattr(module, "VERSION", 2)
        content = pickle.dumps(value)
    with pytest.raises(ValueError, match=r"^this pickle of a \w+ has version 2 and this normfast reads version 1$"):
        pickle.loads(content)


HEADS = {"BINFLOAT": 1, "SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9}  # bytes in front of the numbers themselves


def numbers_in(content):
    """Positions of the bytes of floats and arrays in a pickle. Others are Python's and NumPy's own, which look at them or do not."""
    for opcode, argument, position in pickletools.genops(content):
        if opcode.name == "BINFLOAT" or (opcode.name in HEADS and len(argument) > 1):  # one byte is the kind of an empty array
            start = position + HEADS[opcode.name]
            yield from range(start, start + (8 if opcode.name == "BINFLOAT" else len(argument)))


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", OBJECTS)
def test_damaged_numbers(name, protocol, rng, tried):
    """A bit of the values themselves, which pickle does not notice."""
    whole = pickle.dumps(OBJECTS[name][0](), protocol)
    places = list(numbers_in(whole))
    count = cases(30, 2000)
    for at in rng.choice(places, count):
        bad = bytearray(whole)
        bad[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(ValueError, match=r"^this pickle of a \w+ is damaged: the sum over its content is wrong$"):
            pickle.loads(bytes(bad))
    for end in rng.integers(len(whole), size=5):
        with pytest.raises((pickle.UnpicklingError, EOFError)):
            pickle.loads(whole[:end])
    tried(count + 5)


@pytest.mark.parametrize("name", OBJECTS)
def test_pickles_of_releases_before(name, monkeypatch):
    """They carry neither version nor sum."""
    make, seen = OBJECTS[name]
    value = make()
    with monkeypatch.context() as before:
        for module in (_pickles, nf.inference.plans):
            before.setattr(module, "sealed", lambda state: state)
        content = pickle.dumps(value)
    assert same(seen(pickle.loads(content)), seen(value))


def test_other_states_of_releases_before():
    mask, plan, m = (OBJECTS[name][0]() for name in ("mask", "plan", "moments"))
    restored = mask.__reduce__()[0](*mask.__reduce__()[1][:-1])
    assert same(restored.toarray(), mask.toarray())
    again, slots = copy.copy(plan), nf.Moments(0, 0.0, 0.0)
    again.__setstate__((plan.steps, plan.ndim))
    assert same(again(X), plan(X))
    slots.__setstate__((None, {"count": m.count, "mean": m.mean, "m2": m.m2}))
    assert slots.to_bytes() == m.to_bytes()


class Own(LayerNorm):
    """A layer that changes what is pickled."""

    def __getstate__(self):
        return super().__getstate__() | {"cache": None}


def test_layers_that_pickle_in_their_own_way():
    layer = Own(3)
    layer.cache = np.ones(5)
    again = pickle.loads(pickle.dumps(layer))
    assert again.cache is None
    assert same(again.state_dict(), layer.state_dict())


def test_any_change_of_a_value_changes_the_sum():
    numbers = [0, 1, True, None, 1.0, -0.0, 0.0, np.nan, 1j, np.float32(1), np.ones(1), np.ones((1, 1)), np.array(["a", None], object)]
    values = [*numbers, "a", b"a", (), [], {}, (1,), [1], {"a": 1}]
    sums = [_pickles.sum_of(value) for value in values]
    assert len(set(sums)) == len(sums)

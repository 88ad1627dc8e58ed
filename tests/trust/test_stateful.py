"""States: merging, running statistics, layers and estimators in any order of calls, beside NumPy on all the data."""

import copy
import pickle

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from profiles import cases

import normfast as nf
from normfast.layers import BatchNorm, Dense, Dropout, LayerNorm, Sequential
from normfast.preprocessing import MinMaxScaler, Standardizer

SETTINGS = settings(
    max_examples=cases(25, 800), stateful_step_count=cases(20, 50), deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
SEEDS, U = st.integers(0, 2**32 - 1), 2.0**-53


def data(seed, rows, offset):
    return np.random.default_rng(seed).normal(offset, 1.0, (rows, 3))


def check_moments(m, x, merges):
    """Against longdouble; every merge may add a few roundings of mean and spread, every sum a chain of 136 (docs/numerics.md)."""
    assert m.count == len(x)
    if not len(x):
        assert np.isnan(m.mean).all()
        assert (m.m2 == 0).all()
        return
    wide = x.astype(np.longdouble)
    mean = wide.mean(axis=0)
    d = wide - mean
    far, most = np.abs(d).max(axis=0), np.abs(wide).max(axis=0)
    off = (140 + 8 * merges) * U * (far + most)
    assert (np.abs(m.mean - mean) <= off).all()
    assert (np.abs(m.m2 - (d * d).sum(axis=0)) <= 4 * len(x) * (off * far + off * off + (140 + 8 * merges) * U * far * far)).all()


class Merging(RuleBasedStateMachine):
    """Sets of moments with the data behind them: measured, merged, taken apart, written as bytes and pickles."""

    sets = Bundle("sets")

    @rule(target=sets, seed=SEEDS, rows=st.integers(0, 40), offset=st.sampled_from([0.0, 3.0, 1e3]))
    def measure(self, seed, rows, offset):
        x = data(seed, rows, offset)
        return nf.moments(x, axis=0), x, 0

    @rule(target=sets, a=sets, b=sets)
    def merge(self, a, b):
        x = np.concatenate([a[1], b[1]])
        known = a[2] is not None and b[2] is not None and len(x) <= 2000  # what has grown larger is not compared any more
        return a[0] + b[0], x[:2000], 1 + a[2] + b[2] if known else None

    @rule(target=sets, a=sets, b=sets)
    def unmerge(self, a, b):
        """What was merged in comes out again; the rounding of the whole stays."""
        whole = a[0] + b[0]
        rest = whole - b[0]
        assert rest.count == a[0].count
        if a[2] is None or b[2] is None or not len(a[1]):
            return a
        scale = np.abs(np.concatenate([a[1], b[1]])).max()
        off = 64 * U * scale * (1 + (len(a[1]) + len(b[1])) / len(a[1])) * (1 + a[2] + b[2])
        assert (np.abs(rest.mean - a[0].mean) <= off).all()
        return a

    @rule(target=sets, a=sets, way=st.sampled_from(["bytes", "pickle", "copy"]))
    def carry(self, a, way):
        m = {
            "bytes": lambda m: nf.Moments.from_bytes(m.to_bytes()),
            "pickle": lambda m: pickle.loads(pickle.dumps(m)),
            "copy": copy.deepcopy,
        }[way](a[0])
        assert m.to_bytes() == a[0].to_bytes()
        return m, a[1], a[2]

    @rule(parts=st.lists(sets, min_size=1, max_size=6))
    def tree(self, parts):
        if all(part[2] is not None for part in parts):
            merges = 8 + sum(part[2] for part in parts)
            check_moments(nf.Moments.merge([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), merges)

    @rule(a=sets)
    def compare(self, a):
        if a[2] is not None:
            check_moments(a[0], a[1], a[2])


class Learning(RuleBasedStateMachine):
    """Estimators that learn in chunks, and running statistics by the cumulative average, beside all the data at once."""

    @initialize(seed=SEEDS)
    def begin(self, seed):
        self.x = data(seed, 8, 3.0)
        self.scaler, self.ends = Standardizer().fit(self.x), MinMaxScaler((-1, 2)).fit(self.x)
        self.layer, self.batches = BatchNorm(3, momentum=None), []

    @rule(seed=SEEDS, rows=st.integers(1, 30), offset=st.sampled_from([0.0, 3.0, 100.0]))
    def learn(self, seed, rows, offset):
        chunk = data(seed, rows, offset)
        self.x = np.concatenate([self.x, chunk])
        self.scaler.partial_fit(chunk)
        self.ends.partial_fit(chunk)

    @rule()
    def begin_again(self):
        self.scaler.fit(self.x)
        self.ends.fit(self.x)

    @rule(way=st.sampled_from([copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]))
    def carry(self, way):
        self.scaler, self.ends, self.layer = way(self.scaler), way(self.ends), way(self.layer)

    @rule(seed=SEEDS, rows=st.integers(2, 30))
    def train(self, seed, rows):
        batch = data(seed, rows, 3.0)
        self.layer.train()(batch)
        self.batches.append(batch)

    @invariant()
    def is_what_numpy_finds(self):
        mean, std = self.x.mean(axis=0), self.x.std(axis=0)
        assert self.scaler.n_samples_seen_ == self.ends.n_samples_seen_ == len(self.x)
        np.testing.assert_allclose(self.scaler.mean_, mean, rtol=1e-10, atol=1e-10)  # 50 merges of magnitudes up to 1e2
        np.testing.assert_allclose(self.scaler.scale_, std, rtol=1e-10)
        assert (self.ends.data_min_ == self.x.min(axis=0)).all()
        assert (self.ends.data_max_ == self.x.max(axis=0)).all()
        np.testing.assert_allclose(self.scaler.inverse_transform(self.scaler.transform(self.x)), self.x, rtol=1e-10, atol=1e-10)
        if self.batches:  # buffers are float32: one rounding for each batch
            off = {"rtol": 2.0**-22 * (1 + len(self.batches)), "atol": 1e-6}
            np.testing.assert_allclose(self.layer.running_mean, np.mean([b.mean(axis=0) for b in self.batches], axis=0), **off)
            np.testing.assert_allclose(self.layer.running_var, np.mean([b.var(axis=0, ddof=1) for b in self.batches], axis=0), **off)


class Layers(RuleBasedStateMachine):
    """A network that is trained, judged, saved, loaded and copied in any order; inference changes nothing."""

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed):
        self.model = self.made(seed)
        self.saved = self.model.state_dict()
        self.x = np.random.default_rng(seed).normal(3, 1, (7, 4)).astype(np.float32)

    def made(self, seed):
        return Sequential(
            Dense(4, 5, norm="batch", activation="relu", rng=seed), Dropout(0.3, rng=seed), LayerNorm(5), Dense(5, 2, rng=seed)
        )

    def state(self):
        return {name: array.tobytes() for name, array in self.model.state_dict().items()}

    @rule(seed=SEEDS)
    def step(self, seed):
        """Forward, backward, and a step of gradient descent."""
        rng = np.random.default_rng(seed)
        y = self.model.train()(rng.normal(3, 1, (7, 4)).astype(np.float32))
        dx = self.model.backward(rng.standard_normal(y.shape).astype(np.float32))
        assert dx.shape == (7, 4)
        assert np.isfinite(dx).all()
        for parameter in self.model.parameters():
            assert parameter.grad.shape == parameter.data.shape
            parameter.data -= 0.01 * parameter.grad

    @rule()
    def judge(self):
        before = self.state()
        first, second = self.model.eval()(self.x), self.model.eval()(self.x)
        assert (first == second).all()
        assert self.state() == before, "inference has changed the layer"

    @rule()
    def freeze(self):
        """A plan does not follow what the model goes on to learn."""
        plan = nf.inference.freeze(self.model.eval())
        first = plan(self.x)
        self.step(1)
        assert (plan(self.x) == first).all()

    @rule()
    def save(self):
        self.saved = self.model.state_dict()

    @rule()
    def load(self):
        self.model.load_state_dict(self.saved)
        assert self.state() == {name: array.tobytes() for name, array in self.saved.items()}

    @rule(seed=st.integers(0, 1000))
    def load_into_another(self, seed):
        other = self.made(seed)
        other.load_state_dict(self.model.state_dict())
        assert (other.eval()(self.x) == self.model.eval()(self.x)).all()

    @rule(name=st.sampled_from(["0.weight", "2.bias", "0.norm.running_var"]), change=st.sampled_from(["missing", "shape", "more"]))
    def load_what_does_not_fit(self, name, change):
        before, state = self.state(), self.model.state_dict()
        if change == "missing":
            del state[name]
        elif change == "shape":
            state[name] = state[name][..., None]
        else:
            state[f"{name}2"] = state[name]
        try:
            self.model.load_state_dict(state)
        except ValueError:
            assert self.state() == before
        else:
            raise AssertionError(f"{name} {change} was taken")

    @rule(way=st.sampled_from([copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]))
    def carry(self, way):
        before = self.state()
        self.model = way(self.model)
        assert self.state() == before


for machine in (Merging, Learning, Layers):
    machine.TestCase.settings = SETTINGS

TestMerging, TestLearning, TestLayers = Merging.TestCase, Learning.TestCase, Layers.TestCase

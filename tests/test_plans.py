"""Frozen plans: what they give, what they allocate, threads, files and processes; and the page that teaches them."""

import copy
import doctest
import gc
import json
import multiprocessing
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from networks import F64, model, shaken
from oracle import agree

import normfast as nf
from normfast import safetensors
from normfast.inference import Plan, freeze, load, plans
from normfast.layers import (
    Activation,
    BatchNorm,
    Dense,
    Dropout,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    RMSNorm,
    Sequential,
    load_state,
)

TRACKED = {"track_running_stats": True, "affine": True}
MODELS = {  # a model of a dtype, and a shape that it takes
    "nothing": (lambda d: Sequential(Dropout(0.5)), (5, 3)),
    "dense": (lambda d: Dense(6, 4, dtype=d), (5, 6)),
    "dense without bias": (lambda d: Dense(6, 4, bias=False, activation="gelu", dtype=d), (2, 3, 6)),
    "one sample": (lambda d: Sequential(Dense(6, 4, dtype=d), Activation("silu")), (6,)),
    "network": (lambda d: model(d, 0.2), (7, 6)),
    "layer norm, dense": (lambda d: Sequential(LayerNorm(6, dtype=d), Dense(6, 4, activation="tanh", dtype=d)), (3, 5, 6)),
    "layer norm without weight": (lambda d: Sequential(LayerNorm(6, elementwise_affine=False, dtype=d), Dense(6, 4, dtype=d)), (5, 6)),
    "layer norm of two axes": (lambda d: Sequential(LayerNorm((5, 6), dtype=d), Dense(6, 4, dtype=d)), (3, 5, 6)),
    "rms norm, dense": (lambda d: Sequential(RMSNorm(6, dtype=d), Dropout(0.1), Dense(6, 4, bias=False, dtype=d)), (5, 6)),
    "batch norm alone": (lambda d: BatchNorm(4, activation="relu", dtype=d), (3, 4, 2, 5)),
    "batch norm of NHWC": (lambda d: Sequential(BatchNorm(4, axis=-1, dtype=d), Activation("gelu")), (3, 2, 5, 4)),
    "batch norm, dense": (lambda d: Sequential(BatchNorm(6, dtype=d), Dense(6, 4, dtype=d)), (5, 6)),
    "batch norms around dense": (
        lambda d: Sequential(BatchNorm(6, dtype=d), Dense(6, 4, norm="batch", dtype=d), BatchNorm(4, dtype=d)),
        (5, 6),
    ),
    "batch norm behind relu": (lambda d: Sequential(Dense(6, 4, activation="relu", dtype=d), BatchNorm(4, dtype=d)), (5, 6)),
    "channels beside features": (lambda d: Sequential(Dense(6, 4, dtype=d), BatchNorm(3, dtype=d), Dense(4, 2, dtype=d)), (5, 3, 6)),
    "group norm": (lambda d: Sequential(GroupNorm(2, 4, dtype=d), Activation("relu")), (3, 4, 4, 5)),
    "dense, group norm": (lambda d: Dense(6, 4, norm=GroupNorm(2, 4, dtype=d), activation="softplus", dtype=d), (5, 6)),
    "instance norm": (lambda d: Sequential(Sequential(InstanceNorm(4, affine=True, dtype=d)), Sequential()), (3, 4, 6, 7)),
    "instance norm, tracked": (lambda d: InstanceNorm(6, axis=-1, **TRACKED, dtype=d), (3, 5, 6)),
    "long": (lambda d: Sequential(*(Dense(6, 6, norm=n, activation="tanh", dtype=d) for n in ("layer", "rms", "batch", None) * 3)), (9, 6)),
    "float64 in the middle": (lambda d: Sequential(Dense(6, 5, dtype=np.float32), Dense(5, 4, **F64), LayerNorm(4)), (5, 6)),
}


def trained(case, dtype, rng):
    """A model whose weights and running statistics are those of no fresh one, ready for inference, and an input."""
    make, shape = MODELS[case]
    net = shaken(make(dtype), rng)
    for _ in range(3):
        net(rng.normal(0.5, 2, (8, *shape[1:]) if len(shape) > 1 else (8, *shape)).astype(np.float32))
    return net.eval(), rng.normal(0.5, 2, shape)


def python(code, *arguments):
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("case", MODELS)
def test_a_plan_gives_what_the_model_gives(engine, case, name, rng):
    dtype = np.dtype(name) if name != "bfloat16" else pytest.importorskip("ml_dtypes", reason="bfloat16 comes with ml_dtypes").bfloat16
    net, x = trained(case, np.float32 if np.dtype(dtype).itemsize == 2 else dtype, rng)
    exact = net(x.astype(np.float64))
    x = x.astype(dtype)
    expected, before = net(x), x.copy()
    plan = freeze(net)
    y = plan(x)
    assert y.dtype == expected.dtype
    if x.itemsize == 2:  # a plan rounds once, at the end
        unit, largest = 2.0 ** (-10 if name == "float16" else -7), np.abs(exact).max()
        assert np.abs(y.astype(np.float64) - net(x.astype(np.float64))).max() <= 2 * unit * largest
        assert (expected.astype(np.float32) != 0).any()
    else:
        agree(y, expected, case, units=256)
    assert (x == before).all()
    out = np.empty_like(y)
    assert plan(x, out=out) is out
    assert (out == y).all()


def test_half_weights_are_widened_once(rng):
    net = Sequential(LayerNorm(6, dtype=np.float16), Dense(6, 5, norm="batch", dtype=np.float16), Dense(5, 3, dtype=np.float16)).eval()
    for dtype in (np.float16, np.float32):
        x = rng.standard_normal((4, 6)).astype(dtype)
        y = freeze(net)(x)
        assert y.dtype == net(x).dtype == dtype
        assert np.abs(y - net(x)).max() <= 2.0**-8
    assert {step.weight.dtype for step in freeze(net).steps if step.weight is not None} == {np.dtype(np.float32)}


def test_what_is_folded(rng):
    def kinds(*layers, **options):
        return [step.kind for step in freeze(Sequential(*layers), **options).steps]

    relu = Dense(6, 6, activation="relu")
    assert kinds(BatchNorm(6), relu, Dropout(0.3), Activation(None)) == ["affine"]
    assert kinds(Dense(6, 6), BatchNorm(6), Dropout(0.3), BatchNorm(6, activation="relu"), Activation("tanh")) == ["affine", "activate"]
    assert kinds(relu, BatchNorm(6), Activation("tanh")) == ["affine", "channels"]
    assert kinds(relu, BatchNorm(6), Activation("identity"), relu) == ["affine", "affine"]
    assert kinds(BatchNorm(6, activation="relu"), relu) == ["channels", "affine"]
    assert kinds(Dense(6, 6), BatchNorm(6), ndim=3) == ["affine", "channels"]
    assert kinds(Dense(6, 6), BatchNorm(6, axis=-1), ndim=3) == kinds(Dense(6, 6), BatchNorm(6, axis=2), ndim=3) == ["affine"]
    assert kinds(Dense(6, 6), InstanceNorm(6, axis=-1, **TRACKED)) == ["affine"]
    for norm in (LayerNorm(6), RMSNorm(6)):
        (first, second) = freeze(shaken(Sequential(norm, relu), rng)).steps
        assert (first.kind, first.weight, first.bias) == ("row_norm", None, None)
        assert second.kind == "affine"


def test_a_far_mean_is_centred_first(rng):
    """Folded into the Dense layer behind it, a batch norm of mean 1e5 would leave two digits."""
    for mean, kinds in ((1e5, ["channels", "affine"]), (3.0, ["affine"])):
        net = Sequential(BatchNorm(6), Dense(6, 4)).eval()
        net.layers[0].running_mean[...] = mean
        x = (mean + rng.standard_normal((50, 6))).astype(np.float32)
        plan = freeze(net)
        assert [step.kind for step in plan.steps] == kinds
        wide = copy.deepcopy(net)
        for parameter in wide.parameters():
            parameter.data = parameter.data.astype(np.float64)
        assert np.abs(plan(x) - wide(x.astype(np.float64))).max() < 2e-6


def test_the_number_of_axes(rng):
    net = shaken(Sequential(Dense(6, 3, rng=0), BatchNorm(3)), rng)
    x = rng.standard_normal((4, 3, 6)).astype(np.float32)
    net(x)
    agree(freeze(net, ndim=3)(x), net.eval()(x), "channels and features alike", units=64)
    with pytest.raises(ValueError, match=r"x has shape \(4, 3, 6\): the plan takes 2 axes; for others freeze the model with ndim=3"):
        freeze(net)(x)
    for ndim in (0, True, 2.0):
        with pytest.raises(ValueError, match="ndim must be None or the number of axes"):
            freeze(net, ndim=ndim)


def test_what_cannot_be_frozen():
    class Own(Dense):
        def forward(self, x):
            return 2 * super().forward(x)

    for layer in (Own(3, 3), Sequential(Own(3, 3)), Layer(), Dense(3, 3, norm=type("Norm", (LayerNorm,), {"forward": abs})(3))):
        with pytest.raises(TypeError, match=r"cannot freeze .*without a forward of their own"):
            freeze(layer)


WRONG = [
    (lambda: np.ones((3, 5), np.float32), ValueError, r"x has shape \(3, 5\): step 0 of the plan \(affine\) needs 6 values along axis -1"),
    (lambda: np.float32(1), ValueError, r"x has shape \(\): step 0 of the plan \(affine\) needs an axis -1"),
    (lambda: np.ones((3, 6), int), TypeError, "x must be float16, bfloat16, float32 or float64, got int"),
    (lambda: np.ones((3, 6), complex), TypeError, "x must be float16"),
    (lambda: np.ma.ones((3, 6)), TypeError, "masked array"),
    (lambda: [["a"] * 6], TypeError, "x must be an array of floating-point numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("x", "error", "text"), WRONG)
def test_wrong_input(x, error, text):
    plan = freeze(Dense(6, 4, rng=0))
    out = np.zeros((3, 4), np.float32)
    with pytest.raises(error, match=text) as raised:
        plan(x(), out=out)
    assert "\n" not in str(raised.value)
    assert not out.any()
    assert plan(np.ones((3, 6), np.float32)).shape == (3, 4)


def test_later_steps_name_what_they_need():
    with pytest.raises(ValueError, match=r"step 1 of the plan \(affine\) has shape \(5, 4\) by then and needs 3 values .* finds 4"):
        freeze(Sequential(Dense(6, 4), Dense(3, 2)))(np.ones((5, 6)))
    with pytest.raises(ValueError, match="needs samples along axis 0"):
        freeze(GroupNorm(2, 4, axis=-1))(np.ones(4))
    with pytest.raises(ValueError, match="needs channels in 2 groups along axis 1 and finds 3"):
        freeze(GroupNorm(2, 4, affine=False))(np.ones((2, 3)))
    with pytest.raises(ValueError, match="needs 2 axes and finds 1"):
        freeze(LayerNorm((2, 3)))(np.ones(3))


def test_wrong_out():
    plan, x = freeze(Dense(6, 4, rng=0)), np.ones((3, 6), np.float32)
    frozen = np.zeros((3, 4), np.float32)
    frozen.flags.writeable = False
    overlapping = np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (3, 4), (0, 4))
    for out, error, text in (
        (
            np.zeros((3, 5), np.float32),
            ValueError,
            r"out has shape \(3, 5\) and dtype float32: it needs \(3, 4\) and float32",
        ),
        (np.zeros((3, 4)), ValueError, "out has shape .* and dtype float64: it needs"),
        (frozen, ValueError, "out is read-only"),
        (overlapping, ValueError, "out overlaps itself"),
        ([0], TypeError, "out must be a NumPy array, got list"),
    ):
        with pytest.raises(error, match=text):
            plan(x, out=out)
    assert not frozen.any()


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "unaligned": lambda x: np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    "subclass": lambda x: x.view(type("Own", (np.ndarray,), {})),
    "list": lambda x: x.astype(np.float64).tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_layouts_of_the_input(layout, dtype, rng):
    for net in (LayerNorm(6), Sequential(LayerNorm(6), Dense(6, 6, activation="gelu", rng=0)), BatchNorm(6).eval()):
        plan = freeze(net)
        x = LAYOUTS[layout](rng.standard_normal((5, 6)).astype(dtype))
        plain = np.array(x, np.float64 if layout == "list" else dtype, order="C")
        y = plan(x)
        assert type(y) is np.ndarray
        assert y.dtype == plain.dtype
        assert y.flags.c_contiguous
        assert (y == plan(plain)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_out_over_the_input(depth, dtype, rng):
    plan = freeze(Sequential(*(Dense(6, 6, activation="tanh", rng=i) for i in range(depth))))
    for samples in (1, 3, 9):
        x = rng.standard_normal((samples, 6)).astype(dtype)
        expected = plan(x)
        space = np.empty((2 * samples + 1, 6), dtype)
        for at in (slice(samples), slice(1, samples + 1), slice(samples, 2 * samples), slice(samples - 1, None, -1)):
            space[:samples] = x
            out = space[at]
            assert plan(space[:samples], out=out) is out
            assert (out == expected).all()
        strided = np.zeros((samples, 13), dtype)[:, 1:12:2]
        assert (plan(x, out=strided) == expected).all()


def test_empty_batches():
    for case, (make, shape) in MODELS.items():
        if len(shape) > 1:
            plan = freeze(make(np.float32))
            empty = np.empty((0, *shape[1:]), np.float32)
            assert plan(empty).shape == (0, *plan(np.ones(shape, np.float32)).shape[1:]), case
            assert plan(empty, out=np.empty_like(plan(empty))).size == 0


def test_batches_that_go_through_in_pieces(monkeypatch, rng):
    net, _ = trained("network", np.float32, rng)
    x = rng.standard_normal((103, 6)).astype(np.float32)
    expected = net(x)
    monkeypatch.setattr(plans, "PIECE", 100)
    plan = freeze(net)
    for z in (x, np.repeat(x, 2, axis=0)[::2], np.asfortranarray(x), x.astype(np.float16)):
        y = plan(z)
        assert np.abs(y - expected).max() < (1e-5 if z.itemsize > 2 else 0.05)
        assert (plan(z, out=np.empty((103, 6), y.dtype)[:, ::2]) == y).all()
    spaces = plan._local.spaces.values()
    assert any(space.in_pieces for space in spaces)
    assert all(space.nbytes < 8000 for space in spaces)
    square = freeze(Dense(6, 6, activation="relu", dtype=np.float64, rng=0))
    over = np.zeros((104, 6))
    over[:103] = x
    expected = square(over[:103])
    assert (square(over[:103], out=over[1:]) == expected).all()
    rows = freeze(LayerNorm((103, 6)))  # the first axis is no batch
    assert (rows(np.asfortranarray(x)) == rows(x)).all()


def test_few_workspaces_are_kept(rng):
    plan = freeze(Sequential(Dense(6, 6, rng=0), Dense(6, 6, rng=0)))
    for samples in range(1, 50):
        plan(np.ones((samples, 6), np.float32))
    assert len(plan._local.spaces) == plans.SHAPES
    wide = freeze(Sequential(LayerNorm(5_000_000), Activation("relu"), Dropout()))
    wide(np.ones((1, 5_000_000), np.float16))  # one sample cannot be cut
    assert len(wide._local.spaces) == 0


def test_a_call_with_out_allocates_nothing_of_the_size_of_the_batch(compiled_engine, rng):
    """Layer norm, dense, batch norm, activation: 3 MB of input, 0.3 MB of statistics if they were made anew."""
    net = Sequential(LayerNorm(64), Dense(64, 96, activation="gelu", rng=0), BatchNorm(96), Dense(96, 64, norm="rms", rng=1)).eval()
    plan = freeze(net)
    for samples, limit in ((12_000, 40_000), (30_000, 40_000)):  # the second goes through in pieces
        x = rng.standard_normal((samples, 64)).astype(np.float32)
        y = plan(x)
        for arguments in ((x,), (np.asfortranarray(x),), (x.astype(np.float16), y.astype(np.float16))):
            out = y if len(arguments) == 1 else arguments[1]
            plan(arguments[0], out=out)
            gc.collect()
            tracemalloc.start()
            plan(arguments[0], out=out)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < limit, (samples, arguments[0].dtype, peak)


def test_many_threads_give_the_same_bits(rng):
    """8 threads, inputs of their own and one that all share."""
    plan = freeze(trained("network", np.float32, rng)[0])
    inputs = [rng.standard_normal((samples, 6)).astype(np.float32) for samples in (1, 1, 2, 3, 5, 8, 64, 300)]
    expected = [plan(x) for x in inputs]
    wrong, barrier = [], threading.Barrier(8)

    def work(first):
        try:
            barrier.wait()
            for i in range(400):
                own = (first + i) % 8
                y = np.empty_like(expected[own])
                if not (plan(inputs[own], out=y) == expected[own]).all() or (plan(inputs[0]) != expected[0]).any():
                    wrong.append(own)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_few_samples_give_the_bits_of_each_alone(rng):
    """Up to four samples are multiplied one by one where the weights are many."""
    plan = freeze(Sequential(LayerNorm(300), Dense(300, 300, activation="gelu", rng=0)))
    x = rng.standard_normal((4, 300)).astype(np.float32)
    alone = np.concatenate([plan(row[None]) for row in x])
    for samples in (2, 3, 4):
        assert (plan(x[:samples]) == alone[:samples]).all()
    for samples in (5, 64, 65):
        x = rng.standard_normal((samples, 300)).astype(np.float32)
        agree(plan(x), np.concatenate([plan(row[None]) for row in x]), "in a batch", units=64)


def test_engines_and_threads_change_within(rng):
    net, x = trained("network", np.float32, rng)
    x = np.repeat(x, 5000, axis=0).astype(np.float32)
    plan, expected = freeze(net), net(x)
    first = plan(x)
    for name in ("numpy", "cython", "numba", "auto"):
        try:
            with nf.use_engine(name):
                agree(plan(x), expected, name, units=128)
                agree(plan(x[:3]), net(x[:3]), name, units=128)
        except ImportError:
            continue
    for n in (1, 3):
        with nf.threads(n):
            assert (plan(x) == first).all()


def test_a_call_within_a_call(rng):
    """An activation of the user's that calls the plan again."""
    within = []

    def again(z):
        if not within:
            within.append(None)
            within.append(plan(x))
        return z + 1

    x = rng.standard_normal((4, 6)).astype(np.float32)
    plan = freeze(Sequential(Dense(6, 6, rng=0), Activation((again, None.__class__)), Dense(6, 6, rng=1)))
    assert (plan(x) == within[1]).all()


def double(z):
    return 2 * z


def test_copies_and_pickles(rng, tmp_path):
    plan, x = freeze(Sequential(model(np.float32), Activation((double, double)))), rng.standard_normal((5, 6)).astype(np.float32)
    y = plan(x)
    for twin in (copy.copy(plan), copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert isinstance(twin, Plan)
        assert (twin(x) == y).all()
    with pytest.raises(ValueError, match=r"step \d of the plan is a function of yours, which no file can hold: pickle the plan"):
        plan.save(tmp_path / "plan.npz")
    assert os.listdir(tmp_path) == []
    named = freeze(model(np.float32))
    (tmp_path / "plan.pickle").write_bytes(pickle.dumps((named, x, named(x))))
    code = """
import pickle, sys
plan, x, y = pickle.load(open(sys.argv[1], "rb"))
print((plan(x) == y).all(), "normfast.layers" in sys.modules)
"""
    assert python(code, tmp_path / "plan.pickle") == "True False"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child(rng):
    plan = freeze(Sequential(LayerNorm(300), Dense(300, 200, activation="relu", rng=0)))
    x = rng.standard_normal((500, 300)).astype(np.float32)
    y = plan(x)
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(float(np.abs(plan(x) - y).max())))
    child.start()
    assert receive.poll(60)
    assert receive.recv() < 1e-5
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
@pytest.mark.parametrize("case", MODELS)
def test_files_hold_the_plan_to_the_bit(case, ending, rng, tmp_path):
    for dtype in (np.float32, np.float64):
        net, x = trained(case, dtype, rng)
        plan, path = freeze(net), tmp_path / f"plan.{ending}"
        plan.save(path)
        assert os.listdir(tmp_path) == [path.name]
        again = load(str(path))
        assert repr(again) == repr(plan)
        assert again.ndim == plan.ndim
        assert (again(x.astype(np.float32)) == plan(x.astype(np.float32))).all()


def loaded(path):
    """The plan of a file, or None and what the ValueError says."""
    try:
        return load(path), ""
    except ValueError as error:
        return None, str(error)


def test_damaged_files(rng, tmp_path):
    """Every byte of a .safetensors file counts; in an .npz file some do not (times of entries), and then nothing has changed."""
    plan, x = freeze(Sequential(BatchNorm(3, activation="relu"), Dense(3, 2, rng=0), RMSNorm(2))), rng.standard_normal((4, 3))
    y = plan(x)
    for ending in ("safetensors", "npz"):
        path, bad = tmp_path / f"plan.{ending}", tmp_path / f"bad.{ending}"
        plan.save(path)
        content = path.read_bytes()
        cases = [content[:n] for n in (*range(0, len(content), 97), len(content) - 1)] + [content + b" ", b"not a file of ours", b""]
        for at in range(0, len(content), 1 if ending == "safetensors" else 5):
            cases.append(content[:at] + bytes([content[at] ^ (1 << rng.integers(8))]) + content[at + 1 :])
        survived = 0
        for damaged in cases:
            bad.write_bytes(damaged)
            again, said = loaded(bad)
            if again is None:
                assert "\n" not in said
                assert bad.name in said
            else:
                assert (again(x) == y).all()
                survived += 1
        assert survived <= (1 if ending == "safetensors" else len(cases) // 3)  # a blank of JSON's padding may become a tab


def changed(path, change):
    """Write a plan's file again with other metadata or arrays, and its sum of bytes put right."""
    from normfast.inference.files import _sum

    arrays, metadata = safetensors.read(path)
    described = json.loads(metadata["normfast_plan"])
    change(described, arrays)
    text = json.dumps(described)
    safetensors.write(path, arrays, {"normfast_plan": text, "crc32": f"{_sum(text, arrays):08x}"})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda plan, arrays: plan.update(version=2), "it has version 2 and this normfast reads version 1"),
        (lambda plan, arrays: plan["steps"][0].update(kind="pickle"), "step 0 is of an unknown kind"),
        (lambda plan, arrays: plan["steps"][0].update(activation="os.system"), "unknown activation 'os.system'"),
        (lambda plan, arrays: plan["steps"][0].update(more=1), "unexpected keyword argument 'more'"),
        (lambda plan, arrays: plan["steps"][0].pop("activation"), "missing 1 required positional argument: 'activation'"),
        (lambda plan, arrays: plan["steps"][1].update(eps=-1), "eps must be a finite number of 0 or more"),
        (lambda plan, arrays: plan["steps"][1].update(axes=0), "axes must be an integer of 1 or more, got 0"),
        (lambda plan, arrays: plan["steps"][1].update(centred=1), "centred must be true or false"),
        (lambda plan, arrays: plan.update(ndim="two"), "ndim must be an integer of 1 or more"),
        (lambda plan, arrays: plan.update(steps=7), "not iterable"),
        (lambda plan, arrays: arrays.pop("0.weight"), r"step 0 \(affine\): its weight must be an array of float32 or float64"),
        (lambda plan, arrays: arrays.update({"0.bias": np.ones(9)}), r"its bias must have shape \(2,\), got \(9,\)"),
        (lambda plan, arrays: arrays.update({"0.weight": np.ones((2, 3), int)}), "its weight must be an array of float32 or float64"),
        (lambda plan, arrays: arrays.update({"7.weight": np.ones(2)}), "it has arrays that belong to no step: 7.weight"),
    ],
)
def test_files_that_hold_something_else(change, text, tmp_path):
    path = tmp_path / "plan.safetensors"
    freeze(Sequential(Dense(3, 2, rng=0), LayerNorm(2))).save(path)
    changed(path, change)
    with pytest.raises(ValueError, match=text) as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_foreign_files(tmp_path):
    with pytest.raises(ValueError, match=r"plan.pt must end in .safetensors or .npz"):
        load(tmp_path / "plan.pt")
    with pytest.raises(ValueError, match=r"plan.pt must end in .safetensors or .npz"):
        freeze(Dense(2, 2)).save(tmp_path / "plan.pt")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "plan.npz")
    safetensors.write(tmp_path / "state.safetensors", {"weight": np.ones(3)})
    with pytest.raises(ValueError, match=r"no entry normfast_plan; a PyTorch state_dict is read by nf.layers.load_state"):
        load(tmp_path / "state.safetensors")
    np.savez(tmp_path / "objects.npz", normfast_plan=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load(tmp_path / "objects.npz")


def test_a_service_imports_neither_layers_nor_numba_nor_scipy(rng, tmp_path):
    if nf.show_config("dicts")["engines"]["cython"].startswith("missing"):
        pytest.skip("the Cython engine is not installed here")
    plan, x = freeze(trained("network", np.float32, rng)[0]), rng.standard_normal((3, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    code = """
import sys, numpy as np, normfast as nf
plan = nf.inference.load(sys.argv[1])
y = plan(np.load(sys.argv[2]))
heavy = {"numba", "scipy", "torch", "ml_dtypes", "normfast.layers", "normfast.inference.freezing"}
print(y.tobytes().hex(), sorted(heavy & set(sys.modules)))
"""
    for ending in ("safetensors", "npz"):
        plan.save(tmp_path / f"plan.{ending}")
        assert python(code, tmp_path / f"plan.{ending}", tmp_path / "x.npy") == f"{plan(x).tobytes().hex()} []"


STATES = {
    "Linear": (lambda nn: nn.Linear(6, 4), lambda: Dense(6, 4)),
    "Linear without bias": (lambda nn: nn.Linear(6, 4, bias=False), lambda: Dense(6, 4, bias=False)),
    "BatchNorm1d": (lambda nn: nn.BatchNorm1d(6), lambda: BatchNorm(6)),
    "BatchNorm2d": (lambda nn: nn.BatchNorm2d(6, affine=False), lambda: BatchNorm(6, affine=False)),
    "LayerNorm": (lambda nn: nn.LayerNorm(6), lambda: LayerNorm(6)),
    "RMSNorm": (lambda nn: nn.RMSNorm(6, eps=1e-5), lambda: RMSNorm(6)),
    "GroupNorm": (lambda nn: nn.GroupNorm(3, 6), lambda: GroupNorm(3, 6)),
    "InstanceNorm1d": (lambda nn: nn.InstanceNorm1d(6, **TRACKED), lambda: InstanceNorm(6, **TRACKED)),
    "Sequential": (
        lambda nn: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 2)),
        lambda: Sequential(LayerNorm(6), Dense(6, 6), BatchNorm(6), Activation("relu"), Dropout(), Dense(6, 2)),
    ),
}
SHAPES_OF = {"BatchNorm2d": (5, 6, 3, 4), "InstanceNorm1d": (5, 6, 7)}


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", STATES)
def test_files_of_pytorch_load_as_they_are(case, name, rng, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    save_file = pytest.importorskip("safetensors.torch", reason="safetensors is not installed").save_file
    theirs, ours = (make(*arguments) for make, arguments in zip(STATES[case], ((torch.nn,), ()), strict=True))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += torch.from_numpy(rng.standard_normal(tuple(parameter.shape)).astype(np.float32))
    shape = SHAPES_OF.get(case, (5, 6))
    theirs(torch.from_numpy(rng.normal(1, 2, shape).astype(np.float32)))
    theirs = theirs.to(getattr(torch, name)).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours.load_state_dict(tmp_path / "model.safetensors")
    for key, value in load_state(str(tmp_path / "model.safetensors")).items():
        assert (value == theirs.state_dict()[key].to(torch.float64).numpy()).all(), key
    x = rng.standard_normal(shape).astype(np.float32)
    expected = theirs.double()(torch.from_numpy(x).double()).detach().numpy()
    agree(ours.eval()(x), expected, case, units=64)
    agree(freeze(ours)(x), expected, f"plan of {case}", units=64)
    again = STATES[case][1]()
    again.load_state_dict(theirs.to(getattr(torch, name)).state_dict())  # tensors themselves, of bfloat16 too
    assert (again.eval()(x) == ours(x)).all()


def test_states_that_do_not_fit(tmp_path):
    path, layer = tmp_path / "state.safetensors", LayerNorm(3)
    safetensors.write(path, {"weight": np.full(3, 2.0)})
    with pytest.raises(ValueError, match=r"missing \['bias'\]"):
        layer.load_state_dict(path)
    safetensors.write(path, {"weight": np.full(3, 2.0), "bias": np.zeros(4)})
    with pytest.raises(ValueError, match=r"bias has shape \(4,\)"):
        layer.load_state_dict(path)
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"state.safetensors is no safetensors file, or damaged: "):
        layer.load_state_dict(path)
    assert (layer.weight.data == 1).all()


def test_safetensors_of_every_dtype(tmp_path):
    """What is written comes back, bfloat16 apart, which `test_states_of_pytorch` reads."""
    path = tmp_path / "x.safetensors"
    arrays = {str(np.dtype(code)): np.arange(6).reshape(2, 3).astype(code) for code in safetensors.CODES.values()}
    arrays |= {"scalar": np.array(3), "empty": np.empty((0, 4), np.float32), "big-endian": np.arange(3.0).astype(">f4")}
    safetensors.write(path, arrays, {"by": "us"})
    again, metadata = safetensors.read(path)
    assert metadata == {"by": "us"}
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].shape == array.shape
        assert again[name].dtype == array.dtype.newbyteorder("=")
        assert (again[name] == array).all()
    header = b'{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(ValueError, match="x has dtype F8_E4M3, and NumPy has none of that kind"):
        safetensors.read(path)


def test_the_page_runs(tmp_path, monkeypatch):
    page = pathlib.Path(__file__).parent.parent / "docs" / "inference.md"
    if not page.exists():
        pytest.skip("the documentation is not beside these tests")
    monkeypatch.chdir(tmp_path)
    failed, ran = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert ran > 10
    assert failed == 0

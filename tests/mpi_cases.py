"""What the ranks of a job check together, for test_mpi.py: `mpiexec -n 3 python tests/mpi_cases.py mpi`; `gloo`: by PyTorch.

Each case runs on every rank; the last line that rank 0 prints is a JSON object of the cases and their failures, rank by rank.
"""

import copy
import gc
import json
import os
import pickle
import sys
import traceback

import numpy as np
from oracle import agree, exact, exact_gradients

import normfast as nf
from normfast.layers import BatchNorm
from normfast.mpi import SyncBatchNorm, all_moments
from normfast.mpi.communicators import ranks_of

BATCHES = {1: [16], 2: [5, 11], 3: [5, 0, 11], 4: [4, 4, 4, 4], 5: [5, 0, 7, 1, 3], 7: [0, 0, 1, 2, 3, 4, 6]}
RELU = (lambda z: np.maximum(z, 0), lambda da, z: da * (z > 0))


def started():
    """torch.distributed with a default group of gloo; the processes find each other by a file or, under torchrun, by a port."""
    import torch.distributed as distributed

    file = os.environ.get("NORMFAST_TEST_STORE")
    found = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"]), "init_method": f"file://{file}"} if file else {}
    distributed.init_process_group("gloo", **found)
    return distributed


class Job:
    """The communicator, and how a batch that all ranks know is divided among them."""

    def __init__(self, kind):
        self.kind = kind
        if kind == "gloo":
            self.comm = started().group.WORLD
        else:
            from mpi4py import MPI

            self.comm = MPI.COMM_WORLD
        self.ranks = ranks_of(self.comm)
        self.rank, self.size = self.ranks.rank, self.ranks.size
        self.ends = np.cumsum([0, *BATCHES[self.size]])
        self.rng = None  # the same numbers on all ranks, anew in each case

    def own(self, array):
        """This rank's samples of an array."""
        return array[self.ends[self.rank] : self.ends[self.rank + 1]]

    def same_bits(self, *arrays):
        """Assert that all ranks hold the same bits."""
        bits = [np.ascontiguousarray(array).tobytes() for array in arrays]
        assert all(other == bits for other in self.ranks.gather(bits))

    def raises(self, kind, match, call):
        """Assert that the call raises the same error on all ranks."""
        try:
            call()
        except kind as error:
            text = str(error)
        else:
            raise AssertionError(f"nothing was raised here: expected {match!r}")
        assert match in text, text
        assert set(self.ranks.gather(text)) == {text}


def pair(job, channels, dtype, *, axis=1, **options):
    """A synchronized layer and one for the whole batch, with the same parameters, neither 0 nor 1."""
    layers = SyncBatchNorm(channels, job.comm, axis=axis, dtype=dtype, **options), BatchNorm(channels, axis=axis, dtype=dtype, **options)
    for name in ("weight", "bias"):
        value = job.rng.normal(1, 0.5, channels)
        for layer in layers:
            if (parameter := getattr(layer, name)) is not None:
                parameter.data[...] = value
    return layers


def compare(job, shape, dtype, *, axis=1, scale=1.0, offset=3.0, masked=False, steps=2, **options):
    """Outputs, gradients and running statistics of the layer beside those of `BatchNorm` on all samples."""
    synchronized, whole = pair(job, shape[axis], np.float32 if np.dtype(dtype).itemsize == 2 else dtype, axis=axis, **options)
    units = 1.01 if np.dtype(dtype).itemsize == 2 else 8.0
    for _ in range(steps):
        x, dy = (job.rng.normal(offset, 1, shape) * scale).astype(dtype), job.rng.normal(size=shape).astype(dtype)
        where = job.rng.random(shape) < 0.7 if masked else None
        y = synchronized(job.own(x), where=None if where is None else job.own(where))
        dx = synchronized.backward(job.own(dy))
        agree(y, job.own(whole(x, where=where)).astype(np.longdouble), "y", units=units)
        expected = whole.backward(dy)
        assert y.dtype == dx.dtype == dtype
        assert dx.shape == y.shape == job.own(x).shape
        agree(dx, job.own(expected).astype(np.longdouble), "dx", units=2 * units, scale=np.abs(expected.astype(np.float64)).max())
        for ours, theirs in zip(synchronized.parameters(), whole.parameters(), strict=True):
            agree(ours.grad, theirs.grad.astype(np.longdouble), "a parameter's gradient", units=40)
            job.same_bits(ours.grad)
    for name in ("running_mean", "running_var"):
        agree(getattr(synchronized, name), getattr(whole, name).astype(np.longdouble), name, units=4)
        job.same_bits(getattr(synchronized, name))
    assert synchronized.num_batches_tracked == whole.num_batches_tracked == steps
    return synchronized, whole


def case_the_sixteen_samples(job):
    """The numbers of the promise: outputs to 1e-6, gradients to 1e-5."""
    synchronized, whole = pair(job, 8, np.float32)
    x, dy = (job.rng.normal(size=(16, 8, 6, 6)).astype(np.float32) for _ in range(2))
    assert np.abs(synchronized(job.own(x)) - job.own(whole(x))).max(initial=0) < 1e-6
    assert np.abs(synchronized.backward(job.own(dy)) - job.own(whole.backward(dy))).max(initial=0) < 1e-5
    for ours, theirs in zip(synchronized.parameters(), whole.parameters(), strict=True):
        assert np.abs(ours.grad - theirs.grad).max() < 1e-5 * np.abs(theirs.grad).max()
    assert np.abs(synchronized.running_mean - whole.running_mean).max() < 1e-7
    assert np.abs(synchronized.running_var - whole.running_var).max() < 1e-7


def case_shapes_and_dtypes(job):
    for dtype in (np.float16, np.float32, np.float64):
        for shape in ((16, 5), (16, 5, 7), (16, 5, 3, 4), (16, 5, 2, 3, 2)):
            compare(job, shape, dtype)
    compare(job, (16, 3, 4, 9), np.float32, axis=-1)
    compare(job, (16, 64, 50, 70), np.float32)  # with threads
    compare(job, (16, 16, 50, 70), np.float32, masked=True, steps=1)  # in several pieces
    compare(job, (16, 16, 50, 70), np.float16, steps=1, activation="relu")  # y at once, dx in pieces
    compare(job, (16, 1), np.float32)


def case_bfloat16(job):
    import ml_dtypes

    compare(job, (16, 5, 4, 4), ml_dtypes.bfloat16)


def case_options(job):
    for activation in ("relu", "gelu", "tanh", RELU):
        compare(job, (16, 5, 9), np.float32, activation=activation)
    for options in ({"momentum": None}, {"momentum": 0.3, "ddof": 0}, {"affine": False}, {"eps": 0.0}):
        compare(job, (16, 5, 9), np.float64, **options)


def case_masks(job):
    for dtype in (np.float32, np.float64):
        compare(job, (16, 5, 9), dtype, masked=True)
        compare(job, (16, 5, 9), dtype, masked=True, activation="gelu")


def case_strides(job):
    """Fortran order, negative strides, read-only."""
    synchronized, whole = pair(job, 6, np.float32)
    x, dy = (job.rng.normal(size=(16, 6, 5, 3)).astype(np.float32) for _ in range(2))
    views = [np.asfortranarray(job.own(x)), job.own(x)[:, ::-1, ::-1].copy()[:, ::-1, ::-1], job.own(x).copy()]
    views[2].flags.writeable = False
    expected, expected_dx = job.own(whole(x)), job.own(whole.backward(dy))
    for view in views:
        agree(synchronized(view), expected, "y")
        agree(synchronized.backward(np.asfortranarray(job.own(dy))), expected_dx, "dx", units=16)
    out = np.empty(job.own(x).shape, np.float32)
    assert synchronized(job.own(x), out=out) is out


def case_large_means(job):
    """|mean| / std = 1e5 in float32: against the exact result, forward and backward, within 1e-6."""
    for ratio in (1e3, 1e5):
        x, dy = job.rng.normal(ratio, 1, (16, 4, 50)).astype(np.float32), job.rng.normal(size=(16, 4, 50)).astype(np.float32)
        layer = SyncBatchNorm(4, job.comm)
        y, dx = layer(job.own(x)), layer.backward(job.own(dy))
        exact_y, _, _, _ = exact(x, (0, 2))
        exact_dx, *_ = exact_gradients(dy, x, (0, 2))
        assert np.abs(y - job.own(exact_y)).max(initial=0) < 1e-6
        assert np.abs(dx - job.own(exact_dx)).max(initial=0) < 1e-6


def case_extreme_values(job):
    for dtype, scale in ((np.float64, 1e200), (np.float64, 1e-200), (np.float32, 1e37), (np.float32, 1e-37)):
        x = (job.rng.normal(size=(16, 4)) * scale).astype(dtype)
        layer, whole = (make(4, *more, eps=0.0, dtype=np.float64) for make, more in ((SyncBatchNorm, (job.comm,)), (BatchNorm, ())))
        with np.errstate(all="ignore"):  # the running variance of 1e200 is infinite
            agree(layer(job.own(x)), job.own(whole(x)), f"y of values about {scale}", units=8)


def case_constants(job):
    """The variance is exactly 0 and y the bias, to the bit."""
    layer = SyncBatchNorm(3, job.comm)
    layer.bias.data[...] = [1, 2, 3]
    x = np.full((16, 3), [1e5, 0.1, -7], np.float32)
    y = layer(job.own(x))
    assert (y == [1, 2, 3]).all()
    agree(layer.running_var, np.full(3, 0.9, np.float32), "running_var", units=1)


def case_nan_and_infinity(job):
    """Of one rank: in its channel on all ranks, and nowhere else."""
    for bad in (np.nan, np.inf):
        x = job.rng.normal(size=(16, 3, 4)).astype(np.float32)
        x[-1, 1, 2] = bad  # on the last rank
        layer = SyncBatchNorm(3, job.comm)
        with np.errstate(all="ignore"):
            y, dx = layer(job.own(x)), layer.backward(job.own(np.ones_like(x)))
        for result in (y, dx):
            assert np.isnan(result[:, 1]).all() or (bad == np.inf and not np.isfinite(result[:, 1]).all())
            assert np.isfinite(result[:, [0, 2]]).all()
        assert not np.isfinite(layer.running_var[1])


def case_one_sample_in_all(job):
    """Without statistics of the variance with ddof=1 there is an error; with ddof=0 dx is exactly 0."""
    x = np.ones((int(job.rank == job.size - 1), 3), np.float32)
    job.raises(ValueError, "a batch of 1 values per channel has no variance", lambda: SyncBatchNorm(3, job.comm)(x))
    layer = SyncBatchNorm(3, job.comm, ddof=0)
    assert (layer(x) == 0).all()
    assert (layer.backward(x) == 0).all()


def case_one_sample_each(job):
    x, dy = job.rng.normal(size=(2, job.size, 3))
    layer, whole = SyncBatchNorm(3, job.comm, ddof=0), BatchNorm(3, ddof=0)
    own, steepest = slice(job.rank, job.rank + 1), 1 / np.sqrt(x.var(axis=0).min() + 1e-5)
    scale = 1 + np.abs(x).max() * steepest  # so far the rounding of a mean is seen in y: few samples may lie close together
    agree(layer(x[own]), whole(x)[own], "y", scale=scale)
    agree(layer.backward(dy[own]), whole.backward(dy)[own], "dx", scale=np.abs(dy).max() * steepest * scale)


def case_no_samples(job):
    layer = SyncBatchNorm(3, job.comm)
    job.raises(ValueError, "a batch of 0 values per channel", lambda: layer(np.empty((0, 3), np.float32)))
    assert (layer.running_mean == 0).all()
    assert layer.num_batches_tracked == 0


def case_wrong_input_on_one_rank(job):
    """The same error on all, nothing changed, and the layer goes on."""
    layer = SyncBatchNorm(3, job.comm)
    last = job.size - 1
    right = np.arange(12.0, dtype=np.float32).reshape(4, 3) + job.rank
    for kind, match, wrong in (
        (ValueError, "must have 3 channels", np.ones((4, 2), np.float32)),
        (TypeError, "must be float16, bfloat16, float32 or float64", np.ones((4, 3), int)),
        (ValueError, "axis 1 is out of bounds", np.ones(4, np.float32)),
    ):
        x = wrong if job.rank == last else right
        job.raises(kind, match, lambda x=x: layer(x))
        assert layer.num_batches_tracked == 0
    y = layer(right)
    dy = np.ones((2, 3) if job.rank == last else y.shape, np.float32)
    job.raises(ValueError, "dy has shape (2, 3) and x has (4, 3)", lambda: layer.backward(dy))
    assert np.isfinite(layer.backward(y)).all()
    if job.size > 1:
        job.raises(ValueError, f"(rank {last} of {job.size})", lambda: layer(np.ones((4, 2), np.float32) if job.rank == last else right))


def case_layers_that_differ(job):
    if job.size == 1:
        return
    last = job.rank == job.size - 1
    job.raises(ValueError, "the same num_features: rank 0 has 3 and rank", lambda: SyncBatchNorm(4 if last else 3, job.comm))
    job.raises(ValueError, "the same dtype", lambda: SyncBatchNorm(3, job.comm, dtype=np.float64 if last else np.float32))
    job.raises(ValueError, "the same momentum", lambda: SyncBatchNorm(3, job.comm, momentum=None if last else 0.1))
    job.raises(ValueError, "the same activation", lambda: SyncBatchNorm(3, job.comm, activation=RELU if last else "relu"))


def case_own_gradients(job):
    """With sum_gradients=False the sum over the ranks is what the whole batch gives."""
    layers = [SyncBatchNorm(4, job.comm, sum_gradients=flag) for flag in (False, True)]
    x, dy = (job.rng.normal(size=(16, 4, 3)) for _ in range(2))
    own, whole = ((layer(job.own(x)), layer.backward(job.own(dy)), layer) for layer in layers)
    assert (own[0] == whole[0]).all()
    assert (own[1] == whole[1]).all()
    for part, total in zip(own[2].parameters(), whole[2].parameters(), strict=True):
        agree(np.sum(job.ranks.gather(part.grad), axis=0), total.grad, "the sum of the parts", units=16)
    agree(own[2].bias.grad, job.own(dy).sum(axis=(0, 2)), "dbias", units=8, scale=1.0)


def case_inference_is_silent(job):
    """One rank alone calls the layer: nobody else is needed."""
    layer = SyncBatchNorm(3, job.comm)
    layer(job.rng.normal(size=(4, 3)).astype(np.float32))
    layer.eval()
    if job.rank == 0:
        x = job.rng.normal(size=(4, 3)).astype(np.float32)
        assert (layer(x) == nf.batch_norm(x, layer.running_mean, layer.running_var, *layer._affine())).all()


def case_states_and_copies(job):
    synchronized, whole = compare(job, (16, 4, 3), np.float32)
    whole.load_state_dict(synchronized.state_dict())
    x = job.rng.normal(size=(16, 4, 3)).astype(np.float32)
    assert list(synchronized.state_dict()) == list(whole.state_dict())
    assert (synchronized.eval()(x) == whole.eval()(x)).all()
    copied = copy.deepcopy(synchronized.train())
    agree(copied(job.own(x)), job.own(whole.train()(x)), "y of a copy")
    again = pickle.loads(pickle.dumps(synchronized))
    agree(again(job.own(x)), job.own(whole(x)), "y of an unpickled layer")
    assert nf.inference.freeze(synchronized)(x).shape == x.shape


def case_moments(job):
    """The bits of `Moments.merge`, on every rank."""
    x = job.rng.normal(1e6, 1, (16, 5)).astype(np.float32)
    parts = [x[low:high] for low, high in zip(job.ends, job.ends[1:], strict=False)]
    mask = job.rng.random((16, 5)) < 0.5
    masks = [mask[low:high] for low, high in zip(job.ends, job.ends[1:], strict=False)]
    for make in (
        lambda part, mask: nf.moments(part, axis=0),
        lambda part, mask: nf.moments(part, axis=0, where=mask),
        lambda part, mask: nf.moments(part, axis=0, weights=np.arange(len(part)) + 0.5),
        lambda part, mask: nf.moments(part),
        lambda part, mask: nf.covariance(part),
    ):
        of_ranks = [make(*both) for both in zip(parts, masks, strict=True)]
        merged, expected = all_moments(of_ranks[job.rank], job.comm), type(of_ranks[0]).merge(of_ranks)
        assert merged.to_bytes() == expected.to_bytes()
        job.same_bits(merged.mean, merged.m2)
    job.raises(TypeError, "got ndarray", lambda: all_moments(x if job.rank == job.size - 1 else nf.moments(x), job.comm))
    if job.size > 1:
        job.raises(ValueError, "do not merge", lambda: all_moments(nf.moments(x, axis=0 if job.rank else 1), job.comm))
        job.raises(TypeError, "unsupported", lambda: all_moments(nf.covariance(x) if job.rank else nf.moments(x, axis=0), job.comm))


class Counted:
    """A communicator that counts calls of its collectives."""

    def __init__(self, comm, names):
        self.comm, self.names, self.calls = comm, names, []

    def __getattr__(self, name):
        if name in self.names:
            self.calls.append(name)
        return getattr(self.comm, name)


def case_one_message_each_way(job):
    if job.kind == "gloo":
        names = ("all_gather", "all_reduce", "all_gather_object", "broadcast_object_list", "send_object_list", "recv_object_list")
        layer = SyncBatchNorm(3, job.comm)
        layer.ranks.distributed = counted = Counted(layer.ranks.distributed, names)
        expected = ["all_gather"], ["all_reduce"]
    else:
        names = ("Allreduce", "allreduce", "Allgather", "allgather", "bcast", "Bcast", "send", "recv", "Send", "Recv", "Barrier")
        counted = Counted(job.comm, names)
        layer = SyncBatchNorm(3, counted)
        expected = ["Allreduce"], ["Allreduce"]
    x = job.rng.normal(size=(16, 3)).astype(np.float32)
    for _ in range(2):
        for call, calls in zip((layer, layer.backward), expected, strict=True):
            counted.calls.clear()
            call(job.own(x))
            assert counted.calls == calls
    counted.calls.clear()
    layer.eval()(job.own(x))
    assert counted.calls == []


def case_repeats_to_the_bit(job):
    x = job.rng.normal(size=(16, 3, 40)).astype(np.float32)
    results = []
    for threads in (1, 2, 1):
        with nf.threads(threads):
            layer = SyncBatchNorm(3, job.comm)
            results.append([layer(job.own(x)), layer.backward(job.own(x)), layer.weight.grad, layer.running_var])
    for other in results[1:]:
        assert all(first.tobytes() == second.tobytes() for first, second in zip(results[0], other, strict=True))


def case_numpy_engine(job):
    with nf.use_engine("numpy"):
        compare(job, (16, 5, 9), np.float32)
        compare(job, (16, 5, 9), np.float64, masked=True, activation="gelu")


def case_wrong_communicators(job):
    for wrong in (3, "gloo", object()):
        job.raises(TypeError, "comm must be a communicator of mpi4py", lambda wrong=wrong: SyncBatchNorm(3, wrong))
    if job.kind == "mpi":
        from mpi4py import MPI

        job.raises(ValueError, "intracommunicator", lambda: SyncBatchNorm(3, MPI.COMM_NULL))
        half = job.comm.Split(job.rank == 0)  # rank 0 alone, and the others
        layer = SyncBatchNorm(3, half)
        x = job.rng.normal(size=(4, 3)).astype(np.float32)
        agree(layer(x), BatchNorm(3)(x), "y of a part of the job")
        with np.testing.assert_raises_regex(TypeError, "cannot be pickled"):
            pickle.dumps(layer)
    else:
        assert SyncBatchNorm(3, "torch.distributed").ranks.size == job.size


def case_one_rank_has_the_bits_of_batch_norm(job):
    if job.size > 1:
        return
    for dtype in (np.float32, np.float64):
        for shape in ((300, 5), (16, 5, 7), (16, 64, 40, 50)):
            synchronized, whole = pair(job, shape[1], dtype)
            x, dy = (job.rng.normal(size=shape).astype(dtype) for _ in range(2))
            assert (synchronized(x) == whole(x)).all()
            assert (synchronized.backward(dy) == whole.backward(dy)).all()
            assert all((a.grad == b.grad).all() for a, b in zip(synchronized.parameters(), whole.parameters(), strict=True))
            assert (synchronized.running_var == whole.running_var).all()


def case_torch_module(job):
    """The module beside the exact results for the whole batch, and PyTorch's running statistics; gradients of parameters are parts."""
    if job.kind != "gloo":
        return
    import torch
    from torch import nn

    from normfast.torch import SyncBatchNorm
    from normfast.torch.arrays import array

    dtypes = (torch.float32, torch.float64, torch.bfloat16)
    for dtype, shape in ((dtype, shape) for dtype in dtypes for shape in ((16, 4), (16, 4, 5, 3))):
        parameters, units = (torch.float32, 1.01) if dtype is torch.bfloat16 else (dtype, 16.0)
        whole = nn.BatchNorm2d(4, dtype=parameters) if len(shape) == 4 else nn.BatchNorm1d(4, dtype=parameters)
        layer = SyncBatchNorm(4, dtype=parameters)
        values, dy = (torch.tensor(job.rng.normal(2, 1, shape)).to(dtype) for _ in range(2))
        rows, axes = slice(*job.ends[job.rank : job.rank + 2]), (0, *range(2, len(shape)))
        x = values[rows].clone().requires_grad_()
        y = layer(x)
        y.backward(dy[rows])
        dx, dweight, dbias = exact_gradients(dy.double().numpy(), values.double().numpy(), axes)
        assert y.dtype is x.grad.dtype is dtype
        agree(array(y), job.own(exact(values.double().numpy(), axes)[0]), "y of the module", units=units, scale=4.0)
        agree(array(x.grad), job.own(dx), "dx of the module", units=units, scale=4.0)
        for parameter, expected in ((layer.weight, dweight), (layer.bias, dbias)):
            total = np.sum(job.ranks.gather(parameter.grad.numpy()), axis=0)
            scale = float(np.abs(expected).sum(axes).max())  # of the terms: their sum may nearly vanish
            agree(total, expected.sum(axes), "the sum of a parameter's gradients", units=16, scale=scale)
        whole(values.to(parameters))
        for name in ("running_mean", "running_var"):
            scale = 0.1 * float(values.double().abs().max())  # momentum times what is added up
            agree(getattr(layer, name).numpy(), getattr(whole, name).double().numpy(), name, scale=scale)
        whole.load_state_dict(layer.state_dict())
        assert torch.equal(layer.eval()(values), SyncBatchNorm.convert_sync_batchnorm(whole).eval()(values))


def case_torch_data_parallel(job):
    """DistributedDataParallel, which refuses PyTorch's own SyncBatchNorm on a CPU, trains as one process would."""
    if job.kind != "gloo":
        return
    import torch
    from torch import nn

    from normfast.torch import SyncBatchNorm

    torch.manual_seed(0)
    alone = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).double()
    together = nn.parallel.DistributedDataParallel(SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(alone)))
    rows = slice(*job.ends[job.rank : job.rank + 2])
    for model, own, factor in ((alone, slice(None), 1), (together, rows, job.size)):
        rng = np.random.default_rng(3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(4):
            x, target = (torch.tensor(rng.normal(size=(16, n))) for n in (3, 2))
            optimizer.zero_grad()
            (((model(x[own]) - target[own]) ** 2).sum() / 16 * factor).backward()  # DDP divides by the number of processes
            optimizer.step()
    for ours, theirs in zip(together.module.state_dict().values(), alone.state_dict().values(), strict=True):
        assert (ours - theirs).abs().max() < 1e-12
    job.raises(ValueError, "expected more than 1 value per channel", lambda: together.module[1](torch.ones(int(job.rank == 0), 6).double()))


CASES = [name for name in dir() if name.startswith("case_")]


def main(kind, *names):
    job, failures = Job(kind), {}
    for name in names or CASES:
        job.rng = np.random.default_rng(int(os.environ.get("NORMFAST_TEST_SEED", 7)))
        try:
            globals()[name](job)
            trouble = None
        except Exception:
            trouble = traceback.format_exc()
        troubles = job.ranks.gather(trouble)
        failures[name] = [f"rank {rank}: {text}" for rank, text in enumerate(troubles) if text]
    if job.rank == 0:
        print(json.dumps(failures), flush=True)
    return kind


def finish(kind):
    """End torch.distributed, once nothing holds its groups, and the process without the end of its libraries.

    PyTorch's threads abort a process of gloo at exit now and then ("terminate called without an active exception"), also without us.
    """
    if kind == "gloo":
        import torch.distributed as distributed

        gc.collect()
        distributed.destroy_process_group()
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    finish(main(*sys.argv[1:]))

"""How arrays of other libraries enter and leave: no copy, the caller's stream, and results of the caller's library."""

import gc

import numpy as np
import pytest
from devices import Lent, got, put

import normfast as nf
from normfast.engines.cuda import arrays, callers, dlpack
from normfast.engines.cuda.arrays import SIMULATED, DeviceArray
from normfast.engines.cuda.callers import Caller
from normfast.ops._device import lies_on_device, on_device

simulated = pytest.mark.skipif(not SIMULATED, reason="plays a library by arrays in the memory of the host, which only the simulator reads")


class Capsules:
    """An array of a library that speaks DLPack alone and has an array namespace: JAX, in short. Its memory is the host's."""

    def __init__(self, values):
        self.values = values
        self.streams = []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        steps = [step // self.values.itemsize for step in self.values.strides]
        name, address = self.values.dtype.name, self.values.__array_interface__["data"][0]
        return dlpack.give(address, self.values.shape, steps, name, (2, 0), self.values)

    def __array_namespace__(self):
        return Namespace


class Namespace:
    """What JAX calls `jax.numpy`."""

    @staticmethod
    def from_dlpack(array):
        return Taken(array)


class Taken:
    """A result that a library took over by DLPack."""

    def __init__(self, array):
        self.taken = dlpack.take(array, None)
        self.source = array


def test_what_lies_on_a_device(rng):
    x = np.ones(3, np.float32)
    assert lies_on_device(put(x))
    assert lies_on_device(Lent(x))
    assert not any(lies_on_device(values) for values in (x, [1.0], 1.0, None, "text", object()))
    assert not on_device(x)
    with nf.use_engine("cuda"):
        assert on_device(x)


@simulated
def test_memory_is_shared_not_copied(rng):
    values = rng.standard_normal((4, 6)).astype(np.float32)
    lent = Lent(values[::-1, ::2])
    with Caller(lent) as caller:
        array = caller.enter(lent, "x")
        lent.words[0, 0] = 77.0
        assert caller.to_host(array)[0, 0] == 77.0
        assert (array.shape, array.dtype, array.size, array.ndim) == (lent.words.shape, "float32", 12, 2)


@simulated
def test_dlpack_in_and_out(rng):
    values = rng.standard_normal((5, 8))
    x = Capsules(values)
    y = nf.layer_norm(x)
    assert isinstance(y, Taken)
    assert x.streams == [1]
    assert (got(y.source) == got(nf.layer_norm(put(values)))).all()
    assert (y.taken.shape, y.taken.dtype, y.taken.strides) == ((5, 8), "float64", (64, 8))
    del x, y
    gc.collect()
    assert not dlpack._lent  # every capsule's memory has been given back


@simulated
def test_a_capsule_that_nobody_takes_keeps_nothing_alive(rng):
    with Caller(put(np.ones(3))) as caller:
        array = caller.new((3,), "float64")
    before = len(dlpack._lent)
    capsule = array.__dlpack__()
    assert len(dlpack._lent) == before + 1
    del capsule
    assert len(dlpack._lent) == before


def test_an_unknown_library_gets_arrays_that_offer_both_protocols(rng):
    y = nf.dropout(Lent(rng.standard_normal((2, 6))), 0.5, rng=1)
    assert isinstance(y, DeviceArray)
    interface = y.__cuda_array_interface__
    assert (interface["shape"], interface["typestr"], interface["version"]) == ((2, 6), "<f8", 3)
    assert y.__dlpack_device__()[0] == 2
    assert lies_on_device(y)
    assert (got(nf.dropout(y, 0.0)) == got(y)).all()  # and the engine takes them again


@simulated
def test_the_stream_of_the_caller(rng, monkeypatch):
    """Each launch goes to the stream that the caller's array names, and the result names it too."""
    seen = []
    monkeypatch.setattr(callers, "SIMULATED", False)
    monkeypatch.setattr(callers, "numba_array", arrays._simulated)
    monkeypatch.setattr(callers, "address_of", lambda memory: memory.ctypes.data)
    monkeypatch.setattr(callers, "device_of", lambda x, library: 0)
    monkeypatch.setattr(callers.cuda, "external_stream", lambda handle: seen.append(handle) or 0, raising=False)
    y = nf.dropout(Lent(rng.standard_normal(8).astype(np.float32), stream=1234), 0.5, rng=1)
    assert seen == [1234]
    assert y.__cuda_array_interface__["stream"] == 1234
    nf.dropout(y, 0.5, rng=1)
    assert seen == [1234, 1234]
    nf.dropout(put(np.ones(3)), 0.5, rng=1)
    assert seen == [1234, 1234]


def test_parameters_may_lie_on_the_cpu_and_x_may_not_follow_them(rng):
    x, weight = rng.standard_normal((3, 8)).astype(np.float32), rng.standard_normal(8)
    assert (got(nf.layer_norm(put(x), weight)) == got(nf.layer_norm(put(x), put(weight)))).all()
    with pytest.raises(TypeError, match="weight lies on"):
        nf.layer_norm(x, Lent(weight))


def test_arguments_of_another_kind_are_refused(rng):
    x = rng.standard_normal((3, 8)).astype(np.float32)
    masked = Lent(x)
    interface = masked.__cuda_array_interface__ | {"mask": masked}
    with pytest.raises(TypeError, match="masked array"):
        nf.dropout(type("Masked", (), {"__cuda_array_interface__": interface})())
    with pytest.raises(ValueError, match="overlaps itself"):
        nf.dropout(put(x), out=type("Same", (), {"__cuda_array_interface__": masked.__cuda_array_interface__ | {"strides": (0, 4)}})())
    with pytest.raises(TypeError, match="got complex64"):
        nf.dropout(put(x.astype(np.complex64)))


@simulated
def test_tensors_of_pytorch(rng, monkeypatch):
    """A tensor's own memory, pool and stream: PyTorch for CUDA is played by tensors on the CPU that say they lie on a GPU."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Tensor(torch.Tensor):
        is_cuda = True

    made = []

    def empty(shape, dtype, device):
        made.append((shape, dtype))
        return plain(shape, dtype=dtype).as_subclass(Tensor)

    plain = torch.empty
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: type("Stream", (), {"cuda_stream": 0}))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        values = torch.from_numpy(rng.standard_normal((3, 16))).to(dtype)
        x = values.as_subclass(Tensor)
        y, stats = nf.layer_norm_forward(x)
        assert type(y) is type(stats.mean) is Tensor
        assert (y.dtype, stats.mean.dtype) == (dtype, torch.float64)
        expected = nf.layer_norm(values)
        assert np.abs(y.float().numpy() - expected.astype(np.float32)).max() <= (1e-6 if dtype == torch.float32 else 4e-2)
        z, mask = nf.dropout_forward(x, 0.5, rng=3, out=y)
        assert z is y
        assert ((y.float().numpy() != 0) == mask.toarray()).all()
    assert ((3, 16), torch.bfloat16) in made
    with pytest.raises(TypeError, match="records gradients"):
        nf.dropout(torch.ones(3, requires_grad=True).as_subclass(Tensor))


@simulated
def test_arrays_of_cupy_come_from_its_pool(rng, monkeypatch):
    """CuPy, played by a class of that name over the memory of the host."""
    import sys
    import types

    class ndarray(Lent):  # noqa: N801
        @property
        def data(self):
            return types.SimpleNamespace(ptr=self.__cuda_array_interface__["data"][0])

    ndarray.__module__ = "cupy"
    module = types.ModuleType("cupy")
    module.empty = lambda shape, dtype: ndarray(np.empty(shape, dtype))
    module.cuda = types.SimpleNamespace(get_current_stream=lambda: types.SimpleNamespace(ptr=0))
    monkeypatch.setitem(sys.modules, "cupy", module)
    x = rng.standard_normal((3, 16)).astype(np.float32)
    y, stats = nf.layer_norm_forward(ndarray(x))
    assert type(y) is type(stats.var) is ndarray
    assert (got(y) == got(nf.layer_norm(put(x)))).all()

"""Arrays of other libraries: every operation takes them, borrows their memory, other devices raise; estimators give back what they got."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
from operations import arrays_of, cases
from test_containers import OnlyDLPack

import normfast as nf
from normfast.ops._foreign import borrowed, writeable
from normfast.preprocessing import MinMaxScaler, Standardizer, Whitener, minmax_scale, standardize, whiten

torch_bfloat16 = "torch bfloat16"


def library(name):
    """The function that makes an array of a library from one of NumPy, over the same memory where the library can."""
    if name == "dlpack":
        return OnlyDLPack
    module = pytest.importorskip(name.split()[0], reason=f"{name} is not installed")
    if name == torch_bfloat16:
        return lambda x: module.from_numpy(x.view(np.int16)).view(module.bfloat16) if x.dtype == "bfloat16" else module.from_numpy(x)
    return {"torch": lambda x: module.from_numpy(x), "pyarrow": lambda x: module.Tensor.from_numpy(x)}.get(
        name, lambda x: module.asarray(x)
    )


def flat(results):
    """All arrays in a call's results, in order."""
    if isinstance(results, tuple | list):
        return [array for result in results for array in flat(result)]
    if isinstance(results, nf.DropoutMask):
        return [results.toarray()]
    return [] if results is None else [results]


@pytest.mark.parametrize("name", ["array_api_strict", "torch", torch_bfloat16, "jax.numpy", "pyarrow", "dlpack"])
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_operation_has_the_bits_of_numpy_arrays(case, name):
    make = library(name)
    dtype = {torch_bfloat16: "bfloat16", "jax.numpy": "float32"}.get(name, "float64")  # JAX makes float32 of float64
    arrays, dy = arrays_of(case, dtype, dtype)
    foreign = {key: make(np.ascontiguousarray(values)) for key, values in arrays.items()}
    expected, saved = case.forward(**arrays)
    actual, own_saved = case.forward(**foreign)
    directions = [(actual, expected)]
    if case.backward:
        dys = tuple(make(np.ascontiguousarray(d)) for d in dy) if isinstance(dy, tuple) else make(np.ascontiguousarray(dy))
        directions.append((case.backward(dys, own_saved, **foreign), case.backward(dy, saved, **arrays)))
    for actual, expected in directions:
        for result, other in zip(flat(actual), flat(expected), strict=True):
            if isinstance(other, np.ndarray):
                assert type(result) is np.ndarray
                assert result.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", ["array_api_strict", "torch", torch_bfloat16, "pyarrow", "dlpack"])
def test_memory_is_borrowed(name):
    dtype = pytest.importorskip("ml_dtypes", reason="bfloat16 is the dtype of ml_dtypes").bfloat16 if name == torch_bfloat16 else np.float32
    x = np.arange(12).astype(dtype).reshape(3, 4)
    array = borrowed(library(name)(x))
    assert array.dtype == x.dtype
    assert np.shares_memory(array, x)


@pytest.mark.parametrize("name", ["array_api_strict", "torch", torch_bfloat16, "dlpack"])
def test_results_are_written_into_other_libraries_arrays(name, engine, rng):
    dtype = pytest.importorskip("ml_dtypes", reason="bfloat16 is the dtype of ml_dtypes").bfloat16 if name == torch_bfloat16 else np.float32
    x, dy = rng.standard_normal((2, 6, 4)).astype(dtype)
    make = library(name)
    for call in (
        lambda **out: nf.layer_norm(x, **out),
        lambda **out: nf.batch_norm_forward(x, **out)[0],
        lambda **out: nf.dropout(x, 0.5, rng=1, **out),
        lambda **out: nf.layer_norm_backward(dy, x, nf.layer_norm_forward(x)[1], **out).dx,
        lambda **out: nf.activation(x, "gelu", **out),
        lambda **out: standardize(x, **out),
    ):
        memory = np.zeros_like(x)
        y = call(out=make(memory))
        assert np.shares_memory(y, memory)
        assert memory.tobytes() == call().tobytes()
    with pytest.raises(ValueError, match=r"out has shape \(4, 6\) .* it needs \(6, 4\)"):
        nf.layer_norm(x, out=make(np.zeros((4, 6), dtype)))


def test_masks_weights_and_running_statistics_too(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = rng.standard_normal((6, 4))
    where, weights = rng.random((6, 4)) > 0.3, rng.uniform(1, 2, 6)
    t = torch.from_numpy
    assert nf.layer_norm(x, where=t(where)).tolist() == nf.layer_norm(x, where=where).tolist()
    assert nf.dropout(x, 0.5, mask=t(where)).tolist() == nf.dropout(x, 0.5, mask=where).tolist()
    assert nf.moments(x, 0, weights=t(weights)).m2.tolist() == nf.moments(x, 0, weights=weights).m2.tolist()
    taking = {"where": where[:, 0], "weights": weights}
    assert nf.covariance(x, **{key: t(value) for key, value in taking.items()}).m2.tolist() == nf.covariance(x, **taking).m2.tolist()
    assert nf.sequence_mask((2, 3), lengths=t(np.array([1, 3]))).tolist() == [[True, False, False], [True] * 3]
    mean, var = torch.zeros(4), torch.ones(4)
    nf.update_running(mean, var, nf.batch_norm_forward(x)[1], momentum=1.0, ddof=0)
    assert np.allclose(mean, x.mean(0), rtol=1e-6)
    assert np.allclose(var, x.var(0), rtol=1e-6)
    layer = nf.layers.LayerNorm(4)
    layer.load_state_dict({"weight": torch.full((4,), 2.0, dtype=torch.bfloat16), "bias": torch.zeros(4)})
    assert layer.weight.data.tolist() == [2.0] * 4


class Elsewhere:
    """An array on a device with DLPack's number."""

    def __init__(self, number, name=None):
        self.number = number
        if name:
            self.device = name

    def __dlpack_device__(self):
        return self.number, 0

    def __dlpack__(self, **options):
        raise AssertionError("not to be asked for")


class CudaInterface:
    __cuda_array_interface__ = {}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Elsewhere(10, "rocm:0"),
            r"^{} lies on rocm:0 and this function computes on the CPU: copy it there first, such as by {}.cpu\(\)$",
        ),
        (lambda: Elsewhere(8), "^{} lies on a GPU and"),
        (lambda: torch("empty", 3, 4, device="meta"), "^{} lies on meta and"),
        (
            lambda: torch("ones", 3, 4, requires_grad=True),
            r"^{} is a tensor that records gradients, .* give {}.detach\(\), or use normfast.torch$",
        ),
        (lambda: torch("ones", 3, 4).to_sparse(), "to_dense"),
        (lambda: torch("ones", 3, 4, dtype=torch("complex64")).conj().imag, "^{}, a tensor, does not lend its memory: .*resolve_neg"),
        (lambda: on_device1(), "^{}, a Array, gives no NumPy array: .*device1"),
    ],
)
def test_what_cannot_be_borrowed_raises_one_line(make, text):
    x = np.ones((3, 4))
    stats = nf.layer_norm_forward(x)[1]
    array = make()
    calls = {
        "x": [nf.layer_norm, nf.moments, nf.covariance, nf.dropout, standardize, whiten, minmax_scale],
        "weight": [lambda w: nf.layer_norm(x, w)],
        "dy": [lambda dy: nf.layer_norm_backward(dy, x, stats)],
        "where": [lambda where: nf.layer_norm(x, where=where)],
    }
    if "gives no" not in text:
        calls["out"] = [lambda out: nf.layer_norm(x, out=out)]
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises(TypeError, match=text.format(*[name] * text.count("{}"))) as error:
                function(array)
            assert "\n" not in str(error.value)
    for make_estimator in (Standardizer, MinMaxScaler, Whitener):
        with pytest.raises(TypeError, match=text.format(*["x"] * text.count("{}")) if hasattr(array, "__dlpack__") else "number|GPU"):
            make_estimator().fit(array)


@pytest.mark.parametrize("make", [lambda: Elsewhere(2, "cuda:0"), CudaInterface])
def test_arrays_on_a_gpu_need_the_cuda_engine(make):
    try:
        nf.use_engine("cuda")
    except ImportError as error:
        reason = str(error)
    else:
        pytest.skip("there is a GPU here, where tests/cuda runs")
    for function in (nf.layer_norm, nf.rms_norm, nf.moments, nf.dropout):
        with pytest.raises(ImportError) as found:
            function(make())
        assert str(found.value) == reason
        assert "\n" not in reason
    for function in (nf.covariance, nf.lp_norm, standardize, whiten, minmax_scale):
        with pytest.raises(TypeError, match=r"^x lies on (cuda:0|a GPU) and this function computes on the CPU"):
            function(make())


def torch(name, *shape, **options):
    thing = getattr(pytest.importorskip("torch", reason="PyTorch is not installed"), name)
    return thing(*shape, **options) if callable(thing) else thing


def on_device1():
    strict = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    return strict.ones((3, 4), device=strict.Device("device1"))


def test_nulls_are_nan():
    for name, make in (
        ("pyarrow", lambda module: module.array([1.0, None, 3.0])),
        ("pyarrow", lambda module: module.table({"a": [1, None, 3]})),
        ("polars", lambda module: module.Series([1, None, 3])),
        ("polars", lambda module: module.DataFrame({"a": [1.0, None, 3.0]})),
    ):
        y = standardize(make(pytest.importorskip(name, reason=f"{name} is not installed")))
        assert np.array_equal(y.ravel(), [-1.0, np.nan, 1.0], equal_nan=True)


def test_layers_take_tensors(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, dy = rng.standard_normal((2, 6, 4)).astype(np.float32)
    for make in (
        lambda: nf.layers.BatchNorm(4),
        lambda: nf.layers.Dense(4, 4, norm="layer", activation="gelu", dropout=0.5, rng=0),
        lambda: nf.layers.Sequential(nf.layers.Dropout(0.5, rng=0), nf.layers.RMSNorm(4)),
    ):
        layer, twin = make(), make()
        assert layer(torch.from_numpy(x)).tolist() == twin(x).tolist()
        assert layer.backward(torch.from_numpy(dy)).tolist() == twin.backward(dy).tolist()
        y = layer.eval()(torch.from_numpy(x))
        assert type(y) is np.ndarray
        assert y.tolist() == twin.eval()(x).tolist()
    out = torch.empty(6, 4)
    assert nf.layers.Dropout(0.5).eval()(x, out=out).tolist() == out.tolist() == x.tolist()


def test_read_only_memory_is_no_result():
    x = np.ones((3, 4))
    locked = x.copy()
    locked.flags.writeable = False
    for out in (locked, library("jax.numpy")(np.ones((3, 4), np.float32))):
        before = np.array(out)
        with pytest.raises(ValueError, match="out is read-only: it must be writeable"):
            nf.layer_norm(x.astype(before.dtype), out=out)
        assert (np.array(out) == before).all()
    with pytest.raises(TypeError, match="out must be a NumPy array, got list"):
        writeable([1.0])


# Estimators.


ESTIMATORS = [
    Standardizer(),
    Standardizer(with_mean=False, ddof=1),
    MinMaxScaler(),
    MinMaxScaler((-1, 3), clip=True),
    Whitener(),
    Whitener("pca", n_components=2),
    Whitener("cholesky", shrinkage=0.1),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("name", ["array_api_strict", "torch", "jax.numpy"])
@pytest.mark.parametrize("dispatch", [False, True])
def test_estimators_return_what_scikit_learn_asks_for(estimator, name, dispatch, rng):
    sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    make = library(name)
    x = (rng.standard_normal((40, 3)) @ rng.standard_normal((3, 3))).astype(np.float32)
    expected = sklearn.clone(estimator).fit(x)
    y = expected.transform(x)
    with sklearn.config_context(array_api_dispatch=dispatch):
        fitted = sklearn.clone(estimator).fit(make(x))
        partly = sklearn.clone(estimator).partial_fit(make(x[:20])).partial_fit(make(x[20:]))
        transformed = fitted.transform(make(x))
        results = [transformed, fitted.inverse_transform(transformed), fitted.fit_transform(make(x))]
        assert np.allclose(partly.transform(make(x)), y, atol=1e-4)
    kind = type(make(x)) if dispatch else np.ndarray
    for result, other in zip(results, [y, expected.inverse_transform(y), y], strict=True):
        assert type(result) is kind
        assert np.asarray(result).tobytes() == other.tobytes()
    for attribute, value in vars(expected).items():
        if isinstance(value, np.ndarray):
            assert type(getattr(fitted, attribute)) is kind, attribute
            assert np.allclose(getattr(fitted, attribute), value, rtol=1e-6), attribute
    assert fitted.transform(x).tolist() == y.tolist()  # NumPy in, NumPy out, whatever it has learned from


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize(("name", "device"), [("array_api_strict", "CPU_DEVICE"), ("torch", "cpu"), ("numpy", None)])
def test_scikit_learns_own_check_of_array_api_input(estimator, name, device):
    """The estimators do not claim `array_api_support`, since other devices raise; on the CPU they pass what it stands for."""
    checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="scikit-learn is not installed")
    importlib.import_module(name) if name == "numpy" else library(name)
    for dtype in ("float32", "float64"):
        checks.check_array_api_input(repr(estimator), estimator, name, device, dtype, check_values=True, check_sample_weight=True)


@pytest.mark.parametrize("make", [Standardizer, MinMaxScaler, Whitener])
def test_bfloat16_stays(make, rng):
    x = rng.standard_normal((40, 3)).astype(pytest.importorskip("ml_dtypes", reason="bfloat16 is the dtype of ml_dtypes").bfloat16)
    y = make().fit_transform(x)
    assert y.dtype == x.dtype
    tensor = library(torch_bfloat16)(x)
    assert make().fit_transform(tensor).tobytes() == y.tobytes()
    sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    with sklearn.config_context(array_api_dispatch=True):
        assert make().fit_transform(tensor).dtype == tensor.dtype
    with pytest.raises(ValueError, match=r"infinity|finite"):
        make().fit(np.where(x == x.max(), np.inf, x).astype(x.dtype))


def test_in_place_on_a_tensors_memory(rng):
    sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    x = rng.standard_normal((40, 3)).astype(np.float32)
    expected = Standardizer().fit_transform(x)
    tensor = library("torch")(x)
    with sklearn.config_context(array_api_dispatch=True):
        y = Standardizer(copy=False).fit_transform(tensor)
    assert y.data_ptr() == tensor.data_ptr()
    assert x.tolist() == expected.tolist()


def test_the_examples_of_the_page():
    for name in ("torch", "pandas", "sklearn", "xarray"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    page = Path(__file__).parents[1] / "docs" / "interoperability.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert (failed, tried > 10) == (0, True)

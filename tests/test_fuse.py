"""nf.fuse: a function compiled into a norm, against longdouble formulas, their complex steps, and the norm and the function in turn."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from operations import bound, error, inference, mask_of, norm

import normfast as nf

pytest.importorskip("numba", reason="nf.fuse compiles by Numba, which is not installed")

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "fuse"
NCHW, NHWC = (4, 6, 5, 7), (4, 5, 7, 6)


def bump(z):
    """Analytic, for complex steps, 0 at 0, where masked values are, and as large as z, whose errors it passes on."""
    return z + z / (1 + z * z)


def slope(z):
    return 1 + (1 - z * z) / ((1 + z * z) * (1 + z * z))


def fused(operation, variant, shape, axes, parameter_axes, **options):
    """The case of a norm with `bump` after it."""
    plain = norm(operation, variant, shape, axes, parameter_axes, **options)
    op = nf.fuse(getattr(nf, operation), epilogue=bump, derivative=slope)

    def backward(dy, stats, x, weight, bias=None):
        return op.backward(dy, x, stats, weight, bias, **options)

    return replace(
        plain,
        formula=lambda **arrays: bump(plain.formula(**arrays)),
        forward=lambda x, **parameters: op.forward(x, **parameters, **options),
        backward=backward,
    )


def fused_inference(variant, shape, axis):
    plain, op = inference(variant, shape, axis), nf.fuse(nf.batch_norm, epilogue=bump, derivative=slope)
    rng = np.random.default_rng(1)  # as `inference` draws them
    mean, var = rng.normal(3, 1, shape[axis]), rng.uniform(1, 4, shape[axis])
    return replace(
        plain,
        formula=lambda **arrays: bump(plain.formula(**arrays)),
        forward=lambda x, weight, bias: (op(x, mean, var, weight, bias, axis=axis), None),
    )


def cases():
    return [
        fused("layer_norm", "last axis", (5, 131), (1,), (1,), axis=-1),
        fused("layer_norm", "long rows", (1, 2100), (1,), (1,), axis=-1),
        fused("layer_norm", "two axes", (4, 3, 5), (0, 2), (0, 2), axis=(0, 2)),
        fused("layer_norm", "where", (5, 31), (1,), (1,), axis=-1, where=mask_of(5, 31)),
        fused("rms_norm", "last axis", (5, 131), (1,), (1,), axis=-1),
        fused("rms_norm", "zero-centred", (3, 11, 3), (1,), (1,), axis=1, zero_centered=True),
        fused("group_norm", "NCHW", NCHW, None, (1,), num_groups=3),
        fused("group_norm", "NHWC", NHWC, None, (3,), num_groups=3, axis=-1),
        fused("group_norm", "where", NCHW, None, (1,), num_groups=3, where=mask_of(4, 1, 5, 7)),
        fused("instance_norm", "NCHW", NCHW, (2, 3), (1,)),
        fused("batch_norm", "training, NCHW", NCHW, (0, 2, 3), (1,)),
        fused("batch_norm", "training, few channels", (3, 2, 5, 7), (0, 2, 3), (1,)),
        fused("batch_norm", "training, short runs", (9, 4, 3), (0, 2), (1,)),
        fused("batch_norm", "training, NHWC", NHWC, (0, 1, 2), (3,), axis=-1),
        fused("batch_norm", "training, (N, C)", (131, 5), (0,), (1,)),
        fused("batch_norm", "training, ord=1", (131, 5), (0,), (1,), ord=1),
        fused("batch_norm", "training, where", NCHW, (0, 2, 3), (1,), where=mask_of(4, 1, 5, 7)),
        fused_inference("inference, NCHW", NCHW, 1),
        fused_inference("inference, NHWC", NHWC, -1),
    ]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_error(dtype, case):
    for direction in ("forward", "backward") if case.backward else ("forward",):
        assert error(case, direction, dtype) <= bound(case, dtype), direction


@pytest.fixture(scope="module")
def layer():
    return nf.fuse(nf.layer_norm, epilogue=bump, derivative=slope)


@pytest.fixture(scope="module")
def batch():
    return nf.fuse(nf.batch_norm, epilogue=bump, derivative=slope)


def everything(layer, batch, x, dy, images, dimages):
    """The bytes of all results."""
    weight, bias = np.linspace(-1, 1, x.shape[1]).astype(x.dtype), np.linspace(2, 1, x.shape[1]).astype(x.dtype)
    y, stats = layer.forward(x, weight, bias)
    results = [y, *stats[:3], *layer.backward(dy, x, stats, weight, bias)]
    y, stats = batch.forward(images)
    results += [y, *stats[:3], *batch.backward(dimages, images, stats)]
    return [np.asarray(result).tobytes() for result in results]


def test_bits_depend_on_neither_threads_nor_the_way_past_the_caches(layer, batch, rng, monkeypatch):
    x, dy = rng.standard_normal((2, 700, 301)).astype(np.float32)
    images, dimages = rng.standard_normal((2, 6, 20, 41, 33)).astype(np.float32)
    arrays = x, dy, images, dimages
    with nf.threads(1):
        expected = everything(layer, batch, *arrays)
    for threads in (2, 5):
        with nf.threads(threads):
            assert everything(layer, batch, *arrays) == expected, f"{threads} threads"
    found = []
    callers = [threading.Thread(target=lambda: found.append(everything(layer, batch, *arrays))) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [expected] * 6
    monkeypatch.setattr("normfast.engines.compiled.STREAMED", 0)
    assert everything(layer, batch, *arrays) == expected


def test_it_is_the_norm_and_then_the_function(layer, rng):
    x = rng.standard_normal((40, 33)).astype(np.float32)
    for name in ("cython", "numpy"):  # whatever engine is chosen
        try:
            with nf.use_engine(name):
                y = layer(x)
                assert nf.engines.current().name == name
        except ImportError:
            continue
        with nf.use_engine("numba"):
            z = nf.layer_norm(x)
        assert np.abs(y - bump(z)).max() <= 5e-7


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["layer_norm", "group_norm", "batch_norm"])
def test_out_may_be_what_is_read(name, order, rng):
    op = nf.fuse(getattr(nf, name), epilogue=bump, derivative=slope)
    x, dy = (np.asarray(values, order=order) for values in rng.standard_normal((2, 4, 6, 35)))
    options = {"num_groups": 2} if name == "group_norm" else {}
    y, stats = op.forward(x, **options)
    own = x.copy(order="K")
    assert op.forward(own, out=own, **options)[0] is own
    assert (own == y).all()
    gradients = op.backward(dy, x, stats, **options)
    for which in ("dy", "x"):
        given = {"dy": dy.copy(order="K"), "x": x.copy(order="K")}
        again = op.backward(given["dy"], given["x"], stats, out=given[which], **options)
        assert again.dx is given[which]
        for actual, expected in zip(again, gradients, strict=True):
            assert (actual == expected).all(), which


def test_functions_of_every_kind(rng):
    import numba

    x, scale = rng.standard_normal((3, 20)), 3.0
    z = nf.layer_norm(x)
    kinds = {
        "with a constant around it": lambda v: scale * v + 1,
        "jitted": numba.njit(lambda v: scale * v + 1),
        "with a signature": numba.njit("float64(float64)")(lambda v: 3.0 * v + 1),
        "vectorized": numba.vectorize(lambda v: 3.0 * v + 1),
    }
    for kind, function in kinds.items():
        assert np.abs(nf.fuse(nf.layer_norm, epilogue=function)(x) - (3 * z + 1)).max() <= 1e-14, kind
    assert np.abs(nf.fuse(nf.layer_norm, epilogue=np.tanh)(x) - np.tanh(z)).max() <= 1e-14


def test_edges(layer, batch):
    assert layer(np.empty((0, 4))).shape == (0, 4)
    assert layer(np.empty((4, 0), np.float32)).shape == (4, 0)
    y, stats = layer.forward(np.array([[1.0, 2.0], [np.nan, 1.0]]))
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()
    x = np.array([[5.0], [7.0]])
    y, stats = layer.forward(x, None, np.array([2.0]))
    assert (y == bump(2.0)).all()
    gradients = layer.backward(np.ones((2, 1)), x, stats, None, np.array([2.0]))
    assert (gradients.dx == 0).all()
    assert gradients.dbias == pytest.approx([2 * slope(2.0)])
    empty = np.empty((0, 3, 4))
    y, stats = batch.forward(empty)
    assert batch.backward(empty, empty, stats).dweight.shape == (3,)


def test_the_same_functions_are_compiled_once(layer):
    assert nf.fuse(nf.layer_norm, epilogue=bump, derivative=slope) is layer
    assert nf.fuse(nf.layer_norm, epilogue=bump) is not layer
    assert nf.fuse(nf.rms_norm, epilogue=bump, derivative=slope)._engine is layer._engine


def text(z):
    return "text"


def split(z):
    return z + 1j


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nf.fuse(nf.layer_norm, epilogue=text), "epilogue 'text' does not compile"),
        (lambda: nf.fuse(nf.layer_norm, epilogue=split), "epilogue 'split' does not compile"),
        (lambda: nf.fuse(nf.layer_norm, epilogue=lambda: 1.0), "epilogue '<lambda>' does not compile"),
        (lambda: nf.fuse(nf.layer_norm, epilogue=bump, derivative=text), "derivative 'text' does not compile"),
        (lambda: nf.fuse(nf.layer_norm, epilogue="gelu"), "epilogue must be a function"),
        (lambda: nf.fuse(nf.layer_norm, epilogue=None), "epilogue must be a function"),
        (lambda: nf.fuse(nf.dropout, epilogue=bump), "op must be one of nf.layer_norm"),
        (lambda: nf.fuse("layer_norm", epilogue=bump), "op must be one of nf.layer_norm"),
        (lambda: nf.fuse(nf.rms_norm, epilogue=bump).backward(*[np.ones((2, 3))] * 3), "without a derivative"),
        (lambda: nf.fuse(nf.batch_norm, epilogue=bump).forward(np.ones((2, 3)), activation="relu"), "in place of an activation"),
        (lambda: nf.fuse(nf.layer_norm, epilogue=bump)(np.ones((2, 3), int)), "x must be float16"),
        (lambda: nf.fuse(nf.rms_norm, epilogue=bump, derivative=slope).backward(*[np.ones((2, 3))] * 5), "rms_norm has no bias"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(TypeError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_without_numba():
    code = "import sys; sys.modules['numba'] = None; import normfast as nf; nf.fuse(nf.layer_norm, epilogue=abs)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: normfast.fuse needs numba: pip install 'normfast[numba]'"


def test_the_example():
    done = subprocess.run([sys.executable, "-W", "error", "check.py"], cwd=EXAMPLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "learns" in done.stdout

"""What is taken in pieces gives what it gives in one: pieces of every size, for every norm, mask, activation and layout."""

import numpy as np
import pytest
from oracle import agree

import normfast as nf
from normfast.ops import _pieces


def test_split_covers_everything_once(rng):
    for _ in range(200):
        shape = tuple(rng.integers(1, 6, rng.integers(0, 5)))
        limit, whole = int(rng.integers(1, 50)), int(rng.integers(0, len(shape) + 1))
        hits = np.zeros(shape, int)
        for piece in _pieces.split(shape, limit, whole):
            part = hits[(*piece, ...)]
            part += 1
            assert part.size == _pieces.size_of(piece)
            assert part.size <= limit or part.size == np.prod(shape[len(shape) - whole :], initial=1)
            if len(shape) > whole:
                assert part.flags.c_contiguous
        assert (hits == 1).all()
        order = np.concatenate([np.arange(hits.size).reshape(shape)[(*piece, ...)].ravel() for piece in _pieces.split(shape, limit, whole)])
        assert (order == np.arange(hits.size)).all()


CALLS = {
    "group": lambda x, dy, w, m: both(nf.group_norm_forward, nf.group_norm_backward, x, dy, 2, w, w, num_groups=2),
    "group NHWC": lambda x, dy, w, m: both(nf.group_norm_forward, nf.group_norm_backward, x, dy, 2, w, w, num_groups=2, axis=3),
    "group masked": lambda x, dy, w, m: both(nf.group_norm_forward, nf.group_norm_backward, x, dy, 2, w, w, num_groups=2, where=m),
    "batch masked": lambda x, dy, w, m: both(nf.batch_norm_forward, nf.batch_norm_backward, x, dy, w, w, where=m),
    "batch NHWC": lambda x, dy, w, m: both(nf.batch_norm_forward, nf.batch_norm_backward, x, dy, w, w, axis=3, activation="gelu", where=m),
    "batch L1": lambda x, dy, w, m: both(nf.batch_norm_forward, nf.batch_norm_backward, x, dy, w, w, ord=1, where=m),
    "batch Linf": lambda x, dy, w, m: both(nf.batch_norm_forward, nf.batch_norm_backward, x, dy, w, w, ord=np.inf),
    "batch 16 bits": lambda x, dy, w, m: both(
        nf.batch_norm_forward, nf.batch_norm_backward, x.astype(np.float16), dy.astype(np.float16), w.astype(np.float32), None
    ),
    "batch strided": lambda x, dy, w, m: both(nf.batch_norm_forward, nf.batch_norm_backward, x[:, ::-1, :, ::-1], dy, w, w),
    "batch strided, gelu": lambda x, dy, w, m: both(
        nf.batch_norm_forward, nf.batch_norm_backward, x[:, ::-1, :, ::-1], dy.copy(), w, w, activation="gelu"
    ),
    "batch along two axes": lambda x, dy, w, m: both(
        nf.batch_norm_forward, nf.batch_norm_backward, x[..., ::-1], dy, np.outer(w[:4], w[:5]), np.outer(w[:4], w[1:]), axis=(0, 2)
    ),
    "batch inference": lambda x, dy, w, m: [nf.batch_norm(x[:, ::-1], w, w**2, w, w, activation=(np.abs, np.sign))],
    "group strided": lambda x, dy, w, m: both(
        nf.group_norm_forward, nf.group_norm_backward, x[:, ::-1, :, ::-1], dy, 2, w, w, num_groups=2
    ),
    "layer masked": lambda x, dy, w, m: both(nf.layer_norm_forward, nf.layer_norm_backward, x, dy, w, w, where=m),
    "layer strided": lambda x, dy, w, m: both(nf.layer_norm_forward, nf.layer_norm_backward, x[:, ::-1, :, ::-1], dy, w, w, axis=1),
    "rms strided": lambda x, dy, w, m: both(nf.rms_norm_forward, nf.rms_norm_backward, x[:, ::-1, :, ::-1], dy, w, axis=1),
    "mean variance": lambda x, dy, w, m: both(nf.mean_variance_norm_forward, nf.mean_variance_norm_backward, x, dy, axis=(0, 3)),
    "lp": lambda x, dy, w, m: both(nf.lp_norm_forward, nf.lp_norm_backward, x, dy, 3, axis=2, ord=3),
    "moments": lambda x, dy, w, m: [nf.moments(x, 1, where=m).m2, nf.moments(x, (0, 2), where=m).m2,
                                  nf.moments(x, 0, weights=[1, 0, 2, 5]).m2],
    "dropout": lambda x, dy, w, m: [nf.dropout(x.astype(np.float16), 0.4, rng=1), nf.dropout(x, 0.4, rng=1, axis=(0, 1))],
    "bias and dropout": lambda x, dy, w, m: bias_and_dropout(x, dy, w, "gelu"),
    "activation": lambda x, dy, w, m: [nf.activation(x, "silu"), nf.activation_backward(dy, x[:, ::-1], "silu")],
}  # fmt: skip


def bias_and_dropout(x, dy, bias, name):
    y, mask = nf.bias_activation_dropout_forward(x, bias, p=0.3, rng=2, activation=name)
    return [y, *nf.bias_activation_dropout_backward(dy, x, mask, bias, activation=name)]


def both(forward, backward, x, dy, *positional, **options):
    """y, the statistics and the gradients of a norm; options go where they belong."""
    own = {"num_groups", "ord"} if "num_groups" in options or forward is nf.lp_norm_forward else set()
    y, stats = forward(x, *positional, **{k: v for k, v in options.items() if k not in own})
    weight = [p for p in positional if isinstance(p, np.ndarray)][:1]
    if "activation" in options:
        options["bias"] = weight[0]
    results = [y, *(stats[:3] if isinstance(stats, tuple) else [stats]), *backward(dy, x, stats, *weight, **options)]
    return [r for r in results if r is not None]


@pytest.mark.parametrize("name", CALLS)
def test_pieces_of_any_size(engine, name, rng, monkeypatch):
    x, dy = rng.standard_normal((2, 4, 6, 5, 6))
    weight, mask = rng.standard_normal(6), rng.random(x.shape) < 0.7
    mask[..., 0] = True
    expected = CALLS[name](x, dy, weight, mask)
    monkeypatch.setattr(_pieces, "BESIDE", 1)
    for limit in (1, 7, 40, 200, 400):
        monkeypatch.setattr(_pieces, "LIMIT", limit)
        for result, value in zip(CALLS[name](x, dy, weight, mask), expected, strict=True):
            wide = value.dtype == np.float64 and "16 bits" not in name  # statistics of 16-bit values are summed in float32
            agree(result.astype(np.float64), value, f"{name} in pieces of {limit}", units=256 if wide else 2.0**42)


def test_few_large_groups_are_cut(dtype, rng, monkeypatch):
    """Into pieces that depend on the shape alone: whatever the number of threads, the bits are the same."""
    x, dy = rng.standard_normal((2, 2, 6, 30, 31)).astype(dtype)
    weight = rng.standard_normal(6).astype(dtype)

    def results():
        return both(nf.group_norm_forward, nf.group_norm_backward, x, dy, 1, weight, weight, num_groups=1)

    whole = results()
    monkeypatch.setattr("normfast.engines.policy.PIECE", 500)
    with nf.threads(1):
        expected = results()
    for result, value in zip(expected, whole, strict=True):
        agree(result.astype(dtype), value, "in pieces of 500", units=16, scale=max(1.0, np.abs(value).max()))
    for threads in (2, 5):
        with nf.threads(threads):
            assert [result.tobytes() for result in results()] == [result.tobytes() for result in expected]


@pytest.mark.parametrize("out", ["dy", "x"])
def test_parts_in_place(out, rng, monkeypatch):
    """dx in the place of dy or of x, where the other one is staged in parts."""
    x, dy = rng.standard_normal((2, 1, 8, 9, 10))
    options = {"weight": rng.standard_normal(8), "bias": rng.standard_normal(8), "activation": "gelu"}
    for limit in (1 << 18, 400):
        monkeypatch.setattr(_pieces, "LIMIT", limit)
        for strided in ("dy", "x", "both", "neither"):
            arrays = {"dy": dy.copy(), "x": x.copy()}
            for name in arrays:
                if strided in (name, "both"):
                    arrays[name] = np.repeat(arrays[name], 2, axis=3)[..., ::2]
            _, stats = nf.batch_norm_forward(x, **options)
            expected = nf.batch_norm_backward(dy, x, stats, **options)
            found = nf.batch_norm_backward(**arrays, stats=stats, **options, out=arrays[out])
            for value, right, what in zip(found, expected, found._fields, strict=True):
                agree(value, right, f"{what}, {strided} strided, parts of {limit}", units=64)


@pytest.mark.parametrize("name", ["cython", "numba"])
def test_no_second_array_of_the_size_of_x(name, rng):
    """Masks, activations, strides and 16 bits need buffers of a few pieces (the plain formulas of the NumPy engine need more)."""
    import tracemalloc

    try:
        nf.engines.load(name)
    except ImportError as error:
        pytest.skip(f"the {name} engine is not installed here: {error}")
    x = rng.standard_normal((48, 64, 40, 40)).astype(np.float32)
    mask, y = np.ones((48, 1, 1, 1), bool), np.empty_like(x)
    calls = [
        lambda: nf.batch_norm_forward(x, where=mask, activation="relu", out=y),
        lambda: nf.group_norm(x, 8, out=y),
        lambda: nf.layer_norm(x, np.ones(64, np.float32), axis=1, out=y),
        lambda: nf.rms_norm(x.transpose(3, 1, 0, 2), out=y.transpose(3, 1, 0, 2)),
        lambda: nf.lp_norm(x, 1, out=y),
        lambda: nf.activation(x, "gelu", out=y),
        lambda: nf.moments(x, (0, 2), where=mask),
        lambda: nf.dropout(x, 0.5, rng=0, axis=(0, 1), out=y),
    ]
    for number, call in enumerate(calls):
        with nf.use_engine(name):
            call()  # compiles
            tracemalloc.start()
            call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 14 * _pieces.LIMIT * 4 < x.nbytes, f"call {number}: {peak / 1e6:.1f} MB beside x's {x.nbytes / 1e6:.1f} MB"


def test_one_group_in_any_order_of_memory(engine, rng):
    """Samples, channels and space in every order: statistics and parameters must be blocks in one order of the axes."""
    import itertools

    x, dy = rng.standard_normal((2, 2, 3, 4, 2))
    weight = rng.standard_normal(3)
    for groups in (1, 3):
        expected = nf.group_norm_forward(x, groups, weight)
        gradients = nf.group_norm_backward(dy, x, expected[1], weight, num_groups=groups)
        for order in itertools.permutations(range(4)):
            other = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
            y, stats = nf.group_norm_forward(other, groups, weight)
            agree(y, expected[0], f"y in order {order}", units=64)
            for result, value in zip(nf.group_norm_backward(dy, other, stats, weight, num_groups=groups), gradients, strict=True):
                agree(result, value, f"gradients in order {order}", units=256)


def test_axes_of_length_1_among_the_reduced(engine, rng, monkeypatch):
    monkeypatch.setattr(_pieces, "LIMIT", 7)
    x = rng.standard_normal((3, 5, 8, 1)).astype(np.float16)
    agree(nf.lp_norm(x, 1, axis=2), (x / np.abs(x).sum(axis=2, keepdims=True, dtype=np.float64)), "lp_norm", units=1)
    agree(nf.rms_norm(x, axis=(1, 3)), nf.rms_norm(x[..., 0], axis=1)[..., None].astype(np.float64), "rms_norm", units=1)

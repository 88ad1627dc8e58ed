"""No leak: Python's blocks and the C library's bytes stay the same over thousands of calls of everything, also of those that raise."""

import ctypes
import gc
import sys
from functools import partial

import numpy as np
import operations
import pytest
from lengths import arrays_of, cases_of, other_calls, results_of
from networks import model
from profiles import cases

import normfast as nf
from normfast.inference import freeze

CALLS = cases(3_000, 100_000)  # of each operation, forward and backward, in all its variants
OPERATIONS = sorted({case.operation for case in operations.cases()})
DTYPES = cases(["float32"], ["float16", "float32", "float64"])


class Mallinfo2(ctypes.Structure):
    """malloc.h; what is in use is `uordblks` and, in pages of its own, `hblkhd`."""

    NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]


def allocator():
    """glibc's count of the bytes in use, or None."""
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):  # another C library; Windows takes no None
        return None
    function.restype = Mallinfo2
    return function


MALLINFO2 = allocator()


def taken():
    """Python's blocks, and the C library's bytes where it counts them."""
    gc.collect()
    info = MALLINFO2() if MALLINFO2 else None
    return np.array([sys.getallocatedblocks(), info.uordblks + info.hblkhd if info else 0])


def hold(call, rounds):
    """Assert that so many rounds leave nothing behind: less than one block and less than the smallest piece of memory, 16 bytes, for each
    second round, in one of three attempts. Caches that fill up and other threads do not come back each time; a leak does.
    """
    for _ in range(10):
        call()
    grown = []
    for _ in range(3):
        before = taken()
        for _ in range(rounds):
            call()
        grown.append(taken() - before)
        if (grown[-1] < [rounds // 2, 8 * rounds]).all():
            return
    raise AssertionError(f"blocks and bytes more after {rounds} rounds, three times: {np.array(grown).tolist()}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations(tried, operation, dtype):
    mine = [(case, *arrays_of(case, dtype)) for case in cases_of(17) if case.operation == operation]

    def call():
        for case, arrays, dy in mine:
            results_of(case, arrays, dy)

    rounds = max(100, CALLS // (2 * len(mine)))
    hold(call, rounds)
    tried(rounds * sum(1 + (case.backward is not None) for case, *_ in mine))


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_and_out(tried, dtype):
    mine = [(call, arrays()) for _, arrays, call in other_calls(40, dtype)]
    hold(lambda: [call(*given) for call, given in mine], rounds := CALLS // len(mine))
    tried(rounds * len(mine))


X, WIDE, NARROW = np.ones((4, 6), np.float32), np.ones((4, 7), np.float32), np.ones(5, np.float32)
FORWARD, BATCH = nf.layer_norm_forward(X)[1], nf.batch_norm_forward(X)[1]
FIXED = X.copy()
FIXED.flags.writeable = False
WRONG = {
    "no floats": lambda: nf.layer_norm(np.ones((4, 6), int)),
    "no numbers": lambda: nf.rms_norm(["a"]),
    "a masked array": lambda: nf.layer_norm(np.ma.masked_array(X)),
    "a weight of another length": lambda: nf.layer_norm(X, NARROW),
    "a bias of another length": lambda: nf.batch_norm_forward(X, None, NARROW),
    "an axis that x has not": lambda: nf.layer_norm(X, axis=5),
    "an axis that is no integer": lambda: nf.layer_norm(X, axis=0.5),
    "eps below 0": lambda: nf.layer_norm(X, eps=-1.0),
    "groups that do not divide": lambda: nf.group_norm(X, 4),
    "out of another shape": lambda: nf.layer_norm(X, out=WIDE),
    "out that is read-only": lambda: nf.layer_norm(X, out=FIXED),
    "out of another dtype": lambda: nf.dropout(X, 0.5, out=X.astype(float)),
    "dy of another shape": lambda: nf.layer_norm_backward(WIDE, X, FORWARD),
    "no statistics": lambda: nf.layer_norm_backward(X, X, 3),
    "dy for batch norm of another shape": lambda: nf.batch_norm_backward(WIDE, X, BATCH),
    "p above 1": lambda: nf.dropout(X, 1.5),
    "a mask of floats": lambda: nf.dropout_forward(X, 0.5, mask=X),
    "a mask of another shape": lambda: nf.dropout_backward(WIDE, nf.dropout_forward(X, 0.5, rng=1)[1]),
    "a residual of another shape": lambda: nf.add_layer_norm(X, WIDE),
    "an order that is none": lambda: nf.lp_norm(X, "two"),
    "an unknown activation": lambda: nf.activation(X, "lu"),
    "weights of another length": lambda: nf.moments(X, 0, weights=NARROW),
    "moments of other shapes": lambda: nf.moments(X, 0) + nf.moments(WIDE, 0),
    "an unknown engine": lambda: nf.set_engine("fast"),
    "no threads": lambda: nf.set_num_threads(0),
}


def test_calls_that_raise(tried):
    def call():
        for what, wrong in WRONG.items():
            try:
                wrong()
            except (TypeError, ValueError):
                continue
            raise AssertionError(f"{what}: nothing was raised")

    hold(call, rounds := CALLS // 10)
    tried(rounds * len(WRONG))


def test_plans(rng, tried):
    network = model(np.float32, 0.2)
    plan, x = freeze(network), rng.standard_normal((7, 6)).astype(np.float32)
    hold(lambda: plan(x), CALLS)
    hold(lambda: freeze(network)(x), rounds := CALLS // 30)
    tried(CALLS + rounds)


def test_layers(rng, tried):
    network, x = model(np.float32, 0.2), rng.standard_normal((7, 6)).astype(np.float32)
    network.train()

    def call():
        network.backward(np.ones_like(network(x)))

    hold(call, rounds := CALLS // 10)
    tried(rounds)


def test_moments_that_are_merged_and_kept(rng, tried):
    import pickle

    x = rng.standard_normal((9, 5))

    def call():
        m = nf.moments(x, 0)
        pickle.loads(pickle.dumps(m + m - m))
        nf.covariance(x).cov()
        pickle.loads(pickle.dumps(nf.dropout_forward(x, 0.5, rng=3)[1])).toarray()

    hold(call, rounds := CALLS // 10)
    tried(rounds)


def c_calls(dtype):
    """Every C function, with all that it takes and with NULL where it may; sizes for which it takes memory of its own."""
    from normfast import capi

    rows, n = 3, 20_000  # more than the default parameters that stand ready
    x, y, h, parameter = np.ones((4, rows, n), dtype)
    wide, key = np.ones((3, rows * n)), np.ones(4, np.uint32)
    x[:, ::2] = 3
    kept = np.empty(n, np.uint8)
    suffix = "_f32" if dtype == "float32" else "_f64"
    address = partial(map, lambda value: value.ctypes.data if isinstance(value, np.ndarray) else value)
    a, b, c = wide
    table = {"merge_moments": [(a, b, c, 1.0, 1.0, 1.0)], "dropout_mask": [(key, 3, 0.5, n, kept)]}
    for weight in (parameter, None):
        stats = wide if weight is not None else (None, None, None)
        for name, arguments in {
            "moments": (x, rows, n, a, b),
            "layer_norm": (x, weight, weight, rows, n, 1e-5, y, *stats),
            "rms_norm": (x, weight, rows, n, 1e-5, y, *stats[1:]),
            "layer_norm_backward": (x, x, a, b, weight, rows, n, y, *stats[1:]),
            "rms_norm_backward": (x, x, b, weight, rows, n, y, stats[1]),
            "group_norm": (x, weight, weight, 1, 300, 6000, 10, 1e-5, y, *stats),
            "batch_norm": (x, a, b, weight, weight, 3, 2000, 10, 1e-5, 1, y),
            "batch_norm_forward": (x, weight, weight, 3, 2000, 10, 1e-5, 1, y, *stats),
            "lp_norm": (x, rows, n, 3.0, 1e-5, y, stats[0]),
            "activation": (x, n, 5, y),
            "activation_backward": (x, x, n, 5, y),
            "dropout": (x, n, key, 5, 0.5, y),
            "dropout_add_layer_norm": (x, x, key, 5, 0.5, weight, weight, rows, n, 1e-5, h, y, *stats),
            "dropout_add_rms_norm": (x, x, key, 5, 0.5, weight, rows, n, 1e-5, h, y, *stats[1:]),
        }.items():
            table.setdefault(name + suffix, []).append(arguments)
    assert set(table) >= {name for name in capi.FUNCTIONS if name.endswith(suffix) or "_f" not in name}
    return [
        (name, capi.function(name), [tuple(address(given)) for given in calls], (x, y, h, wide, key, kept)) for name, calls in table.items()
    ]


@pytest.mark.skipif(MALLINFO2 is None, reason="what malloc gave C functions is counted by glibc 2.33 or newer alone")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_c_functions(tried, dtype):
    pytest.importorskip("normfast.capi", reason="the C functions belong to the Cython engine, which is not compiled here")
    table = c_calls(dtype)

    def call():
        for name, function, calls, _alive in table:
            for given in calls:
                assert function(*given) == 0, name

    hold(call, rounds := CALLS // 100)
    tried(rounds * sum(len(calls) for _, _, calls, _ in table))


def test_a_leak_is_found():
    lost = []
    with pytest.raises(AssertionError, match="three times"):
        hold(lambda: lost.append(object()), 100)
    if MALLINFO2:
        malloc = ctypes.CDLL(None).malloc
        malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        free, got = ctypes.CDLL(None).free, []
        free.argtypes = [ctypes.c_void_p]
        with pytest.raises(AssertionError, match="three times"):
            hold(lambda: got.append(malloc(600)), 100)
        for address in got:
            free(address)

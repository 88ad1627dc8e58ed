"""16 threads at once, in pools of every kind and beside other OpenMP libraries: the bits of one thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bits import digest as digest_of
from many_threads import at_once
from operations import cases as operations
from processes import LIMIT, digest, python
from profiles import LONG, cases

import normfast as nf
from normfast import engines

THREADS = 16


@pytest.mark.parametrize("name", ["cython", pytest.param("numba", marks=pytest.mark.long), "numpy"])  # which compiles for minutes
def test_mixed_operations(name, busy, tried):
    """Each thread goes through all of them, forward and backward, from another one on."""
    some = operations() if LONG else operations()[::3]
    try:
        with nf.use_engine(name), nf.threads(1):
            expected = [digest_of(case, "float32") for case in some]
    except ImportError as error:
        pytest.skip(f"the {name} engine is not installed here: {error}")

    def work(i):
        with nf.use_engine(name), nf.threads(1 + i % 3):
            order = np.roll(np.arange(len(some)), -i * len(some) // THREADS)
            return all(digest_of(some[k], "float32") == expected[k] for k in order)

    assert all(at_once(work, THREADS))
    tried(THREADS * len(some))


def test_one_operation_of_each_compiled_engine(compiled_engine, busy, tried):
    """Numba's part in the short profile: it has few loops to compile for this."""
    expected = digest(compiled_engine, 1)
    calls = cases(5, 200)
    assert all(at_once(lambda i: all(digest(compiled_engine, 1 + i % 3) == expected for _ in range(calls)), THREADS))
    tried(THREADS * calls)


RACE = """
import sys, threading
sys.setswitchinterval(1e-6)
import normfast as nf
from processes import digest
start, found = threading.Barrier(16), []
def work():
    start.wait()
    found.append((nf.engines.current(), digest({engine!r})))
threads = [threading.Thread(target=work) for _ in range(16)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
assert len(found) == 16 and len(set(found)) == 1, found
print(found[0][0].name)
"""


def test_first_calls_of_a_process():
    """All threads meet while the engine loads, and compute at once."""
    for name in ("auto", "numpy"):
        assert python(RACE.format(engine=name)) == engines.load("auto").name


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_inside_joblib(backend, tried):
    joblib = pytest.importorskip("joblib", reason="joblib is not installed here")
    expected = digest()
    with joblib.parallel_config(backend, n_jobs=2):
        assert joblib.Parallel(timeout=LIMIT)(joblib.delayed(digest)("auto") for _ in range(6)) == [expected] * 6
    if backend == "loky":
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    tried(6)


def test_inside_dask():
    dask = pytest.importorskip("dask", reason="Dask is not installed here")
    expected = digest()
    tasks = [dask.delayed(digest)("auto", 1 + i % 3) for i in range(32)]
    assert dask.compute(*tasks, scheduler="threads", num_workers=THREADS) == (expected,) * 32


def test_a_pool_inside_a_pool():
    expected = digest()

    def inner(_):
        with ThreadPoolExecutor(4) as pool:
            return set(pool.map(lambda _: digest(), range(4)))

    with ThreadPoolExecutor(4) as pool:
        assert all(found == {expected} for found in pool.map(inner, range(4)))


def test_beside_matmuls_of_blas(busy):
    """NumPy's OpenBLAS, or MKL, has threads of its own; both compute the bits that they compute alone."""
    a = np.random.default_rng(0).standard_normal((256, 256))
    expected, product = digest(), (a @ a).tobytes()
    work = [lambda: digest() == expected, lambda: (a @ a).tobytes() == product]
    assert all(at_once(lambda i: all(work[i % 2]() for _ in range(10)), THREADS))


BESIDE = """
import sys, threading
{first}
import numpy as np
{second}
from processes import digest
torch.set_num_threads(2)
x = torch.ones(512, 300)
def sums():
    return torch.nn.functional.layer_norm(x.cumsum(1), (300,)).sum().item()
expected, own = digest(), sums()
found = []
def work(i):
    for _ in range(10):
        found.append(digest() == expected if i % 2 else sums() == own)
threads = [threading.Thread(target=work, args=[i]) for i in range(8)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
assert len(found) == 80 and all(found), found
print("same")
"""


FIRST = "import normfast as nf, numpy as np; nf.layer_norm(np.ones((600, 600)))"


@pytest.mark.parametrize("order", [("import torch", ""), (FIRST, "import torch")], ids=["torch first", "normfast first"])
def test_beside_torch(order):
    """Whose OpenMP may be another one: whichever comes first, in turn on several threads."""
    pytest.importorskip("torch", reason="PyTorch is not installed here")
    code = BESIDE.format(first=order[0], second=order[1])
    assert python("import warnings; warnings.simplefilter('default')\n" + code) == "same"

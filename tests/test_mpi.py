"""Jobs of several ranks, run for real: by mpiexec and by torch.distributed with gloo. What the ranks check is in `mpi_cases.py`."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mpi_cases import CASES
from mpi_deaths import WAYS

import normfast as nf
from normfast.mpi import SyncBatchNorm

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "mpi.md"
JOBS = [("mpi", 1), ("mpi", 2), ("mpi", 3), ("gloo", 2), ("gloo", 3)]
LIMIT = 120  # seconds: a job takes some five, but other work may hold the processors


def mpiexec():
    """The launcher and what it needs to start more ranks than there are cores: of MPICH or of Open MPI."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    beside = Path(sys.executable).with_name("mpiexec")
    path = str(beside) if beside.exists() else shutil.which("mpiexec")
    if path is None:
        pytest.skip("there is no mpiexec: pip install mpich")
    version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    if "Open MPI" not in version:
        return [path]
    return [path, "--oversubscribe", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]


def run(kind, ranks, folder, *arguments, limit=LIMIT):
    """Run a program on so many ranks. Returns the exit status of each process that was started here, and what rank 0 or all print."""
    path = os.pathsep.join([str(Path(nf.__file__).parents[1]), str(TESTS)])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if kind == "mpi":
        commands, each = [[*mpiexec(), "-n", str(ranks), sys.executable, *map(str, arguments)]], [env]
    else:
        pytest.importorskip("torch.distributed", reason="PyTorch is not installed")
        store = {"NORMFAST_TEST_STORE": str(folder / f"store{time.monotonic_ns()}"), "WORLD_SIZE": str(ranks)}
        commands = [[sys.executable, *map(str, arguments)]] * ranks
        each = [env | store | {"RANK": str(rank)} for rank in range(ranks)]
    logs = [folder / f"rank{rank}.log" for rank in range(len(commands))]
    started, end = [], time.monotonic() + limit
    for command, variables, log in zip(commands, each, logs, strict=True):
        with open(log, "w") as file:
            started.append(subprocess.Popen(command, env=variables, cwd=folder, stdout=file, stderr=subprocess.STDOUT))
    try:
        states = [process.wait(max(end - time.monotonic(), 0.1)) for process in started]
    except subprocess.TimeoutExpired:
        pytest.fail(f"the job hangs after {limit} s:\n" + "\n".join(log.read_text()[-2000:] for log in logs))
    finally:
        for process in started:
            process.kill()
            process.wait()
    return states, [log.read_text() for log in logs]


@pytest.fixture(scope="module", params=JOBS, ids=lambda job: "-".join(map(str, job)))
def job(request, tmp_path_factory):
    """What failed in each case, of a job that ran all of them."""
    states, texts = run(*request.param, tmp_path_factory.mktemp("job"), TESTS / "mpi_cases.py", request.param[0])
    assert not any(states), "\n".join(texts)[-4000:]
    return json.loads(texts[0].splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_cases(job, case):
    assert not job[case], "\n".join(job[case])


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("silent", "sys.exit")])
@pytest.mark.parametrize(("kind", "ranks"), [("mpi", 2), ("mpi", 3), ("gloo", 3)])
def test_a_rank_that_dies_ends_the_others(kind, ranks, way, tmp_path):
    states, texts = run(kind, ranks, tmp_path, TESTS / "mpi_deaths.py", kind, way, limit=60)
    assert all(states), texts
    assert "nobody noticed" not in "".join(texts)
    if way == "exception":
        assert "ZeroDivisionError" in "".join(texts)


def test_a_rank_that_exits_under_the_runner_of_mpi4py(tmp_path):
    states, texts = run("mpi", 3, tmp_path, "-m", "mpi4py", TESTS / "mpi_deaths.py", "mpi", "sys.exit", limit=60)
    assert all(states), texts


def test_a_rank_that_exits_under_gloo(tmp_path):
    states, texts = run("gloo", 2, tmp_path, TESTS / "mpi_deaths.py", "gloo", "sys.exit", limit=60)
    assert all(states), texts


def program(name, folder):
    """Write a program of docs/mpi.md, whose first line is its name, to a folder."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / name).write_text(next(block for block in blocks if block.startswith(f"# {name}\n")))
    return name


def test_the_training_loop_of_the_page(tmp_path):
    """It gives the same model on any number of ranks, within what float32 rounds."""
    losses = []
    for ranks in (1, 2, 3):
        states, texts = run("mpi", ranks, tmp_path, program("train.py", tmp_path))
        assert states == [0], texts
        losses.append(float(re.search(r"loss ([\d.]+)", texts[0]).group(1)))
    assert max(losses) < 0.3  # the target has the mean square 0.8
    assert max(losses) - min(losses) < 0.002, losses


def test_the_moments_of_the_page(tmp_path):
    states, texts = run("mpi", 2, tmp_path, program("moments.py", tmp_path))
    assert states == [0], texts


def test_the_groups_of_the_page(tmp_path):
    pytest.importorskip("torch.distributed", reason="PyTorch is not installed")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "PYTHONPATH": str(Path(nf.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, program("groups.py", tmp_path)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr


def test_a_process_group_is_not_kept():
    """One of gloo that outlives its end aborts the process at exit, now and then."""
    distributed = pytest.importorskip("torch.distributed", reason="PyTorch is not installed")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    layer, x = SyncBatchNorm(2, "torch.distributed"), np.ones((3, 2), np.float32)
    assert not layer(x).any()
    distributed.destroy_process_group()
    with pytest.raises(RuntimeError, match="the process group is no more"):
        layer(x)


def test_import_brings_neither_mpi_nor_torch():
    code = "import sys, normfast.mpi; print({'mpi4py', 'torch'} & set(sys.modules), sys.excepthook is sys.__excepthook__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "True"]


@pytest.mark.parametrize(("lacking", "text"), [("mpi4py", "pip install 'normfast[mpi]'"), ("mpi4py.MPI", "finds no MPI library")])
def test_without_mpi(lacking, text):
    made = "try:\n    normfast.mpi.SyncBatchNorm(3)\nexcept ImportError as error:\n    print(error)"
    code = f"import sys, normfast.mpi\nsys.modules[{lacking!r}] = None\n{made}"
    if lacking == "mpi4py.MPI":
        pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert text in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_default_group_that_was_not_made():
    pytest.importorskip("torch.distributed", reason="PyTorch is not installed")
    from normfast.mpi import SyncBatchNorm

    with pytest.raises(ValueError, match="init_process_group"):
        SyncBatchNorm(3, "torch.distributed")


def test_the_module_without_a_group():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from normfast.torch import BatchNorm1d, SyncBatchNorm

    x = torch.tensor(np.random.default_rng(0).normal(size=(16, 4)))
    layer, alone = SyncBatchNorm(4).double(), BatchNorm1d(4).double()
    assert torch.equal(layer(x), alone(x))
    assert torch.equal(layer.running_var, alone.running_var)
    with pytest.raises(ValueError, match="at least 2D"):
        layer(x[0])

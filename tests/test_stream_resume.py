"""Runs of `normfast.stream` that are interrupted, killed, or meet a full disk, and go on: the result has the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from oracle import agree
from streams import Killed, left_in, small_blocks, stopped_at

import normfast as nf
from normfast.stream import FileError, state, targets

BLOCKS = 7
CHILD = """
import sys, time
from normfast.stream import flat, grid, state, transform
grid.BLOCK, state.SECONDS, read = 4000, 0.0, flat.Flat.read
def slowly(self, block, space):
    time.sleep(0.002)
    return read(self, block, space)
flat.Flat.read = slowly
print("ready", flush=True)
transform(sys.argv[1], sys.argv[2], method=sys.argv[3], axis=int(sys.argv[4]), resume=True)
"""


@pytest.fixture
def x(tmp_path, rng, monkeypatch):
    """Blocks of a hundred rows."""
    small_blocks(monkeypatch, 8000)
    x = rng.standard_normal((100 * BLOCKS, 10)) * 3 + 50
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "x.npy"


def run(x, name="y.npy", **options):
    """The bytes of a result."""
    nf.stream.transform(x, x.parent / name, **options)
    return (x.parent / name).read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, Killed, OSError])
@pytest.mark.parametrize(("method", "axis"), [("standardize", 0), ("minmax", 0), ("whiten", 0), ("standardize", 1)])
def test_interrupted_at_every_block(method, axis, error, x, tmp_path):
    expected = run(x, "expected.npy", method=method, axis=axis)
    for count in range(BLOCKS if axis == 1 else 2 * BLOCKS):
        with pytest.MonkeyPatch.context() as patch:
            stopped_at(patch, count, error("stopped"))
            with pytest.raises(error):
                run(x, method=method, axis=axis)
        assert "y.npy" not in left_in(tmp_path)
        assert "y.npy.partial" in left_in(tmp_path)
        again = run(x, method=method, axis=axis, resume=True)
        if method == "whiten":  # BLAS does not promise the same bits twice
            agree(np.load(tmp_path / "y.npy"), np.load(tmp_path / "expected.npy"), f"whiten {count}", units=64)
        else:
            assert again == expected, count
        assert left_in(tmp_path) == ["expected.npy", "x.npy", "y.npy"]
        (tmp_path / "y.npy").unlink()


def test_nothing_is_done_twice(x, monkeypatch):
    """After an interruption the next run reads what is missing, not all."""
    for count in (5, 11):
        with pytest.MonkeyPatch.context() as patch:
            stopped_at(patch, count, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                run(x, f"{count}.npy")
        with pytest.MonkeyPatch.context() as patch:
            stopped_at(patch, 2 * BLOCKS - count + 4, AssertionError("all was read again"))
            run(x, f"{count}.npy", resume=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize(("method", "axis"), [("standardize", 0), ("standardize", 1), ("minmax", 0)])
def test_killed_at_random(method, axis, tmp_path, rng):
    """By SIGKILL, again and again, until a run is through."""
    x = rng.standard_normal((2000, 50)) * 3 + 50
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    kills = 0
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch, 4000)
        expected = run(tmp_path / "x.npy", "expected.npy", method=method, axis=axis)
    while True:
        arguments = [sys.executable, "-c", CHILD, tmp_path / "x.npy", tmp_path / "y.npy", method, str(axis)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.01, 0.25) if kills < 4 else 60 if kills > 8 else 0.6)
            child.poll()
            child.kill()
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        kills += 1
        if (tmp_path / "y.npy").exists():  # after its last step, or the one before
            if (tmp_path / "y.npy.resume").exists():
                run(tmp_path / "x.npy", method=method, axis=axis, resume=True)
            break
    assert kills
    assert (tmp_path / "y.npy").read_bytes() == expected
    assert left_in(tmp_path) == ["expected.npy", "x.npy", "y.npy"]


def interrupted(x, count=11, **options):
    """A run of which a part is left."""
    with pytest.MonkeyPatch.context() as patch:
        stopped_at(patch, count, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(x, **options)


@pytest.mark.parametrize("count", [4, 11])
@pytest.mark.parametrize("other", [{"ddof": 1}, {"axis": 1}, {"method": "minmax"}, {"dtype": np.float32}])
def test_other_options(other, count, x, tmp_path):
    interrupted(x, count)
    before = (tmp_path / "y.npy.partial").read_bytes()
    with pytest.raises(ValueError, match=r"y\.npy\.resume was written with .*: give the same, or start again"):
        run(x, resume=True, **other)
    assert (tmp_path / "y.npy.partial").read_bytes() == before
    run(x, resume=True)


def test_an_input_that_has_changed(x, tmp_path):
    interrupted(x)
    os.utime(x, ns=(1, 1))
    with pytest.raises(FileError, match="the input is not what it was"):
        run(x, resume=True)
    run(x)
    assert left_in(tmp_path) == ["x.npy", "y.npy"]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"{}\n" + data, lambda data: data[:-1] + b"!"])
def test_a_damaged_state(damage, x, tmp_path):
    interrupted(x)
    path = tmp_path / "y.npy.resume"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError, match=r"y\.npy\.resume is no state of this version, or damaged"):
        run(x, resume=True)


def test_the_state_is_small_and_says_what_it_is(x, tmp_path):
    interrupted(x)
    head = json.loads((tmp_path / "y.npy.resume").read_bytes().splitlines()[0])
    assert head["pass"] == "result"
    assert 0 < head["next"] < BLOCKS
    assert (tmp_path / "y.npy.resume").stat().st_size < 4000


def test_a_partial_result_that_is_gone(x, tmp_path):
    """The statistics are kept, the result is begun anew."""
    expected = run(x, "expected.npy")
    interrupted(x)
    (tmp_path / "y.npy.partial").unlink()
    assert run(x, resume=True) == expected


def test_killed_between_its_last_two_steps(x, tmp_path):
    expected = nf.stream.transform(x, tmp_path / "expected.npy").statistics
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.State, "remove", lambda self: (_ for _ in ()).throw(Killed()) if (tmp_path / "y.npy").exists() else None)
        with pytest.raises(Killed):
            run(x)
    assert left_in(tmp_path) == ["expected.npy", "x.npy", "y.npy", "y.npy.resume"]
    done = nf.stream.transform(x, tmp_path / "y.npy", resume=True)
    assert done.statistics.mean.tobytes() == expected.mean.tobytes()
    assert left_in(tmp_path) == ["expected.npy", "x.npy", "y.npy"]


def test_resuming_nothing_begins(x):
    assert run(x, "a.npy", resume=True) == run(x, "b.npy")


def test_beginning_anew(x, tmp_path):
    """Without resume nothing of another run's statistics or values is used."""
    expected = run(x, "expected.npy", ddof=1)
    interrupted(x)
    interrupted(x, 3, ddof=1)
    assert run(x, resume=True, ddof=1) == expected


def test_two_at_once(x, tmp_path):
    pytest.importorskip("fcntl", reason="this system has no locks on files")
    claim = targets.Claim(str(tmp_path / "y.npy.partial"), False)
    with pytest.raises(OSError, match=r"another process is writing .*y\.npy\.partial"):
        run(x)
    claim.close()
    run(x)


def test_statistics_alone_go_on(x, tmp_path):
    expected = nf.stream.moments(x, 0)
    for count in range(1, BLOCKS):
        with pytest.MonkeyPatch.context() as patch:
            stopped_at(patch, count, Killed())
            with pytest.raises(Killed):
                nf.stream.moments(x, 0, state=tmp_path / "state")
        m = nf.stream.moments(x, 0, state=tmp_path / "state")
        assert (m.count, m.mean.tobytes(), m.m2.tobytes()) == (expected.count, expected.mean.tobytes(), expected.m2.tobytes())
    assert left_in(tmp_path) == ["x.npy"]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("ending", [".zarr", ".parquet", ".raw"])
def test_other_formats(ending, x, tmp_path):
    pytest.importorskip({".zarr": "zarr", ".parquet": "pyarrow", ".raw": "numpy"}[ending], reason="its library is not installed")
    nf.stream.transform(x, tmp_path / f"expected{ending}", dtype=np.float32)
    for count in (3, 9, 13):
        with pytest.MonkeyPatch.context() as patch:
            stopped_at(patch, count, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                nf.stream.transform(x, tmp_path / f"y{ending}", dtype=np.float32, force=True)
        nf.stream.transform(x, tmp_path / f"y{ending}", dtype=np.float32, resume=True, force=True, check=True)
        assert content(tmp_path / f"y{ending}") == content(tmp_path / f"expected{ending}")
    assert left_in(tmp_path) == sorted([f"expected{ending}", "x.npy", f"y{ending}"])


def content(path):
    """The bytes of a file, or of all files of a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [(file.relative_to(path), file.read_bytes()) for file in files] or path.read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 100 kB, and a function that gives it room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", folder], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here, to make a small disk")
    if done.returncode:
        pytest.skip("this process may not mount a small disk")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=2m", folder], check=True)
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(small_disk, x, tmp_path, monkeypatch):
    x.write_bytes(b"")
    np.save(x, np.random.default_rng(0).standard_normal((4000, 10)))
    expected = run(x, "expected.npy")
    folder, grow = small_disk
    with pytest.raises(OSError, match=r"the result needs 0.00032 GB and 0.000102 GB are free"):
        nf.stream.transform(x, folder / "y.npy")
    assert left_in(folder) == []
    monkeypatch.setattr(targets, "_room", lambda *_: None)  # another process takes the room meanwhile
    with pytest.raises(OSError, match="make room and resume, or delete"):
        nf.stream.transform(x, folder / "y.npy")
    assert left_in(folder) == ["y.npy.partial", "y.npy.resume"]
    grow()
    nf.stream.transform(x, folder / "y.npy", resume=True, check=True)
    assert (folder / "y.npy").read_bytes() == expected


def test_a_state_is_written_as_a_whole(tmp_path, monkeypatch):
    state.replace(tmp_path / "state", b"first")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        state.replace(tmp_path / "state", b"second")
    assert (tmp_path / "state").read_bytes() == b"first"

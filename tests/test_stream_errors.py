"""What goes wrong with files: one clear line, the exit status, the input untouched, nothing under the result's name."""

import json
import os
import stat
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from streams import left_in, small_blocks, stopped_at

import normfast as nf
from normfast import cli
from normfast.stream import FileError, flat, progress


@pytest.fixture
def x(tmp_path, rng, monkeypatch):
    small_blocks(monkeypatch)
    np.save(tmp_path / "x.npy", rng.standard_normal((500, 10)).astype(np.float32) + 5)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "x.npy"


def command(capsys, *arguments):
    """Exit status, what is printed, and the lines on stderr."""
    try:
        status = cli.main(list(map(str, arguments)))
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err.splitlines()


def cut_off(x):
    x.write_bytes(x.read_bytes()[:-1])


def empty(x):
    x.write_bytes(b"")


def header_alone(x):
    x.write_bytes(x.read_bytes()[:20])


def of_dtype(dtype):
    def change(x):
        np.save(x, np.zeros((5, 2), dtype), allow_pickle=True)

    return change


DAMAGES = [
    (cut_off, 1, "ends too early: (500, 10) values of float32 need 20128 bytes, the file has 20127"),
    (empty, 1, "is no .npy file, or damaged: it is empty"),
    (header_alone, 1, "is no .npy file, or damaged"),
    (lambda x: x.write_bytes(b"hello" * 100), 1, "is no .npy file, or damaged"),
    (of_dtype("complex64"), 2, "holds complex64: it must hold real numbers"),
    (of_dtype(object), 2, "holds object: it must hold real numbers"),
    (of_dtype("U5"), 2, "holds <U5: it must hold real numbers"),
    (of_dtype("f4,i4"), 2, "holds a structure of 2 fields"),
    (of_dtype("M8[s]"), 2, "holds datetime64[s]"),
    (of_dtype(np.longdouble), 2, "it must hold real numbers, integers or float16, float32 or float64"),
]


@pytest.mark.parametrize(("damage", "status", "message"), DAMAGES)
def test_damaged_input(damage, status, message, x, tmp_path, capsys):
    damage(x)
    before = x.read_bytes()
    for arguments in (["standardize", "x.npy", "y.npy"], ["moments", "x.npy"]):
        found, out, lines = command(capsys, *arguments)
        assert (found, out, len(lines)) == (status, "", 1), lines
        assert message in lines[0]
    assert x.read_bytes() == before
    assert left_in(tmp_path) == ["x.npy"]


WRONG = [
    ("x.npy x.npy", "x.npy is the input: give the result another name"),
    ("x.npy x.npy --force", "x.npy is the input"),
    ("x.npy link.npy --force", "link.npy is the input"),
    ("x.npy there.npy", "there.npy is there already"),
    ("x.npy folder.npy --force", "folder.npy is a folder"),
    ("x.npy there.zarr --force", "there.zarr is a file"),
    ("x.npy no/y.npy", "no/y.npy: there is no such folder"),
    ("no.npy y.npy", "no.npy: there is no such file"),
    ("x.npy y.npz", "y.npz: a .npz is one zip file"),
    ("x.npy y", "y: a result is written as .npy .raw"),
    ("there.txt y.npy", "there.txt: what is in it is known by the endings"),
    ("x.npy y.npy --axis 2", "axis 2 is out of bounds for array of dimension 2"),
    ("x.npy y.npy --axis 0,0", "repeated axis"),
    ("x.npy y.npy --dtype int8", "dtype must be float16, float32 or float64, got int8"),
    ("x.npy y.npy --dtype fancy", "there is no dtype 'fancy'"),
    ("x.npy y.npy --ddof nan", "ddof must be a finite number"),
    ("x.npy y.npy --method minmax --range 1 0", "two numbers in ascending order"),
    ("x.npy y.npy --method whiten --axis 1", "whitening takes samples in rows"),
    ("x.npy y.npy --method whiten --ddof 500", "500 samples have no covariance with ddof=500.0"),
    ("x.npy y.npy --member a", "has no members"),
    ("x.npy y.npy --columns a", "has no named columns"),
    ("x.npy y.npy --offset 3", "need --shape and --dtype"),
    ("x.npy y.npy --shape 5,2", "a raw file needs --dtype"),
    ("x.npy y.npy --shape=-1,3 --dtype f4", "do not divide"),
    ("x.npy y.npy --shape=-1,-1 --dtype f4", "lengths must be 0 or more (one may be -1)"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_use(arguments, message, x, tmp_path, capsys):
    (tmp_path / "link.npy").symlink_to("x.npy")
    (tmp_path / "folder.npy").mkdir()
    for name in ("there.npy", "there.txt", "there.zarr"):
        (tmp_path / name).write_bytes(b"mine")
    before, names = x.read_bytes(), left_in(tmp_path)
    status, out, lines = command(capsys, "standardize", *arguments.split(), "--quiet")
    assert (status, out, len(lines)) == (2, "", 1), lines
    assert message in lines[0]
    assert x.read_bytes() == before
    assert left_in(tmp_path) == names
    assert (tmp_path / "there.npy").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "arguments", ["standardize x.npy", "standardize x.npy y.npy --axis one", "moments", "standardize x.npy y.npy --method z"]
)
def test_wrong_arguments(arguments, x, capsys):
    status, _, lines = command(capsys, *arguments.split())
    assert status == 2
    assert lines[0].startswith("usage: normfast")


@pytest.mark.parametrize("count", [0, 7, 20])
@pytest.mark.parametrize("change", ["longer", "touched", "shorter"])
def test_an_input_that_changes(change, count, x, tmp_path, capsys, monkeypatch):
    read, left = flat.Flat.read, [count]

    def changing(self, block, space):
        left[0] -= 1
        if left[0] == -1:
            if change == "touched":
                os.utime(x, ns=(1, 1))
            else:
                os.truncate(x, x.stat().st_size * 2 if change == "longer" else 200)
        return read(self, block, space)

    monkeypatch.setattr(flat.Flat, "read", changing)
    (tmp_path / "y.npy").write_bytes(b"before")
    status, _, lines = command(capsys, "standardize", "x.npy", "y.npy", "--force", "--quiet")
    if count == 20:  # 2 x 5 blocks: it changed after all was read
        assert status == 0
        return
    assert status == 1
    assert len(lines) == 1
    assert "x.npy has changed while it was read" in lines[0] or "has become shorter" in lines[0]
    assert (tmp_path / "y.npy").read_bytes() == b"before"
    assert left_in(tmp_path) == ["x.npy", "y.npy"]


def test_an_input_that_is_replaced_after_its_last_block(x, tmp_path, monkeypatch):
    finish = flat.FlatTarget.finish

    def finishing(self):
        os.replace("x.npy", "old.npy")
        np.save("x.npy", np.zeros((500, 10), np.float32))
        finish(self)

    monkeypatch.setattr(flat.FlatTarget, "finish", finishing)
    with pytest.raises(FileError, match="has changed while it was read"):
        nf.stream.transform("x.npy", "y.npy")
    assert left_in(tmp_path) == ["old.npy", "x.npy"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz(save, x, tmp_path, capsys):
    save("x.npz", np.random.default_rng(0).standard_normal(3000))
    whole = Path("x.npz").read_bytes()
    damages = [whole[:-30], whole[:500]]
    if save is np.savez_compressed:
        damages.append(whole[:9000] + bytes(50) + whole[9050:])
    for damaged in damages:
        Path("x.npz").write_bytes(damaged)
        status, _, lines = command(capsys, "standardize", "x.npz", "y.npy", "--quiet")
        assert (status, len(lines)) == (1, 1), lines
        assert "damaged" in lines[0] or "ends too early" in lines[0]
    assert left_in(tmp_path) == ["x.npy", "x.npz"]


def test_damaged_parquet(x, tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    nf.stream.transform("x.npy", "x.parquet")
    Path("x.parquet").write_bytes(Path("x.parquet").read_bytes()[:-5])
    status, _, lines = command(capsys, "standardize", "x.parquet", "y.npy")
    assert (status, len(lines)) == (1, 1)
    assert "is no Parquet file, or damaged" in lines[0]


@pytest.mark.parametrize("library", ["zarr", "pyarrow"])
def test_missing_libraries(library, x, capsys, monkeypatch):
    ending = {"zarr": "zarr", "pyarrow": "parquet"}[library]
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"normfast.stream.{ending}", raising=False)
    status, _, lines = command(capsys, "standardize", "x.npy", f"y.{ending}", "--quiet")
    assert status == 2
    assert lines == [f"normfast standardize: reading and writing .{ending} needs {library}: pip install 'normfast[{ending}]'"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no users to change to")
def test_without_permission():
    """As another user where the tests run as root, who may do everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "x.npy", np.ones((5, 2)))
        np.save(folder / "secret.npy", np.ones((5, 2)))
        (folder / "closed").mkdir()
        (folder / "closed").chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
        (folder / "secret.npy").chmod(0)
        folder.chmod(0o755)
        for arguments, words in (
            (["standardize", folder / "x.npy", folder / "closed" / "y.npy"], f"{folder}/closed/y.npy"),
            (["moments", folder / "secret.npy"], f"{folder}/secret.npy: Permission denied"),
        ):
            status, lines = as_nobody([str(argument) for argument in arguments])
            assert (status, len(lines)) == (1, 1), lines
            assert words in lines[0]
            assert "Permission denied" in lines[0]
        assert left_in(folder / "closed") == []
        (folder / "closed").chmod(0o755)


def as_nobody(arguments):
    """Exit status and stderr of a command in a child without root's rights."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.dup2(writing, 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            if os.geteuid() == 0:
                os.setegid(65534)
                os.seteuid(65534)
            status = cli.main(arguments)
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with open(reading) as pipe:
        lines = pipe.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines


@pytest.mark.parametrize("method", ["standardize", "minmax", "whiten"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_check_finds_one_wrong_value(method, axis, x, tmp_path, capsys, monkeypatch):
    if method == "whiten" and axis == 1:
        axis = 0
    finish = flat.FlatTarget.finish

    def damaging(self):
        finish(self)
        values = np.lib.format.open_memmap("y.npy.partial", "r+")
        values[321, 4] += 0.01
        values.flush()

    arguments = ["standardize", "x.npy", "y.npy", "--check", "--quiet", "--method", method, "--axis", axis]
    assert command(capsys, *arguments)[0] == 0
    monkeypatch.setattr(flat.FlatTarget, "finish", damaging)
    status, _, lines = command(capsys, *arguments, "--force")
    assert status == 1
    assert "the check failed: the result at" in lines[0]
    assert method == "whiten" or "(321, 4)" in lines[0]
    assert left_in(tmp_path) == ["x.npy", "y.npy"]


@pytest.mark.parametrize("method", ["standardize", "minmax", "whiten"])
def test_a_check_finds_wrong_statistics(method, x, capsys, monkeypatch):
    """Though each value is what these statistics make of it."""
    from normfast.stream.methods import METHODS

    learn = METHODS[method].learn

    def learning(self, *found):
        learn(self, *found)
        if method == "whiten":
            self.matrix = self.matrix * 1.001
        else:
            self.statistics = (self.statistics[0] - 0.01, self.statistics[1] + 0.01, *self.statistics[2:])

    monkeypatch.setattr(METHODS[method], "learn", learning)
    status, _, lines = command(capsys, "standardize", "x.npy", "y.npy", "--check", "--quiet", "--method", method)
    assert status == 1
    assert "the check failed: statistics of the result are off" in lines[0]


def test_whitening_refuses_nan(x, tmp_path, capsys):
    values = np.load(x)
    values[7, 3] = np.nan
    np.save(x, values)
    status, _, lines = command(capsys, "standardize", "x.npy", "y.npy", "--method", "whiten", "--quiet")
    assert status == 2
    assert "the covariance is not finite" in lines[0]
    assert left_in(tmp_path) == ["x.npy"]
    status, _, lines = command(capsys, "moments", "x.npy", "--nan-policy", "raise", "--quiet")
    assert "holds a NaN" in lines[0]


def test_interrupting_the_command(x, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        stopped_at(patch, 7, KeyboardInterrupt())
        status, _, lines = command(capsys, "standardize", "x.npy", "y.npy", "--quiet")
        assert (status, lines) == (130, ["normfast standardize: interrupted: the same command with --resume goes on from here"])
    assert command(capsys, "standardize", "x.npy", "y.npy", "--quiet", "--resume", "--check")[0] == 0
    assert left_in(tmp_path) == ["x.npy", "y.npy"]


def test_moments_command(x, capsys):
    values = np.load(x)
    status, out, lines = command(capsys, "moments", "x.npy", "--axis", "0", "--ddof", "1")
    assert status == 0
    assert out.splitlines()[0] == "x.npy: 500 x 10 values of float32"
    row = [float(word) for word in out.splitlines()[3].split()]
    expected = [1, 500, values[:, 1].mean(dtype=float), values[:, 1].std(dtype=float, ddof=1), values[:, 1].min(), values[:, 1].max()]
    assert row == pytest.approx(expected, rel=1e-8)
    assert lines[-1].endswith("GB/s")
    _, out, lines = command(capsys, "moments", "x.npy", "--axis", "1", "--quiet", "--json")
    found = json.loads(out)
    assert (len(found["mean"]), found["count"], found["axis"], found["shape"], lines) == (500, 10, 1, [500, 10], [])
    _, out, _ = command(capsys, "moments", "x.npy", "--axis", "1", "--quiet")
    assert out.splitlines()[-1] == "... and 480 more: --json prints all"
    np.save("n.npy", [1.0, np.nan])
    found = json.loads(command(capsys, "moments", "n.npy", "--quiet", "--json")[1])
    assert (found["mean"], found["std"], found["min"], found["max"]) == (None, None, 1.0, 1.0)


def test_raw_command(x, tmp_path, capsys):
    values = np.load(x)
    (tmp_path / "x.raw").write_bytes(b"abc" + (values * 10).astype(">i2").tobytes("F"))
    raw = ["--shape", "500,10", "--dtype", ">i2", "--offset", "3", "--order", "F", "--quiet"]
    assert command(capsys, "standardize", "x.raw", "y.npy", *raw, "--out-dtype", "f4", "--check")[0] == 0
    expected = nf.preprocessing.standardize((values * 10).astype(">i2"))
    assert np.abs(np.load("y.npy") - expected).max() < 1e-6
    assert json.loads(command(capsys, "moments", "x.raw", *raw, "--json")[1])["dtype"] == ">i2"
    assert command(capsys, "standardize", "x.raw", "z.npy", *raw)[0] == 0
    assert np.load("z.npy").dtype == np.float64


class Terminal:
    """A stderr that somebody looks at."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


@pytest.mark.parametrize("rich", [True, False])
def test_progress(rich, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = iter(range(100))
    if rich:
        pytest.importorskip("rich", reason="rich is not installed")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Progress(4_000_000_000, True) as bar:
        bar._shown -= 1
        bar.start("statistics", 1_000_000_000)
        for _ in range(2):
            bar._shown -= 1
            bar.add(500_000_000)
    assert "statistics" in terminal.text
    assert "50%" in terminal.text
    assert "GB/s" in terminal.text
    assert "left" in terminal.text
    assert "1 GB in" in terminal.text.splitlines()[-1]


def test_progress_where_nobody_looks(x, capsys):
    _, _, lines = command(capsys, "standardize", "x.npy", "y.npy")
    assert len(lines) == 1
    assert "GB/s" in lines[0]
    assert command(capsys, "standardize", "x.npy", "z.npy", "--quiet")[2] == []

"""The benchmarks: each runs once, tiny, and is right; the report says what was measured; the command from end to end."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

import normfast as nf
from normfast import cli
from normfast.benchmarks import cases, formulas, memory, rivals, yardsticks
from normfast.benchmarks.problems import BOUNDS, Problem

TINY = list(dict.fromkeys(replace(cases.tiny(case), model="") for case in cases.CASES if case.series == "models"))
PLAIN = [case for case in TINY if case.dtype == "float32" and case.threads is None and case.out == (case.direction == "forward")]
LOOSE = {"float32": 1e-5, "float64": 1e-13, "bfloat16": 0.05}  # for rivals, which need not be as exact


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """The command says how long idle threads spin, in the environment of its process: not what the tests after it should find."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "")
    monkeypatch.delenv("GOMP_SPINCOUNT")  # so that it is absent before and, when both are undone, as it was
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # whose children pytest-benchmark does not let time anything


def timed(name, case):
    """Build and call a contender; returns its error, or None where the library does not have the operation."""
    problem = Problem(case)
    contender = rivals.build(name, problem, case.threads or 2)
    if contender is None:
        return None
    with contender.state():
        contender.run()  # all runs give the same
        return problem.error(contender.results(contender.run()))


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.id)
def test_every_benchmark_runs(case):
    if case.dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    if not nf.show_config("dicts")["engines"]["cython"].startswith("missing"):
        assert timed("normfast (cython)", case) <= BOUNDS[case.dtype]
    assert timed("numpy", case) <= LOOSE[case.dtype]
    if rivals.installed("torch"):
        error = timed("torch", case)
        assert (error is None) == (case.op == "standardize")
        assert error is None or error <= LOOSE[case.dtype]


@pytest.mark.parametrize("op", cases.OPS)
def test_the_numba_engine_runs(op):
    pytest.importorskip("numba", reason="numba is not installed")
    for case in PLAIN:
        if case.op == op:
            assert timed("normfast (numba)", case) <= BOUNDS[case.dtype]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["onnxruntime", "jax", "openvino", "sklearn"])
def test_other_rivals_run(name):
    if not rivals.installed(name) or (name == "onnxruntime" and importlib.util.find_spec("onnx") is None):
        pytest.skip(f"{name} is not installed")
    errors = {case.id: timed(name, case) for case in PLAIN}
    assert max(error for error in errors.values() if error is not None) <= LOOSE["float32"], errors


@pytest.mark.filterwarnings("default")
def test_torch_compile_runs():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    if sys.platform != "linux" or shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++")
    chosen = [case for case in PLAIN if case.op == "rms_norm" and len(case.shape) == 2][:2]
    chosen += [case for case in PLAIN if case.op == "dropout_add_layer_norm" and case.direction != "backward"]
    assert [timed("torch.compile", case) <= LOOSE["float32"] for case in chosen] == [True] * 4


@pytest.mark.parametrize("threads", [1, 2])
def test_yardsticks_do_what_they_say(threads):
    case = cases.Case("layer_norm", "", (300, 1001), direction="both", out=False)
    problem = Problem(case)
    for (kind, way), contender in yardsticks.contenders(problem, threads).items():
        problem.out[:] = 0
        with contender.state():
            contender.run()
        x, dy, out = (yardsticks.words(values) for values in (problem.x, problem.dy, problem.out))
        assert (out == (x if kind == "copy" else x + dy)).all(), (kind, way)
    problem = Problem(cases.Case("add_layer_norm", "", (300, 1001)))
    x, residual, out, h = (yardsticks.words(values) for values in (problem.x, problem.residual, problem.out, problem.h))
    for (kind, way), contender in yardsticks.contenders(problem, threads).items():
        out[:] = h[:] = 0
        with contender.state():
            contender.run()
        wanted = (x, residual) if way in ("numpy", "torch") else (x + residual, x ^ residual)
        assert kind == "pair"
        assert (out == wanted[0]).all(), way
        assert (h == wanted[1]).all(), way
    problem = Problem(cases.Case("moments", "", (300, 1001), out=False))
    sums = yardsticks.contenders(problem, threads)
    assert {int(contender.run()) for contender in sums.values()} == {int(yardsticks.words(problem.x).sum())}


def test_cases_are_distinct_and_complete():
    ids = [case.id for case in cases.CASES]
    assert len(set(ids)) == len(ids)
    models = cases.selected(series=["models"])
    assert 90 <= len(models) <= 180
    assert 10 <= len(cases.selected(quick=True)) <= 18
    assert {case.op for case in models} == set(cases.OPS)
    for op in cases.OPS:
        directions = {case.direction for case in cases.selected([op])}
        one_way = op in ("moments", "standardize", "batch_norm_inference") or op.startswith("add_")
        assert directions >= ({"forward"} if one_way else {"forward", "backward"})
    assert cases.Case("layer_norm", "", (4, 8), dtype="bfloat16", direction="both").streams == 5
    assert cases.Case("dropout", "", (4, 8), direction="backward").streams * 4 * 8 * 4 == 256
    streams = [cases.Case("dropout_add_rms_norm", "", (4, 8), direction=way).streams for way in ("forward", "backward", "both")]
    assert streams == [4, 4, 8]
    assert cases.Case("dropout_add_rms_norm", "", (4, 8), direction="backward", dh=True).streams == 5


def test_errors_are_found():
    """Also in an array of which a sample is verified."""
    for shape in [(5, 24), (5000, 1000)]:
        problem = Problem(cases.Case("layer_norm", "", shape))
        (y,) = formulas.forward(problem.case, *(np.float64(values) for values in (problem.x, problem.weight, problem.bias)), None, None)
        y = y.astype(np.float32)
        assert problem.error((y,)) <= BOUNDS["float32"]
        y[-1, 3] += 1e-2
        assert problem.error((y,)) > 5e-4
        y[-1, 3] = np.nan
        assert problem.error((y,)) == np.inf
        with pytest.raises(AssertionError, match="shape"):
            problem.error((y[:, :-1],))
    problem = Problem(cases.Case("dropout", "", (100, 100)))
    with pytest.raises(AssertionError, match="were kept"):
        problem.error((problem.x,))
    problem = Problem(cases.Case("dropout_add_layer_norm", "", (100, 100)))
    with pytest.raises(AssertionError, match="were kept"):
        problem.error((problem.x, problem.x + problem.residual))


@pytest.mark.parametrize("case", [case for case in PLAIN if case.op == "dropout_add_layer_norm"], ids=lambda case: case.id)
def test_errors_are_found_whatever_was_dropped(case):
    """In each result."""
    problem = Problem(case)
    contender = rivals.build("numpy", problem, 1)
    right = contender.results(contender.run())
    assert problem.error(right) <= LOOSE["float32"]
    for i, values in enumerate(right):
        wrong = [*right[:i], np.copy(values), *right[i + 1 :]]
        wrong[i].flat[np.argmax(np.abs(values))] *= 1.001  # of a value that was kept
        assert problem.error(wrong) > 5e-4, i
        wrong[i][...] = np.nan
        assert problem.error(wrong) == np.inf, i


def test_report_takes_medians_and_the_best_yardstick():
    pytest.importorskip("rich", reason="rich is not installed")
    from normfast.benchmarks import report

    case = cases.Case("layer_norm", "BERT", (4, 8))
    info = {**case.__dict__, "name": case.name, "id": case.id, "bytes": 256, "error": 1e-7, "kinds": ["copy"]}
    times = {
        "normfast (cython)": [[4.0, 1.0], [2.0]], "torch": [[1.0], [1.0]], "numpy": [[8.0], [8.0]],
        ("copy", "plain"): [[3.0], [3.0]], ("copy", "numpy"): [[1.0], [9.0, 1.0]],
    }  # fmt: skip
    benchmarks = [
        {"extra_info": info | {"contender": list(name) if isinstance(name, tuple) else name}, "stats": {"data": data}}
        for name, turns in times.items()
        for data in turns
    ]
    (row,) = table = report.rows({"benchmarks": benchmarks})
    assert row["seconds"] == {"normfast (cython)": 2.0, "torch": 1.0, "numpy": 8.0}
    assert row["yardstick"] == 1.0
    twice = [benchmark | {"extra_info": benchmark["extra_info"] | {"kinds": ["copy", "copy"]}} for benchmark in benchmarks]
    assert report.rows({"benchmarks": twice})[0]["yardstick"] == 2.0
    ops = ("moments", "dropout", "rms_norm", "add_rms_norm", "dropout_add_rms_norm")
    kinds = ["moments", "dropout, both", "norms, both", "add_norms, both", "dropout_add_norms, both"]
    assert [report.kind({"op": op, "direction": "both"}) for op in ops] == kinds
    assert report.losing(table) == [(row, "torch", 0.5)]
    means = report.means(table)["normfast (cython)"]["norms, forward"]
    assert [round(means[name]["ratio"], 9) for name in ("copy", "torch", "numpy")] == [0.5, 0.5, 4.0]
    assert report.cells(row, report.headings(table), "normfast (cython)")[6:] == ["2.00 s", "0.0", "2.00", "4.00", "0.50", "1.0e-07"]
    assert [report.duration(seconds) for seconds in (1.234e-6, 45.67e-6, 0.789, 0.9996, None)] == [
        "1.23 us", "45.7 us", "789 ms", "1.00 s", "-",
    ]  # fmt: skip


def bench(*arguments):
    for name in ("rich", "matplotlib", "pytest_benchmark"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    return cli.main(["bench", "--tiny", "--seconds", "0.001", "--turns", "2", "--against", "numpy", "--op", *arguments])


@pytest.mark.filterwarnings("default")
def test_command(tmp_path, capsys):
    page, file = tmp_path / "benchmarks.md", tmp_path / "times.json"
    assert bench("lp_norm", "instance_norm", "--json", str(file), "--docs", str(page)) == 0
    shown = capsys.readouterr().out
    assert "lp_norm, backward" in shown
    assert "geometric means" in shown
    result = json.loads(file.read_text())
    assert len(result["rows"]) == len({replace(cases.tiny(case)).id for case in cases.selected(["lp_norm", "instance_norm"])})
    assert result["versions"]["normfast"] == nf.__version__
    assert all("numpy" in row["seconds"] and row["yardstick"] > 0 for row in result["rows"])
    text = page.read_text()
    for part in ("processor", "## Means", "## Losing rows", "| lp_norm, backward |", "![GB/s by bytes](benchmarks.png)"):
        assert part in text
    assert (tmp_path / "benchmarks.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.filterwarnings("default")
def test_a_wrong_result_fails_the_command(capsys, monkeypatch):
    monkeypatch.setattr(nf, "lp_norm", lambda x, out: np.multiply(x, 1.01, out=out))
    assert bench("lp_norm") == 1
    assert "FAILED: lp_norm, CLIP" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the memory is read as Linux tells it")
@pytest.mark.parametrize("op", memory.OPS)
def test_a_pass_takes_little_memory(op):
    """Less than 1 MB beside inputs, outputs and statistics; and what is taken is seen."""
    if nf.engines.load("auto").name == "numpy":
        pytest.skip("no compiled engine is installed")
    size = 64 * memory.MB
    inputs, outputs, statistics, more = memory.fresh(op, 1024, size)
    assert (inputs, outputs) == tuple(len(names) * size for names in memory.OPS[op])
    assert statistics == (0 if op == "dropout" else 3 * 8 * size // 4096)
    assert more < memory.MB
    assert memory.fresh(op, 1024, size, "numpy")[3] > size


def test_memory_prints_its_table(capsys):
    memory.main(["--mb", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [op for op, _ in memory.CASES]


@pytest.mark.parametrize("arguments", [["--op", "fly"], ["--against", "nobody"], ["--turns", "0"], ["--json", "/no/such/folder/x.json"]])
def test_wrong_commands(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", *arguments])
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest_benchmark", None)
    monkeypatch.delitem(sys.modules, "normfast.benchmarks.run", raising=False)
    with pytest.raises(SystemExit):
        cli.main(["bench"])
    assert "pip install 'normfast[bench]'" in capsys.readouterr().err

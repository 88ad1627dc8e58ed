"""`normfast bench`: runs the timed tests with a progress bar and reports."""

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
import pytest_benchmark  # noqa: F401  # so that its absence is noticed here
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from normfast.benchmarks.page import page
from normfast.benchmarks.picture import picture
from normfast.benchmarks.report import main_engine, rows, screen, summary
from normfast.benchmarks.test_speed import ABSENT

SPINS = "300000"  # libgomp's own default, 3 ms


class Watcher:
    """A plugin of pytest that moves the bar and keeps what went wrong."""

    def __init__(self, progress):
        self.progress, self.task = progress, progress.add_task("collecting", total=None)
        self.wrong, self.absent = {}, {}  # reasons, in order

    def pytest_collection_finish(self, session):
        self.progress.update(self.task, total=len(session.items))

    def pytest_runtest_logstart(self, nodeid, location):
        self.progress.update(self.task, description=nodeid.partition("[")[2].split(",")[0])

    def pytest_runtest_makereport(self, item, call):
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            what, said = item.callspec.id.rpartition(",")[0], str(call.excinfo.value).splitlines() or [call.excinfo.typename]
            self.wrong[f"{what}: {said[0]}"] = None

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown":
            self.progress.advance(self.task)
        elif report.skipped:
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if reason != ABSENT:
                self.absent[reason] = None


def measure(console, arguments):
    """Run pytest on the timed tests; returns pytest-benchmark's JSON and the watcher."""
    folder = Path(__file__).parent
    bar = TextColumn("{task.description:22}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with tempfile.TemporaryDirectory() as temporary, Progress(*bar, console=console, transient=True) as progress:
        file, watcher, text = Path(temporary) / "times.json", Watcher(progress), io.StringIO()
        # no configuration, cache, capture or plugin of the project in whose folder the command is called
        own = [str(folder / "test_speed.py"), "-c", os.devnull, f"--rootdir={folder}", f"--confcutdir={folder}", "-p", "no:cacheprovider"]
        own += ["-s", "-q", "--assert=plain", "--import-mode=importlib", "--benchmark-disable-gc", f"--benchmark-json={file}"]
        own += [f"--benchmark-storage=file://{temporary}"]
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            status = pytest.main([*own, *arguments], plugins=[watcher])
        if not file.exists() or not file.stat().st_size or status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise SystemExit("\n".join(["normfast bench: nothing was timed", *watcher.wrong, *text.getvalue().splitlines()[-20:]]))
        return json.loads(file.read_text()), watcher


def run(options):
    """The command; returns the exit status: 1 where a result of normfast is wrong."""
    if "OMP_WAIT_POLICY" not in os.environ:  # PyTorch may share our libgomp, and should find it as it is without us (`threads.short_spins`)
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    console = Console()
    if not console.is_terminal:
        console = Console(width=220)  # a file has room
    arguments = [f"--seconds={options.seconds}", f"--turns={options.turns}", *["--quick"] * options.quick, *["--tiny"] * options.tiny]
    for name in ("op", "against", "series"):
        arguments += [f"--{name}={value}" for value in getattr(options, name)]
    measured, watcher = measure(console, arguments)
    table = rows(measured)
    console.print(screen(table))
    for group, means in summary(measured, table)["means"].get(main_engine(table), {}).items():
        texts = [f"{name} {mean['ratio']:.2f}" for name, mean in means.items()]
        console.print(f"{group}, geometric means: {', '.join(texts)}", highlight=False)
    for reason in watcher.absent:
        console.print(f"absent: {reason}", highlight=False, markup=False)
    for reason in watcher.wrong:
        console.print(f"FAILED: {reason}", style="red", highlight=False, markup=False)
    write(options, summary(measured, table), console)
    return 1 if watcher.wrong else 0


def write(options, result, console):
    """The files that were asked for."""
    if options.plot:
        picture(result["rows"], options.plot)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    if options.docs:
        link = os.path.relpath(options.plot, Path(options.docs).parent) if options.plot else None
        Path(options.docs).write_text(page(result, link), encoding="utf-8")
    for kind in ("json", "plot", "docs"):
        if getattr(options, kind):
            console.print(f"{kind}: {getattr(options, kind)}", highlight=False)

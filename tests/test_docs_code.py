"""What the pages of docs/ show is run as a reader would run it: Python, doctests and commands, page by page, in their order."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_mpi import mpiexec

import normfast as nf

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(python|pycon|console)\b([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LIMIT = 600  # seconds of a command, on a machine that others use too
ELSEWHERE = {  # pages whose code other tests run, with what that needs
    "c-and-cython.md": "test_capi_examples.py",
    "dask.md": "test_dask.py",
    "inference.md": "test_plans.py",
    "interoperability.md": "test_array_api.py",
    "mpi.md": "test_mpi.py",
    "onnx.md": "test_onnx_export.py",
}
NEEDS = {
    "torch": "torch",
    "numba": "numba",
    "dask": "dask.array",
    "mpi": "mpi4py",
    "onnx": "onnx",
    "conventions": "torch",
}  # by words of names


def pages():
    return sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if BLOCK.search(page.read_text(encoding="utf-8")))


class Reader:
    """Somebody who types what a page shows, in an empty folder."""

    def __init__(self, folder):
        self.folder, self.names, self.count = folder, {"__name__": "__main__"}, 0
        self.checker = doctest.OutputChecker()

    def follow(self, page):
        """Run the blocks of a page; returns how many there were."""
        for kind, words, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            title = re.search(r'title="([^"]*)"', words)
            if title and title[1].startswith("not run: "):
                continue
            if "--8<--" in text:
                continue  # a part of a source, which has tests of its own
            self.count += 1
            if title and title[1].endswith(".py"):
                (self.folder / title[1]).write_text(text)
            elif kind == "console":
                self.command(text)
            elif ">>> " in text:
                self.session(text, page)
            else:
                self.program(text)
        return self.count

    def session(self, text, page):
        test = doctest.DocTestParser().get_doctest(text, self.names, f"{page.name}, block {self.count}", None, 0)
        report = []
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        assert runner.run(test, out=report.append, clear_globs=False).failed == 0, "".join(report)
        self.names.update(test.globs)

    def program(self, text):
        file = self.folder / f"block_{self.count}.py"  # a real one, where Numba can keep what it compiles
        file.write_text(text)
        exec(compile(text, file, "exec"), self.names)

    def command(self, text):
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            program, *rest = shlex.split(command)
            python = {
                "normfast": [sys.executable, "-c", "import sys; from normfast.cli import main; sys.exit(main())"],
                "python": [sys.executable],
            }
            words = [*mpiexec(), *(sys.executable if word == "python" else word for word in rest)] if program == "mpiexec" else None
            words = words or [*python[program], *rest]
            path = os.pathsep.join([str(Path(nf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
            done = subprocess.run(
                words, cwd=self.folder, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, "PYTHONPATH": path}
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
            assert not shown.strip() or self.checker.check_output(shown, done.stdout, flags), (
                f"{command}\n{done.stdout}\nin place of\n{shown}"
            )


@pytest.mark.parametrize("name", [name for name in pages() if name not in ELSEWHERE])
def test_a_page_runs(name, tmp_path, monkeypatch):
    for word, module in NEEDS.items():
        if word in Path(name).stem:
            pytest.importorskip(module, reason=f"docs/{name} needs {module}, which is not installed")
    if name.startswith("tutorials/"):
        pytest.importorskip("sklearn", reason="the tutorials take their data from scikit-learn, which is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    threads = nf.get_num_threads()
    try:
        Reader(tmp_path).follow(DOCS / name)
    finally:
        nf.set_num_threads(threads)


def test_pages_whose_code_runs_elsewhere():
    for page, test in ELSEWHERE.items():
        assert page in (ROOT / "tests" / test).read_text(encoding="utf-8"), f"{test} does not run {page}"


def test_a_wrong_page_is_found(tmp_path):
    for wrong in ("```python\n>>> 1 + 1\n3\n\n```\n", "```python\nassert False\n```\n", "```console\n$ python -c 'print(1)'\n2\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(wrong)
        with pytest.raises(AssertionError):
            Reader(tmp_path).follow(page)
    page.write_text("```python\nx = 1\n```\n\n```python\n>>> x\n1\n\n```\n\n```console\n$ python -c 'print(1)'\n1\n```\n")
    assert Reader(tmp_path).follow(page) == 3


def test_what_is_not_run_says_why():
    for page in DOCS.rglob("*.md"):
        for _, words, _ in BLOCK.findall(page.read_text(encoding="utf-8")):
            if "not run" in words:
                assert re.search(r'title="not run: .{10,}"', words), f"{page.name}: {words}"

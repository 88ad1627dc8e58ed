"""Every figure of README and docs/ carries the command that makes it, and the commands are there."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

from normfast import cli
from normfast.benchmarks import figures

ROOT = Path(__file__).parents[1]
DOCS = sorted(path for path in (ROOT / "docs").glob("**/*.md") if "gallery" not in path.parts)  # whose pages are generated
PAGES = [ROOT / "README.md", *DOCS]
FIGURE = re.compile(r"(?<![\w.=-])\d(?:[\d.,]*\d)? (?:ns|us|ms|s|GB/s|MB/s|eps|times)(?![\w=])|\b\d(?:\.\d)?e-\d+\b")
COMMAND = re.compile(
    r"python -m normfast\.|python (?:tests|tools)/|normfast (?:bench|standardize)|\bpytest\b|unzip -v|dieharder|rngtest|>>> "
)


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request):
    return request.param


def sections(text):
    """The sections of a page as (title, prose and tables, all of it), the beginning of the page with each."""
    first, *others = re.split(r"^#{2,3} ", text, flags=re.MULTILINE)
    for part in [first, *others]:
        yield part.split("\n", 1)[0], re.sub(r"```.*?```|\$\$.*?\$\$", "", part, flags=re.DOTALL), first + part


def test_figures_carry_their_command(page):
    without = {title: FIGURE.findall(prose) for title, prose, whole in sections(page.read_text()) if not COMMAND.search(whole)}
    assert not {title: found for title, found in without.items() if found}


def test_commands_are_there(page):
    text = page.read_text()
    for module in set(re.findall(r"python -m (normfast\.[\w.]+\w)", text)):
        found = importlib.util.find_spec(module)  # not imported: some begin MPI
        assert found, f"there is no {module}"
        assert "\ndef main(" in Path(found.origin).read_text(), module
    for name in re.findall(r"normfast\.benchmarks\.figures (\w+)", text):
        function = figures.FIGURES[name]
        assert f"{page.relative_to(ROOT)}:" in function.__doc__, f"{name} is said to stand elsewhere"
    for file in re.findall(r"(?:python|pytest) (t\w+/[\w/]+\.py)", text):
        assert (ROOT / file).is_file(), file
    for command in set(re.findall(r"`normfast (bench|demo|moments|standardize|info)\b", text)):
        with pytest.raises(SystemExit) as stop, contextlib.redirect_stdout(io.StringIO()):
            cli.main([command, "--help"])
        assert stop.value.code == 0


def test_every_figure_has_its_page():
    for name, function in figures.FIGURES.items():
        file = function.__doc__.split(":")[0]
        assert f"normfast.benchmarks.figures {name}" in (ROOT / file).read_text(), f"{file} does not name {name}"


@pytest.mark.parametrize("name", ["autograd", "capi", "dask", "merge", "plan", "tensor"])
def test_figures_are_measured(name, capsys, monkeypatch):
    """The quick ones, in a few rounds."""
    if name in ("autograd", "tensor"):
        pytest.importorskip("torch", reason="PyTorch is not installed")
    if name == "capi":
        pytest.importorskip("numba", reason="Numba is not installed")
        pytest.importorskip("normfast.engines.cython.baseline.capi", reason="normfast was built without a C compiler")
    medians = figures.medians
    monkeypatch.setattr(figures, "medians", lambda calls, rounds=3: medians(calls, 3))
    figures.main([name])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{name}: ")
    assert all(float(value) > 0 for value in re.findall(r" ([\d.e+]+) (?:ns|us|ms)", printed)), printed
    assert re.search(r"[\d.e+]+ (ns|us|ms)", printed)


def test_wrong_figures(capsys):
    with pytest.raises(SystemExit) as stop:
        figures.main(["nothing"])
    assert stop.value.code == 2
    assert "there are" in capsys.readouterr().err

"""The gallery: its pages say what its figures say, its figures are those of its sources, and they come out again."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn, whose data the gallery uses, is not installed")
pytest.importorskip("rich", reason="normfast.demo, whose data the gallery uses, needs rich")

HERE = Path(__file__).parents[1] / "docs" / "gallery"
SCRIPTS = sorted(path.stem for path in (HERE / "results").glob("*.json"))


@pytest.fixture(autouse=True)
def gallery(monkeypatch):
    """Its scripts can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(HERE)
    yield
    for name in [path.stem for path in HERE.glob("*.py")]:
        sys.modules.pop(name, None)


def taken(name):
    return importlib.import_module(name)


def test_every_script_has_a_page_a_picture_and_a_row():
    own = {path.stem for path in HERE.glob("*.py")} - {"build", "figures", "pages", "training"}
    assert set(SCRIPTS) == own == set(taken("build").SCRIPTS)
    index = (HERE / "index.md").read_text(encoding="utf-8")
    for name in SCRIPTS:
        assert f"]({name}.md)" in index
        assert f"`python docs/gallery/{name}.py --fresh`" in index
        picture = HERE / f"{name}.svg"
        assert picture.stat().st_size < 60_000, f"{name}.svg is too large for a page"
        drawn = picture.read_text(encoding="utf-8")
        for panel in taken(name).PANELS:
            for label in (panel.title, panel.xlabel, *(panel.lines if len(panel.lines) > 1 else ())):
                assert f">{label}<" in drawn.replace("&#x27;", "'"), f"{name}.svg lacks {label}: run python docs/gallery/{name}.py"


@pytest.mark.parametrize("name", SCRIPTS)
def test_results_are_those_of_the_sources(name):
    stored = json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert stored["key"] == taken("pages").key(name), f"the sources of {name} have changed: run python docs/gallery/build.py"
    seeds = len(taken(name).SEEDS)
    assert seeds >= 5
    assert all(len(rows) == seeds for rows in stored["figures"].values())


@pytest.mark.parametrize("name", SCRIPTS)
def test_page_is_made_from_the_results(name):
    pages, script = taken("pages"), taken(name)
    text = (HERE / f"{name}.md").read_text(encoding="utf-8")
    assert text == pages.page(name, script, pages.results(name)), f"run python docs/gallery/{name}.py"
    assert re.search(r"^\*\*(Held|Held in part|Not held)\*\*, over \d+ seeds", text, re.MULTILINE)


def test_index_is_made_from_the_results():
    assert (HERE / "index.md").read_text(encoding="utf-8") == taken("build").index(), "run python docs/gallery/build.py"


@pytest.mark.parametrize("name", ["deviations", "inference_statistics"])
def test_figures_come_out_again(name):
    """Of two seeds. BLAS rounds otherwise on another processor, and training enlarges that, but not beyond the spread of the seeds."""
    pages, script = taken("pages"), taken(name)
    stored = pages.results(name)
    script.SEEDS = script.SEEDS[:2]
    again = pages.measured(script)
    assert again.keys() == stored.keys()
    for label, values in again.items():
        known = stored[label]
        if not np.allclose(values, known[:2], rtol=1e-5, atol=1e-12):  # stored with six digits
            spread = known.std(axis=0, ddof=1)
            assert (np.abs(values - known[:2]) <= 3 * spread + 1).all(), f"{name}: {label}"


def test_threads_change_no_figure():
    """A script's figures are the same bits for any number of threads."""
    code = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import normfast as nf, pages, inference_statistics as script
nf.set_num_threads(int(sys.argv[1]))
script.SEEDS, script.AT = range(1), [1, 20]
print({{name: values.tolist() for name, values in pages.measured(script).items()}})
"""
    runs = [subprocess.run([sys.executable, "-c", code, threads], capture_output=True, text=True, check=True).stdout for threads in "12"]
    assert runs[0] == runs[1]


def test_verdicts_are_computed():
    """The words follow from the figures, and turn when the figures turn."""
    figures, script = taken("figures"), taken("deviations")
    stored = taken("pages").results("deviations")
    assert figures.verdict(script.judge(stored)) == "held"
    stored["L1"] = stored["L1"] - 5.0
    assert figures.verdict(script.judge(stored)) == "held in part"
    level = np.full(5, 50.0)
    assert figures.verdict(script.judge({name: np.full(values.shape, 50.0) for name, values in stored.items()})) == "held in part"
    checks = [figures.Check("", "", held) for held in (False, False)]
    assert figures.verdict(checks) == "not held"
    better, scattered = np.array([1, 2, 3, 2, 1]), np.array([9, -8, 9, -8, 1])
    assert figures.larger(level + better, level)
    assert not figures.larger(level + scattered, level)
    assert not figures.larger(level + better, level, by=2.0)
    assert figures.same(level + better / 10, level, 0.5)
    assert not figures.same(level + scattered, level, 2.0)
    assert figures.half_width([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(1.9633, abs=1e-4)  # 2.7764 * 1.5811 / sqrt(5)


def test_figures_must_be_finite_and_of_five_seeds(tmp_path, monkeypatch):
    pages, script = taken("pages"), taken("deviations")
    monkeypatch.setattr(pages, "measured", lambda script: {"accuracy": np.array([1.0, np.nan, 1.0, 1.0, 1.0])})
    before = (HERE / "results" / "deviations.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="finite figures of 5 seeds"):
        pages.results("deviations", fresh=True)
    monkeypatch.setattr(pages, "measured", lambda script: {"accuracy": np.ones(4)})
    with pytest.raises(ValueError, match="finite figures of 5 seeds"):
        pages.results("deviations", fresh=True)
    assert (HERE / "results" / "deviations.json").read_text(encoding="utf-8") == before
    assert len(script.SEEDS) == 5


def test_banner_shows_what_the_pages_say(monkeypatch):
    monkeypatch.syspath_prepend(HERE.parent)
    banner = taken("banner")
    text = (HERE.parent / "benchmarks.md").read_text(encoding="utf-8")
    speeds = banner.speeds(text)
    assert set(speeds) == set(banner.OPERATIONS)
    row = next(line for line in text.splitlines() if line.startswith("| norms, forward |"))
    assert f" {speeds['norms, forward']['torch']:.2f} (" in row
    picture = (HERE.parent / "banner.svg").read_text(encoding="utf-8")
    assert len(picture) < 60_000
    for by_peer in speeds.values():
        for times in (min(by_peer.values()), max(by_peer.values())):
            assert f">{times:.1f}<" in picture, "run python docs/banner.py"
    sys.modules.pop("banner")

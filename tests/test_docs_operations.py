"""The pages of operations: each is there and whole, what it includes is found, its code runs, its gradients and its error bounds hold."""

import contextlib
import doctest
import functools
import importlib.util
import inspect
import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from formulas import ACTIVATIONS
from oracle import agree

import normfast as nf

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "operations"
FIGURES = ("errors", "times")
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.stem not in FIGURES)
SECTIONS = ["Formula", "Backward pass", "Oracle", "Kernel", "Error bound", "Speed", "References"]
WITHOUT_GRADIENT = {"covariance", "scaling"}


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


included = loaded(ROOT / "docs" / "hooks" / "included.py")


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request):
    return request.param


@pytest.fixture(params=["auto", "numpy"])
def engine(request):
    """What runs here by default, and the oracle. Numba compiles the same text, and `test_operations.py` holds it to the same formulas."""
    with nf.use_engine(request.param):
        yield


def names_after(page):
    """The page's code run as an example; returns its names."""
    example = doctest.DocTestParser().get_doctest(page.read_text(), {}, page.name, str(page), 0)
    assert example.examples, "the page has no example"
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        failed, _ = doctest.DocTestRunner().run(example, clear_globs=False)
    assert failed == 0, report.getvalue()
    return example.globs


# The pages are there and whole


def test_every_operation_has_one_page():
    functions = {name: getattr(nf, name) for name in nf.__all__ if inspect.isfunction(getattr(nf, name))}
    operations = {name for name, function in functions.items() if function.__module__.startswith("normfast.ops.")}
    heads = [set(re.findall(r"`nf\.(\w+)`", page.read_text().split("\n## ")[0])) for page in PAGES]
    assert {name: sum(name in head for head in heads) for name in operations} == dict.fromkeys(operations, 1)


def test_the_index_has_every_page():
    index = (ROOT / "docs" / "operations.md").read_text()
    assert sorted(set(re.findall(r"\]\(operations/([\w]+)\.md\)", index))) == sorted([*(path.stem for path in PAGES), *FIGURES])


def test_sections(page):
    text = page.read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == SECTIONS
    assert text.count("```python") * 2 == text.count("```")
    formulas = text.split("\n$$\n")
    assert len(formulas) % 2 == 1, "a formula begins and does not end"
    assert len(formulas) >= 3


def test_what_a_page_includes_is_found(page):
    text = page.read_text()
    parts = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    whole = included.with_includes(text, page)
    found = included.LINE.findall(text)
    assert len(found) == text.count("\nSource: ") + text.count("\nSpeed: ") + text.count("\nErrors: "), "a line is misspelt"
    assert whole.count("```python") == text.count("```python") + text.count("\nSource: ")
    assert "\nSource: " in parts["Oracle"]
    assert "/ops/" in parts["Kernel"] or "/kernels/" in parts["Kernel"]
    assert "\nSpeed: " in parts["Speed"]
    assert page.stem in WITHOUT_GRADIENT or "\nErrors: " in parts["Error bound"]


def test_the_hook_gives_the_page_to_mkdocs():
    text = PAGES[0].read_text()
    page = SimpleNamespace(file=SimpleNamespace(src_uri=f"operations/{PAGES[0].name}"))
    assert included.on_page_markdown(text, page, config=None, files=None) == included.with_includes(text, PAGES[0])


@pytest.mark.parametrize(
    "line",
    [
        "Source: [`nothing`](../../normfast/kernels/moments.py)",
        "Source: [`NumpyEngine.nothing`](../../normfast/engines/numpy.py)",
        "Speed: [layer_norm of 1x2](../benchmarks.md#all-rows)",
        "Speed: [nothing of 4096x768](../benchmarks.md#all-rows)",
        "Errors: [nothing](errors.md)",
    ],
)
def test_what_is_not_there_ends_the_build(line):
    with pytest.raises(LookupError, match="has no"):
        included.with_includes(line, PAGES[0])


def test_rows_of_a_table_are_those_asked_for():
    block = included.with_includes("Speed: [layer_norm of 4096x768](../benchmarks.md#all-rows)", PAGES[0])
    head, rows = included.rows_of(block, "operation")
    assert {row[0] for row in rows} == {"layer_norm", "layer_norm, backward", "layer_norm, both"}
    assert not {"shape", "model"} & set(head)
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert all(f"| {row[head.index('normfast (cython)')]} |" in text for row in rows)


# What they say is true


def test_examples(engine, page):
    names_after(page)


def complex_step(forward, dy, inputs):
    """The gradients of (dy * forward(inputs)).sum() in longdouble."""
    h, gradients = np.longdouble(1e-30), []
    for place, values in enumerate(inputs):
        gradient, moved = np.empty_like(values), values.astype(np.clongdouble)
        for index in np.ndindex(values.shape):
            moved[index] += 1j * h
            gradient[index] = (dy * forward(*inputs[:place], moved, *inputs[place + 1 :]).imag).sum() / h
            moved[index] = values[index]
        gradients.append(gradient)
    return gradients


def check_gradients(forward, backward, dy, inputs, what):
    inputs, dy = [values.astype(np.longdouble) for values in inputs], dy.astype(np.longdouble)
    gradients = backward(dy, *inputs)
    assert len(gradients) == len(inputs)
    for actual, expected in zip(gradients, complex_step(forward, dy, inputs), strict=True):
        agree(actual.astype(np.float64), expected, what, units=4)  # both are in longdouble: this is the rounding to float64


def test_gradients_of_the_pages_are_those_of_their_formulas(page):
    names = names_after(page)
    assert ("backward" in names) == (page.stem not in WITHOUT_GRADIENT)
    if "backward" in names:
        names["p"] = 3.0  # of lp_norm, whose page goes on to other orders
        check_gradients(names["forward"], names["backward"], names["dy"], names["inputs"], page.stem)


@pytest.mark.parametrize("ord", [1, np.inf])
def test_gradients_by_absolute_deviations(ord):
    names = names_after(FOLDER / "batch_norm.md")
    forward, backward = (functools.partial(names[name], ord) for name in ("forward_by", "backward_by"))
    check_gradients(forward, backward, names["dy"], names["inputs"], f"ord={ord}")


# The error bounds of the activations' page; those of norms are the affair of tests/trust/test_accuracy.py


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_error_bounds_of_activations(engine, name):
    """In float64, where nothing hides behind the rounding of the result."""
    z = np.concatenate([np.linspace(-6, 6, 4001), -np.geomspace(1e-8, 1e-1, 200), np.geomspace(1e-8, 1e-1, 200)])
    z = z[(z != 0) & (z > (-2 if name == "gelu" else -6.1))]  # gelu's formula, by 1 + erf, cancels below even in longdouble
    wide, v = z.astype(np.longdouble), np.longdouble(2.0) ** -53
    f = ACTIVATIONS[name](wide)
    slope = ACTIVATIONS[name](wide + np.clongdouble(1e-30j)).imag / np.longdouble(1e-30)
    a, dz = nf.activation(z, name), nf.activation_backward(np.ones_like(z), z, name)
    assert (np.abs(a - f) <= v * np.abs(f) + 6 * v * np.maximum(np.abs(f), np.abs(z * slope))).all()
    assert (np.abs(dz - slope) <= v * np.abs(slope) + 10 * v).all()


# The times of the rest


def test_times_of_further_operations():
    """Every operation of the page is verified and timed, on small arrays here."""
    for module in ("numba", "torch", "sklearn"):
        pytest.importorskip(module, reason=f"{module} takes part in these benchmarks and is not installed")
    from normfast.benchmarks import further

    head, rows = included.rows_of(further.page(rounds=1, scale=32), "operation")
    shown, kept = included.rows_of((FOLDER / "times.md").read_text(), "operation")
    assert head == shown
    assert [row[0] for row in rows] == [row[0] for row in kept]


def test_errors_beside_others():
    """The table of docs/numerics.md: its rows, and errors of normfast's own column that are no larger now than promised."""
    from normfast.benchmarks import accuracy

    head, rows = included.rows_of((ROOT / "docs" / "numerics.md").read_text(), "float32")
    now, own = included.rows_of(accuracy.table(["normfast (cython)"] if cython() else ["numpy"]), "float32")
    assert [row[:2] for row in rows] == [row[:2] for row in own]
    assert head[:3] == ["float32", "mean / std", "normfast (cython)"]
    assert all(float(row[2]) <= 1e-6 for row in rows)
    assert not cython() or all(float(row[2]) <= 1e-6 for row in own), now
    assert any(float(row[head.index("numpy")]) > 1e-4 for row in rows)


def cython():
    return not nf.show_config("dicts")["engines"]["cython"].startswith("missing")

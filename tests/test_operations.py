"""Every operation x {forward, backward} x dtype x engine within its bound, and the page of the figures without holes."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from operations import DTYPES, arrays_of, bound, cases, error, exact
from oracle import agree, exact_gradients

import normfast as nf

pytest.importorskip("ml_dtypes", reason="bfloat16 is the dtype of ml_dtypes")
PAGE = Path(__file__).parents[1] / "docs" / "operations" / "errors.md"


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_error(engine, dtype, case):
    for direction in ("forward", "backward") if case.backward else ("forward",):
        assert error(case, direction, dtype) <= bound(case, dtype), direction


@pytest.mark.parametrize("case", [case for case in cases() if "weight" in case.shapes], ids=lambda case: case.name)
@pytest.mark.parametrize("sixteen", ["float16", "bfloat16"])
def test_float32_parameters_of_16_bit_data(engine, sixteen, case):
    """dweight and dbias are float32 then, with its errors."""
    for direction in ("forward", "backward") if case.backward else ("forward",):
        assert error(case, direction, sixteen, "float32") <= bound(case, "float32"), direction


def test_complex_steps_agree_with_the_oracle():
    case = cases()[0]
    arrays, dy = arrays_of(case, "float64", "float64")
    dx, dxhat, db = exact_gradients(dy, arrays["x"], (1,), 1e-5, arrays["weight"])
    for actual, expected in zip(exact(case, "backward", "float64", "float64"), (dx, dxhat.sum(axis=0), db.sum(axis=0)), strict=True):
        agree(actual, expected, case.name, units=16)
        assert actual.dtype == np.longdouble


@pytest.mark.parametrize("name", [name for name in nf.__all__ if f"{name}_forward" in nf.__all__ and name != "batch_norm"])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_the_short_form_gives_what_the_long_one_gives_first(engine, name, kind):
    """By the same defaults; parameters that are left out are 1 and 0."""
    short, long = getattr(nf, name), getattr(nf, f"{name}_forward")
    names = inspect.signature(short).parameters
    rng = np.random.default_rng(4)
    made = {one: rng.standard_normal((4, 8, 8)).astype(kind) for one in ("x", "residual") if one in names}
    made |= {one: value for one, value in {"num_groups": 2, "rng": 3}.items() if one in names}
    own = {one: rng.standard_normal(8).astype(kind) for one in ("weight", "bias") if one in names}
    plain = {one: value for one, value in {"weight": np.ones(8, kind), "bias": np.zeros(8, kind)}.items() if one in names}
    for given, same in ((own, own), (plain, {})):
        y, expected = short(**made, **given), long(**made, **same)[0]
        np.testing.assert_array_equal(y[0] if isinstance(y, tuple) else y, expected)


def test_every_operation_is_among_the_cases():
    operations = {case.operation for case in cases()}
    assert {name.removesuffix("_forward") for name in nf.__all__ if name.endswith("_forward")} <= operations
    assert len({case.name for case in cases()}) == len(cases())


def test_the_page_has_every_operation_and_no_holes():
    sections = PAGE.read_text().split("\n## ")[1:]
    assert [section.split("\n")[0] for section in sections] == list(DTYPES)
    for dtype, section in zip(DTYPES, sections, strict=True):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")][2:]
        assert [row[0] for row in rows] == [case.name for case in cases()]
        for row, case in zip(rows, cases(), strict=True):
            assert len(row) == 8
            assert all(0 <= float(cell) <= bound(case, dtype) for cell in row[1:4])
            assert row[4:7] == ["-"] * 3 if case.backward is None else all(0 <= float(cell) <= bound(case, dtype) for cell in row[4:7])

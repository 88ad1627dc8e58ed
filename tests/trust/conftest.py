"""Tests marked `long` run in the long profile alone."""

import pytest
from profiles import LONG


def pytest_collection_modifyitems(config, items):
    left_out = [] if LONG else [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture
def tried(record_property):
    """`tried(n)` says how many cases a test has gone through; one that does not counts as one."""
    return lambda n: record_property("tried", n)

"""`python -m tests.trust`: faults, load, bad input and proof that results repeat, in one table: what was tried, how often, what failed.

Each file of tests/trust is a row, named by the first line of its docstring. What follows `--` goes to pytest.
"""

import argparse
import ast
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent


class Tally:
    """A plugin that counts by file: cases, failures, skips and seconds."""

    def __init__(self):
        self.files = defaultdict(Counter)
        self.reasons = []

    def pytest_runtest_logreport(self, report):
        row = self.files[Path(report.fspath).name]
        row["seconds"] += report.duration
        row["failed"] += report.failed
        if report.skipped:
            row["skipped"] += 1
            self.reasons.append(f"{report.nodeid.rpartition('/')[2]}: {report.longrepr[2]}")
        elif report.when == "call":
            row["cases"] += dict(report.user_properties).get("tried", 1)

    def table(self):
        table = Table("what was tried", title="normfast: trust")
        for name in ("cases", "failed", "skipped", "seconds"):
            table.add_column(name, justify="right")
        for file, row in sorted(self.files.items()):
            table.add_row(title(FOLDER / file), *cells(row))
        table.add_section()
        table.add_row("all", *cells(sum(self.files.values(), Counter())))
        return table


def title(file):
    """The first line of a file's docstring, without its full stop."""
    return ast.get_docstring(ast.parse(file.read_text())).splitlines()[0].rstrip(".")


def cells(row):
    return f"{row['cases']:,}", f"{row['failed']}", f"{row['skipped']}", f"{row['seconds']:.0f}"


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.trust", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the long profile: thousands of cases, sanitizers, valgrind; an hour or more")
    parser.add_argument("pytest", nargs="*", metavar="-- ...", help="arguments for pytest, such as -k threads")
    asked = parser.parse_args()
    if asked.long:
        os.environ["NORMFAST_TRUST"] = "long"
    tally = Tally()
    start = time.perf_counter()
    status = pytest.main(["-q", str(FOLDER), *asked.pytest], plugins=[tally])
    console = Console()
    console.print(tally.table())
    for reason in tally.reasons:
        console.print(f"skipped: {reason}", markup=False, highlight=False)
    console.print(f"{'long' if asked.long else 'short'} profile, {time.perf_counter() - start:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The options of the timed tests: `pytest normfast/benchmarks --op layer_norm --against torch --benchmark-json times.json`."""

from normfast.benchmarks.cases import OPS
from normfast.benchmarks.rivals import RIVALS


def pytest_addoption(parser):
    group = parser.getgroup("normfast")
    group.addoption("--op", action="append", choices=OPS, help="an operation to time (default: all)")
    group.addoption("--against", action="append", choices=(*RIVALS, "none"), help="a rival (default: all that are installed)")
    group.addoption("--series", action="append", choices=("models", "scaling"), help="which list of cases (default: both)")
    group.addoption("--quick", action="store_true", help="a dozen cases")
    group.addoption("--tiny", action="store_true", help="all lengths clipped, to see that everything runs")
    group.addoption("--seconds", type=float, default=0.3, help="for each contender of a case, in all turns together")
    group.addoption("--turns", type=int, default=5, help="how often the contenders of a case take turns")

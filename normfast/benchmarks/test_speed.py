"""Every case and contender on pytest-benchmark: verified against exact results first, then timed.

The contenders of a case take turns, so that a slow moment of the machine does not hit one of them alone; the report takes medians over
all turns.
"""

import gc
import time
from dataclasses import asdict

import pytest

import normfast as nf
from normfast.benchmarks import cases, yardsticks
from normfast.benchmarks.problems import BOUNDS, Problem
from normfast.benchmarks.rivals import OURS, RIVALS, build, installed

ROUND = 1e-4  # seconds that a round takes at least: the clock's own time is lost in them
WAYS = ("numpy", "plain", "streaming", "torch")
ABSENT = "not an operation of this library"


def contenders(case, against):
    """Names of all that may be timed on a case, the yardsticks as (kind, way)."""
    rivals = [] if case.series == "scaling" else [name for name in RIVALS if name in against]
    return [*OURS, *((kind, way) for kind in dict.fromkeys(yardsticks.kinds(case)) for way in WAYS), *rivals]


def pytest_generate_tests(metafunc):
    option = metafunc.config.getoption
    against = option("against") or [name for name in RIVALS if installed(name)]
    parameters = []
    for case in cases.selected(option("op"), option("quick"), option("series") or ("models", "scaling")):
        case = cases.tiny(case) if option("tiny") else case
        names = contenders(case, against)
        for turn in range(option("turns")):
            for name in names if turn % 2 == 0 else reversed(names):
                parameters.append(pytest.param(case, name, id=f"{case.id}, {name}, {turn}"))
    metafunc.parametrize(("case", "name"), parameters)


class Ready:
    """A case made ready: its arrays, and each contender from its first turn on."""

    def __init__(self, case):
        self.case = case
        self.problem = Problem(case)
        self.threads = case.threads or nf.get_num_threads()
        self.yardsticks = yardsticks.contenders(self.problem, self.threads)
        self.entries = {}

    def entry(self, name):
        """A contender, its error and about how long a call takes; what it raised the first time, it raises again."""
        if name not in self.entries:
            try:
                self.entries[name] = self.verified(name)
            except Exception as error:
                self.entries[name] = error
        if isinstance(self.entries[name], Exception):
            raise self.entries[name]
        return self.entries[name]

    def verified(self, name):
        contender = self.yardsticks.get(name) if isinstance(name, tuple) else build(name, self.problem, self.threads)
        if contender is None:
            return None
        error = None
        with contender.state():
            if contender.results is not None:
                error = self.problem.error(contender.results(contender.run()))
            contender.run()
            return contender, error, estimate(contender.run)


def estimate(run):
    """Seconds of a call."""
    calls = 1
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        taken = time.perf_counter() - start
        if taken > ROUND:
            return taken / calls
        calls *= 4


_current = {}


def ready(case):
    """The case made ready, in place of the one before, whose arrays must go first."""
    if case not in _current:
        _current.clear()
        gc.collect()  # what contenders keep in cycles
        _current[case] = Ready(case)
    return _current[case]


def test_speed(case, name, benchmark, request):
    one = ready(case)
    ours = name in OURS
    try:
        entry = one.entry(name)
    except Exception as error:
        if ours and not isinstance(error, ImportError):
            raise
        pytest.skip(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    if entry is None:
        pytest.skip(ABSENT)
    contender, error, seconds = entry
    assert not ours or error <= BOUNDS[case.dtype], f"the error is {error:.2g}, allowed are {BOUNDS[case.dtype]}"
    option = request.config.getoption
    iterations = max(1, round(ROUND / seconds))
    rounds = max(1, round(option("seconds") / option("turns") / (iterations * seconds)))
    benchmark.extra_info.update(asdict(case), name=case.name, id=case.id, contender=name, error=error, bytes=case.streams * case.nbytes)
    benchmark.extra_info["kinds"] = yardsticks.kinds(case)
    time.sleep(0.005)  # by then the idle threads of the one before have stopped spinning
    with contender.state():
        benchmark.pedantic(contender.run, rounds=rounds, iterations=iterations, warmup_rounds=1)

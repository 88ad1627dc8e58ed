"""Dropout's random bits before external judges: `python -m normfast.benchmarks.randomness` feeds them to dieharder and rngtest.

Both are Debian packages (dieharder; rng-tools5 or rng-tools-debian has rngtest). One that is not installed is skipped with a line.
"""

import argparse
import contextlib
import itertools
import shutil
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import numpy as np

from normfast import engines
from normfast.ops.dropout import DropoutMask, key_of

CHUNK = 1 << 17  # words that are made at a time
APART = 1 << 32  # words from the start of a test to that of the next one, so that no two read the same
FIPS_FAILURES = 7.95e-4  # the share of its blocks that fails if all bits are fair: docs/randomness.md
PLACES = {"dieharder": "dieharder", "rngtest": "rng-tools5"}

# (number, ntuple) of dieharder's tests: those of `dieharder -a` but 14, which it advises against itself
NTUPLES = {200: range(1, 13), 201: range(2, 6), 202: range(2, 6), 203: range(33)}
NUMBERS = (*range(14), 15, 16, 17, 100, 101, 102, *range(200, 210))
FULL = [(number, n) for number in NUMBERS for n in NTUPLES.get(number, [None])]
QUICK = [(number, None) for number in (0, 2, 3, 8, 10, 13, 15, 16, 100, 101, 102)] + [(200, 3), (200, 6), (202, 5), (203, 0), (203, 3)]
BLOCKS = {"quick": 100_000, "full": 2_000_000}


class Judgement(NamedTuple):
    """What a tester says of a stream: how many results (dieharder) or blocks (rngtest) there were of each kind, and which stand out."""

    stream: str
    tester: str
    results: int
    passed: int
    weak: int | None
    failed: int
    notes: str

    @property
    def bad(self):
        """Whether fair bits would hardly be judged so: FAILED is p < 1e-6; five standard deviations for the blocks of rngtest."""
        if self.weak is not None:
            return self.failed > 0
        expected = self.results * FIPS_FAILURES
        return abs(self.failed - expected) > 1 + 5 * expected**0.5


def words(seed, start):
    """The words of the key of one seed, from word `start` on."""
    key = DropoutMask(0.5, (), key=key_of(seed)).words()
    for position in itertools.count(start, CHUNK):
        chunk = np.empty(CHUNK, np.uint32)
        engines.current().random_words(key, position, chunk)
        yield chunk


def seeds(seed, start):
    """The first 1024 words of each of the keys of consecutive seeds."""
    for one in itertools.count(seed + start // 1024):
        block = np.empty(1024, np.uint32)
        engines.current().random_words(DropoutMask(0.5, (), key=key_of(one)).words(), 0, block)
        yield block


def masks(seed, start):
    """The packed mask of p = 0.5 of one key, 32 elements to a word."""
    key = key_of(seed)
    for position in itertools.count(start, CHUNK):
        yield DropoutMask(0.5, (32 * CHUNK,), key=key, offset=32 * position).packbits()


def counter(seed, start):
    """1, 2, 3, ...: no stream of dropout, but proof that the testers read what they are fed and can fail."""
    for position in itertools.count(seed + start, CHUNK):
        yield np.arange(position, position + CHUNK, dtype=np.uint64).astype(np.uint32)


STREAMS = {"words": words, "seeds": seeds, "masks": masks, "counter": counter}


def fed(command, stream):
    """What a program prints that reads the stream from its standard input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        feeder = threading.Thread(target=_feed, args=(process.stdin, stream), daemon=True)
        feeder.start()
        output = process.stdout.read().decode()
        feeder.join()
    return output


def _feed(pipe, stream):
    with contextlib.suppress(OSError), pipe:  # the program has read enough: a broken pipe, or EINVAL on Windows
        for chunk in stream:
            pipe.write(chunk)


def dieharder_results(output):
    """(test, ntuple, p-value, PASSED or WEAK or FAILED) from the lines of `dieharder -c ,`."""
    cells = [[cell.strip() for cell in line.split(",")] for line in output.splitlines()]
    found = [(row[0], int(row[1]), float(row[4]), row[5]) for row in cells if len(row) == 6 and row[5] in ("PASSED", "WEAK", "FAILED")]
    if not found:
        raise ValueError(f"dieharder gave no result:\n{output}")
    return found


def rngtest_results(output):
    """Blocks that passed, blocks that failed, and the failures of each of the tests, from what rngtest prints."""
    pairs = [line.removeprefix("rngtest: ").rpartition(": ") for line in output.splitlines()]
    counts = {name.partition(" ")[2]: int(value) for name, _, value in pairs if name.startswith("FIPS") and value.isdigit()}
    if "140-2 successes" not in counts:
        raise ValueError(f"rngtest gave no result:\n{output}")
    passed, failed = counts.pop("140-2 successes"), counts.pop("140-2 failures")
    return passed, failed, {name.partition(" ")[2]: value for name, value in counts.items()}


def dieharder(name, seed, tests):
    """Judgement of a stream by dieharder's tests; each begins at a place of its own, so that a test alone gives the same again."""
    results = []
    for number, n in tests:
        command = ["dieharder", "-g", "200", "-c", ",", "-d", str(number), *([] if n is None else ["-n", str(n)])]
        began = time.perf_counter()
        found = dieharder_results(fed(command, STREAMS[name](seed, APART * (1 + FULL.index((number, n))))))
        seconds = time.perf_counter() - began
        for test, ntuple, p, verdict in found:
            print(f"{name}: {test} {ntuple} p={p:g} {verdict}, {seconds:.0f} s", file=sys.stderr)  # the table comes much later
        results += found
    passed, weak, failed = (sum(result[3] == verdict for result in results) for verdict in ("PASSED", "WEAK", "FAILED"))
    others = [f"{verdict} {test} {n} p={p:g}" for test, n, p, verdict in results if verdict != "PASSED"]
    if len(others) > 10:
        others[10:] = [f"and {len(others) - 10} more"]
    return Judgement(name, "dieharder", len(results), passed, weak, failed, ", ".join(others))


def rngtest(name, seed, blocks):
    """Judgement of a stream by the FIPS 140-2 tests of so many blocks of 20,000 bits."""
    passed, failed, tests = rngtest_results(fed(["rngtest", "-c", str(blocks)], STREAMS[name](seed, 0)))
    return Judgement(name, "rngtest", passed + failed, passed, None, failed, ", ".join(f"{test} {n}" for test, n in tests.items()))


def table(judgements):
    """The judgements in Markdown."""
    rows = [Judgement._fields, ["---", "---", "---:", "---:", "---:", "---:", "---"]]
    rows += [["" if value is None else f"{value:,}" if isinstance(value, int) else value for value in row] for row in judgements]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments=None):
    """The command; returns the exit status: 1 where a stream is judged as fair bits hardly are."""
    parser = argparse.ArgumentParser(prog="python -m normfast.benchmarks.randomness", description=__doc__.splitlines()[0])
    parser.add_argument("--stream", nargs="+", choices=STREAMS, default=["words", "seeds", "masks"], help="default: words seeds masks")
    parser.add_argument("--tester", nargs="+", choices=PLACES, default=list(PLACES), help="default: both")
    parser.add_argument("--full", action="store_true", help="all of dieharder's tests, 5 GB for rngtest: 40 minutes a stream, not 2")
    parser.add_argument("--test", nargs="+", type=int, choices=NUMBERS, metavar="N", help="these of dieharder's tests, with every ntuple")
    parser.add_argument("--blocks", type=int, help="of 20,000 bits for rngtest (default 100,000; full 2,000,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the key, or the first of the seeds (default 0)")
    options = parser.parse_args(arguments)
    tests = [test for test in FULL if test[0] in options.test] if options.test else FULL if options.full else QUICK
    blocks = options.blocks or BLOCKS["full" if options.full else "quick"]
    judgements = []
    for tester in options.tester:
        if shutil.which(tester) is None:
            print(f"skipped: {tester} is not installed (Debian: apt-get install {PLACES[tester]})", file=sys.stderr)
            continue
        for name in options.stream:
            if tester == "rngtest":
                judgements.append(rngtest(name, options.seed, blocks))
            else:
                judgements.append(dieharder(name, options.seed, tests))
    if judgements:
        print(table(judgements))
    return 1 if any(judgement.bad for judgement in judgements) else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m normfast.benchmarks.randomness`: what it feeds to the testers, what it reads from them, and what it says without them."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

import normfast as nf
from normfast import engines
from normfast.benchmarks import randomness

DIEHARDER = """\
#=============================================================================#
        test_name   ,ntup, tsamples ,psamples,  p-value ,Assessment
#=============================================================================#
        diehard_runs,   0,    100000,     100,0.97004348,  PASSED  
          sts_serial,  16,    100000,     100,0.00312000,   WEAK   
     sts_serial,   3,    100000,     100,0.00000000,  FAILED  
"""  # noqa: W291  # as it prints them
RNGTEST = """\
rngtest 5
rngtest: starting FIPS tests...
rngtest: bits received from input: 20000032
rngtest: FIPS 140-2 successes: 997
rngtest: FIPS 140-2 failures: 3
rngtest: FIPS 140-2(2001-10-10) Monobit: 1
rngtest: FIPS 140-2(2001-10-10) Poker: 0
rngtest: FIPS 140-2(2001-10-10) Runs: 0
rngtest: FIPS 140-2(2001-10-10) Long run: 2
rngtest: FIPS 140-2(2001-10-10) Continuous run: 0
rngtest: FIPS tests speed: (min=4.556; avg=180.630; max=200.774)Mibits/s
"""
READER = "import sys; sys.stdout.write(sys.stdin.buffer.read({}).hex())"


def start_of(stream, n, seed=5, start=0):
    """The first n bytes, by way of a program that reads no more."""
    output = randomness.fed([sys.executable, "-c", READER.format(n)], randomness.STREAMS[stream](seed, start))
    return bytes.fromhex(output)


def mask(seed, n=1, offset=0):
    return nf.dropout_forward(np.ones(n, np.float32), 0.5, rng=seed, offset=offset)[1]


@pytest.mark.parametrize("start", [0, 3 * randomness.APART])
def test_streams(start):
    words = np.empty(2 * randomness.CHUNK, np.uint32)
    engines.current().random_words(mask(5).words(), start, words)
    assert start_of("words", words.nbytes, start=start) == words.tobytes()
    blocks = np.empty((3, 1024), np.uint32)
    for i, block in enumerate(blocks):
        engines.current().random_words(mask(5 + start // 1024 + i).words(), 0, block)
    assert start_of("seeds", blocks.nbytes, start=start) == blocks.tobytes()
    assert start_of("masks", 1000, start=start) == mask(5, 8000, offset=32 * start).packbits().tobytes()
    assert start_of("counter", 12, start=start) == np.arange(5, 8, dtype=np.uint32).tobytes()


def test_what_the_testers_print():
    found = randomness.dieharder_results(DIEHARDER)
    assert found == [("diehard_runs", 0, 0.97004348, "PASSED"), ("sts_serial", 16, 0.00312, "WEAK"), ("sts_serial", 3, 0.0, "FAILED")]
    passed, failed, tests = randomness.rngtest_results(RNGTEST)
    assert (passed, failed) == (997, 3)
    assert tests == {"Monobit": 1, "Poker": 0, "Runs": 0, "Long run": 2, "Continuous run": 0}
    for read in (randomness.dieharder_results, randomness.rngtest_results):
        with pytest.raises(ValueError, match=r"gave no result:\ncannot read"):
            read("cannot read")


def test_the_table(monkeypatch, capsys):
    """One row for each stream and tester; the status tells of what is FAILED, or of too many or too few blocks that fail."""
    monkeypatch.setattr(randomness.shutil, "which", lambda name: name)
    monkeypatch.setattr(randomness, "fed", lambda command, stream: DIEHARDER if command[0] == "dieharder" else RNGTEST)
    assert randomness.main(["--tester", "rngtest", "--stream", "seeds", "words"]) == 0
    counts = "1,000 | 997 |  | 3 | Monobit 1, Poker 0, Runs 0, Long run 2, Continuous run 0 |"
    assert capsys.readouterr().out.splitlines()[2:] == [f"| {stream} | rngtest | {counts}" for stream in ("seeds", "words")]
    assert randomness.main(["--tester", "dieharder", "--stream", "masks", "--test", "0"]) == 1
    counts = "3 | 1 | 1 | 1 | WEAK sts_serial 16 p=0.00312, FAILED sts_serial 3 p=0 |"
    assert capsys.readouterr().out.splitlines()[2:] == [f"| masks | dieharder | {counts}"]
    for failed, bad in ((0, True), (1600, False), (1250, True), (1950, True)):
        assert randomness.Judgement("words", "rngtest", 2_000_000, 2_000_000 - failed, None, failed, "").bad is bad


def test_missing_testers(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert randomness.main([]) == 0
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.splitlines() == [
        "skipped: dieharder is not installed (Debian: apt-get install dieharder)",
        "skipped: rngtest is not installed (Debian: apt-get install rng-tools5)",
    ]


def test_sets_of_tests():
    assert set(randomness.QUICK) < set(randomness.FULL)
    assert len(set(randomness.FULL)) == len(randomness.FULL)


@pytest.mark.parametrize("tester", randomness.PLACES)
def test_the_testers_tell_words_from_a_counter(tester):
    if shutil.which(tester) is None:
        pytest.skip(f"{tester} is not installed")
    for stream, status in (("words", 0), ("counter", 1)):
        command = [sys.executable, "-m", "normfast.benchmarks.randomness", "--tester", tester, "--stream", stream]
        done = subprocess.run([*command, "--blocks", "1000", "--test", "100"], capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        assert f"| {stream} | {tester} |" in done.stdout

"""Damaged files and states: cut off, bits flipped, headers that promise too much; one line, no crash, no memory."""

import os
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from profiles import cases
from trust.readers import NEEDS, READERS, X, check, npy

import normfast as nf

MEMORY = 64 << 20  # bytes that no damaged file of a few kB may ask for
NUMBERS = [0, 1, 127, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]


def damages(content, rng, count):
    """Damaged versions of a file: cut, lengthened, bits flipped, bytes and numbers replaced, stretches lost, doubled and zeroed."""
    n = len(content)
    yield b""
    yield content + b"\0"
    yield content[:-1]
    yield content * 2
    for k in range(count):
        at, more = int(rng.integers(n)), int(rng.integers(1, 40))
        bad = bytearray(content)
        kind = k % 7
        if kind == 0:
            bad = bad[:at]
        elif kind == 1:
            bad[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            bad[at] = int(rng.integers(256))
        elif kind == 3:
            number = struct.pack("<Q", NUMBERS[rng.integers(len(NUMBERS))])[: int(rng.choice([1, 2, 4, 8]))]
            bad[at : at + len(number)] = number
        elif kind == 4:
            del bad[at : at + more]
        elif kind == 5:
            bad[at:at] = bad[at : at + more]
        else:
            bad[at : at + more] = bytes(len(bad[at : at + more]))
        yield bytes(bad)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the test's own, with the input that a state belongs to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(npy())
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda number: None, raising=False)  # no power fails here
    return tmp_path


@pytest.mark.parametrize("name", READERS)
def test_damages(name, folder, rng, tried):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]}, which reads these files, is not installed")
    make, read = READERS[name]
    content = make()
    assert check(read, content) is not None or name == "safetensors", "the whole file is refused"
    count = cases(140, 2000)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for bad in damages(content, rng, count):
                tracemalloc.reset_peak()
                check(read, bad)
                peak = tracemalloc.get_traced_memory()[1]
                assert peak < MEMORY, f"{peak >> 20} MB for a file of {len(bad)} bytes: {bad[:200]!r}"
    finally:
        tracemalloc.stop()
    tried(count + 4)


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 5), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,) * 10000, }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 100 + "), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (5.0,), }",
    "{'descr': '<f4', 'fortran_order': 1, 'shape': (5,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (5,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (5,), }",
    "{'descr': '<f4', 'fortran_order': False}",
    "{'descr': 'os.system', 'fortran_order': False, 'shape': (5,), }",
    "{'descr': '<V0', 'fortran_order': False, 'shape': (5,), }",
    "__import__('os').system('true')",
    "[" * 4000,
    "'" + "a" * 30000,
    "",
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_of_npy(header, folder):
    """What a header may say that np.save never writes."""
    text = header.encode() + b"\n"
    for start in (b"\x93NUMPY\1\0" + struct.pack("<H", len(text)), b"\x93NUMPY\2\0" + struct.pack("<I", len(text))):
        for name in ("npy", "npy, transformed"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert check(READERS[name][1], start + text + bytes(64)) is None


def test_a_shape_of_numpys_limit_and_no_values(folder):
    """An array without values may have lengths that no memory holds: it needs none."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5), }\n"
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
    assert READERS["npy"][1](content).count == 0


def test_states_of_moments_that_promise_too_much():
    whole = nf.moments(X, axis=0).to_bytes()
    for numbers in ((64, 0, 1), (2**63, 0, 1), (1, 2**40, 1), (3, 1, 1)):
        bad = whole[:8] + struct.pack("<3Q", *numbers) + whole[32:]
        with pytest.raises(ValueError, match="moments"):
            nf.Moments.from_bytes(bad)
    again = nf.Moments.from_bytes(whole)
    assert np.array_equal(again.mean, nf.moments(X, axis=0).mean)

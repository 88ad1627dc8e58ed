"""Fuzzing: atheris on every reader of files and bytes, led by what code an input reaches."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from trust.readers import NEEDS, READERS

TARGETS, SECONDS = Path(__file__).with_name("fuzz_targets.py"), 60


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_readers(name, tmp_path, tried):
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris, which is made for some versions of Python and systems, is not installed")
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]}, which reads these files, is not installed")
    command = [sys.executable, str(TARGETS), name, f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/"]
    paths = os.pathsep.join(path for path in (str(TARGETS.parents[2]), os.environ.get("PYTHONPATH")) if path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * SECONDS, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.search(r"^Done (\d+) runs", done.stderr, re.MULTILINE)
    assert runs, done.stderr[-4000:]
    tried(int(runs[1]))

"""atheris on every reader of files and bytes: `python tests/trust/fuzz_targets.py "npy" -max_total_time=60 [FOLDER]`.

atheris changes what it feeds a reader by what code that reaches: normfast's Python and NumPy's. It starts from whole files. A crash, a
hang or an error of another kind than documented ends it with a message and keeps the input in the working folder.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["normfast", "numpy.lib.format", "numpy.lib._format_impl", "zipfile"]):
    import normfast.inference
    import normfast.stream.npz
    import normfast.stream.transforming  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[1]))
import os

from trust.readers import READERS, check, npy


def main():
    name = sys.argv.pop(1)
    make, read = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("x.npy").write_bytes(npy())
        seeds = Path("seeds")
        seeds.mkdir()
        (seeds / "whole").write_bytes(make())
        options = ["-rss_limit_mb=2048", "-malloc_limit_mb=256", "-timeout=20", "-max_len=8192", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], str(seeds)], lambda content: check(read, content))
        atheris.Fuzz()


if __name__ == "__main__":
    main()

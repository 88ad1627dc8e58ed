"""A file larger than what a process may take, standardized: `python -m normfast.benchmarks.streaming --folder DIR`.

Makes a float32 .npy of --gb GB and takes turns: reading it twice and writing as much once, in blocks as `normfast standardize` has them,
then that command itself, in a process of its own whose peak memory it prints. Before each the file's pages are dropped from the page cache,
and both end when the result is on the disk. Last a run is ended by SIGKILL half-way and resumed: its result must have the same bytes.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np

from normfast.stream.grid import BLOCK

COLUMNS = 1000
CHILD = """
import sys
from normfast.benchmarks.memory import peak
from normfast.cli import main
status = main(sys.argv[1:])
print(peak())
sys.exit(status)
"""


def make(path, size):
    """A float32 .npy of about that many bytes, columns of mean 5 and deviation 1 that differ."""
    rows, step = max(2, size // (4 * COLUMNS)), BLOCK // (4 * COLUMNS)
    block = np.random.default_rng(0).standard_normal((2 * step, COLUMNS), np.float32) + np.float32(5)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, COLUMNS)})
        for k, start in enumerate(range(0, rows, step)):
            shift = k * 7919 % step
            file.write(block[shift : shift + min(step, rows - start)] * np.float32(1 + k % 13 / 100))
        file.flush()
        os.fsync(file.fileno())


def forget(path):
    """Drop the file's pages from the page cache."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def plain(path, target):
    """Seconds for reading the file twice and writing as much once, to the disk."""
    begin = time.perf_counter()
    block = np.empty(BLOCK, np.uint8)
    size = os.path.getsize(path)
    for _ in range(2):
        file, position = os.open(path, os.O_RDONLY), 0
        while count := os.preadv(file, [block], position):
            position += count
        os.close(file)
    file, position = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 0
    while position < size:
        position += os.pwrite(file, block[: size - position], position)
    os.fsync(file)
    os.close(file)
    return time.perf_counter() - begin


def child(path, target, *more):
    """`normfast standardize` in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", CHILD, "standardize", path, target, "--quiet", *more], stdout=subprocess.PIPE, text=True)


def standardized(path, target, *more):
    """Seconds and peak memory in MB of the command."""
    begin = time.perf_counter()
    process = child(path, target, *more)
    peak = process.communicate()[0]
    if process.returncode:
        sys.exit(f"normfast standardize ended with {process.returncode}")
    return time.perf_counter() - begin, int(peak) / 1e6


def digest(path):
    """Of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def killed(path, target, seconds):
    """End a run after so many seconds; what it had written by then."""
    process = child(path, target)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        sys.exit("the run was over before it could be ended")
    return [name for name in os.listdir(os.path.dirname(target)) if name.startswith(os.path.basename(target))]


def memory():
    """What there is, and what the page cache holds, in GB."""
    with open("/proc/meminfo") as file:
        values = {line.split(":")[0]: int(line.split()[1]) / 1e6 for line in file}
    return f"{values['MemTotal']:.0f} GB of memory, of which {values['Cached']:.0f} GB cache files"


def main(arguments=None):
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m normfast.benchmarks.streaming", description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=12, help="of the file (default 12); as much again is written")
    parser.add_argument("--folder", default=".", help="where there is room for both (default here)")
    parser.add_argument("--turns", type=int, default=2, help="(default 2)")
    options = parser.parse_args(arguments)
    path, target = (os.path.join(os.path.abspath(options.folder), f"normfast-streaming-{name}.npy") for name in "xy")
    try:
        make(path, int(options.gb * 1e9))
        size = os.path.getsize(path)
        print(f"{size / 1e9:.2f} GB of float32, {os.cpu_count()} cores, {memory()}", flush=True)
        ratios = []
        for _ in range(options.turns):
            forget(path)
            copied = plain(path, target)
            os.remove(target)
            forget(path)
            took, peak = standardized(path, target)
            ratios.append(copied / took)
            speeds = f"{3 * size / copied / 1e9:.2f} GB/s; standardize {took:.1f} s, {3 * size / took / 1e9:.2f} GB/s"
            print(f"read twice, write once {copied:.1f} s, {speeds}: {ratios[-1]:.2f} of the speed, {peak:.0f} MB at most", flush=True)
            expected = digest(target)
            os.remove(target)
        left = killed(path, target, took / 2)
        print(f"SIGKILL after {took / 2:.1f} s left {' '.join(sorted(left))}", flush=True)
        again, peak = standardized(path, target, "--resume")
        same = digest(target) == expected
        print(f"resumed in {again:.1f} s, {peak:.0f} MB at most: {'the same bytes' if same else 'OTHER BYTES'}")
        return 0 if same else 1
    finally:
        for name in (path, target, f"{target}.partial", f"{target}.resume"):
            if os.path.exists(name):
                os.remove(name)


if __name__ == "__main__":
    sys.exit(main())

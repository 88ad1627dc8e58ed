"""How many cores this process may use: those that it may run on, and what a container's quota of their time is worth."""

import math
import os
from pathlib import Path


def available():
    """The number of cores, 1 or more: of a quota the next whole one, since a thread less would leave time unused."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, quota())))


def quota(root="/"):
    """How many cores the control groups of this process grant, the least of what each of them and those above it say; inf for all."""
    try:
        groups = (Path(root) / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux, or a /proc that is not to be read
        return float("inf")
    folders = Path(root) / "sys/fs/cgroup"
    granted = [float("inf")]
    for line in groups:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            granted += [quota_of(folder, "cpu.max") for folder in upwards(folders, path)]
        elif "cpu" in controllers.split(","):
            for name in {controllers, "cpu"}:
                granted += [quota_of(folder, "cpu.cfs_quota_us", "cpu.cfs_period_us") for folder in upwards(folders / name, path)]
    return min(granted)


def upwards(folder, path):
    """The folders of a group and of those above it: in a container the first of them may be all that is seen."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [folder.joinpath(*parts[:n]) for n in range(len(parts) + 1)]


def quota_of(folder, *files):
    """Time divided by period, as one or two files say; inf where there is no limit, or no such file."""
    try:
        time, period = [int(word) for file in files for word in (folder / file).read_text().split()]
        return time / period if time > 0 and period > 0 else float("inf")
    except (OSError, ValueError):  # "max" is no number
        return float("inf")

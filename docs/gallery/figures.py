"""Figures by seed, what is said about them, and how they are shown."""

from typing import NamedTuple

import numpy as np
from scipy.stats import t


class Check(NamedTuple):
    """One thing that a claim lets us expect.

    Attributes
    ----------
    expected : str
        In words.
    found : str
        The figures.
    held : bool
        Computed from the figures.
    """

    expected: str
    found: str
    held: bool


class Panel(NamedTuple):
    """One pair of axes of a picture, and one table of a page: lines by label, each the name of a figure with a value for each x."""

    title: str
    xlabel: str
    ylabel: str
    x: list
    lines: dict
    xscale: str = "linear"
    yscale: str = "linear"


def verdict(checks):
    """'held', 'held in part' or 'not held'."""
    held = sum(check.held for check in checks)
    return "held" if held == len(checks) else "held in part" if held else "not held"


def half_width(values):
    """Half the width of the 95 % interval of the mean over seeds (Student's t)."""
    return t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))


def larger(a, b, by=0.0):
    """Whether a exceeds b by more than `by` and more than chance: the 95 % interval of the mean difference, seed by seed, lies above."""
    difference = np.asarray(a) - np.asarray(b)
    return bool(difference.mean() - half_width(difference) > by)


def same(a, b, margin):
    """Whether the 95 % interval of the mean difference, seed by seed, lies within the margin on either side."""
    difference = np.asarray(a) - np.asarray(b)
    return bool(abs(difference.mean()) + half_width(difference) <= margin)


def show(values, unit=""):
    """Mean and standard deviation over the seeds, as text."""
    mean, spread = np.mean(values), np.std(values, ddof=1)
    size = max(abs(mean), spread)
    if size > 0 and not 1e-2 <= size < 1e5:
        return f"{mean:.1e} ± {spread:.1e}{unit}"
    if not size:
        return f"0 ± 0{unit}"
    digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{mean:.{digits}f} ± {spread:.{digits}f}{unit}"

"""The error of merging the moments of a million blocks, in three orders, against exact arithmetic on integers.

Each block has `count` values, whose mean and m2 are multiples of a power of two: what they make together is then a fraction of Python's
integers, without any rounding.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

import normfast as nf
from normfast.kernels.moments import merge

BITS = 20  # means are multiples of 2^-20, and m2 of 2^-40


class Blocks(NamedTuple):
    """Count, mean and m2 of each block."""

    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray

    @property
    def moments(self):
        return nf.Moments(*self)


def blocks(number, rng, mean=0.0, std=1.0, values=1000):
    """Blocks of about so many values, as if drawn from a normal distribution whose mean drifts by half a deviation."""
    count = rng.integers(values // 2, 2 * values, number)
    means = mean + std * (np.sin(np.linspace(0, 7, number)) / 2 + rng.standard_normal(number) / np.sqrt(count))
    m2 = std**2 * rng.chisquare(count - 1)
    return Blocks(count, np.ldexp(np.rint(np.ldexp(means, BITS)), -BITS), np.ldexp(np.rint(np.ldexp(m2, 2 * BITS)), -2 * BITS))


def exact(parts):
    """Count, mean and m2 of all blocks together, as fractions."""
    means = [int(value) for value in np.ldexp(parts.mean, BITS)]
    counts = parts.count.tolist()
    n = sum(counts)
    first = sum(c * m for c, m in zip(counts, means, strict=True))
    second = sum(c * m * m for c, m in zip(counts, means, strict=True)) + sum(int(value) for value in np.ldexp(parts.m2, 2 * BITS))
    return n, Fraction(first, n << BITS), Fraction(second * n - first * first, n << 2 * BITS)


def balanced(m):
    """Neighbours, then neighbours of these, all pairs of a level in one call: the tree of `Moments.merge`; returns it and its depth."""
    depth = 0
    while m.mean.size > 1:
        even = m.mean.size // 2 * 2
        merged = part(m, slice(0, even, 2)) + part(m, slice(1, even, 2))
        m = merged if even == m.mean.size else joined(merged, part(m, slice(even, None)))
        depth += 1
    return m, depth


def on_nodes(m, nodes):
    """Each node adds its blocks one after the other, then the nodes merge in a tree; the number of blocks is a multiple of theirs."""
    columns = nf.Moments(*(values.reshape(nodes, -1).T for values in (m.count, m.mean, m.m2)))
    total = part(columns, 0)
    for i in range(1, len(columns.mean)):
        total = total + part(columns, i)
    merged, depth = balanced(total)
    return merged, depth + len(columns.mean) - 1


def chain(m):
    """One block after the other, on numbers."""
    count, mean, m2 = np.float64(m.count).tolist(), m.mean.tolist(), m.m2.tolist()
    total = count[0], mean[0], m2[0]
    for one in zip(count[1:], mean[1:], m2[1:], strict=True):
        total = merge(*total, *one)
    return nf.Moments(*([value] for value in total)), len(count) - 1


def part(m, index):
    return nf.Moments(m.count[index], m.mean[index], m.m2[index])


def joined(first, second):
    return nf.Moments(*(np.concatenate([getattr(m, name) for m in (first, second)]) for name in ("count", "mean", "m2")))


class Error(NamedTuple):
    """Of one order: depth, and relative errors of mean and m2 in eps."""

    order: str
    condition: float  # sqrt(1 + mean^2 / var)
    depth: int
    mean: float
    m2: float


def errors(number, rng, mean, std=1.0, nodes=64):
    """All orders on the same blocks."""
    parts = blocks(number, rng, mean, std)
    n, true_mean, true_m2 = exact(parts)
    condition = float(1 + true_mean**2 * n / true_m2) ** 0.5
    spread = float(true_m2 / n) ** 0.5
    result = []
    for order, (m, depth) in {
        "tree": balanced(parts.moments),
        f"{nodes} nodes": on_nodes(parts.moments, nodes),
        "chain": chain(parts.moments),
    }.items():
        if int(m.count[0]) != n:
            raise ArithmeticError(f"{order} counted {m.count[0]} of {n} values")
        off = abs(Fraction(float(m.mean[0])) - true_mean) / Fraction(max(abs(float(true_mean)), spread))
        result.append(
            Error(order, condition, depth, float(off / Fraction(2.0**-52)), float(abs(Fraction(float(m.m2[0])) / true_m2 - 1) * 2**52))
        )
    return result

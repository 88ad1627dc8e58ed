"""Absolute deviations from the mean along a row, for batch norm by the mean or the largest of them; all in float64.

Forward and backward compute the same d = x - mean, so that the largest deviation is found again exactly.
"""


def absolute_deviations(x, n, mean):
    """Sum and maximum of |x - mean|; NaN if there is one."""
    total = 0.0
    most = 0.0
    for j in range(n):
        d = abs(x[j] - mean)
        total += d
        most = d if d > most else most
    return total, most if total == total else total


def count_signs(x, n, mean, limit):
    """How many deviations are at least `limit`, and the sum of their signs."""
    count = 0.0
    total = 0.0
    for j in range(n):
        d = x[j] - mean
        count += 1.0 if abs(d) >= limit else 0.0
        total += (1.0 if d > 0.0 else -1.0 if d < 0.0 else 0.0) if abs(d) >= limit else 0.0
    return count, total


def add_signs(x, n, mean, limit, factor, dx):
    """dx += factor * sign(x - mean) where the deviation is at least `limit`."""
    for j in range(n):
        d = x[j] - mean
        dx[j] += (factor if d > 0.0 else -factor if d < 0.0 else 0.0) if abs(d) >= limit else 0.0

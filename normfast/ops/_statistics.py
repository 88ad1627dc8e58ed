"""Moments of blocks with masks, weights and extreme values, and their accumulation over pieces."""

import numpy as np

from normfast import engines
from normfast.kernels.moments import merge, unmerge
from normfast.ops._arrays import DOUBLE
from normfast.ops._pieces import part


def merged_in_a_tree(parts, merge):
    """Neighbours merged, then neighbours of these: a fixed tree, so that equal parts give equal bits."""
    while len(parts) > 1:
        parts = [merge(*parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
    return parts[0]


class Accumulator:
    """count, mean * scale, m2 * scale**2 and scale of statistics, while pieces are added to them; without values all but scale are 0."""

    def __init__(self, shape):
        self.count, self.mean, self.m2 = (np.zeros(shape) for _ in range(3))  # arrays without axes too
        self.scale = np.ones(shape)

    def add(self, piece, more):
        """Merge the moments (count, mean, m2, scale) of a piece into those that it belongs to."""
        own = [part(values, piece) for values in (self.count, self.mean, self.m2, self.scale)]
        for values, merged in zip(own, merge_scaled(own, [values.reshape(own[0].shape) for values in more]), strict=True):
            values[...] = merged


def merge_scaled(a, b):
    """Merge (count, mean, m2, scale), each an array; the smaller scale is kept, since the larger values set it."""
    (count_a, mean_a, m2_a, scale_a), (count_b, mean_b, m2_b, scale_b) = a, b
    first, second = count_b == 0, count_a == 0
    scale = np.where(second, scale_b, np.where(first, scale_a, np.minimum(scale_a, scale_b)))
    with np.errstate(all="ignore"):
        down_a, down_b = scale / scale_a, scale / scale_b
        count, mean, m2 = merge(count_a, mean_a * down_a, m2_a * down_a**2, count_b, mean_b * down_b, m2_b * down_b**2)
    mean = np.where(first, mean_a, np.where(second, mean_b, mean))
    return count, mean, np.where(first, m2_a, np.where(second, m2_b, m2)), scale


def block_moments(block, mask, sums):
    """count, mean * scale, m2 * scale**2 and scale (a, c) of a block; its values are overwritten where the mask is False.

    Masked values are replaced by the first that is not, and its copies are taken out of the moments again.
    """
    a, r, c, s = block.shape
    mean, m2, scale = np.empty((3, a, c))
    if mask is None:
        engines.current().scaled_moments(block, np.dtype(sums), mean, m2, scale)
        return np.full((a, c), float(r * s)), mean, m2, scale
    count = mask.sum(axis=(1, 3), dtype=np.float64)
    fill = _first(block, mask)
    np.copyto(block, fill[:, None, :, None], where=~mask)
    # float64 values are taken relative to it: what rounding takes from a large mean would be lost in taking the copies out
    shift = np.where(np.abs(fill) < 1e300, fill, 0.0) if block.dtype == DOUBLE else np.zeros((a, c))
    with np.errstate(all="ignore"):
        if block.dtype == DOUBLE:
            block -= shift[:, None, :, None]
        engines.current().scaled_moments(block, DOUBLE, mean, m2, scale)
        _, mean, m2 = unmerge(float(r * s), mean, m2, r * s - count, (fill - shift) * scale, 0.0)
        mean += shift * scale
    empty = count == 0
    mean[empty], m2[empty], scale[empty] = 0.0, 0.0, 1.0
    return count, mean, np.maximum(m2, 0.0), scale


def weighted_moments(block, weights):
    """The same for a float64 block and weights of its shape; values of weight 0 take no part.

    Deviations are taken from the first value, then from the mean so found: two sweeps over a piece in the cache.
    """
    taken = weights > 0
    first = np.where(taken.any(axis=(1, 3)), _first(block, taken), 0.0)[:, None, :, None]
    values = np.where(taken, block, first)
    with np.errstate(all="ignore"):
        exponent = np.frexp(np.abs(values).max(axis=(1, 3), keepdims=True))[1]
        scale = np.ldexp(1.0, -np.clip(exponent, -1000, 1000))
        first, d = first * scale, values * scale
        d -= first
        count = weights.sum(axis=(1, 3), keepdims=True)
        shift = (weights * d).sum(axis=(1, 3), keepdims=True) / np.where(count == 0, 1.0, count)
        d -= shift
        rest = (weights * d).sum(axis=(1, 3), keepdims=True)
        over = np.where(count == 0, 1.0, count)
        mean, m2 = first + (shift + rest / over), (weights * d * d).sum(axis=(1, 3), keepdims=True) - rest * rest / over
    m2 = np.where(m2 < 0, 0.0, m2)
    return [v[:, 0, :, 0] for v in (count, np.where(count == 0, 0.0, mean), m2, np.where(count == 0, 1.0, scale))]


def _first(block, mask):
    """The first value (a, c) of each statistic that the mask keeps; 0 without any."""
    a, r, c, s = block.shape
    first = mask.transpose(0, 2, 1, 3).reshape(a, c, r * s).argmax(axis=2)
    values = block[np.arange(a)[:, None], first // s, np.arange(c), first % s]
    return np.where(mask.any(axis=(1, 3)), values, 0)

"""Covariance: count, mean and co-moment matrix of samples in rows, in one pass over memory; two sets of them merge exactly."""

import math
import operator
import struct
from collections.abc import Iterable
from typing import Self

import numpy as np

from normfast.kernels.moments import split_sum
from normfast.ops._arrays import plain
from normfast.ops._foreign import borrowed
from normfast.ops._pickles import SealedSlots
from normfast.ops._statistics import merged_in_a_tree
from normfast.ops.moments import POLICIES, Moments
from normfast.typing import ArrayLike, Float64Array, NanPolicy

HEADER = struct.Struct("<8s2Q")
MAGIC = b"nf-cov\0\1"  # the last byte is the version of the format


class Covariance(SealedSlots):
    """Count, mean and co-moment matrix (m2) of a set of samples with d features; float64.

    Parameters
    ----------
    count : int or float
        Number of samples, or the sum of their weights.
    mean : array_like, shape (d,)
        Mean of each feature.
    m2 : array_like, shape (d, d)
        Sum of the products of deviations from the mean, symmetric.
    rest : array_like, shape (d,), optional
        What rounding took from the mean: with it merging stays accurate however large the mean is.

    Notes
    -----
    `a + b` is the covariance of both sets together (Chan, Golub and LeVeque 1979) and `a - b` that of a without b. Merging costs no
    precision to speak of, so the parts of an array may be taken in any order and on any machine.

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> x = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 6.0], [4.0, 5.0]])
    >>> both = nf.covariance(x[:2]) + nf.covariance(x[2:])
    >>> both.count, both.mean
    (4, array([2.5, 3.5]))
    >>> both.cov()
    array([[1.25, 1.75],
           [1.75, 4.25]])
    >>> (both - nf.covariance(x[2:])).mean
    array([1.5, 1.5])
    """

    __slots__ = ("count", "m2", "mean", "rest")
    __array_ufunc__ = None  # so that ndarray + Covariance raises instead of making an array of objects

    def __init__(self, count: float, mean: ArrayLike, m2: ArrayLike, rest: ArrayLike | None = None) -> None:
        self.count = count
        self.mean = np.asarray(mean, np.float64)
        self.m2 = np.asarray(m2, np.float64)
        self.rest = np.zeros_like(self.mean) if rest is None else np.asarray(rest, np.float64)
        if self.mean.ndim != 1 or self.m2.shape != 2 * self.mean.shape or self.rest.shape != self.mean.shape:
            shapes = f"mean {self.mean.shape}, m2 {self.m2.shape} and rest {self.rest.shape}"
            raise ValueError(f"the shapes are {shapes}: they must be (d,), (d, d) and (d,) for d features")

    @property
    def moments(self) -> Moments:
        """The `Moments` of each feature."""
        return Moments(self.count, self.mean, self.m2.diagonal().copy())

    def cov(self, ddof: float = 0) -> Float64Array:
        """Covariance matrix m2 / (count - ddof); infinite where count <= ddof, nan where there are no samples."""
        if self.count == 0 or self.count <= ddof:
            return np.full_like(self.m2, np.nan if self.count == 0 else np.inf)
        return self.m2 / (self.count - ddof)

    def var(self, ddof: float = 0) -> Float64Array:
        """Variance of each feature, the diagonal of `cov(ddof)`."""
        return self.cov(ddof).diagonal().copy()

    def std(self, ddof: float = 0) -> Float64Array:
        """Square root of `var(ddof)`."""
        return np.sqrt(self.var(ddof))

    def corr(self) -> Float64Array:
        """Correlation matrix: exactly 1 on the diagonal, nan for features without variance."""
        root = np.sqrt(self.m2.diagonal())
        with np.errstate(invalid="ignore"):
            corr = np.clip(self.m2 / np.outer(root, root), -1.0, 1.0)
        np.fill_diagonal(corr, np.where(root > 0, 1.0, np.nan))
        return corr

    def __add__(self, other: "Covariance") -> "Covariance":
        if not isinstance(other, Covariance):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"covariances of {self.mean.size} and {other.mean.size} features do not merge: their columns must be the same")
        if self.count == 0:
            return other
        if other.count == 0:
            return self
        count = self.count + other.count
        share = other.count / count
        with np.errstate(invalid="ignore", over="ignore"):
            d = (other.mean - self.mean) + (other.rest - self.rest)
            mean, rest = split_sum(self.mean, self.rest + d * share)
            return Covariance(count, mean, self.m2 + other.m2 + np.outer(d, d) * (self.count * share), rest)

    def __sub__(self, other: "Covariance") -> "Covariance":
        if not isinstance(other, Covariance):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"a covariance of {other.mean.size} features is no part of one of {self.mean.size} features")
        count = self.count - other.count
        if count < 0:
            raise ValueError(f"cannot take {other.count} samples out of {self.count}")
        if other.count == 0:
            return self
        if count == 0:
            return _empty(self.mean.size)
        with np.errstate(invalid="ignore", over="ignore"):
            d = (self.mean - other.mean) + (self.rest - other.rest)
            mean, rest = split_sum(self.mean, self.rest + d * (other.count / count))
            m2 = self.m2 - other.m2 - np.outer(d, d) * (self.count * (other.count / count))
        np.fill_diagonal(m2, np.maximum(m2.diagonal(), 0.0))
        return Covariance(count, mean, m2, rest)

    @classmethod
    def merge(cls, parts: Iterable["Covariance"]) -> "Covariance":
        """Merge many covariances in a fixed tree (neighbours, then neighbours of these), so that equal parts give equal bits."""
        parts = list(parts)
        if not parts:
            raise ValueError("there are no covariances to merge: give one or more")
        return merged_in_a_tree(parts, operator.add)

    def to_bytes(self) -> bytes:
        """The covariance as bytes, the same on every machine.

        A header of 24 bytes (`MAGIC` with the version, then as unsigned 64-bit integers the number of features and whether the count is an
        integer) and float64 values: count, mean, rest, m2; all little-endian.
        """
        header = HEADER.pack(MAGIC, self.mean.size, isinstance(self.count, (int, np.integer)))
        return header + np.concatenate([[self.count], self.mean, self.rest, self.m2.ravel()]).astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The covariance of which `to_bytes` made these bytes; ValueError if it did not."""
        if len(data) < HEADER.size or bytes(data[:8]) != MAGIC:
            raise ValueError(f"these {len(data)} bytes are no covariance of this version: they must begin with {MAGIC!r}")
        _, d, whole = HEADER.unpack(data[: HEADER.size])
        size = HEADER.size + 8 * (1 + 2 * d + d * d)
        if len(data) != size:
            raise ValueError(f"a covariance of {d} features has {size} bytes, got {len(data)}: some are missing or left over")
        count, mean, rest, m2 = np.split(np.frombuffer(data, "<f8", offset=HEADER.size).astype(np.float64), [1, 1 + d, 1 + 2 * d])
        if not 0 <= count[0] < math.inf:
            raise ValueError(f"the count must be 0 or more, got {count[0]}: the bytes are damaged")
        return cls(int(count[0]) if whole else float(count[0]), mean, m2.reshape(d, d), rest)

    def __repr__(self) -> str:
        return f"Covariance(count={self.count}, mean={self.mean!r}, m2={self.m2!r})"


def covariance(
    x: ArrayLike, *, where: ArrayLike | None = None, weights: ArrayLike | None = None, nan_policy: NanPolicy = "propagate"
) -> Covariance:
    """Count, mean and co-moment matrix of the rows of x, in one pass over memory.

    Parameters
    ----------
    x : array_like, shape (n, d)
        Real numbers, n samples of d features, of any dtype and strides.
    where : array_like of bool, shape (n,), optional
        The rows that take part.
    weights : array_like, shape (n,), optional
        Weights of the rows, finite and 0 or more; a row of weight 0 takes no part. Count is then the sum of the weights.
    nan_policy : {"propagate", "omit", "raise"}
        A NaN makes all results of its column nan; or rows with a NaN are left out; or they raise.

    Returns
    -------
    Covariance
        float64 whatever x's dtype, exactly symmetric, exactly 0 for constant columns; with no rows the mean is nan.

    Raises
    ------
    TypeError
        For arrays of complex numbers or objects, masked arrays, and a `where` that is not boolean.
    ValueError
        For an x that is not 2-D, arguments of a wrong length or range, and a NaN under nan_policy="raise".

    Notes
    -----
    Blocks of rows are centred on their own mean, multiplied by BLAS and merged in their order, so |mean| / std = 1e8 costs no
    digits and memory beyond the result is that of a block. Squares overflow above 1e154: scale such columns first.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, Stanford STAN-CS-79-773 (1979).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> c = nf.covariance(np.array([[1.0, 2.0], [3.0, 4.0], [2.0, np.nan]]), nan_policy="omit")
    >>> c.count, c.mean
    (2, array([2., 3.]))
    >>> c.cov(ddof=1)
    array([[2., 2.],
           [2., 2.]])
    """
    x = plain(x, "x")
    if x.dtype.kind == "c":
        raise TypeError(f"x must be real, got {x.dtype}: take the covariance of x.real and x.imag")
    if x.ndim != 2:
        raise ValueError(f"x has shape {x.shape}: it must be (n, d), samples in rows")
    if nan_policy not in POLICIES:
        raise ValueError(f"nan_policy must be one of {', '.join(POLICIES)}, got {nan_policy!r}")
    n, d = x.shape
    taken, weights = _taken(n, where), _weights(n, weights)
    if weights is not None:
        taken = weights > 0 if taken is None else taken & (weights > 0)
    size = max(d, min(2**15, 2**18 // max(d, 1)))  # up to 2 MB of float64, or as much as m2
    total = _empty(d)
    for start in range(0, n, size):
        block = slice(start, start + size)
        rows = x[block] if taken is None else x[block][taken[block]]
        w = None if weights is None else weights[block][taken[block]]
        if nan_policy != "propagate" and (nan := np.isnan(rows).any(axis=1)).any():
            if nan_policy == "raise":
                raise ValueError(
                    f'x has NaN in {nan.sum()} of the rows from {start} on: fill them, or nan_policy="omit" leaves these rows out'
                )
            rows, w = rows[~nan], None if w is None else w[~nan]
        if len(rows):
            total = total + _of_block(rows, w)
    return total


def _of_block(rows, weights):
    """The covariance of a few rows, centred on their own mean."""
    first = rows[0].astype(np.float64)
    count = len(rows) if weights is None else float(weights.sum())
    w = np.ones(len(rows)) if weights is None else weights
    with np.errstate(invalid="ignore", over="ignore"):
        # exact for neighbours, so that a constant has deviation 0 and its own mean
        d = np.subtract(rows, first, dtype=np.float64, order="C")
        centre = w @ d / count
        d -= centre
        mean, rest = split_sum(first, centre + w @ d / count)
        if weights is not None:
            d *= np.sqrt(weights)[:, None]
        return Covariance(count, mean, d.T @ d, rest)  # a product with its own transpose is exactly symmetric


def _empty(d):
    return Covariance(0, np.full(d, np.nan), np.zeros((d, d)))


def _taken(n, where):
    if where is None:
        return None
    where = borrowed(where, "where")
    if where.dtype != bool:
        raise TypeError(f"where must be an array of bool, got {where.dtype}")
    if where.shape != (n,):
        raise ValueError(f"where has shape {where.shape}: x with {n} rows needs ({n},)")
    return where


def _weights(n, weights):
    if weights is None:
        return None
    weights = plain(weights, "weights")
    if weights.dtype.kind == "c":
        raise TypeError(f"weights must be real numbers, got {weights.dtype}")
    weights = weights.astype(np.float64)
    if weights.shape != (n,):
        raise ValueError(f"weights has shape {weights.shape}: x with {n} rows needs ({n},)")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("weights must be finite and 0 or more")
    return weights

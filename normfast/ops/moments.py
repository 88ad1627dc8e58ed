"""Moments: count, mean and sum of squared deviations of an array, in one pass over memory; two sets of them merge exactly."""

import numpy as np

from normfast import engines
from normfast.kernels.moments import merge
from normfast.ops._arrays import layout_of, plain


class Moments:
    """Count, mean and sum of squared deviations (m2) of a set of values; float64.

    Parameters
    ----------
    count : int
        Number of values behind each mean, 0 or more.
    mean, m2 : float or ndarray
        Mean and sum of squared deviations from it, of the same shape.

    Notes
    -----
    `a + b` are the moments of both sets together, by the formula of Chan, Golub and LeVeque (1979), and `a - b` those of a without b.
    Merging costs no precision to speak of, so the parts of an array may be taken in any order and on any machine.

    Examples
    --------
    >>> import normfast as nf
    >>> first, second = nf.moments([1.0, 2.0]), nf.moments([3.0, 6.0])
    >>> both = first + second
    >>> both.count, float(both.mean), float(both.var())
    (4, 3.0, 3.5)
    >>> float((both - second).mean)
    1.5
    """

    __slots__ = ("count", "m2", "mean")
    __array_ufunc__ = None  # so that ndarray + Moments raises instead of making an array of objects

    def __init__(self, count, mean, m2):
        self.count = count
        self.mean = np.asarray(mean, np.float64)
        self.m2 = np.asarray(m2, np.float64)
        if self.mean.shape != self.m2.shape:
            raise ValueError(f"mean has shape {self.mean.shape} and m2 has {self.m2.shape}: they must be the same")

    def var(self, ddof=0):
        """Variance m2 / (count - ddof); infinite where count <= ddof, nan where there are no values."""
        if self.count == 0:
            return np.full_like(self.m2, np.nan)[()]
        if self.count <= ddof:
            return np.full_like(self.m2, np.inf)[()]
        return (self.m2 / (self.count - ddof))[()]

    def std(self, ddof=0):
        """Square root of `var(ddof)`."""
        return np.sqrt(self.var(ddof))

    def __add__(self, other):
        if not isinstance(other, Moments):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of shape {self.mean.shape} and {other.mean.shape} do not merge: their columns must be the same")
        if self.count == 0:
            return other
        if other.count == 0:
            return self
        with np.errstate(invalid="ignore", over="ignore"):
            return Moments(*merge(self.count, self.mean, self.m2, other.count, other.mean, other.m2))

    def __sub__(self, other):
        if not isinstance(other, Moments):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of shape {other.mean.shape} are no part of moments of shape {self.mean.shape}")
        count = self.count - other.count
        if count < 0:
            raise ValueError(f"cannot take {other.count} values out of {self.count}")
        if other.count == 0:
            return self
        if count == 0:
            return empty(self.mean.shape)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = self.mean + (self.mean - other.mean) * (other.count / count)
            m2 = self.m2 - other.m2 - (mean - other.mean) ** 2 * (count * (other.count / self.count))
            return Moments(count, mean, np.maximum(m2, 0.0))

    @classmethod
    def merge(cls, parts):
        """Merge many moments in a fixed tree (neighbours, then neighbours of these), so that equal parts give equal bits."""
        parts = list(parts)
        if not parts:
            raise ValueError("there are no moments to merge: give one or more")
        while len(parts) > 1:
            parts = [sum(parts[i + 1 : i + 2], parts[i]) for i in range(0, len(parts), 2)]
        return parts[0]

    def __repr__(self):
        return f"Moments(count={self.count}, mean={self.mean!r}, m2={self.m2!r})"


def empty(shape):
    """Moments of no values."""
    return Moments(0, np.full(shape, np.nan), np.zeros(shape))


def moments(x, axis=None):
    """Count, mean and sum of squared deviations of x, in one pass over memory.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape; integers count as float64.
    axis : None, int or tuple of int
        Axes over which to take the moments; None takes all.

    Returns
    -------
    Moments
        With mean and m2 of the shape of x without `axis`, float64 and summed in float64.

    Raises
    ------
    TypeError
        For arrays of complex numbers or objects, and masked arrays.
    ValueError
        For an axis out of range.

    References
    ----------
    B. P. Welford, Technometrics 4 (1962); T. F. Chan, G. H. Golub, R. J. LeVeque, Stanford STAN-CS-79-773 (1979).

    Examples
    --------
    >>> import numpy as np, normfast as nf
    >>> m = nf.moments(np.array([[1.0, 2.0], [3.0, 6.0]]), axis=0)
    >>> m.count, m.mean, m.std()
    (2, array([2., 4.]), array([1., 2.]))
    """
    x = plain(x, "x")
    if x.dtype.kind == "c":
        raise TypeError(f"x must be real, got {x.dtype}: take the moments of x.real and x.imag")
    dtype = np.float32 if x.dtype in (np.float16, np.float32) else np.float64
    x = x.astype(dtype, copy=not x.flags.aligned)
    layout = layout_of(x, tuple(range(x.ndim)) if axis is None else axis)
    shape = layout.along(layout.kept)
    if x.size == 0:
        return empty(shape)
    a, r, c, s = layout.block
    mean, m2 = np.empty((2, a, c))
    engines.current().moments(layout.load(x), mean, m2)
    return Moments(r * s, layout.unpack(mean, layout.kept), layout.unpack(m2, layout.kept))

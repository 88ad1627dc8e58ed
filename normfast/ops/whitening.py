"""Whitening: mean 0 and the identity as covariance (A. Kessy, A. Lewin, K. Strimmer, The American Statistician 72, 2018)."""

from typing import Literal

import numpy as np

from normfast.ops._arrays import checked_eps
from normfast.ops.covariance import covariance
from normfast.ops.scaling import is_constant, real
from normfast.typing import Array, ArrayLike, Whitening

METHODS = ("zca", "pca", "cholesky")


def whiten(
    x: ArrayLike,
    *,
    method: Whitening = "zca",
    n_components: int | None = None,
    shrinkage: float | Literal["oas"] = 0.0,
    eps: float = 1e-12,
    ddof: float = 0,
) -> Array:
    """Bring samples in rows to mean 0 and the identity as covariance.

    Parameters
    ----------
    x : array_like, shape (n, d)
        Samples in rows, finite.
    method : {"zca", "pca", "cholesky"}
        "zca" stays as near to x as whitened data can, a column for each of x; "pca" gives the principal components, the widest first;
        "cholesky" gives columns of which, where the rank is full, the first k depend on the first k of x alone.
    n_components : int, optional
        How many directions to keep at most: the widest with "pca" and "zca" (which still has d columns), the first with "cholesky".
    shrinkage : float in [0, 1] or "oas"
        The covariance is shrunk towards the scaled identity by this share; "oas" chooses it (Chen et al. 2010).
    eps : float
        Directions in which the correlation matrix has an eigenvalue of at most eps times its largest are dropped: there x has nothing but
        rounding. "pca" and "cholesky" then have fewer columns, and those of "zca" span less.
    ddof : int or float
        The covariance is m2 / (count - ddof).

    Returns
    -------
    ndarray, shape (n, k)
        Of x's dtype; k is d for "zca", else the number of directions kept.

    Raises
    ------
    TypeError, ValueError
        For sparse, complex, masked and object arrays, NaN, infinities, and parameters out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from normfast.preprocessing import whiten
    >>> y = whiten(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 6.0], [4.0, 5.0]]), method="pca")
    >>> (y.T @ y / 4).round(12) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    x = real(x)
    c = covariance(x, nan_policy="raise")
    matrix, _ = whitening_matrices(c, method, n_components, shrinkage, eps, ddof)
    return whitened(x, c, matrix)


def whitening_matrices(c, method, n_components, shrinkage, eps, ddof):
    """W (k, d) and its (pseudo-)inverse (d, k): W cov W' = 1.

    Where cov = F F', every whitening matrix is a rotation Q of the inverse of F: W = Q F^-1 and W^-1 = F Q'. F comes from the correlation
    matrix, which does not know the units of the columns, so that W cov W' = 1 and the rank do not either.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if c.mean.size == 0:
        raise ValueError("x has no features, so no directions: give one column or more")
    if n_components is not None and not 1 <= n_components <= c.mean.size:
        raise ValueError(f"n_components must be a number from 1 to {c.mean.size}, that of the features, or None, got {n_components!r}")
    cov = _shrunk(c, shrinkage, ddof)
    std = np.sqrt(np.where(cov.diagonal() > 0, cov.diagonal(), 1.0))
    values, vectors = np.linalg.eigh(cov / np.outer(std, std))
    kept = values > checked_eps(eps) * values[-1]
    root, vectors = np.sqrt(values[kept]), vectors[:, kept]
    factor, inverse = std[:, None] * vectors * root, (vectors / root).T / std
    if method == "cholesky":
        q, triangle = np.linalg.qr(factor.T)
        q = (q * np.where(triangle.diagonal() < 0, -1.0, 1.0)).T[:n_components]
    else:
        u, _, q = np.linalg.svd(factor, full_matrices=False)
        u, q = u[:, :n_components], q[:n_components]
        largest = np.take_along_axis(u, np.abs(u).argmax(axis=0, keepdims=True), axis=0)
        q = u @ q if method == "zca" else q * np.sign(largest).T  # the largest loading of each component is positive
    matrices = q @ inverse, factor @ q.T
    return tuple(np.tril(m) for m in matrices) if method == "cholesky" and kept.all() else matrices


def _shrunk(c, shrinkage, ddof):
    """The covariance matrix, with exact zeros for constant columns, shrunk towards the scaled identity."""
    if c.count <= ddof:
        raise ValueError(f"{c.count} samples have no covariance with ddof={ddof}: give more")
    cov = c.cov(ddof)
    if not np.isfinite(cov).all():
        raise ValueError("the covariance is not finite: x has infinities, or values whose squares overflow; standardize it first")
    constant = is_constant(c.moments)
    cov[constant] = cov[:, constant] = 0.0
    d = len(cov)
    mu = np.trace(cov) / d
    if shrinkage == "oas":
        alpha = np.mean(cov * cov)
        excess = (c.count + 1) * (alpha - mu * mu / d)
        shrinkage = min(1.0, (alpha + mu * mu) / excess) if excess > 0 else 1.0
    if isinstance(shrinkage, str) or not 0 <= shrinkage <= 1:
        raise ValueError(f'shrinkage must be a number from 0 to 1 or "oas", got {shrinkage!r}')
    return (1 - shrinkage) * cov + shrinkage * mu * np.eye(d)


def whitened(x, c, matrix):
    """(x - mean) W', in blocks of rows."""
    return _by_blocks(x, len(matrix), lambda rows: (rows - c.mean) @ matrix.T - matrix @ c.rest)


def coloured(y, c, inverse):
    """The inverse of `whitened`."""
    return _by_blocks(y, len(inverse), lambda rows: rows @ inverse.T + c.mean)


def _by_blocks(x, width, f):
    y = np.empty((len(x), width), x.dtype)
    step = max(width, 2**17 // max(1, *x.shape[1:]))  # 1 MB of float64
    for i in range(0, len(x), step):
        y[i : i + step] = f(x[i : i + step].astype(np.float64))
    return y

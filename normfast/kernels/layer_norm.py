"""Layer norm and, without centring, RMS norm over rows: statistics while the row is read, y while it is still in the first cache."""

from normfast.kernels.factors import *
from normfast.kernels.moments import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.sums import *

TILE = 64  # rows whose dy and dy * xhat are added in x's type before float64 takes over


def layer_norm_rows(x, weight, bias, n, eps, centred, y, mean, rstd, var, lo, hi, streamed, buffer):
    """Forward, rows lo..hi; if `streamed`, y goes past the caches, through a buffer of BLOCK values."""
    for i in range(lo, hi):
        xi = row(x, i, n)
        like = xi[0]
        m = 0.0
        if centred:
            m, m2, scale = row_moments(xi, n, like)
        else:
            m2, scale = row_squares(xi, n, like)
        v, r = inverse_deviation(m2, n, scale, eps)
        mean[i] = m / scale
        rstd[i] = r
        var[i] = v
        scale, high, r, low = centre(m / scale, r, like)
        rounded = cast(r, like)
        following = row(x, min(i + 1, hi - 1), n)
        left = 0
        while left < n:
            right = min(left + BLOCK, n)
            prefetch(chunk(following, left, right), right - left)
            target = buffer if streamed else chunk(row(y, i, n), left, right)
            weighted_run(
                chunk(xi, left, right), right - left, cast(scale, like), cast(high, like), rounded, cast(r - rounded, like),
                cast(low, like), chunk(weight, left, right), chunk(bias, left, right), target,
            )  # fmt: skip
            if streamed:
                stream(buffer, right - left, chunk(row(y, i, n), left, right))
            left = right


def layer_norm_gradient_rows(dy, x, mean, rstd, weight, n, centred, dx, lo, hi, tile_dweight, tile_dbias, dweight, dbias):
    """Backward, rows lo..hi; their shares of dweight and dbias are added to the float64 `dweight` and `dbias`."""
    for i in range(lo, hi):
        dyi = row(dy, i, n)
        xi = row(x, i, n)
        like = xi[0]
        scale, high, r, low = centre(mean[i], rstd[i], like)
        # c1 = mean(dy * weight), c2 = mean(dy * weight * xhat)
        c1 = c2 = 0.0
        left = 0
        while left < n:
            right = min(left + BLOCK, n)
            d, dd = weighted_gradient_sums(
                chunk(dyi, left, right), chunk(xi, left, right), chunk(weight, left, right), right - left,
                cast(scale, like), cast(high, like), cast(r, like), cast(low, like),
                chunk(tile_dweight, left, right), chunk(tile_dbias, left, right),
            )  # fmt: skip
            c1 += d
            c2 += dd
            left = right
        c1 = c1 / n if centred else 0.0
        c2 /= n
        # dx = rstd * (dy * weight - c1 - xhat * c2)
        a = cast(rstd[i], like)
        p = cast(-rstd[i] * c2 * r, like)
        q = cast(-rstd[i] * (c1 + c2 * low), like)
        weighted_gradient_run(dyi, xi, weight, n, cast(scale, like), cast(high, like), a, p, q, row(dx, i, n))
        if (i + 1 - lo) % TILE == 0 or i + 1 == hi:
            drain(tile_dweight, n, dweight)
            drain(tile_dbias, n, dbias)


def drain(partial, n, total):
    """Move the short sums into the float64 ones."""
    for j in range(n):
        total[j] += partial[j]
        partial[j] = 0.0

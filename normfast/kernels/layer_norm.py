"""Layer norm and, without centring, RMS norm over rows: statistics while the row is read, y while it is still in the first cache."""

from normfast.kernels.factors import *
from normfast.kernels.moments import *
from normfast.kernels.normalize import *
from normfast.kernels.primitives import *
from normfast.kernels.rows import *
from normfast.kernels.sums import *

TILE = 64  # rows whose dy and dy * xhat are added in x's type before float64 takes over


def layer_norm_rows(x, weight, bias, n, eps, centred, y, mean, rstd, var, lo, hi, streamed, buffer):
    """Forward, rows lo..hi; if `streamed`, y goes past the caches through the buffer."""
    step = max(TOGETHER // n // 4 * 4, 1) if n <= ASIDE else 1
    group = PART // n if streamed and n <= SHORT else 0  # short rows go past the caches together, since they end within a cache line
    i = lo
    while i < hi:
        stop = min(i + step, hi)
        row_statistics(x, n, centred, HEAD, i, stop, row(x, 0, n)[0], mean, var, rstd)
        finish_statistics(
            stop - i, n, eps, chunk(mean, i, stop), chunk(var, i, stop), chunk(rstd, i, stop), chunk(rstd, i, stop), chunk(var, i, stop)
        )
        for k in range(i, stop):
            xk = row(x, k, n)
            scale, high, r, low = centre(mean[k], rstd[k], xk[0])
            rounded = cast(r, xk[0])
            ahead = (min(k + step, hi - 1) - k) * n
            beside = (k - i) % group if group > 1 else 0  # the rows before it in the buffer
            target = chunk(buffer, beside * n, PART) if group > 1 else row(y, k, n)
            if group > 1:
                prefetch(chunk(xk, ahead, ahead + n), n)
            weighted_sweep(
                xk, n, cast(scale, xk[0]), cast(high, xk[0]), rounded, cast(r - rounded, xk[0]), cast(low, xk[0]), weight, bias,
                ahead, target, streamed and group <= 1, buffer,
            )  # fmt: skip
            if group > 1 and (beside + 1 == group or k + 1 == stop):
                stream(buffer, (beside + 1) * n, row(y, k - beside, n))
        i = stop


def layer_norm_gradient_rows(dy, x, mean, rstd, weight, n, centred, dx, lo, hi, tile_dweight, tile_dbias, dweight, dbias, streamed, buffer):
    """Backward, rows lo..hi; their shares of dweight and dbias are added to the float64 `dweight` and `dbias`."""
    group = PART // n if streamed and n <= SHORT else 0  # as forward
    for i in range(lo, hi):
        beside = (i - lo) % group if group > 1 else 0
        target = chunk(buffer, beside * n, PART) if group > 1 else row(dx, i, n)
        gradient_row(
            row(dy, i, n), row(x, i, n), mean[i], rstd[i], weight, n, centred, target, tile_dweight, tile_dbias, streamed and group <= 1,
            buffer,
        )  # fmt: skip
        if group > 1 and (beside + 1 == group or i + 1 == hi):
            stream(buffer, (beside + 1) * n, row(dx, i - beside, n))
        if (i + 1 - lo) % TILE == 0 or i + 1 == hi:
            drain(tile_dweight, n, dweight)
            drain(tile_dbias, n, dbias)


def gradient_row(dy, x, mean, rstd, weight, n, centred, dx, tile_dweight, tile_dbias, streamed, buffer):
    """dx of one row, and its shares of dweight and dbias."""
    like = x[0]
    scale, high, p, q = gradient_factors(dy, x, mean, rstd, weight, n, centred, tile_dweight, tile_dbias)
    weighted_gradient_sweep(
        dy, x, weight, n, cast(scale, like), cast(high, like), cast(rstd, like), cast(p, like), cast(q, like), dx, streamed, buffer
    )


def gradient_factors(dy, x, mean, rstd, weight, n, centred, tile_dweight, tile_dbias):
    """scale, high, p and q of `weighted_gradient_run` for one row, whose shares of dweight and dbias are added to the tiles."""
    like = x[0]
    scale, high, r, low = centre(mean, rstd, like)
    # c1 = mean(dy * weight), c2 = mean(dy * weight * xhat)
    c1 = c2 = 0.0
    left = 0
    while left < n:
        right = min(left + BLOCK, n)
        d, dd = weighted_gradient_sums(
            chunk(dy, left, right), chunk(x, left, right), chunk(weight, left, right), right - left,
            cast(scale, like), cast(high, like), cast(r, like), cast(low, like),
            chunk(tile_dweight, left, right), chunk(tile_dbias, left, right),
        )  # fmt: skip
        c1 += d
        c2 += dd
        left = right
    c1 = c1 / n if centred else 0.0
    c2 /= n
    # dx = rstd * (dy * weight - c1 - xhat * c2)
    return scale, high, -rstd * c2 * r, -rstd * (c1 + c2 * low)


def drain(partial, n, total):
    """Move the short sums into the float64 ones."""
    for j in range(n):
        total[j] += partial[j]
        partial[j] = 0.0


def add_tiles(partial, tiles, n, total):
    """total = the sum of the rows of partial, in their order."""
    for j in range(n):
        total[j] = 0.0
    for i in range(tiles):
        tile = row(partial, i, n)
        for j in range(n):
            total[j] += tile[j]

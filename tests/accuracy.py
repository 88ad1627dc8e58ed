"""How much of its error bound each operation uses: `python tests/accuracy.py [ROWS]`.

An operation takes rows (one statistic each, whatever the array they are put into) and gives the largest error over its bound, by result.
"""

import sys

import numpy as np
from bounds import CHAINS, LENGTHS, UNITS, Norm, average, ratio, relative, rows, start, start_of_parts

import normfast as nf


def parameters_of(rng, shape, dtype):
    return rng.standard_normal((2, *shape)).astype(dtype)


def computed(dtype):
    """The unit of the type that is computed in, and that of a last rounding to 16 bits."""
    return UNITS["float64" if dtype == "float64" else "float32"], UNITS[dtype] if dtype.endswith("16") else 0.0


def chains_of(name, dtype):
    """float64 has half the lanes."""
    return tuple(2 * chain for chain in CHAINS[name]) if dtype == "float64" else CHAINS[name]


def layer_norm(rng, x, dy, dtype):
    (unit, last), chains = computed(dtype), chains_of("rows", dtype)
    w, b = parameters_of(rng, x.shape[1:], dtype)
    exact = Norm(x, dy, w + 0 * x, b + 0 * x, 1e-5, unit, chains, start(x, 32))
    y, stats = nf.layer_norm_forward(x, w, b)
    dx, dw, db = nf.layer_norm_backward(dy, x, stats, w)
    of_dw, of_db = exact.parameters(lambda part: part.sum(axis=0), 64)
    found = {"y": ratio(y, *exact.y(), last), "dx": ratio(dx, *exact.dx(), last)}
    found |= {"dweight": ratio(dw, *of_dw, last), "dbias": ratio(db, *of_db, last)}
    fits = (exact.var[:, 0] == 0) | (exact.var[:, 0] > np.longdouble(1e-300) ** 2)  # else 1 / std is no float64
    x, dy = x[fits], dy[fits]
    exact = Norm(x, dy, w + 0 * x, b + 0 * x, 0, unit, chains, start(x, 32))
    return found | {"y, eps=0": ratio(nf.layer_norm(x, w, b, eps=0), *exact.y(), last)}


def per_channel(rng, x, dy, dtype, chains, spread, shaped, forward, backward):
    """A norm whose rows each have a weight and a bias; `shaped` puts the rows into the array of the call, and is undone by `.back`."""
    unit, last = computed(dtype)
    w, b = parameters_of(rng, x.shape[:1], dtype)
    exact = Norm(x, dy, w[:, None] + 0 * x, b[:, None] + 0 * x, 1e-5, unit, chains_of(chains, dtype), spread)
    xs, dys = shaped(x), shaped(dy)
    y, stats = forward(xs, w, b)
    dx, dw, db = backward(dys, xs, stats, w)
    places = shaped(np.arange(x.size).reshape(x.shape)).ravel()

    def rows_of(values):
        found = np.empty(x.size, values.dtype)
        found[places] = values.ravel()
        return found.reshape(x.shape)

    of_dw, of_db = exact.parameters(lambda part: part.sum(axis=1), exact.back)
    return {
        "y": ratio(rows_of(y), *exact.y(), last), "dx": ratio(rows_of(dx), *exact.dx(), last),
        "dweight": ratio(dw, *of_dw, last), "dbias": ratio(db, *of_db, last),
    }  # fmt: skip


def batch_norm_columns(rng, x, dy, dtype):
    def shaped(values):
        return np.ascontiguousarray(values.T)

    return per_channel(rng, x, dy, dtype, "columns", start(x, 8), shaped, nf.batch_norm_forward, nf.batch_norm_backward)


def split(n):
    """n as runs of s values, as many as there can be of 8 and more."""
    s = next((s for s in range(int(n**0.5), 0, -1) if n % s == 0 and n // s >= 8), 1)
    return n // s, s


def batch_norm_images(rng, x, dy, dtype):
    """Runs of n / 8, or of few values, which are measured as columns."""
    n = x.shape[1]
    r, s = split(n) if n % 2 else (2 if n % 4 == 0 else 1, n // (2 if n % 4 == 0 else 1))

    def shaped(values):
        return np.ascontiguousarray(values.reshape(-1, r, s).transpose(1, 0, 2))

    spread = np.maximum(start(x, min(32, s)), start_of_parts(x, s))
    return per_channel(rng, x, dy, dtype, "runs", spread, shaped, nf.batch_norm_forward, nf.batch_norm_backward)


def instance_norm(rng, x, dy, dtype):
    """One sample, whose channels the rows are."""
    forward, backward = nf.instance_norm_forward, nf.instance_norm_backward
    return per_channel(rng, x, dy, dtype, "runs", start(x, 32), lambda values: np.ascontiguousarray(values[None]), forward, backward)


def group_norm(rng, x, dy, dtype):
    """16 rows: 4 samples of 4 groups, of as many channels as n allows, up to 8."""
    (unit, last), n = computed(dtype), x.shape[1]
    c = next(c for c in (8, 7, 5, 4, 3, 2, 1) if n % c == 0)
    w, b = parameters_of(rng, (4 * c,), dtype)
    wide = [np.tile(np.repeat(part.reshape(4, c), n // c, axis=1), (4, 1)) for part in (w, b)]
    spread = np.maximum(start(x, 32), start(x, min(32, n // c)))
    exact = Norm(x, dy, *wide, 1e-5, unit, chains_of("runs", dtype), spread)
    image = (4, 4 * c, n // c)
    y, stats = nf.group_norm_forward(x.reshape(image), 4, w, b)
    dx, dw, db = nf.group_norm_backward(dy.reshape(image), x.reshape(image), stats, w, num_groups=4)
    of_dw, of_db = exact.parameters(lambda part: part.reshape(image).sum(axis=(0, 2)), exact.back)
    return {
        "y": ratio(y.reshape(x.shape), *exact.y(), last), "dx": ratio(dx.reshape(x.shape), *exact.dx(), last),
        "dweight": ratio(dw, *of_dw, last), "dbias": ratio(db, *of_db, last),
    }  # fmt: skip


def rms_norm(rng, x, dy, dtype):
    (unit, last), (k, _) = computed(dtype), chains_of("rows", dtype)
    back, u, w = chains_of("rows", dtype)[1], np.longdouble(unit), parameters_of(rng, x.shape[1:], dtype)[0]
    tiny = float(np.finfo(np.float32 if unit > 1e-10 else np.float64).smallest_subnormal)
    wide, g, k = x.astype(np.longdouble), dy.astype(np.longdouble) * w, max(k, back)
    r = 1 / np.sqrt(average(wide * wide) + np.longdouble(1e-5))
    xhat = wide * r
    y, stats = nf.rms_norm_forward(x, w)
    dx, dw, *_ = nf.rms_norm_backward(dy, x, stats, w)
    sizes = abs(xhat) * average(abs(g * xhat))
    of_dw = ((69 + k + 2) * u * abs(dy * xhat) + 2 * tiny * (1 + abs(dy))).sum(axis=0)
    of_y = u * abs(xhat * w) * (3 + (chains_of("rows", dtype)[0] + 2) / 2) + tiny * (1 + abs(w))
    of_dx = r * u * ((k + 6) * abs(g) + (3 * k + 15) * sizes) + tiny * (8 + 4 * (abs(g) + sizes))
    return {
        "y": ratio(y, xhat * w, of_y, last), "dx": ratio(dx, r * (g - xhat * average(g * xhat)), of_dx, last),
        "dweight": ratio(dw, (dy * xhat).sum(axis=0), of_dw, last),
    }  # fmt: skip


def lp_norm(rng, x, dy, dtype):
    """The orders 1, 2, 3 and inf."""
    (unit, last), k, found = computed(dtype), chains_of("rows", dtype)[0], {}
    u, v, n = np.longdouble(unit), np.longdouble(2.0) ** -53, x.shape[1]
    tiny = float(np.finfo(np.float32 if unit > 1e-10 else np.float64).smallest_subnormal)
    wide, wide_dy = x.astype(np.longdouble), dy.astype(np.longdouble)
    for ord in (1, 2, 3, np.inf):
        size = abs(wide).max(axis=1, keepdims=True)
        safe = np.where(size == 0, 1, size)
        norm = size if ord == np.inf else safe * (abs(wide / safe) ** ord).sum(axis=1, keepdims=True) ** (1 / np.longdouble(ord))
        keep = norm[:, 0] < 1e307  # else it, or its reciprocal, is no float64
        x, dy, wide, wide_dy, size, norm = (part[keep] for part in (x, dy, wide, wide_dy, size, norm))
        divisor = np.maximum(norm, np.longdouble(1e-12))
        eta = (k + 2) / 2 * u if ord == 2 else 0 if ord == np.inf else (n + 2 * ord + 8) * v
        y, saved = nf.lp_norm_forward(x, ord)
        dx = nf.lp_norm_backward(dy, x, saved, ord=ord).dx
        top = abs(wide) == size
        power = top / top.sum(axis=1, keepdims=True) if ord == np.inf else abs(wide / divisor) ** (ord - 1)
        slope = np.where(norm > 1e-12, np.sign(wide) * power, 0)
        inner = (wide_dy * wide / divisor).sum(axis=1, keepdims=True)
        sizes = abs(wide_dy) + abs(slope) * abs(wide_dy * wide / divisor).sum(axis=1, keepdims=True)
        found[f"y, ord={ord}"] = ratio(y, wide / divisor, (2 * u + eta) * abs(wide / divisor) + 2 * tiny, last)
        exact = (wide_dy - slope * inner) / divisor
        used = 4 * u + 4 * eta + (n / 2 + 4) * v  # the last: the sum of dy * x, in float64
        found[f"dx, ord={ord}"] = ratio(dx, exact, used * sizes / divisor + tiny * (8 + 4 * sizes), last)
    return found


def moments(rng, x, dy, dtype):
    """Along rows and along columns, in float64 whatever the dtype."""
    v, found = np.longdouble(2.0) ** -53, {}
    d = relative(x)
    mean = average(d) + average(d - average(d))
    m2, n = ((d - mean) ** 2).sum(axis=1), x.shape[1]
    exact = (x[:, :1].astype(np.longdouble) + mean)[:, 0]
    for name, array, axis, k, h in (("rows", x, 1, 136, 1), ("columns", np.ascontiguousarray(x.T), 0, 26, 8)):
        m, spread = nf.moments(array, axis), np.maximum(start(x, h), start(x, 32))[:, 0]
        found[f"mean, {name}"] = ratio(m.mean, exact, np.sqrt(spread * m2 / n) * (k + 1) * v + 2 * v * abs(exact) + 1e-323)
        fits = m2 < 1e308  # a float64
        found[f"m2, {name}"] = ratio(m.m2[fits], m2[fits], 3 * spread[fits] * (k + 3) * v * m2[fits] + 1e-322)
    return found


def dropout(rng, x, dy, dtype):
    _, last = computed(dtype)
    u, tiny = np.longdouble(computed(dtype)[0]), float(np.finfo(np.float32 if dtype != "float64" else dtype).smallest_subnormal)
    y, mask = nf.dropout_forward(x, 0.3, rng=int(rng.integers(1 << 30)))
    factor = mask.toarray() / (1 - np.longdouble(0.3))
    dx = nf.dropout_backward(dy, mask)
    results = {"y": (y, x * factor), "dx": (dx, dy * factor)}
    return {name: ratio(actual, exact, (2 * u + u * u) * abs(exact) + tiny, last) for name, (actual, exact) in results.items()}


def dropout_add_layer_norm(rng, x, dy, dtype):
    """h from x and the residual, y from h as it is stored."""
    (unit, last), u = computed(dtype), np.longdouble(computed(dtype)[0])
    w, b = parameters_of(rng, x.shape[1:], dtype)
    residual = rng.standard_normal(x.shape).astype(dtype)
    y, h, stats, mask = nf.dropout_add_layer_norm_forward(x, residual, w, b, p=0.3, rng=int(rng.integers(1 << 30)))
    product = x * (mask.toarray() / (1 - np.longdouble(0.3)))
    found = {"h": ratio(h, product + residual, u * abs(product + residual) + 2 * u * abs(product) + 1e-45, last)}
    exact = Norm(h, dy, np.broadcast_to(w, x.shape), np.broadcast_to(b, x.shape), 1e-5, unit, chains_of("rows", dtype), start(h, 32))
    found["y"] = ratio(y, *exact.y(), last)
    dx, dresidual, _, _ = nf.dropout_add_layer_norm_backward(dy, h, stats, mask, w)
    value, bound = exact.dx()
    factor = mask.toarray() / (1 - np.longdouble(0.3))
    found["dresidual"] = ratio(dresidual, value, bound + u * abs(value), last)
    found["dx"] = ratio(dx, value * factor, (bound + 3 * u * abs(value)) * factor * (1 + 4 * u) + 1e-45, last)
    return found


OPERATIONS = {
    function.__name__: function
    for function in (
        layer_norm, rms_norm, group_norm, instance_norm, batch_norm_columns, batch_norm_images, lp_norm, dropout, dropout_add_layer_norm,
        moments,
    )
}  # fmt: skip


def measure(name, dtype, count, rng):
    """The largest ratios over so many rows, 16 of each length, and how many rows there were."""
    worst, done = {}, 0
    while done < count:
        n = int(rng.choice(LENGTHS) if rng.random() < 0.7 else rng.integers(1, 5001))
        x = rows(rng, n, dtype)
        dy = (rng.standard_normal(x.shape) * 10.0 ** rng.uniform(-2, 1)).astype(dtype)
        for result, used in OPERATIONS[name](rng, x, dy, dtype).items():
            worst[result] = max(worst.get(result, (0.0, n)), (used, n))
        done += len(x)
    return worst, done


def page(count, dtypes=("float32", "float64")):
    """The ratios in Markdown."""
    lines = ["| operation | dtype | largest error over its bound |", "| --- | --- | --- |"]
    for name in OPERATIONS:
        for dtype in dtypes:
            worst, _ = measure(name, dtype, count, np.random.default_rng(1))
            lines.append(f"| {name} | {dtype} | {', '.join(f'{result}: {used:.2g} (n={n})' for result, (used, n) in worst.items())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))

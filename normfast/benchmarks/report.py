"""What pytest-benchmark measured: rows, means, the machine, and the table on the screen."""

import statistics
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version

from rich.table import Table

import normfast as nf
from normfast.benchmarks.rivals import OURS, RIVALS

CASE = ("op", "name", "model", "shape", "dtype", "direction", "threads", "out", "series", "bytes")
PACKAGES = ("normfast", "numpy", "numba", "torch", "onnxruntime", "jax", "openvino", "scikit-learn")


def rows(measured):
    """A dictionary for each case: what it is, seconds and errors by contender, and the seconds of the yardstick."""
    samples, errors, cases, kinds = defaultdict(lambda: defaultdict(list)), defaultdict(dict), {}, {}
    for benchmark in measured["benchmarks"]:
        info = benchmark["extra_info"]
        contender = tuple(info["contender"]) if isinstance(info["contender"], list) else info["contender"]
        samples[info["id"]][contender] += benchmark["stats"]["data"]
        errors[info["id"]][contender] = info["error"]
        cases.setdefault(info["id"], {key: info[key] for key in CASE})
        kinds[info["id"]] = info["kinds"]
    result = []
    for id, case in cases.items():
        seconds = {name: statistics.median(values) for name, values in samples[id].items()}
        best = defaultdict(lambda: float("inf"))  # of the ways of each yardstick
        for name in [name for name in seconds if isinstance(name, tuple)]:
            best[name[0]] = min(best[name[0]], seconds.pop(name))
        errors[id] = {name: error for name, error in errors[id].items() if name in seconds}
        result.append(case | {"seconds": seconds, "errors": errors[id], "yardstick": sum(best[kind] for kind in kinds[id])})
    return result


def summary(measured, table):
    """All that is kept: machine, versions, settings, means and rows."""
    cpu = measured["machine_info"].get("cpu", {})
    caches = {name: cpu.get(f"{key}_cache_size") for name, key in (("L1d", "l1_data"), ("L2", "l2"), ("L3", "l3"))}
    caches = {name: size for name, size in caches.items() if isinstance(size, int)}
    if caches.get("L3", float("inf")) <= caches.get("L2", 0):  # what Linux says of AMD's processors there is one core's L2
        del caches["L3"]
    config = nf.show_config("dicts")
    return {
        "date": measured["datetime"][:10],
        "machine": {
            "processor": cpu.get("brand_raw", config["processor"]),
            "threads": config["threads"],
            "caches, all cores": ", ".join(f"{name} {size / 2**20:.3g} MB" for name, size in caches.items()) or "unknown",
            "system": f"{measured['machine_info']['system']}, Python {measured['machine_info']['python_version']}",
        },
        "engines": {name: config["engines"][engine] for name, engine in OURS.items()},
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "means": means(table),
        "rows": table,
    }


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def timed(names, table):
    """Those of the names that any row has a time for."""
    return [name for name in names if any(name in row["seconds"] for row in table)]


def kind(row):
    """The group of rows that have one mean."""
    op = row["op"]
    what = f"{op.partition('add_')[0]}add_norms" if "add_" in op else "norms" if "norm" in op else op
    return what if op in ("moments", "standardize") else f"{what}, {row['direction']}"


def means(table):
    """For each engine and group of rows, the geometric mean of each rival's time over normfast's, and the number of rows behind it."""
    result = {}
    for engine in timed(OURS, table):
        ratios = defaultdict(lambda: defaultdict(list))
        for row in table:
            ours = row["seconds"].get(engine)
            if ours and row["series"] == "models":
                ratios[kind(row)]["copy"].append(row["yardstick"] / ours)
                for rival in timed(RIVALS, [row]):
                    ratios[kind(row)][rival].append(row["seconds"][rival] / ours)
        result[engine] = {
            group: {name: {"ratio": statistics.geometric_mean(values), "rows": len(values)} for name, values in own.items()}
            for group, own in ratios.items()
        }
    return result


def losing(table):
    """(row, rival, its time over normfast's) where a rival is faster than normfast's engine, worst first."""
    main = main_engine(table)
    lost = [
        (row, rival, row["seconds"][rival] / row["seconds"][main])
        for row in table
        if main in row["seconds"]
        for rival in timed(RIVALS, [row])
        if row["seconds"][rival] < row["seconds"][main]
    ]
    return sorted(lost, key=lambda one: one[2])


def main_engine(table):
    """The engine whose times stand in the table: the first that was timed."""
    return next(iter(timed(OURS, table)), None)


def duration(seconds):
    """A time in three digits."""
    if seconds is None:
        return "-"
    value, unit = next((seconds * factor, unit) for factor, unit in ((1e6, "us"), (1e3, "ms"), (1, "s")) if seconds * factor < 999.5)
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def headings(table):
    """The columns: the case, normfast's engines, the rivals that were timed, the error."""
    return [
        "operation", "model", "shape", "dtype", "threads", "call", *timed(OURS, table), "GB/s", "x copy", *timed(RIVALS, table), "error"
    ]  # fmt: skip


def cells(row, columns, main):
    """The texts of a row; a rival's column is its time divided by that of normfast's main engine."""
    ours = row["seconds"].get(main)
    known = {
        "operation": row["name"],
        "model": row["model"],
        "shape": "x".join(map(str, row["shape"])),
        "dtype": row["dtype"],
        "threads": str(row["threads"] or "all"),
        "call": "out=" if row["out"] else "new",
        "GB/s": f"{row['bytes'] / ours / 1e9:.1f}" if ours else "-",
        "x copy": f"{ours / row['yardstick']:.2f}" if ours else "-",
        "error": f"{row['errors'][main]:.1e}" if ours else "-",
    } | {name: duration(row["seconds"].get(name)) for name in OURS}
    ratios = {name: f"{seconds / ours:.2f}" for name, seconds in row["seconds"].items() if ours and name in RIVALS}
    return [(known | ratios).get(column, "-") for column in columns]


def screen(table):
    """The table for the terminal; red where a rival is faster."""
    columns, main = headings(table), main_engine(table)
    result = Table(title=f"Time, GB/s, ratio to the copy and error of {main}; rivals: their time divided by its", header_style="bold")
    for column in columns:
        text = column in ("operation", "model", "shape", "dtype", "call")
        result.add_column(column.replace(" (", "\n("), justify="left" if text else "right", no_wrap=column != "model")
    for row in table:
        texts = cells(row, columns, main)
        shown = [
            f"[red]{text}[/red]" if column in RIVALS and text != "-" and float(text) < 1 else text
            for column, text in zip(columns, texts, strict=True)
        ]
        result.add_row(*shown)
    return result

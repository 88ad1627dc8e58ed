"""The roofline: GB/s by bytes, beside what memory allows."""

import numpy as np
from matplotlib.figure import Figure

from normfast.benchmarks.report import main_engine, timed
from normfast.benchmarks.rivals import OURS, RIVALS

MARKERS = dict(zip((*OURS, *RIVALS), "oDsv^<>px", strict=True))


def picture(table, path):
    """Write the picture of the rows in float32 on all threads: forward, backward, with a residual stream, and the scaling series if any."""
    chosen = [row for row in table if row["dtype"] == "float32" and row["series"] == "models" and row["threads"] is None]
    alone, streams = ([row for row in chosen if ("add_" in row["op"]) == fused] for fused in (False, True))
    panels = {
        "forward": [row for row in alone if row["direction"] == "forward" and row["op"] not in ("moments", "standardize")],
        "backward": [row for row in alone if row["direction"] == "backward"],
        "dropout, sum and norm": [row for row in streams if row["direction"] != "both"],
        "layer norm by size": [row for row in table if row["series"] == "scaling"],
    }
    panels = {title: rows for title, rows in panels.items() if rows} or {"all": table}
    figure = Figure(figsize=(7 * len(panels), 6), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, rows) in zip(all_axes, panels.items(), strict=True):
        if rows[0]["series"] == "scaling":
            scaling(axes, rows)
        else:
            points(axes, rows, "name" if rows[0] in streams else "op")
        axes.set(xscale="log", yscale="log", xlabel="bytes read and written", ylabel="GB/s", title=title)
        axes.legend(fontsize="x-small", ncols=2)
    figure.savefig(path, dpi=100)


def rate(row, seconds):
    return row["bytes"] / seconds / 1e9


def points(axes, rows, key):
    """One colour for each operation, one marker for each contender, a line for the copy or addition of the same bytes."""
    sizes = sorted({row["bytes"] for row in rows})
    roof = [np.median([rate(row, row["yardstick"]) for row in rows if row["bytes"] == size]) for size in sizes]
    axes.plot(sizes, roof, color="black", linewidth=1, label="copy or addition")
    ops = list(dict.fromkeys(row[key] for row in rows))
    for name in timed(MARKERS, rows):
        axes.plot([], [], MARKERS[name], color="grey", label=name)  # for the legend
    for i, op in enumerate(ops):
        axes.plot([], [], color=f"C{i % 10}", linewidth=4, label=op)
    for row in rows:
        for name, seconds in row["seconds"].items():
            ours = name in OURS
            style = {"markersize": 7 if ours else 4, "alpha": 1 if ours else 0.5}
            axes.plot(row["bytes"], rate(row, seconds), MARKERS[name], color=f"C{ops.index(row[key]) % 10}", **style)


def scaling(axes, rows):
    """Lines by number of threads."""
    main = main_engine(rows)
    for i, threads in enumerate(sorted({row["threads"] for row in rows})):
        own = sorted((row for row in rows if row["threads"] == threads), key=lambda row: row["bytes"])
        plural = "thread" if threads == 1 else "threads"
        sizes = [row["bytes"] for row in own]
        axes.plot(sizes, [rate(row, row["yardstick"]) for row in own], "--", color=f"C{i}", label=f"copy, {threads} {plural}")
        measured = [(row["bytes"], rate(row, row["seconds"][main])) for row in own if main in row["seconds"]]
        axes.plot(*zip(*measured, strict=True), "o-", color=f"C{i}", label=f"{main}, {threads} {plural}")

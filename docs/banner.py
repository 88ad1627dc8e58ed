"""The picture at the top of the README: speed and error beside peers, `banner.svg`.

    python docs/banner.py

Nothing is measured here: the speeds are the means of `benchmarks.md`, which `normfast bench` writes, and the errors those of
`gallery/offsets.md`, which `python docs/gallery/offsets.py --fresh` measures.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "gallery"))

import offsets  # noqa: E402
from pages import COLOURS, saved  # noqa: E402

OPERATIONS = {"norms, forward": "norms", "norms, backward": "norms,\nbackward", "dropout, forward": "dropout", "moments": "moments"}
PEERS = "numpy", "torch", "onnxruntime", "jax", "openvino", "torch.compile"


def speeds(text):
    """Times as fast as each peer, by operation, from the table of means of the benchmarks' page."""
    lines = text.split("## Means")[1].split("\n\n")[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    heading = cells[0][1:]
    rows = {row[0]: dict(zip(heading, row[1:], strict=True)) for row in cells[2:]}
    return {op: {peer: float(rows[op][peer].split()[0]) for peer in PEERS if rows[op][peer] != "-"} for op in OPERATIONS}


def draw(speed, errors):
    """Points for the speeds, lines for the errors; one colour for each library."""
    from matplotlib.figure import Figure

    colours = dict(zip(("normfast", *PEERS), COLOURS, strict=False))
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, by_peer in enumerate(speed.values()):
        for peer, times in by_peer.items():
            left.plot(times, -place, "o", color=colours[peer], markersize=9, alpha=0.85)
        for times in (min(by_peer.values()), max(by_peer.values())):
            left.annotate(f"{times:.1f}", (times, -place), (0, 8), textcoords="offset points", ha="center", fontsize=8)
    left.axvline(1, color=colours["normfast"], linewidth=3)
    left.set(xscale="log", xlabel="times as fast as the peer (normfast: 1)", title="Speed, geometric means", ylim=(0.6 - len(speed), 0.6))
    left.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    left.set_yticks(range(0, -len(speed), -1), list(OPERATIONS.values()))
    for name, colour in colours.items():
        right.plot([], [], "o", color=colour, label=name)  # for the legend
        if (key := f"{name} forward") in errors:
            width = 3 if name == "normfast" else 1.5
            right.plot(offsets.OFFSETS, errors[key].mean(axis=0), "o-", color=colour, linewidth=width, markersize=4)
    right.set(xscale="symlog", yscale="log", xlabel="offset of the data", ylabel="largest error", title="Error of layer norm, float32")
    for axes in (left, right):
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=len(colours), fontsize="small", frameon=False, handletextpad=0.1)
    return figure


def main():
    errors = json.loads((HERE / "gallery/results/offsets.json").read_text(encoding="utf-8"))["figures"]
    figure = draw(speeds((HERE / "benchmarks.md").read_text(encoding="utf-8")), {name: np.array(values) for name, values in errors.items()})
    saved(figure, HERE / "banner.svg")


if __name__ == "__main__":
    main()

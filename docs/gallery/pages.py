"""From a script to its results, picture and page.

A script has a docstring whose first line is the claim, `SEEDS`, `measure(seed)` that returns figures by name (a number or a list each),
`judge(figures)` that returns `Check`s, and `PANELS`. The results stand in `results/`, under a key made from the sources that
decide them; while the key fits nothing is measured again unless asked.
"""

import argparse
import hashlib
import importlib
import io
import json
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from figures import show, verdict
from threadpoolctl import threadpool_limits

import normfast as nf

HERE = Path(__file__).parent
COLOURS = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#666666"
MARKERS = "osD^vPX"
PACKAGES = "numpy", "scikit-learn", "torch", "onnxruntime", "jax", "openvino"
ROWS = 12  # of a table; a longer series shows as many, evenly spaced


def key(name):
    """What the results depend on: the script, the training that all share, the package."""
    text = "".join((HERE / f"{part}.py").read_text(encoding="utf-8") for part in (name, "training")) + nf.__version__
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def installed(name):
    """The version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def measured(script):
    """Figures of a script over its seeds: arrays with one row for each seed."""
    with threadpool_limits(1):  # of BLAS, whose sums may depend on it; normfast's do not
        by_seed = [script.measure(seed) for seed in script.SEEDS]
    return {name: np.array([figures[name] for figures in by_seed], np.float64) for name in by_seed[0]}


def results(name, fresh=False):
    """Figures of a script, from its file where the key fits."""
    path = HERE / "results" / f"{name}.json"
    if not fresh and path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key(name):
            return {label: np.array(rows) for label, rows in stored["figures"].items()}
    script = importlib.import_module(name)
    figures = measured(script)
    for label, values in figures.items():
        if len(values) < 5 or not np.isfinite(values).all():
            raise ValueError(f"{name}: {label} needs finite figures of 5 seeds or more")
        figures[label] = np.array([float(f"{value:.6g}") for value in values.flat]).reshape(values.shape)
    made = {name: found for name in PACKAGES if (found := installed(name))} | {"engine": nf.engines.current().name}
    rows = ",\n".join(f"  {json.dumps(label)}: {json.dumps(values.tolist())}" for label, values in figures.items())
    facts = f' "key": "{key(name)}",\n "made with": {json.dumps(made)}'
    path.write_text(f'{{\n{facts},\n "figures": {{\n{rows}\n }}\n}}\n', encoding="utf-8")
    return figures


def claim(script):
    """First line of a script's docstring and the rest."""
    first, _, rest = script.__doc__.strip().partition("\n")
    return first.rstrip("."), rest.strip()


def shown(panel, figures):
    """The lines of a panel that were measured: a library may not be installed."""
    return {label: name for label, name in panel.lines.items() if name in figures}


def saved(figure, path):
    """Write a figure as an SVG whose bytes depend on the figure alone, its letters as text."""
    import matplotlib

    fonts = ["DejaVu Sans", "Verdana"]  # every text repeats the list
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "normfast", "font.sans-serif": fonts}):
        figure.savefig(drawing := io.StringIO(), format="svg", metadata={"Date": None})
    path.write_text(re.sub(r"\s*\n\s*", "\n", re.sub(r"<[^>]*>", shortened, drawing.getvalue())), encoding="utf-8")


def shortened(tag):
    """A tag with tenths of a point, which are enough, and a path in one line; what stands between tags is text."""
    return re.sub(r"\s*\n\s*", " ", re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", tag[0]))


def draw(script, figures):
    """The picture: means as lines, one standard deviation over the seeds as bands."""
    from matplotlib.figure import Figure

    count = len(script.PANELS)
    figure = Figure(figsize=(6.4, 3.4) if count == 1 else (8.4, 3.2 * ((count + 1) // 2)), layout="constrained")
    for place, panel in enumerate(script.PANELS, 1):
        axes = figure.add_subplot((count + 1) // 2, min(count, 2), place)
        at = np.asarray(panel.x)
        for (label, name), colour, marker in zip(shown(panel, figures).items(), COLOURS, MARKERS, strict=False):
            mean, spread = figures[name].mean(axis=0), figures[name].std(axis=0, ddof=1)
            few = {"marker": marker, "markersize": 4} if len(at) <= 15 else {}
            axes.plot(at, mean, color=colour, label=label, linewidth=1.5, **few)
            low = np.maximum(mean - spread, mean / 10) if panel.yscale == "log" else mean - spread
            axes.fill_between(at, low, mean + spread, color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel, title=panel.title, xscale=panel.xscale, yscale=panel.yscale)
        axes.minorticks_off()  # most of the file, on logarithmic axes
        axes.grid(alpha=0.25)
        if len(shown(panel, figures)) > 1:
            axes.legend(fontsize="small", framealpha=0.6)
    return figure


def table(panel, figures):
    """A panel's figures as a Markdown table: mean and standard deviation over the seeds."""
    lines = shown(panel, figures)
    rows = np.unique(np.linspace(0, len(panel.x) - 1, min(ROWS, len(panel.x))).round().astype(int))
    text = [f"| {panel.xlabel} | {' | '.join(lines)} |", "| --- |" + " ---: |" * len(lines)]
    for i in rows:
        text.append(f"| {panel.x[i]:g} | {' | '.join(show(figures[name][:, i]) for name in lines.values())} |")
    return "\n".join(text)


def listed(checks):
    """What was expected and found, as a Markdown list."""
    return "\n".join(f"- {'✓' if check.held else '✗'} Expected: {check.expected}. Found: {check.found}." for check in checks)


def page(name, script, figures):
    """The Markdown page of a script."""
    first, rest = claim(script)
    checks = script.judge(figures)
    tables = [f"{panel.title}: {panel.ylabel}\n\n{table(panel, figures)}" for panel in script.PANELS]
    seeds = len(next(iter(figures.values())))
    parts = [
        f"# {first}",
        f"**{verdict(checks).capitalize()}**, over {seeds} seeds.",
        listed(checks),
        f"![{first}: the lines are the columns of the tables below]({name}.svg)",
        rest,
        *tables,
        f"Figures are mean ± standard deviation over {seeds} seeds (split of the data, initial weights, batches, masks). "
        f"Made by [`{name}.py`](../../docs/gallery/{name}.py); `python docs/gallery/{name}.py --fresh` measures anew.",
    ]
    return "\n\n".join(parts) + "\n"


def publish(name, fresh=False):
    """Measure where needed, write picture and page, and print what they say."""
    script = importlib.import_module(name)
    figures = results(name, fresh)
    saved(draw(script, figures), HERE / f"{name}.svg")
    (HERE / f"{name}.md").write_text(text := page(name, script, figures), encoding="utf-8")
    return text


def main(path):
    """The command of a script."""
    parser = argparse.ArgumentParser(description="Measure the claim (or take the stored figures), draw it, write its page and print it.")
    parser.add_argument("--fresh", action="store_true", help="measure again, also where the stored figures are those of this source")
    sys.stdout.write(publish(Path(path).stem, parser.parse_args().fresh))

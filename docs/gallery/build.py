"""The whole gallery: every script's page and picture, and the index.

    python docs/gallery/build.py            # what has changed since the results were stored
    python docs/gallery/build.py --fresh    # everything

Two scripts run at a time, each on one thread.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from figures import verdict
from pages import HERE, claim, key, listed, page, results

SCRIPTS = (
    "steps_to_accuracy", "learning_rates", "initialization", "saturation", "batch_sizes", "deviations", "inference_statistics",
    "dropout_gap", "dropout_order", "norm_and_dropout", "uncertainty", "batch_noise", "pruning_by_gamma", "input_scaling",
    "smoothness", "offsets",
)  # fmt: skip

TOP = """# Gallery: the claims of the field, on real data

What texts say of batch norm, its relatives and dropout, each as a small script on data that ships with scikit-learn, with networks made of
`normfast.layers`. A claim lets us expect several things, and each is judged by its figures: one is larger than another where the 95 %
interval of the mean difference, seed by seed, lies above 0 (Student's t). A claim **held** where everything expected was found, **held in
part** where some of it was, and did **not hold** where nothing was. The networks are small and the images have 64 pixels: what fails here
may hold elsewhere, and the reverse.

The command of a row measures that claim anew, and `python docs/gallery/build.py --fresh` all of them, two at a time, one thread each,
and says how long each took. It takes `pip install ".[demo]"`. Without `--fresh` the stored figures are taken, which are kept under a key of
the script, of [`training.py`](../../docs/gallery/training.py) and of the package's version.

| claim | verdict | expected and found | seeds | command |
| --- | --- | ---: | ---: | --- |
{rows}

Figures are mean ± standard deviation over the seeds.
"""


def index():
    """The page that states for each claim whether it held."""
    rows, parts = [], []
    for name in SCRIPTS:
        script, figures = importlib.import_module(name), results(name)
        checks, title = script.judge(figures), claim(script)[0]
        found = f"{sum(check.held for check in checks)} of {len(checks)}"
        seeds, command = len(next(iter(figures.values()))), f"`python docs/gallery/{name}.py --fresh`"
        rows.append(f"| [{title}]({name}.md) | **{verdict(checks)}** | {found} | {seeds} | {command} |")
        parts.append(f"## {title}: {verdict(checks)}\n\n{listed(checks)}\n\n[Picture, tables and how it was measured]({name}.md)")
    return "\n\n".join([TOP.format(rows="\n".join(rows)).rstrip(), *parts]) + "\n"


def current(name):
    """Whether a script's figures are stored, under the key of the sources as they are, and its page and picture are made from them."""
    stored, text = HERE / "results" / f"{name}.json", HERE / f"{name}.md"
    if not (stored.exists() and text.exists() and text.with_suffix(".svg").exists()):
        return False
    return json.loads(stored.read_text(encoding="utf-8"))["key"] == key(name) and text.read_text(encoding="utf-8") == page(
        name, importlib.import_module(name), results(name)
    )


def run(name, fresh):
    """One script, in a process of its own."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, str(HERE / f"{name}.py"), *(["--fresh"] if fresh else [])], capture_output=True, text=True)
    print(f"{name}: {time.perf_counter() - start:.0f} s{'' if done.returncode == 0 else ', failed'}", flush=True)
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    fresh = parser.parse_args().fresh
    chosen = [name for name in SCRIPTS if fresh or not current(name)]
    with ThreadPoolExecutor(2) as pool:
        failed = [done.stderr for done in pool.map(lambda name: run(name, fresh), chosen) if done.returncode]
    if failed:
        sys.exit("\n".join(failed))
    path, text = HERE / "index.md", index()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""How moments, standardizing, whitening and synchronized batch norm grow to a thousand nodes and a petabyte, for docs/scale.md.

python -m normfast.benchmarks.scale [--docs docs/scale.md] [--quick] [--nodes 1 64 1000] [--gbit 100] [--storage 5] ...

What can be measured here is measured (`scale_measures`, `scale_mpi`, `merge_trees`); the rest is a model (`scale_model`), whose reductions
are also simulated event by event (`scale_simulation`). `scale_tables` makes the text.
"""

import argparse
import platform

import numpy as np

import normfast as nf
from normfast.benchmarks import scale_measures as measures
from normfast.benchmarks import scale_mpi as mpi
from normfast.benchmarks import scale_tables as tables
from normfast.benchmarks.page import table_between
from normfast.benchmarks.scale_model import JOBS, Cluster
from normfast.benchmarks.scale_simulation import PROGRAMS

BEGIN, END = "<!-- table: python -m normfast.benchmarks.scale -->", "<!-- end of table -->"


def page(options):
    """The whole section, as Markdown."""
    network, disks = (options.latency * 1e-6, options.gbit / 8 * 1e9), (options.storage * 1e9, options.filesystem * 1e9)
    cluster = Cluster(*network, *disks, options.speed, options.mtbf * tables.YEAR, options.restart)
    quick = options.quick
    found = measures.measured(1 << 21, 0.005, (8, 64), (1, 64, 256)) if quick else measures.measured()
    stored = measures.storage(1 << 21, 1 << 20) if quick else measures.storage()
    counts = (2,) if quick else (2, 3, 4)
    runs = [mpi.messages(ranks, 10 if quick else 300) for ranks in counts] if mpi.mpiexec() else []
    number = 1 << 10 if quick else 1 << 20
    machine, rng = found.machine, np.random.default_rng(options.seed)
    config = nf.show_config("dicts")
    parts = {
        "Measured": f"{platform.system()} {platform.machine()}, {config['threads']} threads, {config['engine']} engine, "
        f"NumPy {np.__version__}; the shortest of many calls.\n\n" + tables.measured_text(found, stored),
        "Messages between processes": tables.messages_text(runs, machine),
        f"Exactness of {number} merges": tables.exactness_text(number, rng),
        "Assumed": tables.assumed_text(cluster),
        **{
            f"{name}, {options.features if name == 'whiten' else options.columns} columns": tables.job_text(name, machine, cluster, options)
            for name in JOBS
        },
        f"Reductions over {max(options.nodes)} nodes": tables.reductions_text(machine, cluster, max(options.nodes)),
        "Depth of merges": tables.depth_text(machine, cluster, options),
        "Whitening on 1000 nodes": tables.whitening_text(machine, cluster, options),
        f"Synchronized batch norm: ResNet-50, {tables.BATCH} images a rank": tables.training_text(machine, cluster, options),
        "Failures while a petabyte is standardized": tables.failures_text(machine, cluster, options),
        "What follows": tables.answers_text(machine, cluster, options),
    }
    return "\n\n".join(f"### {title[0].upper() + title[1:]}\n\n{text}" for title, text in parts.items())


def main(arguments=None):
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(prog="python -m normfast.benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=table_between(BEGIN, END), help="the page whose tables are replaced")
    parser.add_argument("--quick", action="store_true", help="tiny measurements, to see that everything runs")
    parser.add_argument("--seed", type=int, default=0, help="of the uneven nodes and of the blocks (default 0)")
    for name, default, unit in (
        ("latency", 2.0, "us"), ("gbit", 100.0, "Gbit/s of a node's network"), ("storage", 5.0, "GB/s of a node"),
        ("filesystem", 1000.0, "GB/s of all nodes together"), ("speed", 1.0, "of a node's kernels beside this machine"),
        ("mtbf", 10.0, "years between failures of a node"), ("restart", 300.0, "seconds until a job goes on"),
        ("tflops", 50.0, "Tflop/s sustained by the faster rank of the training table"),
        ("noise", 5.0, "percent of noise between two norms"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=positive, default=default, help=f"{unit} (default {default:g})")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 8, 64, 1000, 4096])
    parser.add_argument("--data", type=positive, nargs="+", default=[1e2, 1e4, 1e6], help="GB (default 100 10000 1000000)")
    parser.add_argument("--columns", type=int, default=64, help="of moments and standardize (default 64)")
    parser.add_argument("--features", type=int, default=1024, help="of whiten (default 1024)")
    parser.add_argument("--block", type=positive, default=4.0, help="MiB read at a time (default 4)")
    parser.add_argument("--how", choices=tuple(PROGRAMS), default="tree", help="reduction of the jobs (default tree)")
    options = parser.parse_args(arguments)
    if min(options.nodes) < 1 or min(options.columns, options.features) < 1:
        parser.error("nodes, columns and features must be 1 or more")
    if options.docs is None:
        print(page(options))
        return
    options.docs(f"\n{page(options)}\n")


def positive(text):
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < np.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


if __name__ == "__main__":
    main()

"""The tables of `scale`, each as Markdown."""

import os

import numpy as np

from normfast.benchmarks import merge_trees, scale_model
from normfast.benchmarks.page import markdown
from normfast.benchmarks.scale_model import RESNET50, RESNET50_FLOP, TOGETHER, Cluster
from normfast.benchmarks.scale_simulation import PROGRAMS, simulate, speeds

BATCH = 32
YEAR = 365.25 * 86400


def scaled(value, units):
    """Three digits of a value in the largest unit that it fills."""
    size, unit = next(((size, unit) for size, unit in units if abs(value) >= 0.9995 * size), units[-1])
    text = f"{value / size:.3g}"
    return f"{text if 'e' not in text else format(value / size, '.0f')} {unit}".strip()


def duration(seconds):
    units = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
    return "0" if not seconds else "never" if np.isinf(seconds) else scaled(seconds, units)


def size(nbytes):
    return scaled(nbytes, tuple((1e3**i, unit) for i, unit in reversed(tuple(enumerate(("B", "kB", "MB", "GB", "TB", "PB"))))))


def count(value):
    return (
        scaled(value, ((1e9, "G"), (1e6, "M"), (1e4, "0k"), (1, ""))) if value >= 1e6 else f"{value:.4g}" if value < 1e4 else f"{value:.0f}"
    )


def percent(share):
    return f"{100 * share:.3g} %" if share >= 1e-4 else f"{100 * share:.0e} %"


def measured_text(found, stored):
    """Kernels, merges and storage of this machine."""
    figures, rows = found.figures, []
    for (what, n), taken in figures.items():
        if what in ("moments", "standardize"):
            rows.append([f"`{what}` of {size(n)} in memory, 64 columns", duration(taken), f"{n / taken / 1e9:.1f} GB/s"])
        elif what == "solve":
            rows.append([f"the whitening matrix of {n} features", duration(taken), ""])
        elif what in ("covariance", "whiten"):
            rows.append(
                [
                    f"`{what}` of {n} features" + ", the second sweep" * (what == "whiten"),
                    duration(taken),
                    f"{figures['bytes', n] / taken / 1e9:.3g} GB/s",
                ]
            )
        elif what == "matmul":
            rows.append([f"float32 matmul {n} x {n}", duration(taken), f"{found.machine.flops / 1e9:.0f} Gflop/s"])
        elif what == "save":
            rows.append(["state of 64 columns to a file, until it is safe", duration(taken), ""])
        elif what.startswith("merge"):
            of = "Covariance" if "covariance" in what else "Moments"
            state = scale_model.covariance_bytes(n) if of == "Covariance" else scale_model.moments_bytes(n)
            how = "`a + from_bytes(b.to_bytes())`" if what.endswith("bytes") else "`a + b`"
            rows.append([f"{how} of `{of}`, {n} column" + "s" * (n > 1), duration(taken), size(state)])
    if stored:
        for what, rate in zip(("written until safe", "read from the page cache", "read, page cache dropped"), stored, strict=True):
            rows.append([f"a file in the temporary folder, {what}", "", "-" if rate is None else f"{rate / 1e9:.2f} GB/s"])
    return markdown(["on this machine", "time", "rate or bytes"], rows)


def messages_text(runs, machine):
    """What MPI's messages and reductions take between processes here, beside the model."""
    if not runs:
        return "No MPI here (mpi4py and mpiexec): `pip install mpi4py mpich`. Messages were not measured."
    rows, ratios, pair = [], [], runs[0]
    for run in runs:
        for (how, columns), taken in run.reduced.items():
            if how not in PROGRAMS:
                rows.append([str(run.ranks), how, str(columns), duration(taken), "", ""])
                continue
            model = modelled(run.ranks, how, columns, machine, pair)
            ratios += [taken / model] * (run is pair)
            rows.append([str(run.ranks), how, str(columns), duration(taken), duration(model), f"{taken / model:.2f}"])
    balls = [
        [str(run.ranks), *(duration(value) for value in run.one_way.values()), duration(run.latency), f"{run.bandwidth / 1e9:.1f} GB/s"]
        for run in runs
    ]
    heads = ["processes", *(size(n) for n in pair.one_way), "alpha", "1 / beta"]
    return (
        f"{pair.library}; one way between two processes of this machine, in shared memory: within a node, not between nodes. "
        f"Where there are more processes than cores ({os.cpu_count()}), they wait for each other's turn.\n\n"
        + markdown(heads, balls)
        + "\n\nReductions of `Moments`, beside the model with alpha and beta of two processes; two processes take "
        f"{min(ratios):.2g} to {max(ratios):.2g} times as long as it says.\n\n"
        + markdown(["processes", "reduction", "columns", "measured", "model", "measured / model"], rows)
    )


def modelled(ranks, how, columns, machine, pair):
    """Seconds of a reduction of moments, by the closed form with the latency and bandwidth of a pair of processes."""
    nbytes = scale_model.moments_bytes(columns)
    cluster = Cluster(latency=pair.latency, bandwidth=pair.bandwidth)
    return scale_model.allreduce(how, ranks, nbytes, machine.merge[0] + machine.merge[1] * nbytes, cluster).seconds


def exactness_text(number, rng):
    """Errors of merging many blocks."""
    rows = []
    for mean in (0.0, 1e3, 1e6, 1e8):
        for e in merge_trees.errors(number, rng, mean):
            bound = scale_model.error_bound(e.depth, e.condition) / scale_model.EPS
            rows.append([f"{mean:.0e}", e.order, str(e.depth), f"{e.mean:.2g}", f"{e.m2:.2g}", f"{bound:.2g}"])
    return markdown(["mean / std", "order", "depth", "error of the mean, eps", "error of m2, eps", "bound for m2, eps"], rows)


def assumed_text(cluster):
    return markdown(
        ["assumed", "", "option"],
        [
            ["latency of a message between nodes", duration(cluster.latency), "`--latency` (us)"],
            ["bandwidth of a node's network, each way", f"{cluster.bandwidth * 8 / 1e9:g} Gbit/s", "`--gbit`"],
            ["storage, each node", f"{cluster.storage / 1e9:g} GB/s", "`--storage` (GB/s)"],
            ["file system, all nodes together", f"{cluster.filesystem / 1e9:g} GB/s", "`--filesystem` (GB/s)"],
            ["speed of a node's kernels, this machine having 1", f"{cluster.speed:g}", "`--speed`"],
            ["time between failures of a node", f"{cluster.mtbf / YEAR:g} years", "`--mtbf` (years)"],
            ["until a job goes on after a failure", duration(cluster.restart), "`--restart` (s)"],
        ],
    )


def uneven(one, cluster, how, rng, draws=5):
    """Seconds of a job whose nodes are not equally fast, its reduction simulated; the median of some draws."""
    found = []
    for _ in range(draws):
        factor = speeds(one.nodes, rng)
        run = simulate(how, one.nodes, one.state, one.merge, cluster.latency, cluster.bandwidth, one.before * factor)
        found.append(float((run.finish + (one.seconds - one.before - one.messaging) * factor).max()))
    return float(np.median(found))


def job_text(name, machine, cluster, options):
    """The table of one job."""
    rng = np.random.default_rng(options.seed)
    columns = options.features if name == "whiten" else options.columns
    given = {"columns": columns, "block": options.block * 2**20, "how": options.how}
    rows = []
    for nbytes in options.data:
        one = scale_model.job(name, nbytes * 1e9, 1, machine, cluster, **given)
        for nodes in options.nodes:
            j = scale_model.job(name, nbytes * 1e9, nodes, machine, cluster, **given)
            rows.append([
                size(j.nbytes), str(nodes), size(j.read), size(j.written), size(j.sent), count(j.messages), count(j.merges),
                *map(duration, (j.reading, j.computing, j.merging, j.messaging, j.seconds, uneven(j, cluster, options.how, rng))),
                percent(scale_model.efficiency(j, one)),
            ])  # fmt: skip
    heads = [
        "data", "nodes", "read", "written", "sent", "messages", "merges", "storage", "kernels", "merging", "messaging", "total",
        "uneven nodes", "efficiency",
    ]  # fmt: skip
    return markdown(heads, rows)


def depth_text(machine, cluster, options):
    """How deep merges stand upon each other, and what that allows of error."""
    rows = []
    for nbytes in options.data:
        for nodes in options.nodes:
            j = scale_model.job("moments", nbytes * 1e9, nodes, machine, cluster, block=options.block * 2**20, how=options.how)
            bounds = (f"{scale_model.error_bound(depth):.1e}" for depth in (j.chain, j.tree))
            rows.append([size(j.nbytes), str(nodes), count(j.chain), next(bounds), str(j.tree), next(bounds)])
    return markdown(["data", "nodes", "depth, chain", "error below", "depth, tree", "error below"], rows)


def reductions_text(machine, cluster, nodes):
    """Every reduction of small and large states."""
    rows = []
    for what, columns in (("Moments", 64), ("Moments", 16384), ("Covariance", 64), ("Covariance", 1024), ("Covariance", 16384)):
        covariance = what == "Covariance"
        state = scale_model.covariance_bytes(columns) if covariance else scale_model.moments_bytes(columns)
        fixed, slope = machine.merge_covariance if covariance else machine.merge
        merge = (fixed + slope * state) / cluster.speed
        for how in PROGRAMS:
            r = scale_model.allreduce(how, nodes, state, merge, cluster)
            rows.append([f"{what}, {columns}", size(state), how, count(r.messages), size(r.sent), f"{r.merges:.3g}", duration(r.seconds)])
    return markdown(["state", "bytes", "reduction", "messages", "sent", "merges", "seconds"], rows)


def whitening_text(machine, cluster, options, nodes=1000):
    """Where merging d x d matrices costs, and where it does not."""
    rows = []
    for nbytes in options.data[:2]:
        for d in (64, 256, 1024, 4096, 16384):
            for how in ("tree", "halving"):
                j = scale_model.job("whiten", nbytes * 1e9, nodes, machine, cluster, columns=d, block=options.block * 2**20, how=how)
                parts = map(duration, (j.reading, j.computing, j.merging, j.messaging, j.solving, j.seconds))
                rows.append([size(j.nbytes), str(d), size(j.state), how, *parts, percent((j.merging + j.messaging) / j.seconds)])
    heads = ["data", "features", "state", "reduction", "storage", "kernels", "merging", "messaging", "solving", "total"]
    return markdown([*heads, "merges and messages"], rows)


def training_text(machine, cluster, options):
    """Synchronized batch norms of ResNet-50 beside the arithmetic of a step."""
    flop = BATCH * RESNET50_FLOP
    fast = f"{options.tflops:g} Tflop/s"
    steps = {"this machine": flop / machine.flops, fast: flop / (options.tflops * 1e12)}
    ways = {"a message each": RESNET50, "shortcuts together": TOGETHER, "all in one (bound)": [sum(RESNET50)]}
    rng = np.random.default_rng(options.seed)
    rows, noisy = [], []
    for ranks in options.nodes:
        if 1 < ranks <= 1024:
            alone, together = waiting(ranks, steps[fast], machine, cluster, options.noise / 100, rng)
            noisy.append([str(ranks), duration(steps[fast]), duration(alone), duration(together), percent(1 - alone / together)])
        for way, channels in ways.items() if ranks > 1 else ():
            s = scale_model.sync_batch_norm(ranks, machine, cluster, channels=channels)
            shares = (percent(s.seconds / (s.seconds + step)) for step in steps.values())
            rows.append([str(ranks), way, str(s.reductions), count(s.messages), size(s.sent), duration(s.seconds), *shares])
    limits = [
        [name, duration(step), way, *(count(found) if (found := limit(share, step)) else "beyond 2^20" for share in (0.01, 0.1, 0.5))]
        for name, step in steps.items()
        for way, channels in ways.items()
        for limit in [lambda share, step, c=channels: scale_model.ranks_until(share, step, machine, cluster, channels=c)]
    ]
    heads = ["ranks", "norms", "reductions", "messages", "sent", "seconds", *(f"share of a step, {name}" for name in steps)]
    return (
        markdown(heads, rows)
        + "\n\nRanks (powers of two) from which messages take more than a share of the step:\n\n"
        + markdown(["arithmetic", "a step", "norms", "1 %", "10 %", "50 %"], limits)
        + f"\n\nWith {options.noise:g} % of noise on each rank between two norms, simulated at {fast}: the slowest rank if nobody waited "
        "within the step, and with a reduction at every norm.\n\n"
        + markdown(["ranks", "a step without noise", "nobody waits", "synchronized", "of it messages and waiting"], noisy)
    )


def waiting(ranks, step, machine, cluster, noise, rng):
    """Seconds of a step with noise on every rank: without, and with a simulated reduction at each norm, forward and backward."""
    parts = [part for c in RESNET50 for part in scale_model.sync_bytes(c, machine)]
    alone, finish = np.zeros(ranks), np.zeros(ranks)
    for nbytes, fixed in parts:
        work = step / len(parts) * np.exp(noise * rng.standard_normal(ranks))
        alone += work
        merge = (fixed + machine.merge[1] * nbytes) / cluster.speed
        finish = simulate("doubling", ranks, nbytes, merge, cluster.latency, cluster.bandwidth, finish + work).finish
    return float(alone.max()), float(finish.max())


def failures_text(machine, cluster, options):
    """A petabyte standardized on nodes that fail."""
    rows = []
    for mtbf in (cluster.mtbf, cluster.mtbf / 14):
        for nodes in options.nodes:
            j = scale_model.job("standardize", 1e15, nodes, machine, cluster, columns=options.columns, block=options.block * 2**20)
            f = scale_model.failures(j.seconds, nodes, machine.save, cluster._replace(mtbf=mtbf))
            times = map(duration, (j.seconds, f.scratch, f.interval, f.resumed))
            rows.append([f"{mtbf / YEAR:.2g} years", str(nodes), size(j.state), f"{f.expected:.2g}", *times])
    return markdown(["node fails every", "nodes", "state", "failures", "without any", "from scratch", "save every", "resumed"], rows)


def answers_text(machine, cluster, options):
    """What follows for a petabyte."""
    full = cluster.filesystem / cluster.storage
    ranks = max(options.nodes)
    step, network = (scale_model.sync_batch_norm(ranks, one, cluster) for one in (machine, machine._replace(merge=(0.0, 0.0))))
    last = scale_model.job("moments", 1e15, max(options.nodes), machine, cluster, columns=options.columns, how=options.how)
    return (
        f"- Moments of {options.columns} columns run at {1e-9 / machine.moments * cluster.speed:.1f} GB/s on a node in memory, its storage "
        f"gives {cluster.storage / 1e9:g}; {last.nodes} nodes have {size(min(cluster.storage, cluster.filesystem / last.nodes))} a second "
        f"each.\n- {count(full)} nodes fill the file system. More divide it: only what is bound by kernels goes on getting faster.\n"
        f"- Messages and merges across {last.nodes} nodes take {duration(last.messaging)} of {duration(last.seconds)}, for each node "
        f"{count(last.messages)} messages and {size(last.sent)}.\n"
        f"- Synchronized batch norm on {ranks} ranks: of {duration(step.seconds)} a step the network takes "
        f"{duration(network.seconds)}, the rest is merging, one call of Python after the other.\n"
        f"- A petabyte standardized on {ranks} nodes moves {size(3 * ranks * last.read)} between storage and nodes, and "
        f"{size(ranks * last.sent)} between nodes."
    )

"""What jobs on a cluster cost: bytes, messages, merges and seconds of each node, in closed form.

The costs of a message and of the reductions are those of `scale_simulation`, whose ideal case the formulas are.
"""

import math
from typing import NamedTuple

EPS = 2.0**-52
JOBS = ("moments", "standardize", "whiten")
RESNET50 = (  # channels of the 53 batch norms (He et al. 2015): the first, three to a block, one for the shortcut of each stage
    [64] + [64, 64, 256] * 3 + [256] + [128, 128, 512] * 4 + [512] + [256, 256, 1024] * 6 + [1024] + [512, 512, 2048] * 3 + [2048]
)
TOGETHER = (  # the norm of a shortcut, which waits for nothing of its block, in the messages of the block's first norm
    [64] + [320, 64, 256] + [64, 64, 256] * 2 + [640, 128, 512] + [128, 128, 512] * 3
    + [1280, 256, 1024] + [256, 256, 1024] * 5 + [2560, 512, 2048] + [512, 512, 2048] * 2
)  # fmt: skip
RESNET50_FLOP = 3 * 2 * 4.09e9  # of a training step for one image: 4.09e9 multiply-adds forward, twice that backward


class Cluster(NamedTuple):
    """What is assumed, in seconds and bytes per second; docs/scale.md gives the sources."""

    latency: float = 2e-6  # of a message between two nodes
    bandwidth: float = 12.5e9  # 100 Gbit/s each way
    storage: float = 5e9  # that a node reads or writes
    filesystem: float = 1e12  # that all nodes together read or write
    speed: float = 1.0  # of a node's kernels beside the measured machine
    mtbf: float = 10 * 365.25 * 86400  # between failures of one node
    restart: float = 300.0  # until a job that failed goes on


class Machine(NamedTuple):
    """What was measured on one machine: seconds."""

    moments: float  # per byte
    standardize: float  # per byte: the sweep that writes, given the statistics
    covariance: tuple[float, float]  # per byte: fixed, and per feature
    whiten: tuple[float, float]  # per byte, likewise
    merge: tuple[float, float]  # of Moments: fixed, and per byte of state
    merge_covariance: tuple[float, float]
    solve: float  # of a whitening matrix, per feature cubed
    save: float  # of a state to a file, until it is safe there
    flops: float  # float32 multiplications and additions per second, by BLAS


class Reduction(NamedTuple):
    """Of the rank that has most to do: messages and bytes sent, merges in whole states; and the seconds until every rank has the result."""

    messages: int
    sent: float
    merges: float
    seconds: float


def moments_bytes(columns):
    """Length of `Moments.to_bytes` for one row of columns."""
    return 8 * (5 + 1 + 2 * columns)


def covariance_bytes(features):
    """Length of `Covariance.to_bytes`."""
    return 8 * (3 + 1 + 2 * features + features**2)


def allreduce(how, ranks, nbytes, merge, cluster):
    """A reduction whose result every rank has; `merge` is the seconds of merging two states of nbytes."""
    if ranks == 1:
        return Reduction(0, 0.0, 0.0, 0.0)
    message = cluster.latency + nbytes / cluster.bandwidth
    if how == "tree":
        levels = (ranks - 1).bit_length()
        return Reduction(levels, levels * nbytes, levels, 2 * levels * message + levels * merge)
    if how == "ring":
        part = (ranks - 1) / ranks
        steps = 2 * (ranks - 1)
        return Reduction(steps, 2 * part * nbytes, part, steps * cluster.latency + 2 * part * nbytes / cluster.bandwidth + part * merge)
    levels = ranks.bit_length() - 1
    fold = int(ranks != 1 << levels)  # a message before, with its merge, and one after
    if how == "doubling":
        return Reduction(levels + fold, (levels + fold) * nbytes, levels + fold, (levels + 2 * fold) * message + (levels + fold) * merge)
    part = 1 - 2.0**-levels
    seconds = 2 * levels * cluster.latency + 2 * part * nbytes / cluster.bandwidth + part * merge + fold * (2 * message + merge)
    return Reduction(2 * levels + fold, (2 * part + fold) * nbytes, part + fold, seconds)


class Job(NamedTuple):
    """One job on so many nodes: bytes and counts of each node, seconds of each part and of the whole."""

    name: str
    nbytes: float
    nodes: int
    read: float
    written: float
    sent: float
    messages: int
    merges: float
    reading: float  # and writing
    computing: float
    merging: float
    messaging: float
    solving: float
    before: float  # seconds until a node has its share of the statistics
    merge: float  # seconds of one
    state: int  # bytes
    chain: int  # depth of merges where each node adds block after block
    tree: int  # where each node merges its blocks in a tree
    seconds: float


def job(name, nbytes, nodes, machine, cluster, *, columns=64, block=2**22, how="tree"):
    """Cost of a job over float32 data in rows of `columns`, read in blocks.

    A node reads ahead, as `normfast.stream` does: the slower of storage and kernels counts, in each sweep. All nodes reduce their moments
    as `normfast.mpi.all_moments` does, in a tree.
    """
    share = nbytes / nodes
    sweeps = 1 if name == "moments" else 3  # read; read again and write
    if name == "whiten":
        state, per_merge = covariance_bytes(columns), machine.merge_covariance
        measure, apply = (fixed + slope * columns for fixed, slope in (machine.covariance, machine.whiten))
        block = max(block, 4 * columns**2)  # rows as many as features, as `covariance` takes them, or the merges would be most of the work
    else:
        state, per_merge = moments_bytes(columns), machine.merge
        measure, apply = machine.moments, machine.standardize if sweeps > 1 else 0.0
    merge = (per_merge[0] + per_merge[1] * state) / cluster.speed
    rate = min(cluster.storage, cluster.filesystem / nodes)
    blocks = math.ceil(share / block)
    merging = (blocks - 1) * merge
    reduction = allreduce(how, nodes, state, merge, cluster)
    across = math.ceil(reduction.merges)
    solving = machine.solve * columns**3 / cluster.speed if name == "whiten" else 0.0  # by every node, all the same
    before = max(share / rate, share * measure / cluster.speed + merging)
    after = solving + (max(2 * share / rate, share * apply / cluster.speed) if sweeps > 1 else 0.0)
    return Job(
        name, nbytes, nodes, min(sweeps, 2) * share, (sweeps // 2) * share, reduction.sent, reduction.messages,
        blocks - 1 + reduction.merges, sweeps * share / rate, share * (measure + apply) / cluster.speed, merging, reduction.seconds,
        solving, before, merge, state, blocks - 1 + across, (blocks - 1).bit_length() + across, before + reduction.seconds + after,
    )  # fmt: skip


def efficiency(many, one):
    """The time of one node over that of many times their number."""
    return one.seconds / (many.nodes * many.seconds)


def error_bound(depth, condition=1.0):
    """Relative error of a variance after merges of that depth, to first order; condition is sqrt(1 + mean^2 / var).

    Chan, Golub and LeVeque, Algorithms for computing the sample variance, The American Statistician 37 (1983).
    """
    return depth * condition * EPS


class SyncStep(NamedTuple):
    """Batch norms synchronized in one training step: reductions one after the other, messages and bytes sent by a rank, seconds."""

    reductions: int
    messages: int
    sent: float
    seconds: float


def sync_bytes(channels, machine):
    """Bytes of the two messages of a norm, and the fixed seconds of a merge; sums are added by the library itself."""
    return (32 * (channels + 1), machine.merge[0]), (8 * (2 * channels + 1), 0.0)


def sync_batch_norm(ranks, machine, cluster, *, channels=RESNET50, how="doubling"):
    """The messages of `normfast.mpi.SyncBatchNorm`: for each norm four numbers a channel forward and two sums a channel backward.

    With an operation of the caller's own, as merging is, MPICH reduces by recursive doubling whatever the size.
    """
    total = SyncStep(0, 0, 0.0, 0.0)
    for c in channels:
        for nbytes, fixed in sync_bytes(c, machine):  # sums are added by the library itself
            one = allreduce(how, ranks, nbytes, (fixed + machine.merge[1] * nbytes) / cluster.speed, cluster)
            total = SyncStep(total[0] + 1, total[1] + one.messages, total[2] + one.sent, total[3] + one.seconds)
    return total


def ranks_until(share, step, machine, cluster, **options):
    """The smallest power of two of ranks whose messages take more than that share of the whole step; None up to 2^20."""
    for levels in range(1, 21):
        seconds = sync_batch_norm(1 << levels, machine, cluster, **options).seconds
        if seconds > share * (seconds + step):
            return 1 << levels
    return None


class Failures(NamedTuple):
    """A job on nodes that fail: interruptions while it runs once, and expected seconds from scratch each time and from saved states."""

    expected: float
    scratch: float
    interval: float
    resumed: float


def failures(seconds, nodes, save, cluster):
    """Failures independent and exponential in time, of the whole job by any node; a state saved every `interval` seconds.

    The interval is Young's (Communications of the ACM 17, 1974), the expected time Daly's (Future Generation Computer Systems 22, 2006).
    """
    rate = nodes / cluster.mtbf
    interval = min(seconds, math.sqrt(2 * save / rate))
    again = 1 / rate + cluster.restart
    with_states = again * math.expm1(rate * (interval + save)) * seconds / interval
    exponent = rate * seconds
    return Failures(exponent, again * math.expm1(exponent) if exponent < 700 else math.inf, interval, with_states)

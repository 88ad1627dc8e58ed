"""Reductions over ranks as programs of steps, and a simulation of them, event by event, on ranks that need not begin together.

Messages take alpha + bytes * beta (Hockney 1994), sending and receiving at the same time; the programs are those of Thakur, Rabenseifner
and Gropp, Optimization of collective communication operations in MPICH, IJHPCA 19 (2005). `scale_measures` runs the same programs on MPI.
"""

import heapq
from collections import defaultdict, deque
from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """Send bytes to a rank, receive from another, and merge what came: `work` in whole states, 0 where it takes the place of the own."""

    to: int | None
    nbytes: float
    source: int | None
    work: float


def tree(rank, ranks, nbytes):
    """A binomial tree to rank 0, and back."""
    bit = 1
    while bit < ranks and not rank & bit:
        if rank + bit < ranks:
            yield Step(None, 0, rank + bit, 1)
        bit *= 2
    if rank:
        yield Step(rank - bit, nbytes, None, 0)
        yield Step(None, 0, rank - bit, 0)
    while bit > 1:
        bit //= 2
        if rank + bit < ranks:
            yield Step(rank + bit, nbytes, None, 0)


def folded(rank, ranks, nbytes, steps):
    """The steps of a power of two of ranks; of the others each hands its state to a neighbour first and takes the result last."""
    power = 1 << ranks.bit_length() - 1
    rest = ranks - power
    if rank < 2 * rest and rank % 2 == 0:
        yield Step(rank + 1, nbytes, None, 0)
        yield Step(None, 0, rank + 1, 0)
        return
    if rank < 2 * rest:
        yield Step(None, 0, rank - 1, 1)
    within = rank // 2 if rank < 2 * rest else rank - rest
    for bit, size, work in steps(power, nbytes):
        other = within ^ bit
        peer = 2 * other + 1 if other < rest else other + rest
        yield Step(peer, size, peer, work)
    if rank < 2 * rest:
        yield Step(rank - 1, nbytes, None, 0)


def doubling(rank, ranks, nbytes):
    """Recursive doubling: whole states with a partner 1, 2, 4, ... ranks away."""
    return folded(rank, ranks, nbytes, lambda power, size: ((1 << i, size, 1) for i in range(power.bit_length() - 1)))


def halving(rank, ranks, nbytes):
    """Rabenseifner's: columns are halved while they are reduced, and gathered by doubling."""

    def steps(power, size):
        levels = range(1, power.bit_length())
        yield from ((power >> i, size / 2**i, 1 / 2**i) for i in levels)
        yield from ((power >> i, size / 2**i, 0) for i in reversed(levels))

    return folded(rank, ranks, nbytes, steps)


def ring(rank, ranks, nbytes):
    """Each rank reduces one share of the columns, handed round; then the shares go round."""
    following, previous, share = (rank + 1) % ranks, (rank - 1) % ranks, 1 / ranks
    for i in range(2 * (ranks - 1)):
        yield Step(following, nbytes * share, previous, share if i < ranks - 1 else 0)


PROGRAMS = {"tree": tree, "doubling": doubling, "halving": halving, "ring": ring}


class Simulated(NamedTuple):
    """By rank: when it has the result, the messages and bytes that it sent, and its merges in whole states."""

    finish: np.ndarray
    messages: np.ndarray
    sent: np.ndarray
    merges: np.ndarray


def simulate(how, ranks, nbytes, merge, latency, bandwidth, start=None):
    """Run a program on every rank, each from its own `start`; `merge` is the seconds of one merge of whole states."""
    programs = [PROGRAMS[how](rank, ranks, nbytes) for rank in range(ranks)]
    finish = np.zeros(ranks) if start is None else np.array(start, float)
    messages, sent, merges = np.zeros(ranks, int), np.zeros(ranks), np.zeros(ranks)
    underway, waiting = defaultdict(deque), {}  # arrivals by (from, to); (time, work) of a rank whose message has not been sent yet
    ready = [(finish[rank], rank) for rank in range(ranks)]
    heapq.heapify(ready)
    while ready:
        now, rank = heapq.heappop(ready)
        finish[rank] = now
        step = next(programs[rank], None)
        if step is None:
            continue
        if step.to is not None:
            now += latency + step.nbytes / bandwidth
            messages[rank] += 1
            sent[rank] += step.nbytes
            if (rank, step.to) in waiting:
                since, work = waiting.pop((rank, step.to))
                heapq.heappush(ready, (max(since, now) + work * merge, step.to))
            else:
                underway[rank, step.to].append(now)
        merges[rank] += step.work
        if step.source is None:
            heapq.heappush(ready, (now, rank))
        elif arrivals := underway[step.source, rank]:
            heapq.heappush(ready, (max(now, arrivals.popleft()) + step.work * merge, rank))
        else:
            waiting[step.source, rank] = now, step.work
    if waiting:
        raise RuntimeError(f"{how} on {ranks} ranks: {len(waiting)} of them wait for messages that nobody sends")
    return Simulated(finish, messages, sent, merges)


def speeds(nodes, rng, spread=0.05, slow=0.01, factor=2.0):
    """How much longer than the typical one each node takes: log-normal, and a few are slow."""
    return np.exp(spread * rng.standard_normal(nodes)) * np.where(rng.random(nodes) < slow, factor, 1.0)

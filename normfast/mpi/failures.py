"""What one rank's error means to the others: the same error on all of them where they can be told, else the end of the job."""

import sys

from normfast.extras import needed

KINDS = {"TypeError": TypeError, "ValueError": ValueError, "RuntimeError": RuntimeError}


def jointly(ranks, prepare, exchange, nothing):
    """What `prepare` makes of this rank's values, and the numbers of all ranks together: one message.

    `prepare()` returns something to go on with and numbers, which `exchange` brings together with those of the other ranks. Where it
    raises, the rank takes part with the numbers `nothing`, so that none waits for it, and all ranks raise the same error.
    """
    own, numbers, trouble = None, nothing, None
    try:
        own, numbers = prepare()
    except Exception as error:
        trouble = error
    total, failed = exchange(numbers, trouble is not None)
    if failed:
        raise_alike(ranks, trouble)
    return own, total


def raise_alike(ranks, trouble):
    """Raise the error of the first rank that has one, on every rank; trouble is this rank's own, or None."""
    if ranks.size == 1:
        raise trouble
    reports = ranks.gather(None if trouble is None else reported(trouble))
    rank, (kind, text) = next((rank, report) for rank, report in enumerate(reports) if report)
    raise KINDS[kind](f"{text} (rank {rank} of {ranks.size})") from trouble


def reported(trouble):
    """An error as its kind, which every rank knows, and its text."""
    return next((name for name, kind in KINDS.items() if isinstance(trouble, kind)), "RuntimeError"), str(trouble)


def alike(ranks, own):
    """Raise a ValueError on every rank unless all have the same options, a dictionary."""
    first, *others = ranks.gather(own)
    for rank, other in enumerate(others, 1):
        if other != first:
            name = next(name for name in first if other[name] != first[name])
            raise ValueError(f"the ranks must have the same {name}: rank 0 has {first[name]} and rank {rank} has {other[name]}")


def abort_on_uncaught():
    """Let an exception that nobody catches end all ranks, as `python -m mpi4py` does; MPI by itself would leave the others waiting."""
    if isinstance(sys.excepthook, Abort):
        return
    sys.excepthook = Abort(sys.excepthook)


class Abort:
    """An excepthook that says what the one before it says, and then ends all ranks of the job."""

    def __init__(self, before):
        self.before = before

    def __call__(self, kind, value, trace):
        self.before(kind, value, trace)
        sys.stderr.flush()
        mpi = needed("mpi4py.MPI", "mpi", "normfast.mpi")
        if not mpi.Is_finalized():
            mpi.COMM_WORLD.Abort(1)

"""Many Python threads that begin together."""

import threading
from concurrent.futures import ThreadPoolExecutor


def at_once(work, threads):
    """work(i) for each of so many threads."""
    start = threading.Barrier(threads)

    def begin(i):
        start.wait()
        return work(i)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))

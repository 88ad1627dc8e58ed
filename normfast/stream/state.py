"""The state file beside a result: what has been done so far, from which an interrupted run goes on.

One line of JSON, then the statistics as bytes. It is written beside itself, brought to the disk and put in its place as a whole, after
the values that it speaks of: so what it says is true whenever the power fails, and no block counts twice.
"""

import json
import os
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

from normfast.stream.errors import FileError
from normfast.stream.sources import line_of
from normfast.stream.statistics import packed

FORMAT = 2
SECONDS = 5.0  # between two states


class State:
    """The file, and when to write it. Writing happens in a thread of its own, while blocks go on.

    Parameters
    ----------
    path : str or None
        None keeps no state.
    run : dict
        What a run must have in common with the one that it goes on from: its input and its options.
    """

    def __init__(self, path, run):
        self.path, self._run = path, run
        self._thread = ThreadPoolExecutor(1)
        self._pending, self._last = None, time.monotonic()

    def read(self):
        """(pass, next block, statistics as a list and as bytes), or None if there is no such file.

        Raises
        ------
        FileError
            If the file is damaged or its input has changed.
        ValueError
            If its options are others.
        """
        if self.path is None or not os.path.exists(self.path):
            return None
        with open(self.path, "rb") as file:
            line, rest = file.readline(), file.read()
        try:
            head = json.loads(line)
            if head["format"] != FORMAT or head.pop("crc") != _sum(head, rest):
                raise ValueError("another format, or cut off")
            blobs, start = [], 0
            for length in head["lengths"]:
                blobs.append(rest[start : start + length])
                start += length
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = line_of(error)
            raise FileError(f"{self.path} is no state of this version, or damaged ({why}): start again without resuming") from None
        ours, theirs = json.loads(json.dumps(self._run)), head["run"]
        if ours["source"] != theirs["source"]:
            raise FileError(f"the input is not what it was when {self.path} was written: start again without resuming")
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise ValueError(f"{self.path} was written with {name} {theirs.get(name)}, not {value}: give the same, or start again")
        return head["pass"], head["next"], head["statistics"], blobs

    def due(self):
        """Whether it is time for a state, and the last one is written."""
        if self.path is None or (self._pending and not self._pending.done()):
            return False
        return time.monotonic() - self._last >= SECONDS

    def save(self, name, following, snapshot, sync=None):
        """Write, soon, that the blocks of a pass before `following` are done; `sync` first brings their values to the disk."""
        self.settle()
        self._last = time.monotonic()
        if self.path is not None:
            self._pending = self._thread.submit(self._write, name, following, snapshot, sync)

    def settle(self):
        """Wait for what is being written."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _write(self, name, following, snapshot, sync):
        if sync:
            sync()
        statistics, blobs = packed(snapshot)
        content = b"".join(blobs)
        head = {"format": FORMAT, "run": self._run, "pass": name, "next": following}
        head = json.loads(json.dumps(head | {"statistics": statistics, "lengths": [len(blob) for blob in blobs]}))
        replace(self.path, json.dumps(head | {"crc": _sum(head, content)}).encode() + b"\n" + content)

    def remove(self):
        """The run is over."""
        self.settle()
        for path in (self.path, f"{self.path}.new") if self.path is not None else ():
            if os.path.exists(path):
                os.remove(path)

    def close(self):
        """Give the thread back."""
        self._thread.shutdown()


def _sum(head, content):
    """CRC-32 of all that a state says."""
    return zlib.crc32(content, zlib.crc32(json.dumps(head).encode()))


def replace(path, content):
    """Write a file as a whole: what has the name keeps its content until the new one is on the disk."""
    beside = f"{path}.new"
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        if os.path.exists(beside):
            os.remove(beside)
        raise
    os.replace(beside, path)
    sync_folder(path)


def sync_folder(path):
    """Bring the names in the folder of a file to the disk."""
    if os.name == "posix":
        number = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

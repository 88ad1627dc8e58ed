"""How far a run is: a bar of rich where it is installed, else a line that is written anew; nothing but a last line where nobody looks."""

import sys
import time


class Progress:
    """Bytes done of all that the passes will read, with GB/s and the time left.

    Parameters
    ----------
    total : int
        Bytes of all passes.
    show : bool
        Whether to show anything.
    """

    def __init__(self, total, show):
        self._total, self._done, self._show = total, 0, show
        self._begin = self._shown = time.monotonic()
        self._skipped = 0
        self._name = ""
        self._bar = None
        self._live = show and sys.stderr.isatty()

    def __enter__(self):
        if self._live:
            try:
                from rich.console import Console
                from rich.progress import BarColumn, TextColumn
                from rich.progress import Progress as Bar
            except ModuleNotFoundError:
                return self
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, text="")
        return self

    def __exit__(self, *_):
        if self._bar:
            self._bar.stop()
        elif self._live:
            sys.stderr.write("\r\033[K")
        if self._show:
            seconds = time.monotonic() - self._begin
            sys.stderr.write(f"{self._done / 1e9:.3g} GB in {seconds:.1f} s, {self._speed() / 1e9:.2f} GB/s\n")

    def start(self, name, skipped=0):
        """Begin a pass, of which so many bytes were done before."""
        self._name = name
        self._skipped += skipped
        self.add(0)

    def add(self, count):
        """So many bytes more."""
        self._done += count
        now = time.monotonic()
        if not self._live or now - self._shown < 0.2:
            return
        self._shown = now
        done = self._done + self._skipped
        left = (self._total - done) / max(self._speed(), 1.0)
        text = f"{done / max(self._total, 1):4.0%} {self._speed() / 1e9:6.2f} GB/s {int(left) // 60:3}:{int(left) % 60:02} left"
        if self._bar:
            self._bar.update(self._task, completed=done, description=self._name, text=text)
        else:
            sys.stderr.write(f"\r{self._name:10} {text}\033[K")
            sys.stderr.flush()

    def _speed(self):
        return self._done / max(time.monotonic() - self._begin, 1e-9)

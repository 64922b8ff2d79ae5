"""How far a run has come: a line on the terminal that is written over, or a line a minute in a log."""

from __future__ import annotations

import sys
import time

from minisbert.inference.stream import has_console, on_terminal


class Progress:
    """Counts rows and tokens, and says so on stderr.

    Args:
        shown: True, False, or None: on a terminal only.
        rows: of the whole corpus.
        done: how many of them are there already.
    """

    def __init__(self, shown: bool | None, rows: int, done: int) -> None:  # noqa: FBT001 (an option handed on)
        terminal = on_terminal()
        self.shown = terminal if shown is None else shown and has_console()
        self.every = 0.5 if terminal else 60.0
        self.ends = "\r" if terminal else "\n"
        self.rows = rows
        self.done = done
        self.new = 0
        self.tokens = 0
        self._start = self._said = time.monotonic()

    def advance(self, rows: int, tokens: int) -> None:
        """Adds to the numbers of rows and tokens that are done."""
        self.new += rows
        self.tokens += tokens
        if self.shown and time.monotonic() - self._said >= self.every:
            self._say(self.ends)

    def line(self) -> str:
        """Rows done, rows and tokens a second in this run, the time that is left at this speed."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        done = self.done + self.new
        left = (self.rows - done) * seconds / self.new if self.new else 0.0
        share = f"{done:,} of {self.rows:,} rows ({100 * done / self.rows:.1f} %)"
        rates = f"{self.new / seconds:,.0f} rows/s, {self.tokens / seconds:,.0f} tokens/s"
        return f"minisbert: {share}, {rates}, {clock(left)} left"

    def _say(self, end: str) -> None:
        self._said = time.monotonic()
        print(f"{self.line():<100}", end=end, file=sys.stderr, flush=True)  # noqa: T201

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown and self.new:
            self._say("\n")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3723.4)
    '1:02:03'
    """
    whole = int(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"

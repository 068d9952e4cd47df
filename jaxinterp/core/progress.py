"""One line of progress on the terminal: done, rate, time left."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Prints ``label done/total rate left`` to ``stream``, at most once in ``every`` seconds.

    On a terminal the line is rewritten in place; elsewhere each report is a line of its own, so that
    logs stay readable. ``total=None`` means unknown.
    """

    def __init__(
        self, label: str, total: int | None = None, *, unit: str = "", every: float = 2.0,
        quiet: bool = False, stream: TextIO | None = None,
    ) -> None:  # fmt: skip
        self.label, self.total, self.unit, self.every, self.quiet = label, total, unit, every, quiet
        self.stream = stream or sys.stderr
        self.done = 0
        self.started = self.reported = time.monotonic()
        self.first = 0
        self.wrote = False

    def begin(self, done: int) -> None:
        """Start counting at ``done``: what an earlier run did is not part of the rate."""
        self.done = self.first = done

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count ``amount`` more units as done and report if it is time to."""
        self.done += amount
        now = time.monotonic()
        if now - self.reported >= self.every:
            self.reported = now
            self._write(self.describe(note))

    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self.first) / max(time.monotonic() - self.started, 1e-9)

    def describe(self, note: str = "") -> str:
        """The line as it would be printed now."""
        rate = self.rate()
        parts = [self.label, f"{self.done}" + (f"/{self.total}" if self.total else "")]
        parts.append(f"{rate:,.1f} {self.unit}/s" if self.unit else f"{rate:,.1f}/s")
        if self.total and rate > 0:
            left = (self.total - self.done) / rate
            parts.append(f"{int(left // 60)}:{int(left % 60):02d} left")
        return "  ".join([*parts, note] if note else parts)

    def say(self, text: str) -> None:
        """Print a line of its own: something that happened and stays on the screen."""
        if not self.quiet:
            start = "\r" + " " * 100 + "\r" if self.wrote and self.stream.isatty() else ""
            self.stream.write(f"{start}{self.label}  {text}\n")
            self.stream.flush()

    def close(self, note: str = "") -> None:
        """Report a last time and end the line."""
        if self.wrote or note:
            self._write(self.describe(note))
        if self.wrote and self.stream.isatty() and not self.quiet:
            self.stream.write("\n")

    def _write(self, line: str) -> None:
        if self.quiet:
            return
        self.wrote = True
        terminal = self.stream.isatty()
        self.stream.write(f"\r{line:<100}" if terminal else line + "\n")
        self.stream.flush()

"""One line on the terminal that says how far a run is, rewritten in place a few times a second."""

from __future__ import annotations

import sys
import time
from typing import TextIO

REFRESH_SECONDS = 0.2
CLEAR = "\r\x1b[K"


class Progress:
    """Counts steps; on a terminal the line is shown while it runs, elsewhere nothing is."""

    def __init__(self, total: int, unit: str, out: TextIO = sys.stderr) -> None:
        self._total, self._unit, self._out = total, unit, out
        self._shown = out.isatty()
        self._done, self._start, self._next = 0, time.monotonic(), 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._out.write(CLEAR)
            self._out.flush()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + REFRESH_SECONDS
            self._show(now - self._start)

    def _show(self, seconds: float) -> None:
        share = self._done / self._total if self._total else 1.0
        left = seconds / share - seconds if share else 0.0
        self._out.write(
            f"{CLEAR}{share:4.0%}  {self._done:,} of {self._total:,} {self._unit}  "
            f"{self._done / max(seconds, 1e-9):,.0f}/s  {left:.0f} s left"
        )
        self._out.flush()

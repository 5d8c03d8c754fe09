"""Clicks per second since this process started, whether somebody watches or not.

They come from the marks that every aggregator reads or commits anyway, so they cost no query.
A second is in the history if it is known, at least in part: while the table of sources can't be
read, the commits of other aggregators are unknown, and the page shows a gap.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

HISTORY_S: Final = 300
# Rates are means over this many seconds: frames come once a second, but not in step with us.
SMOOTH_S: Final = 3


class Rates:
    """Committed clicks by the second of their commit. `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.total = 0
        """All clicks since the start."""
        self._seconds: deque[tuple[int, int]] = deque(maxlen=HISTORY_S)
        self._now = int(clock())
        self._clicks = 0
        self._known = self._seen = False

    def add(self, clicks: int) -> None:
        """These were committed just now."""
        self._move_on()
        self.total += clicks
        self._clicks += clicks

    def known(self, known: bool) -> None:
        """From now on it is known, or not, what is committed."""
        self._move_on()
        self._seen = self._seen or known
        self._known = known

    def history(self) -> list[tuple[int, float]]:
        """(end of a second in Unix seconds, clicks per second), without those not known."""
        self._move_on()
        known = list(self._seconds)
        return [
            (at + 1, _mean(known[max(0, n + 1 - SMOOTH_S) : n + 1]))
            for n, (at, _) in enumerate(known)
        ]

    def rate(self) -> float | None:
        """Clicks per second just now, those of the running second included; None: not known."""
        self._move_on()
        if not self._known:
            return None
        recent = [n for at, n in list(self._seconds)[-SMOOTH_S:] if at >= self._now - SMOOTH_S]
        seconds = len(recent) + self._clock() - self._now
        return round((sum(recent) + self._clicks) / max(seconds, 1), 1)

    def _move_on(self) -> None:
        """Put the seconds that have passed into the history."""
        now = int(self._clock())
        if now < self._now:  # the clock was set back: those seconds come again
            self._seconds.clear()
        elif now > self._now:
            if self._seen:
                self._seconds.append((self._now, self._clicks))
            if self._known:
                first = max(self._now + 1, now - HISTORY_S)
                self._seconds.extend((second, 0) for second in range(first, now))
        if now != self._now:
            self._now, self._clicks, self._seen = now, 0, self._known


def _mean(seconds: Sequence[tuple[int, int]]) -> float:
    """Over the last one and those just before it; not across a gap."""
    last = seconds[-1][0]
    recent = [clicks for at, clicks in seconds if at > last - SMOOTH_S]
    return round(sum(recent) / len(recent), 1)

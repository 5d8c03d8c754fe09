"""The client's side of the books: what was answered, and what was in flight when a line broke.

A click is answered once its 200 has arrived whole. A request whose connection broke before that
may have been counted or not; nobody can know, so it widens the bounds. Everything else must be
in Postgres exactly: answered ≤ Postgres ≤ answered + in flight, by banner, and by minute too
where clocks and disks are in order.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from clickmill import wire

Clicks = Mapping[int, int]
"""Clicks of one request, by banner."""
Figures = dict[tuple[int, int], int]
"""Clicks by (banner, minute), the minute as Unix time // 60."""


class Sums(NamedTuple):
    """The end of a run in one line."""

    answered: int
    in_flight: int
    found: int

    @property
    def lost(self) -> int:
        return max(0, self.answered - self.found)

    @property
    def doubled(self) -> int:
        return max(0, self.found - self.answered - self.in_flight)

    def __str__(self) -> str:
        return (
            f"{self.answered} answered, {self.in_flight} in flight when a connection broke, "
            f"{self.found} in Postgres"
        )


class Ledger:
    """Filled by one loader; read when it has stopped."""

    def __init__(self) -> None:
        self.answered: Counter[int] = Counter()
        self.broken: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        """Answers by status, of those that were not 200: nothing may be counted for them."""
        self.unreachable = 0
        """Connections that could not be made."""
        self.times: list[tuple[float, int]] = []
        """When each answer came (monotonic seconds), and for how many clicks."""
        self.latencies: list[float] = []
        self._sure: Counter[tuple[int, int]] = Counter()
        self._either: Counter[tuple[int, int]] = Counter()

    def answer(self, clicks: Clicks, sent_at: float, took: float) -> None:
        """A 200 has come, for a request that went out at this Unix time."""
        minutes = _minutes(sent_at, took)
        for banner, n in clicks.items():
            self.answered[banner] += n
            for minute in minutes:
                (self._sure if len(minutes) == 1 else self._either)[banner, minute] += n
        self.times.append((time.monotonic(), sum(clicks.values())))
        self.latencies.append(took)

    def broke(self, clicks: Clicks, sent_at: float, took: float) -> None:
        """The connection broke, or nothing came in time."""
        for banner, n in clicks.items():
            self.broken[banner] += n
            for minute in _minutes(sent_at, took):
                self._either[banner, minute] += n

    def answered_before(self, moment: float) -> int:
        """Clicks whose answer had come by then (monotonic seconds)."""
        return sum(n for at, n in self.times if at <= moment)

    def sums(self, found: Figures) -> Sums:
        """All banners together."""
        return Sums(self.answered.total(), self.broken.total(), sum(found.values()))

    def wrong(self, found: Figures, *, by_minute: bool = True) -> list[str]:
        """A line for each banner, and each minute of one, that is out of bounds."""
        by_banner: Counter[int] = Counter()
        for (banner, _), n in found.items():
            by_banner[banner] += n
        lines = []
        for banner in sorted(self.answered.keys() | self.broken.keys() | by_banner.keys()):
            low, n = self.answered[banner], by_banner[banner]
            lines += _outside(f"banner {banner}", low, n, low + self.broken[banner])
        if by_minute:
            for key in sorted(self._sure.keys() | self._either.keys() | found.keys()):
                low, n = self._sure[key], found.get(key, 0)
                lines += _outside(f"(banner, minute) {key}", low, n, low + self._either[key])
        return lines


def _outside(what: str, low: int, n: int, high: int) -> list[str]:
    return [] if low <= n <= high else [f"{what}: {n} in Postgres, {low} to {high} clicked"]


def _minutes(sent_at: float, took: float) -> range:
    return range(wire.minute_of(sent_at), wire.minute_of(sent_at + took) + 1)

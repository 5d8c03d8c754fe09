"""The client's record of a run: which clicks were answered, and which may count or not.

A click is answered once its answer has arrived whole. A request that was sent and not answered,
because its connection broke, may have been counted or not, and the client cannot know. So for
each banner, and for each minute of it, the system is right while

    answered ≤ counted ≤ answered + in flight

The replay, the load scenario and the tests of the whole system all keep this one ledger.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from clickmill import wire

MAX_SHOWN = 20
Clicks = Mapping[int, int]
"""Clicks of one request, by banner."""
Counts = Counter[tuple[int, int]]
"""Clicks by (banner, minute), the minute as Unix time // 60."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True, eq=False)
class Request:
    """A request that was sent; `ended_at` once it is known that no answer will come."""

    clicks: Clicks
    sent_at: float
    ended_at: float | None = None


class Bounds(NamedTuple):
    """How often something was counted, and how often it may have been."""

    low: int
    high: int
    counted: int

    @property
    def hold(self) -> bool:
        """True when as much was counted as it should be."""
        return self.low <= self.counted <= self.high

    def __str__(self) -> str:
        room = f" to {self.high}" if self.high != self.low else ""
        return f"{self.low}{room} clicked, {self.counted} counted"


class Sums(NamedTuple):
    """The end of a run in one line."""

    answered: int
    in_flight: int
    found: int

    @property
    def lost(self) -> int:
        """Answered clicks that were not counted."""
        return max(0, self.answered - self.found)

    @property
    def doubled(self) -> int:
        """Counted clicks that were not sent."""
        return max(0, self.found - self.answered - self.in_flight)

    def __str__(self) -> str:
        return (
            f"{self.answered} answered, {self.in_flight} in flight when a connection broke, "
            f"{self.found} counted"
        )


class Ledger:
    """Filled by one loader; compared when it has stopped."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives Unix seconds."""
        self._clock = clock
        self.answered: Counter[int] = Counter()
        """Answered clicks by banner."""
        self.refused: Counter[int] = Counter()
        """Requests answered with an error, by status: nothing may be counted for them."""
        self._open: set[Request] = set()
        self._sure: Counts = Counter()
        self._either: Counts = Counter()

    @property
    def clicks(self) -> int:
        """All answered clicks."""
        return self.answered.total()

    @property
    def in_flight(self) -> Counter[int]:
        """Clicks that were sent and not answered, by banner."""
        total: Counter[int] = Counter()
        for request in self._open:
            total.update(request.clicks)
        return total

    def send(self, clicks: Clicks) -> Request:
        """A request goes out. It is in flight until one of the next three is called with it."""
        request = Request(clicks, self._clock())
        self._open.add(request)
        return request

    def answer(self, request: Request) -> None:
        """Its answer has come: all its clicks are counted."""
        self._open.remove(request)
        self.answered.update(request.clicks)
        minutes = self._minutes(request)
        counts = self._sure if len(minutes) == 1 else self._either
        counts.update(_by_minute(request, minutes))

    def refuse(self, request: Request, status: int) -> None:
        """It was answered with an error: nothing is counted."""
        self._open.remove(request)
        self.refused[status] += 1

    def lose(self, request: Request) -> None:
        """Its connection broke, or nothing came in time. It stays in flight."""
        request.ended_at = self._clock()

    def sums(self, counted: Counts) -> Sums:
        """All banners together."""
        return Sums(self.clicks, self.in_flight.total(), counted.total())

    def wrong(self, counted: Counts, *, by_minute: bool = True) -> list[str]:
        """A line for each banner, and each minute of one, that is out of bounds."""
        lines = compare("banner", self.answered, self.in_flight, by_banner(counted))
        if not by_minute:
            return lines
        return lines + compare("(banner, minute)", self._sure, self._may_be(), counted)

    def by_minute(self, counted: Counts) -> list[tuple[int, Bounds]]:
        """All banners together, minute by minute."""
        low, extra, found = map(_summed, (self._sure, self._may_be(), counted))
        return list(bounds(low, extra, found))

    def _may_be(self) -> Counts:
        """What may be in a minute beyond what is sure: sent before its edge, or never answered."""
        either = Counter(self._either)
        for request in self._open:
            either.update(_by_minute(request, self._minutes(request)))
        return either

    def _minutes(self, request: Request) -> range:
        """The minutes in which it may have been counted."""
        end = self._clock() if request.ended_at is None else request.ended_at
        return range(wire.minute_of(request.sent_at), wire.minute_of(end) + 1)


def bounds(
    low: Mapping[Key, int], extra: Mapping[Key, int], counted: Mapping[Key, int]
) -> Iterator[tuple[Key, Bounds]]:
    """Each key with low, low + extra, and what was counted, in order."""
    for key in sorted(low.keys() | extra.keys() | counted.keys()):  # type: ignore[type-var]
        n = low.get(key, 0)
        yield key, Bounds(n, n + extra.get(key, 0), counted.get(key, 0))


def compare(
    name: str, low: Mapping[Key, int], extra: Mapping[Key, int], counted: Mapping[Key, int]
) -> list[str]:
    """A line for each key that is out of bounds; `name` is what a key stands for."""
    return [f"{name} {key}: {b}" for key, b in bounds(low, extra, counted) if not b.hold]


def by_banner(counted: Counts) -> Counter[int]:
    """Clicks of each banner over all its minutes."""
    total: Counter[int] = Counter()
    for (banner, _), n in counted.items():
        total[banner] += n
    return total


def shown(lines: list[str]) -> str:
    """The first lines, and how many more there are."""
    more = [f"… and {len(lines) - MAX_SHOWN} more"] if len(lines) > MAX_SHOWN else []
    return "\n".join(f"  {line}" for line in [*lines[:MAX_SHOWN], *more])


def _summed(counts: Counts) -> Counter[int]:
    total: Counter[int] = Counter()
    for (_, minute), n in counts.items():
        total[minute] += n
    return total


def _by_minute(request: Request, minutes: range) -> Counts:
    return Counter({(b, minute): n for b, n in request.clicks.items() for minute in minutes})

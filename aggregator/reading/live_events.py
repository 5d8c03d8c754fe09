"""The arithmetic of the live events: from looks at the last minutes to one tick each second.

Pure: what was seen and the time come in as arguments. A stream sends one `snapshot` event, then
`tick` events.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Annotated, Final, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from aggregator.reading.queries import Recent
from aggregator.reading.timerange import MINUTE_S

# How far back clicks count as "now": a delta may be late by a minute edge and a retry.
LOOK_BACK_S: Final = 120
HISTORY_MINUTES: Final = 30
# Looks see the last minutes only: a delta that comes later than they reach is in the next reading.
REREAD_S: Final = 5
MAX_BANNERS_SHOWN: Final = 200
MAX_LOOKS: Final = 16


SMOOTH_S: Final = 3
"""Rates of banners are means over this many seconds, as those of all clicks together are."""


class Rates(Protocol):
    """Committed clicks per second, as the writing side knows them."""

    @property
    def total(self) -> int:
        """All clicks since the start."""

    def rate(self) -> float | None:
        """Clicks per second now; None while that is not known."""

    def history(self) -> list[tuple[int, float]]:
        """(Unix seconds, clicks per second) of the last minutes, without unknown seconds."""


class Pipeline(msgspec.Struct, frozen=True):
    """State of the pipeline: how far statistics are complete, and what holds them back."""

    completeThrough: datetime | None  # noqa: N815
    freshnessSeconds: float | None  # noqa: N815
    sources: int
    silentSources: int  # noqa: N815


class Tick(msgspec.Struct, frozen=True):
    """One second of GET /live. `clicks` came since the event before; rates are smoothed."""

    ts: datetime
    clicks: Annotated[int, Meta(ge=0)]
    clicksPerSecond: Annotated[float, Meta(ge=0)] | None  # noqa: N815
    banners: Annotated[dict[str, float], Meta(description="clicks per second by banner ID")]
    minutes: Annotated[
        list[tuple[int, int]], Meta(description="(Unix seconds, clicks) of the last minutes")
    ]
    pipeline: Pipeline


class Snapshot(msgspec.Struct, frozen=True):
    """The first event of a stream: what happened before it."""

    seconds: Annotated[
        list[tuple[int, float]],
        Meta(description="(Unix seconds, clicks per second); seconds not known are left out"),
    ]
    minutes: Annotated[
        list[tuple[int, int]] | None,
        Meta(description="(Unix seconds, clicks); null while Postgres can't be read"),
    ]
    pipeline: Pipeline


class _Look(NamedTuple):
    at: float
    recent: Recent


def increases(before: Recent, after: Recent) -> dict[int, int]:
    """Clicks by banner that came between two looks at the same minutes."""
    banners: dict[int, int] = {}
    for (banner_id, minute), clicks in after.banners.items():
        was = before.banners.get((banner_id, minute))
        if was is None and before.cut and minute in before.minutes:
            continue  # it had clicks then that were not listed: how many is not known
        more = clicks - (was or 0)
        if more > 0:
            banners[banner_id] = banners.get(banner_id, 0) + more
    return banners


class Activity:
    """What was seen lately: the source of every event."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._looks: deque[_Look] = deque(maxlen=MAX_LOOKS)
        self._sent = rates.total
        self._minutes: dict[int, int] = {}
        self._minutes_at = 0.0
        self._read_at = 0.0

    @property
    def clicks(self) -> int:
        """How many came since the last event that was sent."""
        return self._rates.total - self._sent

    def look(self, at: float, recent: Recent) -> None:
        """Takes in one look at Postgres, made at `at` (monotonic seconds)."""
        self._looks.append(_Look(at, recent))
        while len(self._looks) > 2 and self._looks[1].at <= at - SMOOTH_S:
            self._looks.popleft()

    def tick(self, now: float, pipeline: Pipeline) -> Tick:
        """The event of the last look; `now` is Unix time."""
        oldest, newest = self._looks[0], self._looks[-1]
        seconds = max(newest.at - oldest.at, 1.0)
        banners = increases(oldest.recent, newest.recent)
        busiest = sorted(banners.items(), key=lambda item: (-item[1], item[0]))
        self._add(now, newest.recent)
        return Tick(
            ts=datetime.fromtimestamp(now, UTC),
            clicks=self.clicks,
            clicksPerSecond=self._rates.rate(),
            banners={
                str(banner): round(clicks / seconds, 1)
                for banner, clicks in busiest[:MAX_BANNERS_SHOWN]
            },
            minutes=sorted(newest.recent.minutes.items()),
            pipeline=pipeline,
        )

    def _add(self, now: float, recent: Recent) -> None:
        if self._has_gap(now):
            return
        self._minutes.update(recent.minutes)
        oldest = now - (HISTORY_MINUTES + 1) * MINUTE_S
        self._minutes = {at: n for at, n in self._minutes.items() if at >= oldest}
        self._minutes_at = now

    def sent(self) -> None:
        """An event went out: the next one counts from here."""
        self._sent = self._rates.total

    def clear(self) -> None:
        """No listener for a while: what comes meanwhile is no "now" any more."""
        self._looks.clear()
        self.sent()

    def needs_minutes(self, now: float) -> bool:
        """Whether the history of minutes must be read again: it has a gap, or is old."""
        return self._has_gap(now) or now - self._read_at > REREAD_S

    def _has_gap(self, now: float) -> bool:
        return now - self._minutes_at > LOOK_BACK_S - MINUTE_S

    def set_minutes(self, minutes: dict[int, int], now: float) -> None:
        """Takes in the history of minutes as Postgres has it."""
        self._minutes = dict(minutes)
        self._minutes_at = self._read_at = now

    def snapshot(self, now: float, pipeline: Pipeline) -> Snapshot:
        """The first event of a new listener; `now` is Unix time."""
        minutes = None if self._has_gap(now) else sorted(self._minutes.items())
        return Snapshot(self._rates.history(), minutes, pipeline)

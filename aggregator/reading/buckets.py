"""Buckets: how a range is cut into steps.

Pure. A bucket is labelled by its natural start (the full hour, midnight of the zone), also
where the range begins in the middle of it; it holds the minutes of the range alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from aggregator.reading.timerange import MINUTE_S, Range
from clickmill.contract.problem import Problem, bad, quote

QUARTER_S: Final = 900
HOUR_S: Final = 3600
DAY_S: Final = 86_400
MAX_POINTS: Final = 11_000
# The length of a bucket in seconds; of a month, the longest.
STEPS: Final = {
    "1m": MINUTE_S, "5m": 300, "15m": 900, "1h": HOUR_S, "1d": DAY_S, "1w": 7 * DAY_S,
    "1mo": 31 * DAY_S,
}  # fmt: skip
# Steps that the calendar defines, with a number of days that leads from the first day of one
# bucket into the next. Weeks are those of ISO 8601: they begin on Monday.
_CALENDAR: Final = {"1d": 1, "1w": 7, "1mo": 32}
# Buckets longer than this hold whole UTC days in every time zone.
LONG_S: Final = 2 * DAY_S
UTC_ZONE: Final = ZoneInfo("UTC")
_NO_PLACE: Final = frozenset({"localtime", "Factory", "posixrules"})


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_PLACE


def parse_zone(text: str | None) -> ZoneInfo:
    """The time zone of that IANA name, UTC where none is given. Problem: invalid_tz."""
    if text is None:
        return UTC_ZONE
    if text not in _zones():
        raise bad(
            "invalid_tz",
            f"tz is {quote(text)}: it must be a time zone's name, such as Europe/Berlin or UTC",
        )
    return ZoneInfo(text)


def _offset(zone: ZoneInfo, seconds: int) -> int:
    offset = zone.utcoffset(datetime.fromtimestamp(seconds, UTC).astimezone(zone))
    assert offset is not None
    return offset.days * DAY_S + offset.seconds


def _midnight(zone: ZoneInfo, day: date) -> int:
    """Where that day begins in the zone, rounded up to the minute; in a gap: after the gap."""
    local = datetime(day.year, day.month, day.day, tzinfo=zone)
    return -(-int(local.timestamp()) // MINUTE_S) * MINUTE_S


def _local_day(zone: ZoneInfo, seconds: int) -> date:
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone).date()


def _first_day(step: str, day: date) -> date:
    """The first day of the day's bucket."""
    if step == "1mo":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if step == "1w" else day


def _calendar_starts(span: Range, step: str, zone: ZoneInfo) -> list[int]:
    day = _first_day(step, _local_day(zone, span.first) - timedelta(days=1))
    last = _local_day(zone, span.end) + timedelta(days=1)
    # A day that a zone skipped altogether (Apia 2011) begins where the next one does: once only.
    found = set()
    while day <= last:
        found.add(_midnight(zone, day))
        day = _first_day(step, day + timedelta(days=_CALENDAR[step]))
    starts = sorted(found)
    before = bisect_right(starts, span.first) - 1
    return [start for start in starts[before:] if start < span.end]


def _hour_starts(span: Range, zone: ZoneInfo) -> list[int]:
    """Full hours of the zone's clock; in most zones these are the full hours of UTC."""
    starts: list[int] = []
    at = span.first
    while at < span.end:
        start = at - (at + _offset(zone, at)) % HOUR_S
        # After a change by half an hour the clock's hour may begin before the last bucket's.
        starts.append(start if not starts else max(start, starts[-1] + MINUTE_S))
        ahead = start + HOUR_S
        at = max(ahead - (ahead + _offset(zone, ahead)) % HOUR_S, at + MINUTE_S)
    return starts


def _whole_hours(zone: ZoneInfo, span: Range) -> bool:
    """Whether the zone is whole hours away from UTC all through the range (asked by the day)."""
    if zone is UTC_ZONE:
        return True
    days = range(span.first, span.end + DAY_S, DAY_S)
    return all(_offset(zone, at) % HOUR_S == 0 for at in days)


def starts_of(span: Range, step: str, zone: ZoneInfo) -> list[int]:
    """Starts of all buckets that overlap the range, ascending; check `count` before calling."""
    if span.first >= span.end:
        return []
    if step in _CALENDAR and (step != "1d" or zone is not UTC_ZONE):
        return _calendar_starts(span, step, zone)
    if step == "1h" and not _whole_hours(zone, span):
        return _hour_starts(span, zone)
    size = STEPS[step]
    return list(range(span.first // size * size, span.end, size))


def start_of(moment: datetime, step: str, zone: ZoneInfo) -> int:
    """Start of the bucket that holds this moment."""
    return starts_of(Range(moment, moment + timedelta(seconds=1)), step, zone)[0]


def count(span: Range, step: str) -> int:
    """The most buckets that the range can have at this step (a zone can add one)."""
    if span.first >= span.end:
        return 0
    if step in _CALENDAR:
        first, last = (_local_day(UTC_ZONE, at) for at in (span.first, span.end - MINUTE_S))
        return _calendar_count(step, _first_day(step, first), _first_day(step, last))
    size = STEPS[step]
    return -(-span.end // size) - span.first // size


def _calendar_count(step: str, first: date, last: date) -> int:
    if step == "1mo":
        return 12 * (last.year - first.year) + last.month - first.month + 1
    return (last - first).days // _CALENDAR[step] + 1


def size_of(starts: Sequence[int], step: str) -> int | None:
    """The size in seconds by whose multiples the buckets begin; None where they don't."""
    size = STEPS[step]
    irregular = step in ("1w", "1mo") or any(start % size for start in starts)
    return None if irregular else size


def check_points(span: Range, step: str, banners: int = 1) -> None:
    """Problem (too_many_points), with the smallest step that fits, if there are too many."""
    if count(span, step) * banners > MAX_POINTS:
        raise _too_many(span, step, banners)


def _too_many(span: Range, step: str, banners: int) -> Problem:
    fits = [name for name in STEPS if count(span, name) * banners <= MAX_POINTS]
    fewer = "a shorter range" if banners == 1 else "a shorter range or fewer banners"
    advice = f"use step={fits[0]} or {fewer}" if fits else f"no step fits, ask for {fewer}"
    points = count(span, step) * banners
    return bad(
        "too_many_points",
        f"that would be {points:,} points, and one answer holds {MAX_POINTS:,}: {advice}",
    )

"""Ranges of time: parsing them, and the minutes that they take in.

Pure: the moment "now" is handed in. All moments are aware datetimes in UTC or integer Unix
seconds; a range is half-open, [since, until), and takes in every minute that overlaps it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from clickmill.contract.problem import Problem, bad, quote

MINUTE_S: Final = 60
DEFAULT_SPAN: Final = timedelta(hours=1)
# Zones with odd offsets, and arithmetic near the ends of the calendar, need this margin.
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9998, 1, 1, tzinfo=UTC)

# The hour is checked here: from Python 3.14 on 24:00 is a time for `datetime`, not for RFC 3339.
# "+" arrives as a space where it was not written %2B in a query: people type it as it stands.
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]((?:[01][0-9]|2[0-3]):[0-9]{2}):([0-9]{2})(\.[0-9]{1,9})?"
    r"([Zz]|[+\- ][0-9]{2}:[0-9]{2})"
)
_UNIX: Final = re.compile(r"-?[0-9]{1,15}")
_LEAP_SECOND: Final = "60"


class Range(NamedTuple):
    """[since, until) in UTC, as it was asked for; may be empty, never reversed."""

    since: datetime
    until: datetime

    @property
    def first(self) -> int:
        """Start of the first minute in the range, Unix seconds."""
        return int(self.since.timestamp()) // MINUTE_S * MINUTE_S

    @property
    def end(self) -> int:
        """End of the last minute in the range (exclusive), Unix seconds."""
        if self.until == self.since:
            return self.first
        whole = int(self.until.timestamp()) + (1 if self.until.microsecond else 0)
        return -(-whole // MINUTE_S) * MINUTE_S


def _invalid(name: str, text: str) -> Problem:
    return bad(
        "invalid_range",
        f"{name} is {quote(text)}: it must be a time with a zone, such as "
        "2024-12-10T12:56:00Z or 2024-12-10T15:56:00+03:00, or whole Unix seconds, "
        f"from {EARLIEST.year} to {LATEST.year - 1}",
    )


def _from_rfc3339(match: re.Match[str]) -> datetime:
    day, clock, seconds, fraction, zone = match.groups()
    leap = seconds == _LEAP_SECOND
    text = f"{day}T{clock}:{'59' if leap else seconds}{(fraction or '')[:7]}"
    offset = "+00:00" if zone in "Zz" else zone.replace(" ", "+")
    moment = datetime.fromisoformat(text + offset).astimezone(UTC)
    return moment + timedelta(seconds=1) if leap else moment


def parse_time(name: str, text: str) -> datetime:
    """The moment, in UTC, that `text` stands for: RFC 3339 with a zone, or Unix seconds.

    Raises Problem (invalid_range) with the parameter's name in the sentence.
    """
    match = _RFC3339.fullmatch(text)
    try:
        if match:
            moment = _from_rfc3339(match)
        elif _UNIX.fullmatch(text):
            moment = datetime.fromtimestamp(int(text), UTC)
        else:
            raise ValueError(text)
    except (ValueError, OverflowError, OSError):
        raise _invalid(name, text) from None
    if not EARLIEST <= moment < LATEST:
        raise _invalid(name, text)
    return moment


def parse_range(
    ts_from: str | None, ts_to: str | None, now: datetime, or_empty: bool = False
) -> Range:
    """The range of a request; a bound that is missing is made from the other one and `now`.

    Neither: the last hour. Only tsFrom: until now. Only tsTo: the hour before it.
    Raises Problem (invalid_range) where a bound is no time, or the range is reversed; with
    `or_empty` it is empty then, at tsFrom.
    """
    until = parse_time("tsTo", ts_to) if ts_to is not None else now
    if ts_from is not None:
        since = parse_time("tsFrom", ts_from)
    else:
        since = max(until - DEFAULT_SPAN, EARLIEST)
    if since > until and or_empty:
        until = since
    if since > until:
        to = "tsTo" if ts_to is not None else "now, where no tsTo is given"
        raise bad("invalid_range", f"tsFrom is after {to}: swap them, or give a later tsTo")
    return Range(since, until)


def iso(seconds: int) -> str:
    """A whole Unix second as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

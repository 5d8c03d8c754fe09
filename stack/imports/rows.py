"""Reads CSV, NDJSON and access logs, line by line: which banner was clicked, when, how often."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from stack.errors import StackError
from stack.imports import accesslog

MAX_COUNT: Final = 10_000_000
"""Clicks of one row at most."""
NAMES: Final = {
    "bannerid": "banner", "banner_id": "banner", "banner": "banner",
    "ts": "time", "time": "time", "timestamp": "time", "minute": "time",
    "count": "count", "counts": "count", "clicks": "count", "v": "count",
}  # fmt: skip
"""Names of columns and fields, in lower case; `clickmill export` and the statistics have some."""
COUNTED: Final = (200, 302)
PATTERN: Final = r"^/(?:counter|click|pixel)/(\d+)(?:\.gif)?(?:\?|$)"
"""The targets of Clickmill's own clicks."""


class Row(NamedTuple):
    """Clicks of a banner at a time, in Unix seconds; where they stand, as a line number from 1."""

    line: int
    banner: int
    at: int
    clicks: int


class RowError(StackError):
    """A line that can't be read."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}. Nothing was imported.")


Reader = Callable[[Iterable[bytes]], Iterator[Row | None]]
"""From lines to rows; None for a line without a click."""


def reader_of(path: Path, kind: str, pattern: str) -> Reader:
    """How to read this file; `kind` is csv, ndjson, log, or auto: by its first line."""
    if kind == "auto":
        with accesslog.open_log(path) as lines:
            kind = _kind_of(next(iter(lines), b""))
    if kind == "log":
        return lambda lines: log_rows(lines, re.compile(pattern or PATTERN))
    return csv_rows if kind == "csv" else ndjson_rows


def _kind_of(first: bytes) -> str:
    if first.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
        return "ndjson"
    return "log" if accesslog.parse_line(first.rstrip()) else "csv"


def csv_rows(lines: Iterable[bytes]) -> Iterator[Row | None]:
    """Rows of a CSV file, whose first line names its columns. Raises RowError."""
    reader = csv.reader(line.decode("utf-8-sig" if not n else "utf-8", "replace")
                        for n, line in enumerate(lines))  # fmt: skip
    places = _columns(next(reader, []))
    for cells in reader:
        if not cells or cells[0].startswith("#"):  # the last line of an export
            yield None
            continue
        if len(cells) <= max(places.values()):
            raise RowError(reader.line_num, f"{len(cells)} columns where the first line names more")
        given = {name: cells[place] for name, place in places.items()}
        yield _row(reader.line_num, given)


def _columns(names: list[str]) -> dict[str, int]:
    places = {NAMES.get(name.strip().lower(), ""): place for place, name in enumerate(names)}
    places.pop("", None)
    if missing := {"banner", "time"} - places.keys():
        wanted = " and ".join("bannerID" if name == "banner" else "ts" for name in sorted(missing))
        raise RowError(1, f"no column {wanted}: the first line must name bannerID, ts, count")
    return places


def ndjson_rows(lines: Iterable[bytes]) -> Iterator[Row | None]:
    """Rows of a file with a JSON object in each line. Raises RowError."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for number, line in enumerate(lines, 1):
        if not line.strip():
            yield None
            continue
        try:
            found = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RowError(number, f"no JSON object ({error})") from None
        if found.get("complete") is True:  # the last line of an export
            yield None
            continue
        given = {
            NAMES[name.lower()]: value for name, value in found.items() if name.lower() in NAMES
        }
        yield _row(number, given)


def log_rows(lines: Iterable[bytes], pattern: re.Pattern[str]) -> Iterator[Row | None]:
    """A click for each line of an access log that was one; the pattern's group is the banner."""
    for number, line in enumerate(lines, 1):
        found = accesslog.parse_line(line.rstrip(b"\r\n"))
        match = pattern.search(found.target) if found is not None and found.is_click else None
        if found is None or match is None or found.status not in COUNTED:
            yield None
        else:
            yield Row(number, int(match[1]), int(found.time), 1)


@lru_cache(maxsize=1)  # neighbours often share a time
def _seconds(text: str) -> int:
    """A time as Unix seconds. Raises ValueError where it is none."""
    if text.isascii() and text.isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return int(moment.timestamp())


def _row(line: int, given: dict[str, Any]) -> Row:
    try:
        at = _seconds(str(given.get("time")).strip())
    except ValueError:
        raise RowError(
            line, f"ts is {given.get('time')!r}: RFC 3339 with a zone, or Unix seconds"
        ) from None
    banner, count = (_integer(given.get(name, 1)) for name in ("banner", "count"))
    if banner is None or "banner" not in given:
        raise RowError(line, f"bannerID is {given.get('banner')!r}: a whole number is needed")
    if count is None or count > MAX_COUNT:
        raise RowError(line, f"count is {given.get('count')!r}: 0 to {MAX_COUNT:,} are taken")
    return Row(line, banner, at, count)


def _integer(value: object) -> int | None:
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

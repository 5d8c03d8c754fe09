"""The shapes of an answer: JSON for programs, CSV for sheets, NDJSON for streams.

Pure. The structs are also what the OpenAPI document is made from.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from aggregator.reading.timerange import iso

JSON: Final = "application/json"
CSV: Final = "text/csv; charset=utf-8"
NDJSON: Final = "application/x-ndjson"
FORMATS: Final = ("json", "csv", "ndjson")
COMPLETE_HEADER: Final = "Clickmill-Complete-Through"

# What a spreadsheet would run as a formula, were it the first character of a cell.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

_COMPLETE = "every click answered before this moment is in the figures; null: not known yet"
Complete = Annotated[datetime | None, Meta(description=_COMPLETE)]
Clicks = Annotated[int, Meta(ge=0, description="clicks")]


class CompleteBut(msgspec.Struct, frozen=True):
    """What holds for all nodes but the silent ones; only there while one is silent."""

    completeThrough: Complete  # noqa: N815
    silentNodes: Annotated[list[str], Meta(description="their names")]  # noqa: N815


But = CompleteBut | msgspec.UnsetType


class Point(msgspec.Struct, frozen=True):
    """Clicks of one bucket: its start and its value."""

    ts: datetime
    v: Clicks


class _Span(msgspec.Struct, frozen=True, kw_only=True):
    tsFrom: datetime  # noqa: N815
    tsTo: datetime  # noqa: N815
    Counts: Annotated[int, Meta(ge=0, description="sum of all clicks in the range")]


class BannerSeries(msgspec.Struct, frozen=True, kw_only=True):
    """One banner of several."""

    bannerID: Annotated[int, Meta(ge=0)]  # noqa: N815
    Counts: Clicks
    stats: list[Point]


class OneBanner(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of one banner over a range."""

    bannerID: Annotated[int, Meta(ge=0)]  # noqa: N815
    tsFrom: datetime  # noqa: N815
    tsTo: datetime  # noqa: N815
    Counts: Annotated[int, Meta(ge=0, description="sum of all clicks in the range")]
    stats: list[Point]
    completeThrough: Complete  # noqa: N815
    completeBut: But = msgspec.UNSET  # noqa: N815


class ManyBanners(_Span, frozen=True, kw_only=True):
    """Statistics of several banners over a range."""

    banners: list[BannerSeries]
    completeThrough: Complete  # noqa: N815
    completeBut: But = msgspec.UNSET  # noqa: N815


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A banner in a top list."""

    bannerID: Annotated[int, Meta(ge=0)]  # noqa: N815
    name: str | None
    Counts: Clicks


class TopList(_Span, frozen=True, kw_only=True):
    """The banners with most clicks in a range; Counts is of all banners, not of these alone."""

    top: list[Ranked]
    completeThrough: Complete  # noqa: N815
    completeBut: But = msgspec.UNSET  # noqa: N815


class Answer(NamedTuple):
    """An answer as bytes, whoever carries it: HTTP or NATS."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = {}
    rest: AsyncIterator[bytes] | None = None
    """What follows the body, where the answer is a stream."""


def points(series: Iterable[tuple[int, int]]) -> list[Point]:
    """Points of (Unix seconds, clicks) pairs."""
    return [Point(datetime.fromtimestamp(at, UTC), v) for at, v in series]


def fill_zero(series: Sequence[tuple[int, int]], starts: Iterable[int]) -> list[tuple[int, int]]:
    """The series with a value for each bucket, 0 where there was none."""
    known = dict(series)
    return [(start, known.get(start, 0)) for start in starts]


def render(answer: OneBanner | ManyBanners) -> Answer:
    """The answer as JSON."""
    return Answer(200, JSON, msgspec.json.encode(answer))


def render_top(answer: TopList, form: str) -> Answer:
    """The top list in one of FORMATS."""
    if form == "json":
        return Answer(200, JSON, msgspec.json.encode(answer))
    fields = ("bannerID", "name", "Counts")
    rows = [(entry.bannerID, entry.name, entry.Counts) for entry in answer.top]
    headers = headers_of(form, "top", answer.completeThrough)
    if form == "ndjson":
        lines = [dict(zip(fields, row, strict=True)) for row in rows]
        return Answer(200, NDJSON, msgspec.json.Encoder().encode_lines(lines), headers)
    return Answer(200, CSV, _csv(fields, rows), headers)


def headers_of(form: str, name: str, complete: datetime | None) -> dict[str, str]:
    """Of CSV and NDJSON; `name` is the file name of a CSV, without its ending."""
    headers = {}
    if complete is not None:
        headers[COMPLETE_HEADER] = complete.isoformat().replace("+00:00", "Z")
    if form == "csv":
        headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return headers


# --- tables of clicks, which may be of any size ---------------------------------------------------

CONTENT_TYPES: Final = {"csv": CSV, "ndjson": NDJSON}
MAX_LINE_BYTES: Final = 128


def head(form: str) -> bytes:
    """What comes before the lines."""
    return b"ts,bannerID,v\r\n" if form == "csv" else b""


def lines(form: str, rows: Sequence[tuple[int, int, int]]) -> bytes:
    """Lines of (banner ID, Unix seconds, clicks)."""
    texts = {at: iso(at) for at in {row[1] for row in rows}}
    if form == "csv":
        table = [f"{texts[at]},{banner},{v}\r\n" for banner, at, v in rows]
    else:
        table = [f'{{"ts":"{texts[at]}","bannerID":{banner},"v":{v}}}\n' for banner, at, v in rows]
    return "".join(table).encode()


def last_line(form: str, until: int, rows: int, clicks: int) -> bytes:
    """It says that the table is whole, how many lines it has, and the sum of their clicks."""
    if form == "csv":
        return f"# complete until {iso(until)},{rows},{clicks}\r\n".encode()
    last = {"complete": True, "tsTo": iso(until), "rows": rows, "Counts": clicks}
    return msgspec.json.encode(last) + b"\n"


def _csv(fields: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(fields)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue().encode()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value

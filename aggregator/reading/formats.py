"""The shapes of an answer: JSON for programs, CSV for sheets, NDJSON for streams.

Pure. The structs are also what the OpenAPI document is made from.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, NamedTuple, TypedDict

import msgspec
from msgspec import Meta

from aggregator.reading.timerange import iso

JSON: Final = "application/json"
CSV: Final = "text/csv; charset=utf-8"
NDJSON: Final = "application/x-ndjson"
FORMATS: Final = ("json", "csv", "ndjson")
COMPLETE_HEADER: Final = "Clickmill-Complete-Through"

# What a spreadsheet would run as a formula, were it the first character of a cell. Some take the
# full-width forms for the same characters, and skip what can't be seen before them.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_UNSEEN: Final = " \u00a0\u200b\u200c\u200d\u2060\u3000\ufeff"

_COMPLETE = "every click answered before this moment is in the statistics; null: not known yet"
Complete = Annotated[datetime | None, Meta(description=_COMPLETE)]
Clicks = Annotated[int, Meta(ge=0, description="clicks")]


class CompleteBut(msgspec.Struct, frozen=True):
    """What holds for all nodes but the silent ones; only there while one is silent."""

    completeThrough: Complete  # noqa: N815
    silentNodes: Annotated[list[str], Meta(description="their names")]  # noqa: N815


But = CompleteBut | msgspec.UnsetType


_RAW = "clicks as they were counted, with include=raw"
_CORRECTION = "sum of the corrections, with include=raw"
Raw = Annotated[int, Meta(ge=0, description=_RAW)] | msgspec.UnsetType
Correction = Annotated[int, Meta(description=_CORRECTION)] | msgspec.UnsetType


class Point(msgspec.Struct, frozen=True):
    """Clicks of one bucket: its start and its value."""

    ts: datetime
    v: Clicks
    raw: Raw = msgspec.UNSET
    correction: Correction = msgspec.UNSET


class _Span(msgspec.Struct, frozen=True, kw_only=True):
    tsFrom: datetime  # noqa: N815
    tsTo: datetime  # noqa: N815
    Counts: Annotated[int, Meta(ge=0, description="sum of all clicks in the range")]
    raw: Raw = msgspec.UNSET
    correction: Correction = msgspec.UNSET


class BannerSeries(msgspec.Struct, frozen=True, kw_only=True):
    """One banner of several."""

    bannerID: Annotated[int, Meta(ge=0)]  # noqa: N815
    Counts: Clicks
    raw: Raw = msgspec.UNSET
    correction: Correction = msgspec.UNSET
    stats: list[Point]


class OneBanner(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of one banner over a range."""

    bannerID: Annotated[int, Meta(ge=0)]  # noqa: N815
    tsFrom: datetime  # noqa: N815
    tsTo: datetime  # noqa: N815
    Counts: Annotated[int, Meta(ge=0, description="sum of all clicks in the range")]
    raw: Raw = msgspec.UNSET
    correction: Correction = msgspec.UNSET
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
    raw: Raw = msgspec.UNSET
    correction: Correction = msgspec.UNSET


class TopList(_Span, frozen=True, kw_only=True):
    """The banners with most clicks in a range; Counts is of all banners, not of these alone."""

    top: list[Ranked]
    completeThrough: Complete  # noqa: N815
    completeBut: But = msgspec.UNSET  # noqa: N815


class Parts(TypedDict, total=False):
    """What the clicks of an answer come to, with include=raw."""

    raw: int
    correction: int


class Answer(NamedTuple):
    """An answer as bytes, for HTTP and for NATS."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = {}
    rest: AsyncIterator[bytes] | None = None
    """What follows the body, where the answer is a stream."""


def parts(clicks: int, correction: int, raw: bool) -> Parts:
    """The fields `raw` and `correction`, if they are wanted."""
    return {"raw": clicks - correction, "correction": correction} if raw else {}


def points(series: Iterable[tuple[int, int, int]], raw: bool) -> list[Point]:
    """Points of (Unix seconds, clicks, correction)."""
    return [
        Point(datetime.fromtimestamp(at, UTC), v, **parts(v, fixed, raw)) for at, v, fixed in series
    ]


def fill_zero(
    series: Iterable[tuple[int, int, int]], starts: Iterable[int]
) -> list[tuple[int, int, int]]:
    """The series with a value for each bucket, 0 where there was none."""
    known = {value[0]: value for value in series}
    return [known.get(start, (start, 0, 0)) for start in starts]


def render(answer: OneBanner | ManyBanners) -> Answer:
    """The answer as JSON."""
    return Answer(200, JSON, msgspec.json.encode(answer))


def render_top(answer: TopList, form: str) -> Answer:
    """The top list in one of FORMATS."""
    if form == "json":
        return Answer(200, JSON, msgspec.json.encode(answer))
    headers = headers_of(form, "top", answer.completeThrough)
    if form == "ndjson":
        return Answer(200, NDJSON, msgspec.json.Encoder().encode_lines(answer.top), headers)
    raw = answer.raw is not msgspec.UNSET
    fields = ("bannerID", "name", "Counts", *(("raw", "correction") if raw else ()))
    rows = [[getattr(entry, field) for field in fields] for entry in answer.top]
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
MAX_LINE_BYTES: Final = 192


def head(form: str, raw: bool) -> bytes:
    """What comes before the lines."""
    if form == "ndjson":
        return b""
    return b"ts,bannerID,v,raw,correction\r\n" if raw else b"ts,bannerID,v\r\n"


def lines(form: str, rows: Sequence[tuple[int, int, int, int]], raw: bool) -> bytes:
    """Lines of (banner ID, Unix seconds, clicks, correction)."""
    texts = {at: iso(at) for at in {row[1] for row in rows}}
    if form == "csv" and raw:
        table = [f"{texts[at]},{b},{v},{v - fixed},{fixed}\r\n" for b, at, v, fixed in rows]
    elif form == "csv":
        table = [f"{texts[at]},{banner},{v}\r\n" for banner, at, v, _ in rows]
    else:
        more = ',"raw":%d,"correction":%d' if raw else ""
        table = [
            f'{{"ts":"{texts[at]}","bannerID":{banner},"v":{v}'
            f"{more and more % (v - fixed, fixed)}}}\n"
            for banner, at, v, fixed in rows
        ]
    return "".join(table).encode()


def last_line(form: str, until: int, rows: int, clicks: int, raw: bool) -> bytes:
    """It says that the table is whole, how many lines it has, and the sum of their clicks."""
    if form == "csv":
        return f"# complete until {iso(until)},{rows},{clicks}{',,' if raw else ''}\r\n".encode()
    last = {"complete": True, "tsTo": iso(until), "rows": rows, "Counts": clicks}
    return msgspec.json.encode(last) + b"\n"


def _csv(fields: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(fields)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue().encode()


def _is_formula(text: str) -> bool:
    return unicodedata.normalize("NFKC", text.lstrip(_UNSEEN)[:1]).startswith(_FORMULA)


def _cell(value: object) -> object:
    if isinstance(value, str) and _is_formula(value):
        return "'" + value
    return "" if value is None else value

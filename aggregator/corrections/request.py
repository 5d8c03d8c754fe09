"""What POST /corrections asks for, and what it and GET /corrections answer. Pure.

A correction names banners, a range, a reason and an author. It adds a number of clicks to each
minute (negative: takes them away), or voids the range, or takes another correction back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from aggregator.reading.banners import fault_of
from aggregator.reading.timerange import MINUTE_S, Range, iso, parse_range
from clickmill.contract.params import banner_id, no_field
from clickmill.contract.problem import bad

MAX_BANNERS: Final = 1_000
MAX_TEXT_CHARS: Final = 1_000
MAX_PER_MINUTE: Final = 1_000_000_000
# A correction is one short transaction.
MAX_MINUTES: Final = 100_000

Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARS)]
Moment = str | int


class CorrectionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /corrections: one of clicksPerMinute, void and takesBack."""

    author: Text
    reason: Text
    bannerID: int | list[int] | None = None  # noqa: N815
    tsFrom: Moment | None = None  # noqa: N815
    tsTo: Moment | None = None  # noqa: N815
    clicksPerMinute: int | None = None  # noqa: N815
    void: bool = False
    takesBack: int | None = None  # noqa: N815


class Correction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A correction as it is kept. `clicks`: what it changes the sum of all its minutes by."""

    id: int
    madeAt: datetime  # noqa: N815
    author: str
    reason: str
    bannerID: list[int]  # noqa: N815
    tsFrom: datetime  # noqa: N815
    tsTo: datetime  # noqa: N815
    clicks: int
    clicksPerMinute: int | None = None  # noqa: N815
    void: bool = False
    takesBack: int | None = None  # noqa: N815
    takenBackBy: int | None = None  # noqa: N815


class CorrectionList(msgspec.Struct, frozen=True):
    """A page of the corrections. `next`: ask again with after=next for the following page."""

    corrections: list[Correction]
    next: int | None


_DECODER: Final = msgspec.json.Decoder(CorrectionRequest)
_FIELD_NAMES: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KNOWN: Final = CorrectionRequest.__struct_fields__
_EXAMPLE: Final = (
    '{"bannerID": 17, "tsFrom": "2024-12-10T12:00:00Z", "tsTo": "2024-12-10T13:00:00Z", '
    '"void": true, "reason": "a robot", "author": "jo"}'
)


def parse(body: bytes) -> CorrectionRequest:
    """The request. Problem: invalid_body, invalid_author and so on."""
    try:
        for name in _FIELD_NAMES.decode(body).keys() - set(_KNOWN):
            raise bad("invalid_body", f"{no_field(name, _KNOWN)} Nothing was stored")
        request = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise bad("invalid_body", f"{error}: the body must be such as {_EXAMPLE}") from None
    if fault := fault_of(request.author, MAX_TEXT_CHARS):
        raise bad("invalid_author", f"the author {fault}")
    if fault := fault_of(request.reason, MAX_TEXT_CHARS):
        raise bad("invalid_reason", f"the reason {fault}")
    given = (request.clicksPerMinute is not None, request.void, request.takesBack is not None)
    if sum(given) != 1:
        raise bad("invalid_body", "give one of clicksPerMinute, void (true) and takesBack")
    where = (request.bannerID, request.tsFrom, request.tsTo)
    if request.takesBack is None and None in where:
        raise bad("invalid_body", "bannerID, tsFrom and tsTo say what is to be corrected: give all")
    if request.takesBack is not None and where != (None, None, None):
        raise bad("invalid_body", "takesBack takes back a whole correction: leave the rest out")
    per_minute = request.clicksPerMinute
    if per_minute is not None and not 0 < abs(per_minute) <= MAX_PER_MINUTE:
        raise bad(
            "invalid_clicks",
            f"clicksPerMinute is {per_minute}: it must be from -{MAX_PER_MINUTE:,} to "
            f"{MAX_PER_MINUTE:,}, and not 0",
        )
    return request


def banners_of(request: CorrectionRequest, maximum: int) -> list[int]:
    """The banners, ascending. Problem: invalid_banner_id, unknown_banner, too_many_banners."""
    given = request.bannerID if isinstance(request.bannerID, list) else [request.bannerID]
    if not 0 < len(given) <= MAX_BANNERS:
        raise bad("too_many_banners", f"bannerID must name 1 to {MAX_BANNERS:,} banners")
    return sorted({banner_id(str(one), maximum) for one in given})


def range_of(request: CorrectionRequest, banners: Sequence[int], now: datetime) -> Range:
    """Whole minutes of the past. Problem: invalid_range, too_many_points."""
    asked = parse_range(str(request.tsFrom), str(request.tsTo), now)
    first, end = asked.first, asked.end
    if first == end or end > now.timestamp() + MINUTE_S:
        raise bad("invalid_range", "the range must hold at least a minute, and none of the future")
    if (end - first) // MINUTE_S * len(banners) > MAX_MINUTES:
        raise bad(
            "too_many_points",
            f"that is {(end - first) // MINUTE_S:,} minutes of {len(banners):,} banners: one "
            f"correction holds {MAX_MINUTES:,} of both multiplied, so make several",
        )
    return Range(datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(end, UTC))


def check_complete(span: Range, complete: datetime | None) -> None:
    """Problem (not_complete) where clicks of the range can still come: they would not be void."""
    if complete is None or complete < span.until:
        known = "is not known" if complete is None else f"is {iso(int(complete.timestamp()))}"
        raise bad(
            "not_complete",
            f"clicks before {iso(span.end)} can still arrive, and would not be void "
            f"(completeThrough {known}): try again later, or see `clickmill sources` if it does "
            "not move",
        )

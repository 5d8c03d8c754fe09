"""Reads the body of `POST /clicks`: JSON or msgpack, all of it right, or the place that is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, TypeVar

import msgspec

from clickmill.contract import params
from clickmill.contract.params import MAX_BATCH_ITEMS, MAX_CLICKS_PER_ITEM
from clickmill.contract.problem import Problem, bad, quote

MAX_ID: Final = 2**53
"""Above any banner ID, within what JSON numbers hold exactly: larger ones are no IDs at all."""


class Click(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One item: so many clicks on a banner."""

    bannerID: Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]  # noqa: N815  # the contract's name
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_CLICKS_PER_ITEM)] = 1


class TimedClick(Click, gc=False, forbid_unknown_fields=True):
    """An item of a batch with an Idempotency-Key; `ts` is RFC 3339, or Unix seconds."""

    ts: Annotated[datetime, msgspec.Meta(tz=True)] | int | None = None


_JSON: Final = "application/json"
_MSGPACK: Final = "application/msgpack"
_plain: Final = {
    _JSON: msgspec.json.Decoder(list[Click]).decode,
    _MSGPACK: msgspec.msgpack.Decoder(list[Click]).decode,
}
_timed: Final = {
    _JSON: msgspec.json.Decoder(list[TimedClick]).decode,
    _MSGPACK: msgspec.msgpack.Decoder(list[TimedClick]).decode,
}
_Item = TypeVar("_Item", bound=Click)
_PLACE: Final = re.compile(r"`\$\[(\d+)\]")
_UNKNOWN: Final = re.compile(r".* unknown field `(.*)` - at `\$\[(\d+)\]`", re.DOTALL)


def decode(body: bytes, content_type: str) -> list[Click]:
    """The items of a batch. Raises Problem 400 that names the first bad item's index, and why."""
    return _read(_plain[_kind(content_type)], body, Click)


def decode_timed(body: bytes, content_type: str) -> list[TimedClick]:
    """The items of a batch with an Idempotency-Key, as `decode`."""
    return _read(_timed[_kind(content_type)], body, TimedClick)


def _kind(content_type: str) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    if kind in (_JSON, _MSGPACK):
        return kind
    # Not what any web page may send without a preflight: text/plain, or no type.
    raise Problem(
        415, "unsupported_media_type",
        f"the content type is {quote(kind)}: send application/json or application/msgpack",
    )  # fmt: skip


def _read(read: Callable[[bytes], list[_Item]], body: bytes, item: type[_Item]) -> list[_Item]:
    try:
        items = read(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(str(error), item.__struct_fields__) from None
    if len(items) > MAX_BATCH_ITEMS:
        raise _bad(f"{len(items)} items where at most {MAX_BATCH_ITEMS} are taken: send several")
    return items


def too_many_clicks(clicks: int, most: int) -> Problem:
    """The 400 of a batch whose counts add up to more than a request may."""
    return bad(
        "too_many_clicks",
        f"the batch has {clicks:,} clicks and may have {most:,} (CLICKMILL_BATCH_MAX_CLICKS): send "
        "several; nothing of it was counted",
    )


def _bad(reason: str, fields: tuple[str, ...] = ()) -> Problem:
    if unknown := _UNKNOWN.fullmatch(reason):
        where = f"item {unknown[2]}: "
        reason = params.no_field(unknown[1], fields)
        if unknown[1] == "ts":
            reason = "ts is only taken in a request with an Idempotency-Key"
    else:
        place = _PLACE.search(reason)
        where = f"item {place[1]}: " if place else ""
    return Problem(
        400, "invalid_batch",
        f'{where}{reason[:200]}; the body is an array of {{"bannerID": int, "count": int}}, '
        "and nothing of it was counted",
    )  # fmt: skip

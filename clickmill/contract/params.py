"""The parameters of a request: from the query string or a JSON body, each with all its values.

Pure. Everything that can be wrong with them as text (encoding, given twice, unknown, empty) is
an error here, so that the modules behind see one plain value for each name. The rules are the
same for query and body.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from clickmill.contract.problem import Problem, bad, quote

MAX_FIELDS: Final = 1_100
MAX_BODY_BYTES: Final = 64 * 1024
"""A statistics request with a longer body is a 413, on both ports."""
HEADERS_BUFFER_BYTES: Final = 32 * 1024
"""hyper's buffer for the request line and headers, on both ports: 32 KiB are always accepted, more
than 64 KiB never. It refuses with 431 when a read has filled the buffer, and the last read may
bring as much again. Granian's default accepts 420,000 bytes."""
MAX_VALUE_CHARS: Final = 200
MAX_ID_DIGITS: Final = 20
MAX_BATCH_ITEMS: Final = 10_000
MAX_CLICKS_PER_ITEM: Final = 1_000_000
"""The most of one item of a batch."""

Params = Mapping[str, list[str]]

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXTS: Final = msgspec.json.Decoder(dict[str, str | None])
_BODY: Final = msgspec.json.Decoder(dict[str, str | int])


def from_query(query: bytes) -> dict[str, list[str]]:
    """All values of each name of a raw query string. Raises Problem (invalid_query)."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except (UnicodeError, ValueError):
        raise bad(
            "invalid_query",
            f"the query can't be read: it must be UTF-8, percent-encoded, at most {MAX_FIELDS} "
            "parameters",
        ) from None
    return _gather(pairs)


def from_body(body: bytes) -> dict[str, list[str]]:
    """The parameters of a JSON body; none for an empty one.

    A member that is given twice keeps both values, so that `single` finds it: JSON readers keep
    the last one in silence. Raises Problem (invalid_body).
    """
    if not body.strip():
        return {}
    try:
        _BODY.decode(body)
        pairs = json.loads(body, object_pairs_hook=list)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise bad(
            "invalid_body",
            'the body must be a JSON object such as {"tsFrom": "2024-12-10T12:56:00Z", '
            '"tsTo": "2024-12-10T12:57:59Z"}, with texts or whole numbers as values',
        ) from None
    return _gather((name, str(value)) for name, value in pairs)


def _gather(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    params: dict[str, list[str]] = {}
    for name, value in pairs:
        params.setdefault(name, []).append(value)
    return params


def merge(query: Params, body: Params) -> dict[str, list[str]]:
    """Both together: a name that is in both is given twice, which `single` refuses."""
    merged = {name: list(values) for name, values in query.items()}
    for name, values in body.items():
        merged.setdefault(name, []).extend(values)
    return merged


def check_names(params: Params, allowed: Collection[str]) -> None:
    """Raises Problem (unknown_parameter) for a name that isn't one of `allowed`."""
    for name in params:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            meant = f"did you mean {nearest(name, allowed)}? " if allowed else ""
            raise bad(
                "unknown_parameter",
                f"there is no parameter {quote(name)} here: {meant}known: {known}",
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like this one, in whichever case it is written."""
    plain = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower()[:MAX_VALUE_CHARS], plain, n=1, cutoff=0)
    return plain[found[0]]


def texts(body: bytes, known: Collection[str], example: str) -> dict[str, str | None]:
    """The fields of a JSON object whose values are texts or null. Raises Problem (invalid_body)."""
    try:
        names, fields = _OBJECT.decode(body), {}
        if names.keys() <= set(known):
            fields = _TEXTS.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        sentence = f"the body must be a JSON object such as {example}, with texts as values"
        raise bad("invalid_body", sentence) from None
    for name in names.keys() - set(known):
        raise bad("invalid_body", f"{no_field(name, known)} The body is such as {example}")
    return fields


def no_field(name: str, known: Iterable[str]) -> str:
    """The sentence, without its end, about a field of a JSON object that is none of `known`."""
    return f"there is no field {quote(name)}: did you mean {nearest(name, known)}?"


def single(params: Params, name: str, code: str) -> str | None:
    """The one value of a parameter, or None. Raises Problem: given twice, empty, overlong."""
    values = params.get(name)
    if not values:
        return None
    if len(values) > 1:
        raise bad(code, f"{name} is given {len(values)} times: give it once")
    if not values[0] or len(values[0]) > MAX_VALUE_CHARS:
        raise bad(code, f"{name} is empty or overlong: give a value or leave it out")
    return values[0]


def choice(params: Params, name: str, code: str, allowed: Collection[str]) -> str | None:
    """`single`, where only some words are allowed."""
    value = single(params, name, code)
    if value is not None and value not in allowed:
        words = ", ".join(allowed)
        raise bad(code, f"{name} is {quote(value)}: it must be one of {words}")
    return value


def whole(params: Params, name: str, code: str, low: int, high: int, default: int) -> int:
    """A whole number from low to high; `default` where it is not given."""
    text = single(params, name, code)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise bad(code, f"{name} is {quote(text)}: it must be a whole number, {low} to {high}")
    return int(text)


def banner_id(text: str, maximum: int) -> int:
    """A banner ID from its decimal text.

    Raises Problem: invalid_banner_id (400), unknown_banner (404).
    """
    if not (text.isascii() and text.isdigit()):
        raise bad(
            "invalid_banner_id",
            f"the banner ID is {quote(text)}: it must be a whole number, 0 to {maximum}",
        )
    digits = text.lstrip("0") or "0"  # int() takes some thousand digits at most
    if len(digits) > MAX_ID_DIGITS or int(digits) > maximum:
        raise unknown_banner(text, maximum)
    return int(digits)


def unknown_banner(text: str, maximum: int, status: int = 404, where: str = "") -> Problem:
    """The error of an ID over the maximum; `where` begins the sentence (an item of a batch)."""
    return Problem(
        status,
        "unknown_banner",
        f"{where}there is no banner {quote(text)}: IDs go from 0 to {maximum} "
        "(CLICKMILL_MAX_BANNER_ID)",
    )

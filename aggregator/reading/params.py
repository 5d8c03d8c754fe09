"""The parameters of a request: from the query string or a JSON body, each with all its values.

Pure. Everything that can be wrong with them as text (encoding, doubled, unknown, empty) is
refused here, so that the modules behind see one plain value for each name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from aggregator.reading.errors import NOT_FOUND, RefusedError, bad, quote

MAX_FIELDS: Final = 1_100
MAX_VALUE_CHARS: Final = 200
MAX_ID_DIGITS: Final = 20

Params = Mapping[str, list[str]]

_BODY: Final = msgspec.json.Decoder(dict[str, str | int])


def from_query(query: bytes) -> dict[str, list[str]]:
    """All values of each name of a raw query string. Raises RefusedError (invalid_query)."""
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
    params: dict[str, list[str]] = {}
    for name, value in pairs:
        params.setdefault(name, []).append(value)
    return params


def from_body(body: bytes) -> dict[str, list[str]]:
    """The parameters of a JSON body; none for an empty one. Raises RefusedError (invalid_body)."""
    if not body.strip():
        return {}
    try:
        fields = _BODY.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise bad(
            "invalid_body",
            'the body must be a JSON object such as {"tsFrom": "2024-12-10T12:56:00Z", '
            '"tsTo": "2024-12-10T12:57:59Z"}, with texts or whole numbers as values',
        ) from None
    return {name: [str(value)] for name, value in fields.items()}


def merge(query: Params, body: Params) -> dict[str, list[str]]:
    """Both together: a name that is in both is doubled, and refused as such later."""
    merged = {name: list(values) for name, values in query.items()}
    for name, values in body.items():
        merged.setdefault(name, []).extend(values)
    return merged


def require_body_range(body: Params) -> None:
    """Raises RefusedError (invalid_range) unless a body form has both bounds."""
    for name in ("tsFrom", "tsTo"):
        if name not in body:
            raise bad("invalid_range", f"{name} is missing: the body needs both tsFrom and tsTo")


def check_names(params: Params, allowed: Collection[str]) -> None:
    """Raises RefusedError (unknown_parameter) for a name that isn't one of `allowed`."""
    for name in params:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise bad(
                "unknown_parameter", f"there is no parameter {quote(name)} here; known: {known}"
            )


def single(params: Params, name: str, code: str) -> str | None:
    """The one value of a parameter, or None. Refuses (with `code`) doubled, empty, overlong."""
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
    """A banner ID from its decimal text. Refuses: invalid_banner_id (400), unknown_banner (404)."""
    if not (text.isascii() and text.isdigit()):
        raise bad(
            "invalid_banner_id",
            f"the banner ID is {quote(text)}: it must be a whole number, 0 to {maximum}",
        )
    digits = text.lstrip("0") or "0"  # int() takes some thousand digits at most
    if len(digits) > MAX_ID_DIGITS or int(digits) > maximum:
        raise RefusedError(
            NOT_FOUND,
            "unknown_banner",
            f"there is no banner {quote(text)}: IDs go from 0 to {maximum}",
        )
    return int(digits)

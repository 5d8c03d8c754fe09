"""The register of banners: names for people, targets for redirects.

A target is where `/click/{id}` sends people, so nothing may come in that a browser would run
(`javascript:`), that hides where it leads (credentials), or that could break out of a header
(line ends): it is checked here, before it is stored, and a worker uses what is stored as it is.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import quote as percent_encode
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from aggregator.reading.queries import Reader
from clickmill.contract.params import texts
from clickmill.contract.problem import Problem, bad, quote

MAX_NAME_CHARS: Final = 200
MAX_TARGET_CHARS: Final = 2_000
MAX_LISTED: Final = 1_000
# One reply of NATS holds at most 1 MiB.
MAX_TARGETS_BYTES: Final = 900_000

# What RFC 3986 lets stand in a URI, "%" only before two hexadecimal digits.
_URI: Final = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_HOST: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
# Control characters, and those that turn the direction of the text around them.
_UNSEEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Name = Annotated[str, Meta(description="name for people", min_length=1, max_length=MAX_NAME_CHARS)]
Target = Annotated[
    str,
    Meta(
        description="where /click/{id} leads: http or https, with a host, without credentials",
        max_length=MAX_TARGET_CHARS,
    ),
]

log = logging.getLogger("clickmill.register")


class Banner(msgspec.Struct, frozen=True):
    """A banner as it is registered."""

    id: Annotated[int, Meta(ge=0)]
    name: str | None
    target_url: str | None


class BannerList(msgspec.Struct, frozen=True):
    """A page of the register. `next`: ask again with after=next for the following page."""

    banners: list[Banner]
    next: int | None


class BannerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What PUT stores; it replaces the whole entry. At least one of both must be given."""

    name: Name | None = None
    target_url: Target | None = None


_FIELDS: Final = BannerEntry.__struct_fields__
_EXAMPLE: Final = '{"name": "Spring sale", "target_url": "https://example.org/"}'
_NOTHING: Final = "the body must have a name or a target_url: use DELETE to remove"


def parse_entry(body: bytes) -> BannerEntry:
    """The entry of a PUT's body. Problem: invalid_body, invalid_name, invalid_target."""
    given = parse_change(body)
    if set(given.values()) == {None}:
        raise bad("invalid_body", _NOTHING)
    return BannerEntry(**given)


def parse_change(body: bytes) -> dict[str, str | None]:
    """The fields in a PATCH's body, one or more; None removes. Problem: as `parse_entry`."""
    fields = texts(body, _FIELDS, _EXAMPLE)
    if not fields:
        raise bad("invalid_body", _NOTHING)
    checks = {"name": check_name, "target_url": check_target}
    return {field: None if text is None else checks[field](text) for field, text in fields.items()}


def check_name(name: str) -> str:
    """The name, if it may be stored. Problem: invalid_name."""
    if fault := fault_of(name, MAX_NAME_CHARS):
        raise bad("invalid_name", f"the name {fault}")
    return name


def fault_of(text: str, most: int) -> str:
    """Why a text of at most so many characters may not be stored; empty: it may."""
    if not text.strip() or len(text) > most:
        return f"has {len(text)} characters: it must have 1 to {most}, not only spaces"
    if any(unicodedata.category(char) in _UNSEEN or char in _TURNING for char in text):
        return "has control characters: leave them out"
    return ""


def check_target(url: str) -> str:
    """The target, if people may be sent there. Problem: invalid_target."""
    if len(url) > MAX_TARGET_CHARS:
        raise _bad_target(f"has {len(url)} characters", f"at most {MAX_TARGET_CHARS} go")
    if not url:
        raise _bad_target("is empty", "give an address, or leave it out")
    if not _URI.fullmatch(url):
        raise _not_ascii(url)
    if not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise _bad_target(f"is {quote(url)}", "it must begin with http:// or https:// and a host")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if "@" in url.split("/", 3)[2].partition("?")[0]:
        raise _bad_target("has credentials", "leave out what is before the @")
    if not _is_host(host) or port == 0:
        raise _bad_target(f"is {quote(url)}", "it must have a valid host, and a valid port if any")
    return url


def _not_ascii(url: str) -> Problem:
    """Names the first character that a URL can't have, and what to write instead."""
    valid = _URI.match(url)
    at = valid.end() if valid else 0
    char = url[at]
    shown = f"{char!r} (U+{ord(char):04X})" if char.isprintable() else f"U+{ord(char):04X}"
    is_in_host = url.count("/", 0, at) == 2
    encoded = percent_encode(char, safe="", errors="replace")
    advice = "write the host as xn--…" if is_in_host else f"write {encoded}"
    return _bad_target(f"has {shown} at character {at + 1}", advice)


def _is_host(host: str) -> bool:
    if ":" not in host:
        return bool(_HOST.fullmatch(host)) and ".." not in host
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _bad_target(what: str, advice: str) -> Problem:
    return bad("invalid_target", f"target_url {what}: {advice}")


class Register:
    """The register in Postgres. Raises Problem where an answer can't be given."""

    def __init__(
        self, reader: Reader, changed: Callable[[int, str | None], Awaitable[None]]
    ) -> None:
        self._reader = reader
        self._changed = changed

    async def get(self, banner_id: int) -> Banner:
        """One entry. Problem: unknown_banner (404)."""
        sql = "SELECT id, name, target_url FROM banner WHERE id = %(id)s"
        rows = await self._reader.fetch(sql, {"id": banner_id})
        if not rows:
            raise _unregistered(banner_id)
        return Banner(*rows[0])

    async def page(self, after: int, limit: int) -> BannerList:
        """Entries with IDs over `after` (-1: from the beginning), at most `limit`."""
        sql = (
            "SELECT id, name, target_url FROM banner WHERE id > %(after)s"
            " ORDER BY id LIMIT %(limit)s"
        )
        rows = await self._reader.fetch(sql, {"after": after, "limit": limit + 1})
        banners = [Banner(*row) for row in rows[:limit]]
        return BannerList(banners, banners[-1].id if len(rows) > limit else None)

    async def put(self, banner_id: int, entry: BannerEntry) -> Banner:
        """Stores the entry in place of whatever was there, and tells the workers."""
        sql = (
            "INSERT INTO banner (id, name, target_url) VALUES (%(id)s, %(name)s, %(target)s)"
            " ON CONFLICT (id) DO UPDATE"
            " SET name = excluded.name, target_url = excluded.target_url"
        )
        values = {"id": banner_id, "name": entry.name, "target": entry.target_url}
        await self._reader.fetch(sql, values)
        await self._tell(banner_id, entry.target_url)
        return Banner(banner_id, entry.name, entry.target_url)

    async def patch(self, banner_id: int, change: Mapping[str, str | None]) -> Banner:
        """Changes these fields of an entry, and tells the workers. Problem: unknown_banner (404),
        invalid_body where nothing would be left."""
        sql = (
            "WITH wanted AS (SELECT id,"
            " CASE WHEN %(sets_name)s THEN %(name)s::text ELSE name END AS name,"
            " CASE WHEN %(sets_target)s THEN %(target)s::text ELSE target_url END AS target_url"
            " FROM banner WHERE id = %(id)s FOR UPDATE), changed AS (UPDATE banner"
            " SET name = wanted.name, target_url = wanted.target_url FROM wanted"
            " WHERE banner.id = wanted.id AND coalesce(wanted.name, wanted.target_url) IS NOT NULL)"
            " SELECT id, name, target_url FROM wanted"
        )
        values: dict[str, object] = {"id": banner_id}
        for field, key in (("name", "name"), ("target_url", "target")):
            values |= {key: change.get(field), f"sets_{key}": field in change}
        rows = await self._reader.fetch(sql, values)
        if not rows:
            raise _unregistered(banner_id)
        banner = Banner(*rows[0])
        if banner.name is None and banner.target_url is None:
            raise bad("invalid_body", _NOTHING)
        await self._tell(banner_id, banner.target_url)
        return banner

    async def delete(self, banner_id: int) -> None:
        """Removes the entry (its clicks stay). Problem: unknown_banner (404)."""
        sql = "DELETE FROM banner WHERE id = %(id)s RETURNING id"
        if not await self._reader.fetch(sql, {"id": banner_id}):
            raise _unregistered(banner_id)
        await self._tell(banner_id, None)

    async def _tell(self, banner_id: int, target: str | None) -> None:
        """The change is stored: workers that miss the news fetch the register by themselves."""
        try:
            await self._changed(banner_id, target)
        except Exception as error:
            log.warning("workers were not told of banner %d's target yet: %r", banner_id, error)

    async def targets(self, after: int = -1) -> tuple[bytes, int | None]:
        """The reply of `clickmill.banners`: JSON {"<id>": "<target>"} of IDs over `after`.

        Second: the last ID of this page where it could not take all; ask on with it as `after`.
        """
        sql = (
            "SELECT id, target_url FROM (SELECT id, target_url, sum(length(target_url) + 16)"
            " OVER (ORDER BY id) AS bytes FROM banner WHERE target_url IS NOT NULL"
            " AND id > %(after)s) AS page WHERE bytes <= %(bytes)s ORDER BY id"
        )
        rows = await self._reader.fetch(sql, {"after": after, "bytes": MAX_TARGETS_BYTES})
        more: int | None = None
        if rows:
            sql = "SELECT 1 FROM banner WHERE target_url IS NOT NULL AND id > %(last)s LIMIT 1"
            more = rows[-1][0] if await self._reader.fetch(sql, {"last": rows[-1][0]}) else None
        return msgspec.json.encode({str(row[0]): row[1] for row in rows}), more


def _unregistered(banner_id: int) -> Problem:
    return Problem(
        HTTPStatus.NOT_FOUND,
        "unknown_banner",
        f"banner {banner_id} is not registered: PUT /banners/{banner_id} registers it",
    )

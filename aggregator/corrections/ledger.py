"""The ledger of corrections in Postgres: rows are added and never changed.

A correction is one transaction: its clicks by minute, the check that no minute falls below zero,
and its own row. One is made at a time, so that two can't both void the same clicks.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from aggregator.corrections import request as requests
from aggregator.corrections.request import Correction, CorrectionList, CorrectionRequest
from aggregator.postgres.connection import LOCK_CLASS, LOCK_CORRECTIONS
from aggregator.reading.cover import Cover
from aggregator.reading.kept import Kept, Question
from aggregator.reading.pieces import Params, of_banners, union
from aggregator.reading.queries import Reader
from aggregator.reading.timerange import Range, iso
from clickmill.contract.problem import Problem, bad

_BEGIN: Final = """
SELECT pg_advisory_xact_lock(%s, %s), nextval(pg_get_serial_sequence('correction', 'id'))
"""
_PER_MINUTE: Final = """
INSERT INTO correction_minute (banner_id, minute, correction_id, clicks)
SELECT banner, minute, %(number)s, %(clicks)s FROM unnest(%(banners)s::int[]) AS banner,
    generate_series(%(first)s::timestamptz, %(last)s::timestamptz, '1 minute') AS minute
"""
_VOID: Final[LiteralString] = """
INSERT INTO correction_minute (banner_id, minute, correction_id, clicks)
SELECT banner_id, date_trunc('minute', t), %(number)s, -sum(clicks) FROM ({rows}) AS piece
GROUP BY 1, 2 HAVING sum(clicks) <> 0
"""
_OPPOSITE: Final = """
INSERT INTO correction_minute (banner_id, minute, correction_id, clicks)
SELECT banner_id, minute, %(number)s, -clicks FROM correction_minute
WHERE correction_id = %(takes_back)s
"""
_NEGATIVE: Final[LiteralString] = """
SELECT banner_id, extract(epoch FROM date_trunc('minute', t))::bigint, sum(clicks)::bigint
FROM ({rows}) AS piece GROUP BY 1, 2 HAVING sum(clicks) < 0 ORDER BY 2, 1 LIMIT 1
"""
_ADD: Final = """
INSERT INTO correction
    (id, author, reason, kind, banners, ts_from, ts_to, per_minute, takes_back, clicks)
SELECT %(number)s, %(author)s, %(reason)s, %(kind)s, %(banners)s::int[], %(first)s, %(end)s,
    %(clicks)s, %(takes_back)s, coalesce(sum(clicks), 0)
FROM correction_minute WHERE correction_id = %(number)s
"""
_SELECT: Final[LiteralString] = """
SELECT c.id, c.made_at, c.author, c.reason, c.banners, c.ts_from, c.ts_to, c.clicks, c.per_minute,
    c.kind, c.takes_back, (SELECT b.id FROM correction AS b WHERE b.takes_back = c.id)
FROM correction AS c WHERE {which} ORDER BY c.id LIMIT %(limit)s
"""
_ONE: Final = _SELECT.replace("{which}", "c.id = %(number)s")
_PAGE: Final = _SELECT.replace(
    "{which}", "c.id > %(after)s AND (%(banner)s::int IS NULL OR %(banner)s = ANY (c.banners))"
)


class _New(NamedTuple):
    """A correction that is to be made."""

    kind: str
    banners: list[int]
    span: Range
    clicks: int | None = None
    takes_back: int | None = None


class Ledger:
    """All corrections. Raises Problem where one can't be made."""

    def __init__(
        self,
        reader: Reader,
        complete_through: Callable[[], datetime | None],
        max_banner_id: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reader, self._complete_through = reader, complete_through
        self._max_banner_id, self._now = max_banner_id, now

    async def page(self, after: int, limit: int, banner: int | None) -> CorrectionList:
        """Corrections with IDs over `after`, ascending, at most `limit`; of one banner, or all."""
        values = {"after": after, "limit": limit + 1, "banner": banner}
        rows = await self._reader.fetch(_PAGE, values)
        found = [_correction(row) for row in rows[:limit]]
        return CorrectionList(found, found[-1].id if len(rows) > limit else None)

    async def add(self, request: CorrectionRequest) -> Correction:
        """Make a correction."""
        new = await self._new(request)
        kept = await self._reader.kept()
        if new.kind != "taken_back":
            Question(new.span, "1m").check_kept(kept)
        return await self._reader.change(partial(_make, request, new, kept))

    async def _new(self, request: CorrectionRequest) -> _New:
        if request.takesBack is not None:
            return await self._opposite(request.takesBack)
        banners = requests.banners_of(request, self._max_banner_id)
        span = requests.range_of(request, banners, self._now())
        if not request.void:
            return _New("clicks", banners, span, clicks=request.clicksPerMinute)
        requests.check_complete(span, self._complete_through())
        return _New("void", banners, span)

    async def _opposite(self, number: int) -> _New:
        rows = await self._reader.fetch(_ONE, {"number": number, "limit": 1})
        if not rows:
            sentence = f"there is no correction {number}: GET /corrections lists them"
            raise Problem(HTTPStatus.NOT_FOUND, "unknown_correction", sentence)
        found = _correction(rows[0])
        if found.takenBackBy is not None:
            raise bad(
                "already_taken_back",
                f"correction {number} was taken back by {found.takenBackBy}: take that one back "
                "to have it again",
            )
        span = Range(found.tsFrom, found.tsTo)
        return _New("taken_back", found.bannerID, span, takes_back=number)


async def _make(
    request: CorrectionRequest, new: _New, kept: Kept, connection: AsyncConnection[TupleRow]
) -> Correction:
    lock = [LOCK_CLASS, LOCK_CORRECTIONS]
    row = await (await connection.execute(_BEGIN, lock)).fetchone()
    assert row is not None
    values = _values(request, new, row[1])
    await connection.execute(*_statement(new, values))
    if kept.has((new.span.first, new.span.end)):
        await _check_negative(connection, new)
    await connection.execute(_ADD, values)
    cursor = await connection.execute(_ONE, {"number": row[1], "limit": 1})
    stored = await cursor.fetchone()
    assert stored is not None
    return _correction(stored)


def _values(request: CorrectionRequest, new: _New, number: int) -> Params:
    return {
        "number": number, "author": request.author, "reason": request.reason, "kind": new.kind,
        "banners": new.banners, "first": new.span.since, "end": new.span.until,
        "last": datetime.fromtimestamp(new.span.end - 60, UTC), "clicks": new.clicks,
        "takes_back": new.takes_back,
    }  # fmt: skip


def _statement(new: _New, values: Params) -> tuple[LiteralString, Params]:
    if new.kind == "clicks":
        return _PER_MINUTE, values
    if new.kind == "taken_back":
        return _OPPOSITE, values
    params: Params = {"number": values["number"]}
    return _VOID.replace("{rows}", _net(new, params)), params


def _net(new: _New, params: Params) -> LiteralString:
    """The clicks of its banners and range by minute, with all corrections so far."""
    minutes = Cover([], [], [], [(new.span.first, new.span.end)])
    return union(minutes, params, of_banners(new.banners))


async def _check_negative(connection: AsyncConnection[TupleRow], new: _New) -> None:
    params: Params = {}
    sql = _NEGATIVE.replace("{rows}", _net(new, params))
    row = await (await connection.execute(sql, params)).fetchone()
    if row is not None:
        banner, minute, clicks = row
        raise bad(
            "negative_clicks",
            f"banner {banner} would have {clicks} clicks at {iso(minute)}: take away fewer, or "
            "take later corrections of it back first",
        )


def _correction(row: tuple[Any, ...]) -> Correction:
    return Correction(
        id=row[0], madeAt=row[1], author=row[2], reason=row[3], bannerID=row[4], tsFrom=row[5],
        tsTo=row[6], clicks=row[7], clicksPerMinute=row[8], void=row[9] == "void",
        takesBack=row[10], takenBackBy=row[11],
    )  # fmt: skip

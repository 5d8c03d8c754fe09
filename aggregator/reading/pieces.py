"""The pieces of a range as SQL: which tables the rows of an answer are read from.

Everything that reads clicks is built on `union`, so that one place knows how the tables hold them.
What is rolled up moves on while answers are read, so how far it reaches is read in the same
snapshot as the rows (`in_snapshot`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from aggregator.reading.cover import Cover, Marks, Piece, within

# Past this many pieces of one table they are joined as a list instead of one branch for each.
MAX_BRANCHES: Final = 3

Params = dict[str, object]

CORRECTIONS: Final[LiteralString] = "correction_minute"

# Without buckets and banners that are empty, or that corrections have emptied: with `raw`, only if
# nothing was there to correct.
NOT_EMPTY: Final = "HAVING sum(clicks) <> 0 OR %(raw)s AND bool_or(correction <> 0)"

# Makes the statement and its values, given the pieces of the tables in use.
Ask = Callable[[Cover], tuple[LiteralString, Params]]

# (table, its column of time, prefix of its parameters), as in a cover; then what all of the rollups
# lack, and what all of the range is corrected by.
_TABLES: Final[tuple[tuple[LiteralString, LiteralString, LiteralString], ...]] = (
    ("rollup_day", "day", "day"),
    ("rollup_hour", "hour", "hour"),
    ("rollup_quarter", "quarter", "quarter"),
    ("banner_minute", "minute", "minute"),
    ("rollup_late", "minute", "late"),
    (CORRECTIONS, "minute", "correction"),
)

_BEGIN: Final = """
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT extract(epoch FROM quarter_from)::bigint, extract(epoch FROM quarter)::bigint,
       extract(epoch FROM hour)::bigint, extract(epoch FROM day)::bigint FROM rollup_mark
"""
# Before a first aggregator has made the row, nothing is rolled up.
_NO_MARKS: Final = Marks(0, 0, 0, 0)


class Whose(NamedTuple):
    """The banners that are asked for, as a condition."""

    sql: LiteralString
    params: Params


EVERYBODY: Final = Whose("TRUE", {})


def of_banners(ids: Sequence[int]) -> Whose:
    """The banners with these IDs."""
    if len(ids) == 1:
        return Whose("banner_id = %(id)s", {"id": ids[0]})
    return Whose("banner_id = ANY(%(ids)s)", {"ids": list(ids)})


def of_banners_between(first: int, end: int) -> Whose:
    """The banners with IDs from `first` to `end`, exclusive."""
    sql: LiteralString = "banner_id >= %(first)s AND banner_id < %(end)s"
    return Whose(sql, {"first": first, "end": end})


def moment(seconds: int) -> datetime:
    """Unix seconds as the parameter of a statement."""
    return datetime.fromtimestamp(seconds, UTC)


async def fetch(
    connection: AsyncConnection[TupleRow], sql: LiteralString, params: Mapping[str, object]
) -> list[TupleRow]:
    """All rows of one statement."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(sql, params)
    return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def snapshot(connection: AsyncConnection[TupleRow], cover: Cover) -> AsyncIterator[Cover]:
    """One snapshot for what is read in the block; the pieces by what is rolled up in it."""
    cursor = await connection.execute(_BEGIN)
    cursor.nextset()
    row = await cursor.fetchone()
    yield within(cover, Marks(*row) if row is not None else _NO_MARKS)
    await connection.execute("COMMIT")


async def in_snapshot(
    connection: AsyncConnection[TupleRow], cover: Cover, ask: Ask
) -> list[TupleRow]:
    """The rows of one statement for these pieces, in one snapshot with the marks of the rollups."""
    async with snapshot(connection, cover) as pieces:
        return await fetch(connection, *ask(pieces))


def union(cover: Cover, params: Params, whose: Whose, whole: Cover | None = None) -> LiteralString:
    """SQL that gives (banner_id, t, clicks, correction) of all pieces; adds its values to `params`.

    Clicks are net: their sum has the corrections in it, and `correction` says how many these are.
    `whole`: the pieces whose late clicks and corrections are in it, where these are others.
    """
    whole = whole or cover
    params.update(whose.params)
    branches: list[LiteralString] = []
    for (table, column, prefix), pieces in zip(
        _TABLES, [*cover, whole.rollups, whole.everything], strict=True
    ):
        if pieces:
            branches += _branches(table, column, prefix, pieces, params, whose.sql)
    return " UNION ALL ".join(branches)


def _branches(
    table: LiteralString,
    column: LiteralString,
    prefix: LiteralString,
    pieces: list[Piece],
    params: Params,
    whose: LiteralString,
) -> list[LiteralString]:
    correction: LiteralString = "clicks" if table == CORRECTIONS else "0"
    select: LiteralString = (
        f"SELECT banner_id, {column} AS t, clicks, {correction} AS correction FROM {table}"
    )
    if len(pieces) > MAX_BRANCHES:
        params[f"{prefix}_from"] = [moment(left) for left, _ in pieces]
        params[f"{prefix}_to"] = [moment(right) for _, right in pieces]
        params[f"{prefix}_first"] = moment(pieces[0][0])
        params[f"{prefix}_end"] = moment(pieces[-1][1])
        parts: LiteralString = (
            f"unnest(%({prefix}_from)s::timestamptz[], %({prefix}_to)s::timestamptz[])"
        )
        # OFFSET keeps Postgres from joining all rows of a banner with all parts: each part is one
        # range of an index. By the first and the end partitions are pruned before they are locked.
        joined: LiteralString = (
            f"SELECT piece.* FROM {parts} AS part (since, until) CROSS JOIN LATERAL ("
            f"{select} WHERE {whose} AND {column} >= since AND {column} < until"
            f" AND {column} >= %({prefix}_first)s AND {column} < %({prefix}_end)s OFFSET 0"
            ") AS piece"
        )
        return [joined]
    branches: list[LiteralString] = []
    for n, (left, right) in enumerate(pieces):
        key: LiteralString = f"{prefix}_{_DIGITS[n]}"
        params[f"{key}_from"], params[f"{key}_to"] = moment(left), moment(right)
        branches.append(
            f"{select} WHERE {whose} AND {column} >= %({key}_from)s AND {column} < %({key}_to)s"
        )
    return branches


_DIGITS: Final[tuple[LiteralString, ...]] = ("0", "1", "2")
assert len(_DIGITS) == MAX_BRANCHES

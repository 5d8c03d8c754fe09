"""The pieces of a range as SQL: which tables the rows of an answer are read from.

Pure: text and parameters. Everything that reads clicks is built on `union`, so that one place
knows how the tables hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, LiteralString, NamedTuple

from aggregator.reading.buckets import Cover, Piece

# Past this many pieces of one table they are joined as a list instead of one branch for each.
MAX_BRANCHES: Final = 3

Params = dict[str, object]

_TABLES: Final[tuple[tuple[LiteralString, LiteralString], ...]] = (
    ("banner_day", "day"),
    ("banner_hour", "hour"),
    ("banner_minute", "minute"),
)


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


def union(cover: Cover, params: Params, whose: Whose) -> LiteralString:
    """SQL that gives (banner_id, t, clicks) of all pieces; adds its values to `params`."""
    params.update(whose.params)
    branches: list[LiteralString] = []
    for (table, column), pieces in zip(_TABLES, cover, strict=True):
        if pieces:
            branches += _branches(table, column, pieces, params, whose.sql)
    return " UNION ALL ".join(branches)


def _branches(
    table: LiteralString,
    column: LiteralString,
    pieces: list[Piece],
    params: Params,
    whose: LiteralString,
) -> list[LiteralString]:
    select: LiteralString = f"SELECT banner_id, {column} AS t, clicks FROM {table}"
    if len(pieces) > MAX_BRANCHES:
        params[f"{column}_from"] = [moment(left) for left, _ in pieces]
        params[f"{column}_to"] = [moment(right) for _, right in pieces]
        params[f"{column}_first"] = moment(pieces[0][0])
        params[f"{column}_end"] = moment(pieces[-1][1])
        parts: LiteralString = (
            f"unnest(%({column}_from)s::timestamptz[], %({column}_to)s::timestamptz[])"
        )
        joined: LiteralString = (
            f"{select} JOIN {parts} AS part (since, until)"
            f" ON {column} >= since AND {column} < until"
            f" WHERE {whose} AND {column} >= %({column}_first)s AND {column} < %({column}_end)s"
        )
        return [joined]
    branches: list[LiteralString] = []
    for n, (left, right) in enumerate(pieces):
        key: LiteralString = f"{column}_{_DIGITS[n]}"
        params[f"{key}_from"], params[f"{key}_to"] = moment(left), moment(right)
        branches.append(
            f"{select} WHERE {whose} AND {column} >= %({key}_from)s AND {column} < %({key}_to)s"
        )
    return branches


_DIGITS: Final[tuple[LiteralString, ...]] = ("0", "1", "2")
assert len(_DIGITS) == MAX_BRANCHES

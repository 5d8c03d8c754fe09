"""The banners with most clicks in a range, without summing the clicks of all banners.

Why: a month of a million banners is 30 million rows of days. Of each unit that is rolled up there
is a list of its busiest banners, and how many clicks any other banner has at most (`rollup_top`).
So for each banner there is a bound on its clicks in the range. The banners with the highest bounds
are summed exactly; if no other banner can have as many clicks as the last of those that are asked
for, these are the answer. Otherwise everything is summed. This is a threshold algorithm: R. Fagin,
A. Lotem, M. Naor, Optimal aggregation algorithms for middleware, PODS 2001.

Late clicks, corrections and what has no list are summed for every banner, so they are exact in each
bound. An answer never depends on the lists; only its time does.
"""

from __future__ import annotations

from typing import Final, LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from aggregator.reading.buckets import DAY_S, HOUR_S, QUARTER_S
from aggregator.reading.cover import Cover, Piece, without
from aggregator.reading.pieces import (
    EVERYBODY,
    NOT_EMPTY,
    Ask,
    Params,
    Whose,
    fetch,
    moment,
    of_banners,
    snapshot,
    union,
)

CANDIDATES: Final = 1_000
"""The most banners that are summed one by one, besides those that are asked for."""

_SIZES: Final[tuple[tuple[LiteralString, int], ...]] = (
    ("day", DAY_S), ("hour", HOUR_S), ("quarter", QUARTER_S),
)  # fmt: skip
# OFFSET: each span is one range of the key, whatever Postgres knows of the table.
_LISTS: Final[LiteralString] = """
    unnest(%(units)s::text[], %(firsts)s::timestamptz[], %(ends)s::timestamptz[])
        AS span (of_unit, first, until)
    CROSS JOIN LATERAL (
        SELECT * FROM rollup_top
        WHERE unit = of_unit AND start >= first AND start < until AND banners IS NOT NULL OFFSET 0
    ) AS list"""
_FIND: Final[LiteralString] = (
    f"SELECT unit, extract(epoch FROM start)::bigint, total, below FROM {_LISTS}"
)


class Total(NamedTuple):
    """A banner's clicks in a range, with its name from the register, if it has one."""

    banner_id: int
    name: str | None
    clicks: int
    correction: int


Both = tuple[int, int]
"""Clicks, and how many of these are corrections."""


class Top(NamedTuple):
    """All banners together, and those with most clicks, equal ones by ID."""

    everything: Both
    ranked: list[Total]


class _Bounds(NamedTuple):
    """What is known of a range before any banner is summed.

    `below`: a banner that is nowhere listed has at most so many clicks; `excess`: by how many more
    others may have, by banner, the highest first. `cut`: there are more than these.
    """

    everything: Both
    below: int
    excess: list[tuple[int, int]]
    cut: bool


def sum_all(limit: int, raw: bool) -> Ask:
    """The statement for a top list that sums the clicks of all banners."""
    return lambda pieces: _ranking(pieces, EVERYBODY, limit, raw)


def top_of(rows: list[TupleRow]) -> Top:
    """The answer, from the rows of `sum_all`."""
    everything = (rows[0][4], rows[0][5]) if rows else (0, 0)
    return Top(everything, [Total(*row[:4]) for row in rows])


async def read_top(
    connection: AsyncConnection[TupleRow], cover: Cover, limit: int, raw: bool
) -> Top:
    """The top list of these pieces, in one snapshot."""
    async with snapshot(connection, cover) as pieces:
        found = await _by_lists(connection, pieces, limit, raw)
        if found is None:
            found = top_of(await fetch(connection, *sum_all(limit, raw)(pieces)))
    return found


async def _by_lists(
    connection: AsyncConnection[TupleRow], pieces: Cover, limit: int, raw: bool
) -> Top | None:
    """The top list, or None where the lists don't decide it."""
    bounds = await _bounds(connection, pieces, limit)
    if bounds is None:
        return None
    first = [banner for banner, _ in bounds.excess[:limit]]
    ranked = await _exactly(connection, pieces, first, limit, raw)
    least = ranked[-1].clicks if len(ranked) == limit else None
    if not _decides(bounds, least):
        return None
    near = [b for b, excess in bounds.excess if least is None or bounds.below + excess >= least]
    if len(near) > len(first):
        ranked = await _exactly(connection, pieces, near, limit, raw)
    return Top(bounds.everything, ranked)


def _decides(bounds: _Bounds, least: int | None) -> bool:
    """Whether all banners that are not in `bounds.excess` have fewer clicks than `least`, or none
    where there are fewer banners than asked for (None)."""
    others = bounds.below + (max(0, bounds.excess[-1][1]) if bounds.cut else 0)
    return not (bounds.cut or others) if least is None else others < least


async def _bounds(
    connection: AsyncConnection[TupleRow], pieces: Cover, limit: int
) -> _Bounds | None:
    """None where nothing of the range has a list."""
    spans = [
        (unit, left, right)
        for (unit, _), some in zip(_SIZES, pieces[:3], strict=True)
        for left, right in some
    ]
    params: Params = {
        "units": [unit for unit, _, _ in spans],
        "firsts": [moment(left) for _, left, _ in spans],
        "ends": [moment(right) for _, _, right in spans],
    }
    lists = await fetch(connection, _FIND, params)
    if not lists:
        return None
    rest = _without_lists(pieces, lists)
    params["most"] = limit + CANDIDATES
    # A listed banner has `below` less in what is known of it than in the sum over all units.
    rows = await fetch(
        connection,
        "SELECT banner_id, sum(excess)::bigint, (sum(sum(clicks)) OVER ())::bigint,"
        " (sum(sum(correction)) OVER ())::bigint FROM ("
        " SELECT unnest(banners) AS banner_id, unnest(clicks) - below AS excess,"
        f" 0 AS clicks, 0 AS correction FROM {_LISTS} UNION ALL"
        " SELECT banner_id, clicks, clicks, correction"
        f" FROM ({union(rest, params, EVERYBODY, pieces)}) AS piece) AS known"
        " GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %(most)s",
        params,
    )
    net, corrected = (rows[0][2], rows[0][3]) if rows else (0, 0)
    return _Bounds(
        everything=(net + sum(row[2] for row in lists), corrected),
        below=sum(row[3] for row in lists),
        excess=[(row[0], row[1]) for row in rows],
        cut=len(rows) == params["most"],
    )


def _without_lists(pieces: Cover, lists: list[TupleRow]) -> Cover:
    """The pieces that no list is of."""
    listed: dict[str, list[Piece]] = {unit: [] for unit, _ in _SIZES}
    for unit, start, *_ in lists:
        listed[unit].append((start, start + dict(_SIZES)[unit]))
    days, hours, quarters = (
        without(some, listed[unit]) for (unit, _), some in zip(_SIZES, pieces[:3], strict=True)
    )
    return Cover(days, hours, quarters, pieces.minutes)


async def _exactly(
    connection: AsyncConnection[TupleRow], pieces: Cover, banners: list[int], limit: int, raw: bool
) -> list[Total]:
    """The same list, of these banners alone."""
    if not banners:
        return []
    return top_of(
        await fetch(connection, *_ranking(pieces, of_banners(banners), limit, raw))
    ).ranked


def _ranking(pieces: Cover, whose: Whose, limit: int, raw: bool) -> tuple[LiteralString, Params]:
    params: Params = {"limit": limit, "raw": raw}
    rows_of = union(pieces, params, whose)
    return (
        "SELECT ranked.banner_id, banner.name, clicks, correction, everything, corrected"
        " FROM (SELECT banner_id, sum(clicks)::bigint AS clicks,"
        " sum(correction)::bigint AS correction,"
        " (sum(sum(clicks)) OVER ())::bigint AS everything,"
        " (sum(sum(correction)) OVER ())::bigint AS corrected"
        f" FROM ({rows_of}) AS piece GROUP BY banner_id {NOT_EMPTY}"
        " ORDER BY clicks DESC, banner_id LIMIT %(limit)s) AS ranked"
        " LEFT JOIN banner ON banner.id = ranked.banner_id ORDER BY clicks DESC, banner_id"
    ), params

"""What the tests ask Postgres itself: figures, marks, quarantine."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg

PER_MINUTE = (
    "SELECT date_trunc('minute', minute) AS t, banner_id, sum(clicks)::bigint AS clicks"
    " FROM banner_minute GROUP BY 1, 2"
)


def query(dsn: str, sql: str, *params: object) -> list[tuple[Any, ...]]:
    """The rows of one statement, in a session of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql.encode(), params or None)
        return cursor.fetchall() if cursor.description else []


def counts(dsn: str) -> dict[int, int]:
    """Clicks of each banner, over all minutes."""
    rows = query(dsn, "SELECT banner_id, sum(clicks) FROM banner_minute GROUP BY 1")
    return {banner: int(clicks) for banner, clicks in rows}


def mark(dsn: str, source: UUID) -> tuple[int, int] | None:
    """(last seq, total) of a source."""
    rows = query(dsn, "SELECT last_seq, total FROM source WHERE source = %s", source)
    return (rows[0][0], rows[0][1]) if rows else None


def quarantine(dsn: str) -> list[tuple[int | None, str, int | None]]:
    """(seq, reason's first word, clicks) of the quarantine, in order."""
    rows = query(dsn, "SELECT seq, split_part(reason, ':', 1), clicks FROM quarantine ORDER BY id")
    return [tuple(row) for row in rows]


def assert_rollups_equal_minutes(dsn: str) -> None:
    """Before its mark, each rollup and the late clicks are what the minutes are; after it, nothing.

    In one snapshot, at any moment.
    """
    for unit, since in (
        ("quarter", "quarter_from"),
        ("hour", "'-infinity'"),
        ("day", "'-infinity'"),
    ):
        size = "15 minutes" if unit == "quarter" else f"1 {unit}"
        wrong = query(
            dsn,
            f"""
            WITH mark AS (SELECT {since}::timestamptz AS since, {unit} AS until FROM rollup_mark)
            SELECT * FROM (
                SELECT banner_id, date_bin('{size}', minute, 'epoch') AS t, sum(clicks) AS clicks
                FROM banner_minute, mark WHERE minute >= since AND minute < until GROUP BY 1, 2
            ) AS m FULL JOIN (
                SELECT banner_id, t, sum(clicks) AS clicks FROM (
                    SELECT banner_id, {unit} AS t, clicks FROM rollup_{unit}
                    UNION ALL
                    SELECT banner_id, date_bin('{size}', minute, 'epoch'), clicks
                    FROM rollup_late, mark WHERE minute >= since AND minute < until
                ) AS parts GROUP BY 1, 2
            ) AS r USING (banner_id, t) WHERE r.clicks IS DISTINCT FROM m.clicks
            """,
        )
        assert not wrong, f"rollup_{unit} differs from its minutes: {wrong[:5]}"
    assert_lists_are_right(dsn)


def assert_lists_are_right(dsn: str) -> None:
    """Each list of busiest banners that is made is what its rollup says, at any moment."""
    for unit in ("quarter", "hour", "day"):
        wrong = query(
            dsn,
            f"""
            SELECT start, top.*, right_one.* FROM rollup_top AS top CROSS JOIN LATERAL (
                SELECT coalesce(sum(r.clicks), 0) AS total,
                       coalesce(max(r.clicks) FILTER (WHERE place > size), 0) AS below,
                       coalesce(array_agg(banner_id ORDER BY place) FILTER (WHERE place <= size),
                                '{{}}') AS banners,
                       coalesce(array_agg(r.clicks ORDER BY place) FILTER (WHERE place <= size),
                                '{{}}') AS clicks
                FROM (
                    SELECT *, row_number() OVER (ORDER BY clicks DESC, banner_id) AS place,
                           cardinality(top.banners) AS size
                    FROM rollup_{unit} WHERE {unit} = top.start
                ) AS r
            ) AS right_one
            WHERE unit = '{unit}' AND top.banners IS NOT NULL
            AND (top.total, top.below, top.banners, top.clicks) IS DISTINCT FROM
                (right_one.total, right_one.below, right_one.banners, right_one.clicks)
            """,
        )
        assert not wrong, f"lists of rollup_{unit} differ from it: {wrong[:5]}"


def lists(dsn: str) -> dict[str, tuple[int, int]]:
    """How many lists of busiest banners are made, and how many are due, by unit."""
    found = query(dsn, "SELECT unit, count(banners), count(*) FROM rollup_top GROUP BY 1")
    return {unit: (made, everything - made) for unit, made, everything in found}

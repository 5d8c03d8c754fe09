"""What the tests ask Postgres itself: figures, marks, quarantine."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg

PER_MINUTE = "SELECT minute AS t, banner_id, clicks FROM banner_minute"


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
    """Hours and days hold exactly what their minutes hold."""
    for unit in ("hour", "day"):
        wrong = query(
            dsn,
            f"""
            SELECT * FROM (
                SELECT banner_id, date_trunc('{unit}', minute, 'UTC') AS t, sum(clicks) AS clicks
                FROM banner_minute GROUP BY 1, 2
            ) AS m FULL JOIN banner_{unit} AS r ON r.banner_id = m.banner_id AND r.{unit} = m.t
            WHERE r.clicks IS DISTINCT FROM m.clicks
            """,
        )
        assert not wrong, f"banner_{unit} differs from its minutes: {wrong[:5]}"

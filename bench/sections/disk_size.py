"""Disk space: `python -m bench.sections.disk_size`; docs/deploy.md has the result.

It writes generated clicks into the embedded Postgres of a real system with the aggregator's own
statements: every minute, every banner, several commits per minute, which is the maximum. Then the
rollups are derived. From the size of the tables per row, with indexes, it calculates the size
after a month and a year.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from psycopg import AsyncConnection, IsolationLevel

from aggregator.postgres.connection import session
from aggregator.writing.rollup import roll_up
from aggregator.writing.statements import merge_minutes, row_columns
from aggregator.writing.sums import Rows
from bench.harness.servers import end_on_sigterm
from bench.harness.system import Clickmill
from bench.report.tables import markdown

MINUTES_A_DAY: Final = 1_440
ROWS_A_DAY: Final = {
    "banner_minute": MINUTES_A_DAY, "rollup_quarter": 96, "rollup_hour": 24, "rollup_day": 1,
}  # fmt: skip
MONTH, YEAR = 30, 365
SIZES: Final = (10, 100, 1_000, 10_000)
GB: Final = 1e9
CLICKS: Final = 3
"""Of a banner in each commit; the size of a row does not depend on it."""

# A partition counts as its table; pg_total_relation_size takes in indexes and free space.
_MEASURE: Final = """
SELECT sum(pg_total_relation_size(c.oid)), (SELECT count(*) FROM {table})
FROM pg_class c WHERE c.relname ~ '^{table}(_[0-9]+)?$' AND c.relkind = 'r'
"""
_MAKE_DAY: Final = "SELECT clickmill_make_partition(to_timestamp(%s)::date)"

Connection = AsyncConnection[Any]


async def write_days(connection: Connection, banners: int, days: int, commits: int) -> None:
    """Writes whole days that end with yesterday, in the order of time."""
    midnight = int(time.time()) // 86_400 * MINUTES_A_DAY
    first = midnight - days * MINUTES_A_DAY
    for day in range(days):
        await connection.execute(_MAKE_DAY, [(first + day * MINUTES_A_DAY) * 60])
    ids = np.arange(1, banners + 1, dtype=np.int64)
    for minute in range(first, midnight):
        rows = Rows(np.full(banners, minute), ids, np.full(banners, CLICKS))
        for _ in range(commits):
            await connection.execute(merge_minutes(minute // MINUTES_A_DAY), row_columns(rows))


async def roll_up_days(connection: Connection, days: int) -> None:
    """Roll up the days that were written."""
    await connection.execute(
        "UPDATE rollup_mark SET closing = day, quarter_from = day - %(days)s * interval '1 day',"
        " quarter = day - %(days)s * interval '1 day', hour = day - %(days)s * interval '1 day',"
        " day = day - %(days)s * interval '1 day'",
        {"days": days},
    )
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    while await roll_up(connection, None):
        pass


async def bytes_a_row(connection: Connection) -> dict[str, float]:
    """Of each table, its indexes included."""
    found = {}
    for table in ROWS_A_DAY:
        cursor = await connection.execute(_MEASURE.format(table=table).encode())
        row = await cursor.fetchone()
        assert row is not None
        size, count = row
        found[table] = float(size) / int(count)
    return found


def after(days: int, banners: int, row_bytes: Mapping[str, float]) -> float:
    """Bytes after so many days in which each banner had a click in every minute."""
    return days * banners * sum(ROWS_A_DAY[table] * row_bytes[table] for table in ROWS_A_DAY)


def lines_of(row_bytes: Mapping[str, float], sizes: Sequence[int] = SIZES) -> list[str]:
    """The tables of the report."""
    rows = [[f"`{table}`", f"{row_bytes[table]:.0f}"] for table in ROWS_A_DAY]
    totals = [
        [f"{banners:,}", *(f"{after(n, banners, row_bytes) / GB:.2f} GB" for n in (1, MONTH, YEAR))]
        for banners in sizes
    ]
    head = ["banners, each with a click in every minute", "a day", "a month", "a year"]
    return [*markdown(["table", "bytes a row"], rows), "", *markdown(head, totals)]


async def measure(dsn: str, banners: int, days: int, commits: int) -> dict[str, float]:
    """Bytes a row, in a database without other rows."""
    async with session(dsn, "bench") as connection:
        await connection.execute("SET synchronous_commit = off")
        await write_days(connection, banners, days, commits)
        await roll_up_days(connection, days)
        return await bytes_a_row(connection)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--banners", type=int, default=100)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--commits", type=int, default=6, help="of each minute")
    options = parser.parse_args()
    end_on_sigterm()
    system = Clickmill({"RETENTION_DAYS": "0"}, worker_cores=None)
    try:
        found = measure(system.dsn(), options.banners, options.days, options.commits)
        print("\n".join(lines_of(asyncio.run(found))))
    finally:
        system.stop()


if __name__ == "__main__":
    main()

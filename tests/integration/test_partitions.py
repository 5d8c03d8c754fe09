"""Partitions ahead and on demand, retention, and arrays as Postgres takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection

from aggregator import partitions, pgarray, postgres
from tests import sql

EPOCH = datetime(1970, 1, 1, tzinfo=UTC).date()


def today() -> date:
    """Asked for each time: a run of the tests may begin before midnight and end after it."""
    return datetime.now(UTC).date()


def day_number(days_from_now: int) -> int:
    return (today() - EPOCH).days + days_from_now


def on(dsn: str, test: Callable[[AsyncConnection[Any]], Awaitable[None]]) -> None:
    async def run() -> None:
        await postgres.apply_schema(dsn)
        async with postgres.session(dsn, "test") as connection:
            await asyncio.wait_for(test(connection), 30)

    asyncio.run(run())


def days(dsn: str) -> list[int]:
    """The days that have a partition, from today."""
    rows = sql.query(dsn, "SELECT clickmill_partition_days()")
    return [(day - today()).days for (day,) in rows]


def put(dsn: str, days_from_now: int, clicks: int) -> None:
    """Clicks of banner 1 on a day, in all three tables."""
    moment = datetime.combine(today(), datetime.min.time(), UTC) + timedelta(days=days_from_now)
    sql.query(dsn, "SELECT clickmill_make_partition(%s)", moment.date())
    for table in ("minute", "hour", "day"):
        sql.query(dsn, f"INSERT INTO banner_{table} VALUES (1, %s, %s)", moment, clicks)


def test_the_coming_days_are_made_ahead_and_again_is_no_trouble(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        await partitions.maintain(connection, 0)
        await partitions.maintain(connection, 0)

    on(database, test)
    assert days(database) == [-1, 0, 1, 2, 3]


def test_several_make_the_same_days_at_once(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        async def make() -> None:
            async with postgres.session(database, "test") as another:
                await partitions.make(another, range(day_number(-3), day_number(3)))

        await asyncio.gather(*(make() for _ in range(5)))

    on(database, test)
    assert days(database) == list(range(-3, 3))


def test_what_is_past_retention_goes_with_its_rollups(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        for age in (40, 31, 30, 29, 0):
            put(database, -age, age + 1)
        await partitions.maintain(connection, 30)

    on(database, test)
    assert days(database) == [-30, -29, -1, 0, 1, 2, 3]
    sql.assert_rollups_equal_minutes(database)
    assert sql.counts(database) == {1: 31 + 30 + 1}


def test_without_retention_everything_stays(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        put(database, -4000, 5)
        await partitions.maintain(connection, 0)

    on(database, test)
    assert sql.counts(database) == {1: 5}


def test_a_day_that_is_being_read_is_dropped_later(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        put(database, -40, 1)
        with psycopg.connect(database) as reader:
            reader.execute("SELECT * FROM banner_minute").fetchall()
            await partitions.maintain(connection, 30)
            assert -40 in days(database)
        await partitions.maintain(connection, 30)
        assert -40 not in days(database)

    on(database, test)


def test_the_quarantine_is_bounded(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        await connection.execute(
            "INSERT INTO quarantine (reason) SELECT 'x' FROM generate_series(1, %s)",
            [partitions.QUARANTINE_ROWS + 50],
        )
        await partitions.maintain(connection, 0)

    on(database, test)
    assert sql.query(database, "SELECT count(*) FROM quarantine") == [(partitions.QUARANTINE_ROWS,)]


def test_arrays_arrive_as_they_were(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        names = [uuid4(), uuid4()]
        cursor = await connection.execute(
            "SELECT %s, %s, %s, %s, %s, %s",
            [
                pgarray.bools([True, False]), pgarray.int4s([2**31 - 1, -1]),
                pgarray.int8s([2**63 - 1, -(2**63)]), pgarray.uuids(names),
                pgarray.timestamps([0, 1_733_835_360, 2**40, -(2**40)]),
                pgarray.timestamps_ns([1_733_835_360_123_456_789]),
            ],
        )  # fmt: skip
        row = await cursor.fetchone()
        assert row is not None
        bools, small, large, uuids, seconds, precise = row
        assert (bools, small) == ([True, False], [2**31 - 1, -1])
        assert (large, uuids) == ([2**63 - 1, -(2**63)], names)
        assert seconds[:2] == [
            datetime(1970, 1, 1, tzinfo=UTC), datetime(2024, 12, 10, 12, 56, tzinfo=UTC)
        ]  # fmt: skip
        assert seconds[2].year > 9000, "forced into what a timestamptz can hold"
        assert precise == [datetime(2024, 12, 10, 12, 56, 0, 123456, tzinfo=UTC)]

    on(database, test)


def test_empty_arrays_are_empty(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        cursor = await connection.execute(
            "SELECT %s, %s, %s", [pgarray.int4s([]), pgarray.uuids([]), pgarray.bools([])]
        )
        assert await cursor.fetchone() == ([], [], [])

    on(database, test)


def test_every_session_ends_by_itself_when_its_process_hangs(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        for name in ("idle_in_transaction_session_timeout", "statement_timeout"):
            cursor = await connection.execute("SELECT current_setting(%s)", [name])
            row = await cursor.fetchone()
            assert row is not None
            assert row[0] in ("10s", "30s")

    on(database, test)

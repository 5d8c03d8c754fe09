"""Partitions on demand, and arrays as Postgres takes them; retention has tests of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

from psycopg import AsyncConnection

from aggregator.postgres import arrays, migrations, partitions
from aggregator.postgres import connection as postgres
from tests.support import sql

EPOCH = datetime(1970, 1, 1, tzinfo=UTC).date()


def today() -> date:
    """Asked for each time: a run of the tests may begin before midnight and end after it."""
    return datetime.now(UTC).date()


def day_number(days_from_now: int) -> int:
    return (today() - EPOCH).days + days_from_now


def on(dsn: str, test: Callable[[AsyncConnection[Any]], Awaitable[None]]) -> None:
    async def run() -> None:
        await migrations.apply_schema(dsn)
        async with postgres.session(dsn, "test") as connection:
            await asyncio.wait_for(test(connection), 30)

    asyncio.run(run())


def days(dsn: str) -> list[int]:
    """The days that have a partition, from today."""
    rows = sql.query(dsn, "SELECT clickmill_partition_days()")
    return [(day - today()).days for (day,) in rows]


def test_several_make_the_same_days_at_once(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        async def make() -> None:
            async with postgres.session(database, "test") as another:
                await partitions.make(another, range(day_number(-3), day_number(3)))

        await asyncio.gather(*(make() for _ in range(5)))

    on(database, test)
    assert days(database) == list(range(-3, 3))


def test_arrays_arrive_unchanged(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        names = [uuid4(), uuid4()]
        cursor = await connection.execute(
            "SELECT %s, %s, %s, %s, %s, %s",
            [
                arrays.bools([True, False]), arrays.int4s([2**31 - 1, -1]),
                arrays.int8s([2**63 - 1, -(2**63)]), arrays.uuids(names),
                arrays.timestamps([0, 1_733_835_360, 2**40, -(2**40)]),
                arrays.timestamps_ns([1_733_835_360_123_456_789]),
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
            "SELECT %s, %s, %s", [arrays.int4s([]), arrays.uuids([]), arrays.bools([])]
        )
        assert await cursor.fetchone() == ([], [], [])

    on(database, test)


def test_every_session_ends_by_itself_when_its_process_hangs(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        for name in ("idle_in_transaction_session_timeout", "statement_timeout"):
            cursor = await connection.execute("SELECT current_setting(%s)", [name])
            row = await cursor.fetchone()
            assert row is not None
            assert row[0] in ("6s", "30s")

    on(database, test)

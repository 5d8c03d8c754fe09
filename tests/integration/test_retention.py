"""What is past its time goes, and nobody waits for it: minutes by the day, rollups in batches."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from aggregator.postgres import connection as postgres
from aggregator.postgres import migrations, partitions, retention
from aggregator.postgres.retention import Days, maintain
from tests.support import sql
from tests.support.aggregators import aggregator
from tests.support.fix_nats import NatsServer
from tests.support.wait import aeventually, eventually

MILLION = 1_000_000
HOURS_A_DAY = 24
ROLLUPS = ("quarter", "hour", "day")
TABLES = {"minute": "banner_minute"} | {unit: f"rollup_{unit}" for unit in ROLLUPS}


def today() -> date:
    """Asked for each time: a run of the tests may begin before midnight and end after it."""
    return datetime.now(UTC).date()


def at(days_from_now: int) -> datetime:
    return datetime.combine(today(), datetime.min.time(), UTC) + timedelta(days=days_from_now)


def on(dsn: str, test: Callable[[AsyncConnection[Any]], Awaitable[None]]) -> None:
    async def run() -> None:
        await migrations.apply_schema(dsn)
        async with postgres.session(dsn, "test") as connection:
            await asyncio.wait_for(test(connection), 100)

    asyncio.run(run())


def days_of(dsn: str, unit: str) -> list[int]:
    """The days from today with a row in the table, or with a partition."""
    table = "SELECT clickmill_partition_days()"
    if unit != "partition":
        table = f"SELECT DISTINCT ({unit} AT TIME ZONE 'UTC')::date FROM {TABLES[unit]} ORDER BY 1"
    return [(day - today()).days for (day,) in sql.query(dsn, table)]


def put(dsn: str, *days_from_now: int) -> None:
    """A click of banner 1 at the start of each of these days, in all tables."""
    for day in days_from_now:
        sql.query(dsn, "SELECT clickmill_make_partition(%s)", at(day).date())
        for table in TABLES.values():
            sql.query(dsn, f"INSERT INTO {table} VALUES (1, %s, 1)", at(day))


def test_coming_days_are_created_ahead_and_repeating_it_is_harmless(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        for _ in range(2):
            assert await maintain(connection, Days(0, 0))

    on(database, test)
    assert days_of(database, "partition") == [-1, 0, 1, 2, 3]


def test_minutes_are_deleted_and_their_hours_and_days_are_kept(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        put(database, -40, -31, -30, -29, 0)
        assert await maintain(connection, Days(30, 0), grace_s=0)

    on(database, test)
    assert days_of(database, "minute") == [-30, -29, 0]
    assert days_of(database, "partition") == [-30, -29, -1, 0, 1, 2, 3]
    for unit in ROLLUPS:
        assert days_of(database, unit) == [-40, -31, -30, -29, 0]


def test_hours_and_days_have_their_own_retention(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)

    async def test(connection: AsyncConnection[Any]) -> None:
        put(database, -45, -44, -43, -42, -41, -40, -39, -30, -29, 0)
        assert await maintain(connection, Days(30, 40), grace_s=0)

    on(database, test)
    assert days_of(database, "minute") == [-30, -29, 0]
    for unit in ROLLUPS:
        assert days_of(database, unit) == [-40, -39, -30, -29, 0]


def test_without_retention_everything_is_kept(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        put(database, -4000)
        assert await maintain(connection, Days(0, 0), grace_s=0)

    on(database, test)
    assert sql.counts(database) == {1: 1}


def test_deletions_are_announced_and_running_queries_may_finish(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        put(database, -50)
        assert not await maintain(connection, Days(30, 40)), "come back soon"
        rows = sql.query(database, "SELECT unit, gone_from, kept_from FROM retention ORDER BY 1")
        assert rows == [("minute", at(-50), at(-30)), ("rollup", at(-50), at(-40))]
        assert all(days_of(database, unit) == [-50] for unit in TABLES)
        sql.query(database, "UPDATE retention SET moved_at = now() - interval '61 seconds'")
        assert await maintain(connection, Days(30, 40))
        assert not any(days_of(database, unit) for unit in TABLES)

    on(database, test)


def test_a_longer_retention_does_not_restore_deleted_data(database: str) -> None:
    """Days before the longer time are no whole days: late clicks alone would be in them."""

    async def test(connection: AsyncConnection[Any]) -> None:
        put(database, -30)
        await maintain(connection, Days(5, 0), grace_s=0)
        put(database, -20)
        assert await maintain(connection, Days(400, 0), grace_s=0)

    on(database, test)
    gone = sql.query(database, "SELECT gone_from, kept_from FROM retention")
    assert gone == [(at(-30), at(-5))]
    assert days_of(database, "minute") == []
    assert days_of(database, "hour") == [-30, -20]


def test_nothing_is_deleted_within_the_retention(database: str) -> None:
    """A range before the first click of a new system has minutes as any other: none."""

    async def test(connection: AsyncConnection[Any]) -> None:
        put(database, -5, 0)
        assert await maintain(connection, Days(30, 40), grace_s=0)

    on(database, test)
    assert sql.query(database, "SELECT * FROM retention") == []


def test_a_day_that_is_being_read_is_dropped_later(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        put(database, -40)
        with psycopg.connect(database) as reader:
            reader.execute("SELECT * FROM banner_minute").fetchall()
            assert not await maintain(connection, Days(30, 0), grace_s=0)
            assert -40 in days_of(database, "partition")
        assert await maintain(connection, Days(30, 0), grace_s=0)
        assert -40 not in days_of(database, "partition")

    on(database, test)


def test_the_quarantine_is_bounded(database: str) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        await connection.execute(
            "INSERT INTO quarantine (reason) SELECT 'x' FROM generate_series(1, %s)",
            [retention.QUARANTINE_ROWS + 50],
        )
        await maintain(connection, Days(0, 0))

    on(database, test)
    assert sql.query(database, "SELECT count(*) FROM quarantine") == [(retention.QUARANTINE_ROWS,)]


def test_the_aggregator_applies_retention_by_itself(nats: NatsServer, database: str) -> None:
    """With its default settings: 400 days of minutes, all hours and days."""

    async def ready(connection: AsyncConnection[Any]) -> None:
        put(database, -401, -400)

    on(database, ready)
    with aggregator(nats.url, database):
        rows = eventually(lambda: sql.query(database, "SELECT unit, kept_from FROM retention"))
        assert rows == [("minute", at(-400))]
        sql.query(database, "UPDATE retention SET moved_at = now() - interval '61 seconds'")
        eventually(lambda: -401 not in days_of(database, "partition"), 20)
    assert days_of(database, "minute") == [-400]
    assert days_of(database, "hour") == days_of(database, "day") == [-401, -400]


# --- nobody waits -----------------------------------------------------------------------------


class Waits:
    """How long each statement of somebody who works beside took, in seconds."""

    def __init__(self, dsn: str, statement: str) -> None:
        self._dsn, self._statement = dsn, statement
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds: list[float] = []

    def _run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._stop.is_set():
                began = time.monotonic()
                connection.execute(self._statement.encode())
                self.seconds.append(time.monotonic() - began)

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        self._thread.start()
        try:
            eventually(lambda: len(self.seconds) > 10, 10)
            self.seconds.clear()
            yield
        finally:
            self._stop.set()
            self._thread.join(60)


WRITE = """
INSERT INTO banner_minute AS t VALUES (1, date_trunc('minute', now()), 1)
ON CONFLICT (banner_id, minute) DO UPDATE SET clicks = t.clicks + 1
"""
READ = "SELECT sum(clicks) FROM banner_minute WHERE banner_id = 1"


def fill_hours(dsn: str, days_from_now: list[int], banners: int) -> None:
    """Rollup rows of each hour of these days."""
    for day in days_from_now:
        sql.query(
            dsn,
            """
            INSERT INTO rollup_hour SELECT banner, %s + hour * interval '1 hour', 1
            FROM generate_series(0, 23) AS hour, generate_series(2, %s) AS banner
            """,
            at(day), banners,
        )  # fmt: skip


def waits(dsn: str, days: Days) -> tuple[float, float]:
    """While what is past its time is deleted: the longest wait of a writer or a reader beside it,
    and how long all of it took."""
    writer, reader = Waits(dsn, WRITE), Waits(dsn, READ)
    took: list[float] = []

    async def test(connection: AsyncConnection[Any]) -> None:
        with writer.measured(), reader.measured():
            began = time.monotonic()
            await aeventually(lambda: maintain(connection, days, grace_s=0), 90, "all is deleted")
            took.append(time.monotonic() - began)

    on(dsn, test)
    return max(writer.seconds + reader.seconds), took[0]


def test_deleting_a_day_with_half_a_million_rollups_blocks_no_one(database: str) -> None:
    """Deleted under the lock of the DROP, these rows stop everybody for a second and more."""

    async def ready(connection: AsyncConnection[Any]) -> None:
        await partitions.make_ahead(connection, today())

    on(database, ready)
    put(database, -40)
    fill_hours(database, [-40], MILLION // 2 // HOURS_A_DAY)
    longest, took = waits(database, Days(30, 30))
    # Seconds would say more of the machine: all of the deletion is too long, a part of it is not.
    assert longest < took / 3
    for unit in TABLES:
        assert -40 not in days_of(database, unit)


def test_a_drop_that_can_not_get_its_lock_blocks_no_one(database: str) -> None:
    """Whoever comes after a DROP that waits for a long reader waits with it."""

    async def test(connection: AsyncConnection[Any]) -> None:
        await partitions.make_ahead(connection, today())
        put(database, -40)
        writer = Waits(database, WRITE)
        with psycopg.connect(database) as reader, writer.measured():
            reader.execute("SELECT * FROM banner_minute").fetchall()
            for _ in range(5):
                assert not await maintain(connection, Days(30, 0), grace_s=0)
        assert max(writer.seconds) < 1

    on(database, test)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_retention_blocks_no_one_at_twenty_million_rollups(database: str) -> None:
    """100 ms hold on a machine that does nothing else."""

    async def ready(connection: AsyncConnection[Any]) -> None:
        await partitions.make_ahead(connection, today())

    on(database, ready)
    days = list(range(-39, -29))
    put(database, *days)
    fill_hours(database, days, 20 * MILLION // len(days) // HOURS_A_DAY)
    longest, took = waits(database, Days(30, 38))
    print(f"the longest wait was {1000 * longest:.0f} ms in {took:.0f} s of deleting")
    assert longest < 0.1
    assert days_of(database, "hour") == list(range(-38, -29))

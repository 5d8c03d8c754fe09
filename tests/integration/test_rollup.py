"""Rollups are derived once, and equal the minutes in every snapshot, whoever dies when."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, IsolationLevel

from aggregator.postgres import connection as postgres
from aggregator.postgres import migrations
from aggregator.writing import rollup
from aggregator.writing.rollup import DAY, HOUR, QUARTER, floor, roll_up
from aggregator.writing.store import Store
from clickmill.failpoints import ENVIRONMENT
from tests.support import sql
from tests.support.fakes import FakeSource
from tests.support.stores import with_store
from tests.support.wait import aeventually

STEPS = (
    "rollup.close", "rollup.closed", "rollup.folded", "rollup.derived", "rollup.before_commit",
    "rollup.committed",
)  # fmt: skip
BANNERS = 5


def now() -> datetime:
    return datetime.now(UTC)


def minute_of(moment: datetime) -> int:
    return int(moment.timestamp()) // 60


def marks(dsn: str) -> dict[str, datetime]:
    names = ("closing", "quarter_from", "quarter", "hour", "day")
    (row,) = sql.query(dsn, f"SELECT {', '.join(names)} FROM rollup_mark")
    return dict(zip(names, row, strict=True))


def put_mark(dsn: str, moment: datetime) -> None:
    """As on a database whose minutes from this moment on are not rolled up."""
    sql.query(
        dsn,
        "UPDATE rollup_mark SET closing = %(t)s, quarter = %(t)s, hour = %(t)s, day = %(d)s,"
        " quarter_from = least(quarter_from, %(t)s)".replace("%(t)s", f"'{moment.isoformat()}'")
        .replace("%(d)s", f"'{floor(moment, DAY).isoformat()}'"),
    )  # fmt: skip


async def rolling(dsn: str, test: Callable[[AsyncConnection[Any]], Awaitable[None]]) -> None:
    async with postgres.session(dsn, "rollup") as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await test(connection)


async def roll_all(dsn: str, complete: datetime | None) -> None:
    async def test(connection: AsyncConnection[Any]) -> None:
        while await roll_up(connection, complete):
            sql.assert_rollups_equal_minutes(dsn)

    await rolling(dsn, test)


def clicks_at(source: FakeSource, chance: random.Random, moment: datetime) -> Any:
    counts = {banner: chance.randint(1, 9) for banner in range(BANNERS)}
    return source.arrival(counts, minute_of(moment))


def rows(dsn: str, unit: str) -> int:
    ((count,),) = sql.query(dsn, f"SELECT count(*) FROM rollup_{unit}")
    return int(count)


@pytest.fixture
def tables(database: str) -> str:
    asyncio.run(migrations.apply_schema(database))
    return database


def test_what_is_complete_is_due_and_a_silent_source_holds_it_back_for_an_hour() -> None:
    at = datetime(2026, 5, 1, 12, 1, 10, tzinfo=UTC)
    assert rollup.due(at, at) == at.replace(minute=0, second=0)
    assert rollup.due(at, at - QUARTER) == datetime(2026, 5, 1, 11, 45, tzinfo=UTC)
    assert (
        rollup.due(at, at - DAY) == rollup.due(at, None) == at.replace(hour=11, minute=0, second=0)
    )
    just_after = at.replace(minute=0, second=10)
    assert rollup.due(just_after, just_after) == datetime(2026, 5, 1, 11, 45, tzinfo=UTC)


def test_minutes_are_rolled_up_once_their_time_is_complete(tables: str) -> None:
    chance, a = random.Random(1), FakeSource()
    first = floor(now(), HOUR) - 27 * HOUR
    put_mark(tables, first)
    due = rollup.due(now(), now() + HOUR)

    async def test(store: Store) -> None:
        await store.apply([clicks_at(a, chance, first + n * QUARTER) for n in range(27 * 4)])
        await store.apply([clicks_at(a, chance, now())])
        assert [rows(tables, unit) for unit in ("quarter", "hour", "day")] == [0, 0, 0]
        await roll_all(tables, now() + HOUR)

    with_store(tables, test)
    reached = marks(tables)
    assert due <= reached["quarter"] <= rollup.due(now(), now() + HOUR)
    assert reached["hour"] == floor(reached["quarter"], HOUR)
    assert reached["day"] == floor(reached["hour"], DAY)
    assert rows(tables, "quarter") >= 27 * 4 * BANNERS - 5 * BANNERS
    assert sum(sql.counts(tables).values()) == a.total
    sql.assert_rollups_equal_minutes(tables)
    assert sql.query(tables, "SELECT * FROM rollup_late") == []


def test_late_clicks_reach_every_rollup_that_their_time_is_in(tables: str) -> None:
    """And are in no rollup beyond its mark; those before `quarter_from` are in no quarter-hour."""
    chance, a = random.Random(2), FakeSource()
    put_mark(tables, floor(now(), HOUR))
    sql.query(tables, "UPDATE rollup_mark SET quarter_from = quarter - interval '3 days'")

    async def test(store: Store) -> None:
        for _ in range(10):
            late = [0, 1, 14, 15, 59, 60, 61, 1440, 2880, 4320, 4321, chance.randrange(40_000)]
            batch = [
                clicks_at(a, chance, now() - timedelta(minutes=chance.choice(late)))
                for _ in range(chance.randrange(1, 8))
            ]
            await store.apply(batch)
            sql.assert_rollups_equal_minutes(tables)
            if chance.random() < 0.5:
                await roll_all(tables, now() + HOUR)
        await store.apply([clicks_at(a, chance, now() - 5 * DAY)])
        assert sql.query(tables, "SELECT count(*) FROM rollup_late") == [(BANNERS,)]
        await roll_all(tables, now() + HOUR)

    with_store(tables, test)
    assert sql.query(tables, "SELECT * FROM rollup_late") == []
    sql.assert_rollups_equal_minutes(tables)
    assert sum(sql.counts(tables).values()) == a.total


def test_late_clicks_are_moved_in_parts(tables: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "LATE_ROWS", 7)
    chance, a = random.Random(3), FakeSource()

    async def test(store: Store) -> None:
        await store.apply([clicks_at(a, chance, now() - 5 * DAY - n * HOUR) for n in range(9)])
        await roll_all(tables, now())

    with_store(tables, test)
    assert sql.query(tables, "SELECT * FROM rollup_late") == []
    assert rows(tables, "hour") == 9 * BANNERS


def test_a_commit_under_way_is_never_missed(tables: str) -> None:
    """Its minutes can't be seen yet when they are to be summed: `closing` waits for it."""
    chance, a = random.Random(4), FakeSource()
    first = floor(now(), HOUR) - 2 * HOUR
    put_mark(tables, first)

    async def test(store: Store) -> None:
        # Connected, with the partitions that it needs.
        await store.apply([clicks_at(a, chance, moment) for moment in (first, now())])
        with psycopg.connect(tables) as other:
            other.execute(
                "LOCK TABLE banner_minute IN SHARE MODE"
            )  # the commit waits in its middle
            applying = asyncio.create_task(store.apply([clicks_at(a, chance, first)]))
            await aeventually(lambda: _waits(tables, "writer"), 20, "the writer waits")
            rolled = asyncio.create_task(roll_all(tables, now()))
            await aeventually(lambda: _waits(tables, "rollup"), 20, "the rollup waits for it")
        await asyncio.gather(applying, rolled)

    with_store(tables, test)
    sql.assert_rollups_equal_minutes(tables)
    assert rows(tables, "quarter") >= BANNERS


async def _waits(dsn: str, name: str) -> bool:
    waiting = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'clickmill ' || %s AND wait_event_type = 'Lock'"
    )
    return bool(await asyncio.to_thread(sql.query, dsn, waiting, name))


def test_writers_and_rollups_at_once_are_equal_in_every_snapshot(tables: str) -> None:
    """Three writers with clicks of now, of complete time, and of long ago, and two that roll up."""
    first = floor(now(), HOUR) - 6 * HOUR
    put_mark(tables, first)
    sources: list[FakeSource] = []
    stop = asyncio.Event()

    async def write(seed: int) -> None:
        store, chance, source = Store(tables), random.Random(seed), FakeSource()
        sources.append(source)
        for _ in range(40):
            back = chance.choice([0, 20, 70, 200, 350, 2000])
            await store.apply([clicks_at(source, chance, now() - timedelta(minutes=back))])
        await store.close()

    async def roll(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            # What is complete moves on bit by bit, while the writers are at work.
            try:
                await roll_all(tables, first + chance.randrange(24) * QUARTER)
            except psycopg.errors.SerializationFailure:
                continue
            await asyncio.sleep(0)

    async def look() -> None:
        while not stop.is_set():
            await asyncio.to_thread(sql.assert_rollups_equal_minutes, tables)

    async def race() -> None:
        others = [asyncio.create_task(work) for work in (roll(1), roll(2), look())]
        await asyncio.gather(*map(write, range(3)))
        stop.set()
        await asyncio.gather(*others)
        await roll_all(tables, now())

    asyncio.run(asyncio.wait_for(race(), 100))
    sql.assert_rollups_equal_minutes(tables)
    assert sum(sql.counts(tables).values()) == sum(source.total for source in sources)
    slots = sql.query(
        tables, "SELECT DISTINCT extract(microseconds FROM minute)::int % 1000 FROM banner_minute"
    )
    assert {slot for (slot,) in slots} == {0, 1, 2}, "each writer has rows of its own"


ROLL = """
import asyncio, sys
from datetime import UTC, datetime
from psycopg import IsolationLevel
from aggregator.postgres import connection as postgres
from aggregator.writing.rollup import roll_up

async def main():
    async with postgres.session(sys.argv[1], "rollup") as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        while await roll_up(connection, datetime.now(UTC)):
            pass

asyncio.run(main())
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_death_at_any_step_changes_nothing(tables: str, step: str) -> None:
    chance, a = random.Random(5), FakeSource()
    first = floor(now(), HOUR) - 26 * HOUR
    put_mark(tables, first)
    sql.query(tables, "UPDATE rollup_mark SET quarter_from = quarter")

    async def write(store: Store) -> None:
        batch = [clicks_at(a, chance, first - DAY + n * HOUR) for n in range(49)]  # half are late
        await store.apply(batch)

    def roll(failpoints: str) -> int:
        env = os.environ | {ENVIRONMENT: failpoints}
        done = subprocess.run(
            [sys.executable, "-c", ROLL, tables], env=env, timeout=60, check=False
        )
        return done.returncode

    with_store(tables, write)
    deaths = 0
    for passage in (1, 2, 5):
        deaths += roll(f"{step}=kill@{passage}") != 0
        sql.assert_rollups_equal_minutes(tables)
    assert deaths
    due = rollup.due(now(), now())
    assert roll("") == 0
    sql.assert_rollups_equal_minutes(tables)
    assert due <= marks(tables)["quarter"] <= rollup.due(now(), now())
    assert sum(sql.counts(tables).values()) == a.total


def test_quarter_hours_of_older_releases_are_made_day_by_day(tables: str) -> None:
    """Backwards, as far as minutes are kept; a day that retention has taken ends it."""
    chance, a = random.Random(6), FakeSource()
    today = floor(now(), DAY)

    async def test(store: Store) -> None:
        for days in (5, 4, 2, 1):
            await store.apply(
                [clicks_at(a, chance, today - days * DAY + n * HOUR) for n in range(9)]
            )
        await roll_all(tables, now())
        sql.query(tables, "TRUNCATE rollup_quarter, rollup_top")  # as it was before there were any
        sql.query(tables, "UPDATE rollup_mark SET quarter_from = quarter")
        kept = today - 4 * DAY
        sql.query(tables, "INSERT INTO retention VALUES ('minute', '2020-01-01Z', %s)", kept)
        await store.apply([clicks_at(a, chance, today - 2 * DAY)])  # late, in between
        await roll_all(tables, now())
        assert marks(tables)["quarter_from"] == kept

    with_store(tables, test)
    sql.assert_rollups_equal_minutes(tables)
    assert rows(tables, "quarter") == 3 * 9 * BANNERS


def test_postgres_put_back_is_rolled_up_again(tables: str) -> None:
    """An older copy has its own mark, and rows that agree with it."""
    chance, a = random.Random(7), FakeSource()
    first = floor(now(), HOUR) - 8 * HOUR
    put_mark(tables, first)
    kept = (
        "banner_minute", "rollup_quarter", "rollup_hour", "rollup_day", "rollup_mark", "rollup_top",
        "source",
    )  # fmt: skip

    async def test(store: Store) -> None:
        frames = [clicks_at(a, chance, first + n * HOUR) for n in range(8)]
        await store.apply(frames[:4])
        await roll_all(tables, first + 2 * HOUR)
        for table in kept:
            sql.query(tables, f"CREATE TABLE copy_of_{table} AS SELECT * FROM {table}")
        await store.apply(frames[4:])
        await roll_all(tables, now())
        for table in kept:
            sql.query(tables, f"DELETE FROM {table}")
            sql.query(tables, f"INSERT INTO {table} SELECT * FROM copy_of_{table}")
        sql.assert_rollups_equal_minutes(tables)
        await store.apply(frames)
        await roll_all(tables, now())

    with_store(tables, test)
    sql.assert_rollups_equal_minutes(tables)
    assert sum(sql.counts(tables).values()) == a.total

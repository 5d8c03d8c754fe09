"""Versions of the tables: old ones are brought up to date, newer ones are left alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import IsolationLevel

from aggregator.postgres import connection as postgres
from aggregator.postgres import migrations
from aggregator.writing.rollup import roll_up
from tests.support import sql
from tests.support.aggregators import aggregator
from tests.support.fix_nats import NatsServer
from tests.support.fix_postgres import PostgresServer
from tests.support.wait import eventually

OLDEST: Final = (Path(__file__).parents[1] / "data" / "schema-0.1.sql").read_text()
NEWER: Final = migrations.VERSION + 1

COLUMNS: Final = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
"""
INDEXES: Final = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
FUNCTIONS: Final = """
SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1
"""
OPTIONS: Final = """
SELECT relname, relkind, reloptions FROM pg_class
WHERE relnamespace = 'public'::regnamespace ORDER BY 1
"""


def apply(dsn: str) -> None:
    asyncio.run(migrations.apply_schema(dsn))


def shape(dsn: str) -> list[list[tuple[Any, ...]]]:
    return [sql.query(dsn, query) for query in (COLUMNS, INDEXES, FUNCTIONS, OPTIONS)]


def version(dsn: str) -> tuple[int, int]:
    (row,) = sql.query(dsn, "SELECT version, compatible_from FROM schema_version")
    return row[0], row[1]


def test_tables_of_the_first_release_become_those_of_today_and_keep_their_rows(
    database: str, postgres_server: PostgresServer
) -> None:
    fresh = postgres_server.make_database("fresh_tables")
    try:
        apply(fresh)
        sql.query(database, OLDEST)
        sql.query(database, "SELECT clickmill_make_partition('2024-12-10')")
        sql.query(database, "INSERT INTO banner_minute VALUES (17, '2024-12-10 12:56Z', 30)")
        sql.query(fresh, "SELECT clickmill_make_partition('2024-12-10')")
        apply(database)
        apply(database)
        # Days that are written to no more get no index: it would take long.
        sql.query(fresh, "DROP INDEX banner_minute_20241210_by_time")
        assert shape(database) == shape(fresh)
        assert sql.counts(database) == {17: 30}
        assert (
            version(database)
            == version(fresh)
            == (
                migrations.VERSION,
                migrations.COMPATIBLE_FROM,
            )
        )
    finally:
        postgres_server.drop_database("fresh_tables")


def old_tables(dsn: str) -> datetime:
    """Tables of version 3 with clicks of each hour of the last two days, as its writer left them:
    the running hour and day are in the rollups. Returns the running hour."""
    sql.query(dsn, OLDEST)
    for path in sorted(migrations.MIGRATIONS.glob("000[23]-*.sql")):
        sql.query(dsn, path.read_text())
    sql.query(dsn, "INSERT INTO schema_version (version, compatible_from) VALUES (3, 1)")
    for day in range(-3, 2):
        sql.query(
            dsn, "SELECT clickmill_make_partition((now() AT TIME ZONE 'UTC')::date + %s)", day
        )
    sql.query(
        dsn,
        "INSERT INTO banner_minute SELECT banner, date_trunc('minute', now()) - h * interval"
        " '37 minutes', h + banner FROM generate_series(0, 77) h, generate_series(1, 3) banner",
    )
    for unit in ("hour", "day"):
        sql.query(
            dsn,
            f"INSERT INTO banner_{unit} SELECT banner_id, date_trunc('{unit}', minute, 'UTC'),"
            " sum(clicks) FROM banner_minute GROUP BY 1, 2",
        )
    hour: datetime = sql.query(dsn, "SELECT date_trunc('hour', now(), 'UTC')")[0][0]
    return hour


def test_rollups_that_each_commit_added_to_become_those_that_are_derived(database: str) -> None:
    """Nothing is lost, the running hour and day are derived once, older quarter-hours are made."""
    running = old_tables(database)
    before = sql.counts(database)
    apply(database)
    assert sql.counts(database) == before
    sql.assert_rollups_equal_minutes(database)
    ((hours, kept),) = sql.query(
        database, "SELECT count(*), count(*) FILTER (WHERE hour >= %s) FROM rollup_hour", running
    )
    assert hours > 100
    assert kept == 0
    asyncio.run(roll_all(database))
    sql.assert_rollups_equal_minutes(database)
    ((first, quarters),) = sql.query(database, "SELECT min(quarter), count(*) FROM rollup_quarter")
    assert first < running - timedelta(days=1)
    assert quarters > hours


async def roll_all(dsn: str) -> None:
    async with postgres.session(dsn, "rollup") as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        while await roll_up(connection, datetime.now(UTC) + timedelta(hours=1)):
            pass


def test_a_migration_that_dies_has_changed_nothing_and_is_done_by_the_next(database: str) -> None:
    old_tables(database)
    before = shape(database)
    rows = sql.query(database, "SELECT * FROM banner_hour ORDER BY 1, 2")
    with psycopg.connect(database) as dying:
        dying.execute(next(migrations.MIGRATIONS.glob("0004-*.sql")).read_bytes())
        dying.rollback()  # as Postgres does where the connection ends
    assert shape(database) == before
    assert sql.query(database, "SELECT * FROM banner_hour ORDER BY 1, 2") == rows
    apply(database)
    sql.assert_rollups_equal_minutes(database)


def test_a_writer_of_the_release_before_writes_nothing_into_newer_tables(database: str) -> None:
    """It has an open connection, and does not look at the version again. A new connection of a
    release that knows no version does not make the tables again either."""
    old_tables(database)
    apply(database)
    before = sql.counts(database)
    with psycopg.connect(database) as old:
        old.execute(
            "INSERT INTO banner_minute AS t VALUES (1, date_trunc('minute', now()), 1)"
            " ON CONFLICT (banner_id, minute) DO UPDATE SET clicks = t.clicks + excluded.clicks"
        )
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            old.execute("INSERT INTO banner_hour VALUES (1, date_trunc('hour', now()), 1)")
        old.rollback()
    with pytest.raises(psycopg.errors.WrongObjectType):
        sql.query(database, OLDEST)
    assert sql.counts(database) == before


def test_several_may_migrate_at_once(database: str) -> None:
    async def race() -> None:
        await asyncio.gather(*(migrations.apply_schema(database) for _ in range(6)))

    sql.query(database, OLDEST)
    asyncio.run(race())
    assert version(database)[0] == migrations.VERSION


def test_newer_tables_are_not_changed(database: str) -> None:
    apply(database)
    sql.query(database, f"UPDATE schema_version SET version = {NEWER}")
    sql.query(database, "DROP INDEX source_open")
    before = shape(database)
    apply(database)
    assert shape(database) == before, "an older release changed newer tables"
    assert version(database)[0] == NEWER


def test_an_aggregator_that_is_too_old_for_the_tables_says_so_and_writes_nothing(
    nats: NatsServer, database: str
) -> None:
    apply(database)
    sql.query(database, f"UPDATE schema_version SET version = {NEWER}, compatible_from = {NEWER}")
    with pytest.raises(migrations.SchemaTooNewError, match="upgrade this aggregator"):
        apply(database)
    with aggregator(nats.url, database, wait=False) as running:
        eventually(
            lambda: "upgrade this aggregator" in (running.not_ready() or ""),
            20, "the aggregator says what to do",
        )  # fmt: skip
        assert sql.query(database, "SELECT count(*) FROM source") == [(0,)]
        sql.query(database, "UPDATE schema_version SET compatible_from = 1")
        running.wait_ready()


def test_every_migration_has_a_number_of_its_own_up_to_the_version() -> None:
    numbers = [int(path.name[:4]) for path in sorted(migrations.MIGRATIONS.glob("[0-9]*.sql"))]
    assert numbers == list(range(2, migrations.VERSION + 1))

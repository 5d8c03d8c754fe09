"""Versions of the tables: old ones are brought up to date, newer ones are left alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest

from aggregator.postgres import migrations
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

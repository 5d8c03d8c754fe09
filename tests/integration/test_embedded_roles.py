"""Roles of the embedded Postgres: the aggregator owns its database and can do nothing beyond it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from aggregator.postgres import migrations
from stack.embedded import roles as embedded_roles
from stack.embedded.probes import PostgresReady
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_system import SystemFactory

RIGHTS = "rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
OWNERS = """
SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind <> 't'
UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'clickmill'
"""


def rights(dsn: str) -> tuple[object, ...]:
    """What the role of this DSN may do on the whole server."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"SELECT {RIGHTS} FROM pg_roles WHERE rolname = current_user")
        return tuple(row.fetchone() or ())


def refused(dsn: str, statement: str) -> bool:
    """Whether this role may not do that."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        try:
            connection.execute(statement.encode())
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
            return True
    return False


def test_up_runs_on_an_owner_without_other_rights_and_a_reader(system: SystemFactory) -> None:
    running = system()
    assert running.click(17, 5) == 5
    running.wait_counts(17, 5)
    owner, reader = running.address("postgres"), running.address("postgres", "reader")
    assert rights(owner) == rights(reader) == (False,) * 5
    with psycopg.connect(owner) as connection:
        assert connection.execute(OWNERS.encode()).fetchall() == [(embedded_roles.OWNER,)]
    for statement in ("CREATE ROLE other", "CREATE DATABASE other", "SELECT pg_read_file('x')"):
        assert refused(owner, statement), statement
    with psycopg.connect(reader) as connection:
        assert connection.execute("SELECT sum(clicks) FROM banner_minute").fetchone() == (5,)
    for statement in ("DELETE FROM banner_minute", "CREATE TABLE mine (a int)"):
        assert refused(reader, statement), statement
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(owner.removesuffix("clickmill") + "postgres")


def test_password_files_are_readable_only_by_their_owner(tmp_path: Path) -> None:
    made = embedded_roles.passwords(tmp_path)
    assert made == embedded_roles.passwords(tmp_path)
    assert made.owner != made.reader
    modes = [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()]
    assert modes == [0o600, 0o600]


def test_a_database_of_the_administrator_changes_owner_and_keeps_its_rows(
    own_postgres: PostgresServer,
) -> None:
    """As data directories were before the owner was there."""
    asyncio.run(migrations.apply_schema(own_postgres.dsn))
    with psycopg.connect(own_postgres.dsn, autocommit=True) as admin:
        admin.execute("SELECT clickmill_make_partition(current_date)")
        admin.execute("INSERT INTO banner_minute VALUES (17, date_trunc('minute', now()), 5)")
    for _ in range(2):  # the second time there is nothing left to do
        assert asyncio.run(PostgresReady(own_postgres.server)())
    with psycopg.connect(own_postgres.server.address, autocommit=True) as owner:
        assert owner.execute(OWNERS.encode()).fetchall() == [(embedded_roles.OWNER,)]
        assert owner.execute("SELECT sum(clicks) FROM banner_minute").fetchone() == (5,)
        owner.execute("SELECT clickmill_make_partition(current_date + 1)")
        owner.execute("SELECT clickmill_drop_day(current_date)")
    asyncio.run(migrations.apply_schema(own_postgres.server.address))


def test_a_lost_password_file_is_recreated(own_postgres: PostgresServer) -> None:
    assert asyncio.run(PostgresReady(own_postgres.server)())
    data_dir = own_postgres.server.cwd.parent
    own_postgres.stop()
    (data_dir / "postgres-owner-password").unlink()
    again = PostgresServer(data_dir)
    again.start()
    assert asyncio.run(PostgresReady(again.server)())
    assert again.server.address != own_postgres.server.address
    assert rights(again.server.address) == (False,) * 5
    again.stop()

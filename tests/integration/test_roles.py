"""The aggregator needs no more of Postgres than a role that owns its own database or schema.

And `clickmill_read`, whom Grafana is, can read and nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.support.fix_postgres import PostgresServer
from tests.support.fix_system import SystemFactory
from tests.support.raw import ask

PASSWORD = secrets.token_hex(16)
ROLE = "plain_owner"


@pytest.fixture
def plain(postgres_server: PostgresServer, database: str) -> Iterator[str]:
    """DSN of a role without any right but its own schema in that database."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(database, autocommit=True) as admin:
        literal = sql.Literal(PASSWORD)
        admin.execute(sql.SQL("CREATE ROLE plain_owner LOGIN PASSWORD {}").format(literal))
        admin.execute("CREATE SCHEMA clickmill AUTHORIZATION plain_owner")
        admin.execute("ALTER ROLE plain_owner SET search_path = clickmill")
        admin.execute(
            "DO $$ BEGIN CREATE ROLE clickmill_read LOGIN; "
            "EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        literal = sql.Literal(PASSWORD)
        admin.execute(sql.SQL("ALTER ROLE clickmill_read PASSWORD {}").format(literal))
        admin.execute("GRANT USAGE ON SCHEMA clickmill TO clickmill_read")
    yield make_conninfo(database, user=ROLE, password=PASSWORD, dbname=str(name))
    postgres_server.drop_database(str(name))
    with psycopg.connect(postgres_server.admin_dsn, autocommit=True) as admin:
        admin.execute("DROP ROLE plain_owner")


def test_a_role_with_a_schema_of_its_own_is_enough(
    system: SystemFactory, plain: str, database: str
) -> None:
    running = system(postgres_dsn=plain)
    assert running.click(17, 5) == 5
    running.wait_counts(17, 5)
    body = b'{"target_url": "https://example.org/"}'
    assert ask(running.stats_port, "PUT", "/banners/17", body).status in (200, 201)
    with psycopg.connect(database) as admin:
        owned = admin.execute(
            "SELECT DISTINCT schemaname, tableowner FROM pg_tables WHERE tablename ~ '^banner'"
        ).fetchall()
        rights = admin.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles "
            "WHERE rolname = 'plain_owner'"
        ).fetchone()
    assert owned == [("clickmill", ROLE)]
    assert rights == (False, False, False, False)
    _can_only_read(plain)


def _can_only_read(owner: str) -> None:
    reader = make_conninfo(owner, user="clickmill_read", password=PASSWORD)
    with psycopg.connect(reader, autocommit=True) as connection:
        clicks = connection.execute("SELECT sum(clicks) FROM clickmill.banner_minute").fetchone()
        assert clicks == (5,)
        for statement in (
            "INSERT INTO clickmill.banner_minute VALUES (1, now(), 1)",
            "UPDATE clickmill.banner_minute SET clicks = 0",
            "DELETE FROM clickmill.source",
            "TRUNCATE clickmill.quarantine",
            "CREATE TABLE clickmill.mine (x int)",
            "CREATE TABLE public.mine (x int)",
            "SELECT clickmill.clickmill_drop_day('2024-12-10')",
            "ALTER ROLE plain_owner SUPERUSER",
            "SELECT rolpassword FROM pg_authid",
            "COPY clickmill.banner_minute TO PROGRAM 'cat'",
        ):
            # Not only because its transactions are read-only, which it may change itself.
            connection.execute("SET default_transaction_read_only = off")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)

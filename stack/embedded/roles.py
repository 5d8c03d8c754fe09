"""The roles of the embedded Postgres: the administrator creates the roles and the database, the
owner is the aggregator's role, the reader is Grafana's.

There are three so that a compromised process has only the privileges it needs. docker-compose.yml
has the same roles, but the image names its administrator differently. An older data directory
without the owner role is transferred to it in one transaction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stack.embedded.server import Server, secret

OWNER: Final = "clickmill_owner"
READER: Final = "clickmill_read"
CONNECT_SECONDS: Final = 2

_LOOK: Final = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
_MAKE_DATABASE: Final = "CREATE DATABASE {database} OWNER {owner}"
_MAKE_ROLE: Final = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) THEN CREATE ROLE {role}; END IF;
END $$;
ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD {password}
"""
_LIMIT_READER: Final = """
ALTER ROLE {role} CONNECTION LIMIT 20;
ALTER ROLE {role} SET default_transaction_read_only = on;
ALTER ROLE {role} SET statement_timeout = '30s'
"""
_CLOSE_THE_REST: Final = "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC"
# Indexes, sequences and types follow their table; a partition is a separate table.
_HAND_OVER: Final = """
DO $$
DECLARE
    thing record;
BEGIN
    FOR thing IN SELECT oid::regclass AS name FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO {owner}', thing.name);
    END LOOP;
    FOR thing IN SELECT oid::regprocedure AS name FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO {owner}', thing.name);
    END LOOP;
END
$$;
ALTER DATABASE {database} OWNER TO {owner}
"""


class Passwords(NamedTuple):
    """Passwords of the owner and the reader."""

    owner: str
    reader: str


def passwords(data_dir: Path) -> Passwords:
    """Reads them from files that only the user can read; creates missing ones."""
    return Passwords(
        secret(data_dir / "postgres-owner-password"), secret(data_dir / "postgres-read-password")
    )


async def create(server: Server) -> None:
    """Creates or updates the roles and the database of the server's addresses; idempotent.

    Raises psycopg.OperationalError while the server accepts no sessions.
    """
    owner, reader = conninfo_to_dict(server.address), conninfo_to_dict(server.reader)
    database = str(owner["dbname"])
    async with await AsyncConnection.connect(
        server.admin, autocommit=True, connect_timeout=CONNECT_SECONDS
    ) as connection:
        await _make_roles(connection, str(owner["password"]), str(reader["password"]))
        found = await (await connection.execute(_LOOK, [database])).fetchone()
        if found is None:
            await connection.execute(_filled(_MAKE_DATABASE, database))
    if found is not None and found[0] != OWNER:
        await _hand_over(make_conninfo(server.admin, dbname=database), database)


async def _make_roles(connection: AsyncConnection[Any], owner: str, reader: str) -> None:
    for name, password in ((OWNER, owner), (READER, reader)):
        await connection.execute(
            sql.SQL(_MAKE_ROLE).format(
                name=sql.Literal(name), role=sql.Identifier(name), password=sql.Literal(password)
            )
        )
    await connection.execute(sql.SQL(_LIMIT_READER).format(role=sql.Identifier(READER)))
    await connection.execute(_CLOSE_THE_REST)


async def _hand_over(admin: str, database: str) -> None:
    async with await AsyncConnection.connect(admin, connect_timeout=CONNECT_SECONDS) as connection:
        await connection.execute(_filled(_HAND_OVER, database))


def _filled(statement: LiteralString, database: str) -> sql.Composed:
    return sql.SQL(statement).format(database=sql.Identifier(database), owner=sql.Identifier(OWNER))

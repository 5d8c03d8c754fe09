"""Opening a Postgres connection for this process, and telling errors apart.

Why one place: each session must end by itself where the other side, or this one, hangs; a
session that waits for ever would keep the row locks that fence the marks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from aggregator.postgres import arrays

CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_S: Final = 30
IDLE_IN_TRANSACTION_S: Final = 10
SCHEMA_FILE: Final = Path(__file__).parents[1] / "schema.sql"

# One class of advisory locks for all of Clickmill; schema.sql uses the same number.
LOCK_CLASS: Final = 1131179883
LOCK_SCHEMA: Final = 1000
LOCK_MEMBERS: Final = 1002

_LIBPQ: Final = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


async def connect(dsn: str, name: str, **session: str) -> AsyncConnection[Any]:
    """An autocommit connection, `name` seen in pg_stat_activity, `session` settings set.

    Raises psycopg.OperationalError where Postgres can't be reached, TimeoutError where it does
    not answer in time.
    """
    settings = {
        "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
        "timezone": "UTC",
        **session,
    }
    async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
        connection = await AsyncConnection.connect(
            make_conninfo(dsn, application_name=f"clickmill {name}", **_LIBPQ), autocommit=True
        )
    await connection.execute(
        "SELECT set_config(k, v, false) FROM unnest(%s::text[], %s::text[]) AS s (k, v)",
        [list(settings), list(settings.values())],
    )
    arrays.register(connection)
    return connection


@asynccontextmanager
async def session(dsn: str, name: str, **settings: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection for one short job, closed at its end."""
    connection = await connect(dsn, name, **settings)
    try:
        yield connection
    finally:
        await connection.close()


async def apply_schema(dsn: str) -> None:
    """Apply schema.sql, all or nothing; several processes may do so at once."""
    async with session(dsn, "schema") as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_CLASS, LOCK_SCHEMA])
        await connection.execute(SCHEMA_FILE.read_bytes())


async def heal_schema(connection: AsyncConnection[Any], dsn: str) -> None:
    """Apply the schema if this database has none, as after it was replaced by an empty one."""
    cursor = await connection.execute("SELECT to_regclass('source') IS NULL")
    row = await cursor.fetchone()
    if row is not None and row[0]:
        await apply_schema(dsn)

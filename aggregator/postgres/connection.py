"""Opening a Postgres connection for this process, and telling errors apart.

Why one place: each session must end by itself if either side hangs, because a session that waits
forever would keep the row locks that fence the marks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from aggregator.postgres import arrays

CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_S: Final = 30
IDLE_IN_TRANSACTION_S: Final = 6

# One class of advisory locks for all of Clickmill; schema.sql uses the same number.
LOCK_CLASS: Final = 1131179883
LOCK_SCHEMA: Final = 1000
LOCK_MEMBERS: Final = 1002
LOCK_CLOSING: Final = 1003
LOCK_CORRECTIONS: Final = 1004
LOCK_SLOTS: Final = 2000

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


async def backend_pid(connection: AsyncConnection[Any]) -> int:
    """Its backend, asked for: a pooler in between gives the connection a number of its own."""
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


@asynccontextmanager
async def session(dsn: str, name: str, **settings: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection for one short job, closed at its end."""
    connection = await connect(dsn, name, **settings)
    try:
        yield connection
    finally:
        await connection.close()

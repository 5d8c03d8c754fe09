"""The Postgres that is backed up or restored: the one of the DSN, or that of the data directory.

An embedded Postgres that is not running is started for as long as it is needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg

from clickmill.retry import first_line
from clickmill.settings import Settings
from stack import lock
from stack.backup.programs import Server
from stack.embedded import alone
from stack.embedded import postgres as embedded_postgres
from stack.embedded import server as embedded_server
from stack.errors import DataDirInUseError, StackError

CONNECT_SECONDS: Final = 10


@contextlib.contextmanager
def existing(settings: Settings) -> Iterator[str]:
    """The DSN of a database that exists. Raises StackError."""
    data_dir = Path(settings.data_dir).resolve()
    if settings.postgres_dsn:
        yield settings.postgres_dsn
        return
    if not (data_dir / embedded_postgres.NAME).is_dir():
        raise StackError(
            f"{data_dir} has no database: name the data directory with --data-dir, or your own "
            "Postgres with --postgres-dsn."
        )
    try:
        lock.take(data_dir)
    except DataDirInUseError:
        yield str(embedded_server.noted(data_dir, embedded_postgres.NAME).get("address", ""))
    else:
        with alone.running(embedded_postgres.prepare(data_dir)) as server:
            yield server.address


@contextlib.contextmanager
def stopped(settings: Settings) -> Iterator[str]:
    """The DSN of a database that no `clickmill up` is using. Raises StackError."""
    if settings.postgres_dsn:
        yield settings.postgres_dsn
        return
    data_dir = Path(settings.data_dir).resolve()
    lock.take(data_dir)
    with alone.running(embedded_postgres.prepare(data_dir)) as server:
        yield server.address


@contextlib.contextmanager
def connected(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit session without time limits. Raises StackError."""
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
            for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(f"SET {name} = 0")
            yield connection
    except psycopg.Error as error:
        raise StackError(f"Postgres: {first_line(error)}.") from error


def server(connection: psycopg.Connection[Any], dsn: str) -> Server:
    """The server of this session, for pg_dump and pg_restore."""
    tls = connection.pgconn.ssl_in_use
    return Server(dsn, connection.info.server_version // 10_000, tls)

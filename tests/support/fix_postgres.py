"""Fixtures of Postgres: one real server for the run, a fresh database for each test.

`database` is a DSN. A test that stops, kills or fills the server takes `own_postgres`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from stack.embedded import postgres as embedded_postgres
from stack.embedded.server import Server
from tests.support.fix_servers import RealServer
from tests.support.ports import free_port

# A test database need not survive a power cut; a test that says otherwise asks for durable=True.
HASTY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
_numbers = itertools.count(1)


class PostgresServer(RealServer):
    """A Postgres server. `dsn` is its first database, by its administrator."""

    def __init__(
        self, data_dir: Path, durable: bool = False, options: dict[str, str] | None = None,
        port: int = 0,
    ) -> None:  # fmt: skip
        options = ({} if durable else HASTY) | (options or {})
        server = embedded_postgres.prepare(data_dir, options, port or free_port())
        super().__init__(server, data_dir / "postgres.log", has_sessions)

    @property
    def admin_dsn(self) -> str:
        return self.server.admin

    def start(self, wait: bool = True) -> None:
        super().start(wait)
        if wait:
            self.make_database(embedded_postgres.DATABASE)

    @property
    def dsn(self) -> str:
        return self.admin_dsn.removesuffix("postgres") + embedded_postgres.DATABASE

    def make_database(self, name: str) -> str:
        """Makes the database unless it is there; its DSN."""
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if found.fetchone() is None:
                connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.admin_dsn.removesuffix("postgres") + name

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


def has_sessions(server: Server) -> bool:
    """The server takes a session; never raises."""
    try:
        psycopg.connect(server.admin, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    yield postgres_server.make_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("own-postgres"), durable=True)
    server.start()
    yield server
    server.stop()

"""Asking real servers whether they hang, and clearing away what a dead one left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stack.embedded import leftovers as embedded_leftovers
from stack.embedded import probes as embedded_probes
from stack.embedded import server as embedded_server
from stack.embedded.probes import nats_is_alive, postgres_is_alive
from stack.supervise.process import children_of
from tests.support.fix_nats import NatsServer
from tests.support.fix_postgres import PostgresServer
from tests.support.processes import alive, stopped
from tests.support.wait import eventually

RECOVERY = "the database system is starting up"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_probes, "ANSWER_SECONDS", 1.0)


@contextmanager
def sleeping(**options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], **options) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_stopped_nats_does_not_answer(nats: NatsServer) -> None:
    assert asyncio.run(nats_is_alive(nats.server))
    with stopped(nats.pid):
        assert not asyncio.run(nats_is_alive(nats.server))
    nats.stop()
    assert asyncio.run(nats_is_alive(nats.server)), "whether it runs is another question"


def test_nats_that_refuses_another_client_is_alive(nats: NatsServer) -> None:
    config = nats.server.cwd / "nats.conf"
    config.write_text(config.read_text().replace("max_connections: 1024", "max_connections: 1"))
    nats.restart()
    with socket.create_connection(("127.0.0.1", nats.port)) as client:
        assert client.recv(5) == b"INFO "
        assert asyncio.run(nats_is_alive(nats.server))


def test_nats_without_jetstream_is_not_alive(nats: NatsServer) -> None:
    config = nats.server.cwd / "nats.conf"
    text = config.read_text()
    config.write_text(text[: text.index("jetstream {")])
    nats.restart()
    assert not asyncio.run(nats_is_alive(nats.server))


def test_a_stopped_postmaster_does_not_answer(own_postgres: PostgresServer) -> None:
    assert asyncio.run(postgres_is_alive(own_postgres.server))
    with psycopg.connect(own_postgres.dsn) as session, stopped(own_postgres.pid):
        assert session.execute("SELECT 1").fetchone() == (1,), "an old session notices nothing"
        assert not asyncio.run(postgres_is_alive(own_postgres.server))


def test_postgres_without_a_free_session_is_alive(own_postgres: PostgresServer) -> None:
    with ExitStack() as sessions:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            take_every_session(own_postgres, sessions)
        assert asyncio.run(postgres_is_alive(own_postgres.server))


def take_every_session(server: PostgresServer, sessions: ExitStack) -> None:
    while True:
        sessions.enter_context(psycopg.connect(server.admin_dsn))


def test_postgres_in_recovery_is_alive(own_postgres: PostgresServer) -> None:
    """The startup process is held, so that the recovery takes as long as the test."""
    with psycopg.connect(own_postgres.dsn) as session:
        session.execute("CREATE TABLE filled AS SELECT generate_series(1, 300000) AS a")
    own_postgres.kill()
    own_postgres.start(wait=False)
    with stopped(*eventually(lambda: startup_process(own_postgres.pid))):
        with pytest.raises(psycopg.OperationalError, match=RECOVERY):
            eventually(lambda: bool(psycopg.connect(own_postgres.admin_dsn)), 5)
        assert asyncio.run(postgres_is_alive(own_postgres.server))


def startup_process(postmaster: int) -> list[int]:
    """The process that recovers, once it does."""
    return [
        child
        for child in children_of(postmaster)
        if b"startup" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_a_stopped_backend_of_a_dead_postmaster_is_cleared_away(
    own_postgres: PostgresServer,
) -> None:
    home = own_postgres.server.cwd
    with psycopg.connect(own_postgres.dsn) as session:
        backend = session.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        own_postgres.kill()
    own_postgres.start(wait=False)
    eventually(lambda: not own_postgres.still_runs(), 10, "it refuses to start beside it")
    assert "is still in use" in own_postgres.log.read_text()
    own_postgres.stop()
    with sleeping(cwd=home) as operators:
        asyncio.run(embedded_leftovers.clear(home))
        assert not alive(backend)
        assert operators.poll() is None
    own_postgres.start()


def test_clearing_removes_a_lock_file_with_another_programs_pid(
    own_postgres: PostgresServer,
) -> None:
    own_postgres.kill()
    home, lock = own_postgres.server.cwd, own_postgres.server.cwd / "postmaster.pid"
    account = embedded_server.as_account(own_postgres.server.account)
    with sleeping(cwd=Path("/"), **account) as stranger:
        lock.write_text("\n".join([str(stranger.pid), *lock.read_text().split("\n")[1:]]))
        asyncio.run(embedded_leftovers.clear(home))
        assert not lock.exists()
        assert stranger.poll() is None

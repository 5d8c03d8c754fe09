"""A real PgBouncer between an aggregator and Postgres: session mode works, transaction mode is
refused with a sentence."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support import sql
from tests.support.aggregators import Aggregator, Bus, aggregator
from tests.support.fix_nats import NatsServer
from tests.support.ports import free_port
from tests.support.wait import eventually

_CONFIG = """\
[databases]
{dbname} = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
auth_type = any
pool_mode = {mode}
logfile = {home}/pgbouncer.log
unix_socket_dir =
{account}
"""


@contextmanager
def pooled(dsn: str, mode: str) -> Iterator[str]:
    """The DSN of the same database behind PgBouncer. It refuses to run as root, and pytest closes
    its directories to other accounts."""
    with tempfile.TemporaryDirectory(prefix="clickmill-") as home:
        Path(home).chmod(0o777)
        with _running(dsn, mode, Path(home)) as behind:
            yield behind


@contextmanager
def _running(dsn: str, mode: str, home: Path) -> Iterator[str]:
    parts, port = conninfo_to_dict(dsn), free_port()
    account = "user = nobody" if os.geteuid() == 0 else ""
    config = home / "pgbouncer.ini"
    config.write_text(_CONFIG.format(**parts, listen=port, mode=mode, home=home, account=account))
    config.chmod(0o644)
    process = subprocess.Popen(
        ["pgbouncer", "-q", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )  # fmt: skip
    behind = make_conninfo(dsn, port=port)
    try:
        eventually(lambda: _answers(behind), 15, "PgBouncer answers")
        yield behind
    finally:
        process.terminate()
        process.wait(10)


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def test_transaction_mode_is_refused(nats: NatsServer, database: str) -> None:
    with (
        pooled(database, "transaction") as behind,
        aggregator(nats.url, behind, wait=False) as running,
    ):
        eventually(lambda: "pool_mode=session" in (running.not_ready() or ""), 20, "it says so")
        assert "pool_mode=session" in running.output
        assert sql.query(database, "SELECT to_regclass('source')") == [(None,)]


def test_session_mode_works(nats: NatsServer, database: str) -> None:
    async def send(running: Aggregator) -> None:
        async with Bus(nats.url) as bus:
            worker = bus.worker()
            for _ in range(20):
                await worker.send({1: 2})
            await worker.committed()

    with (
        pooled(database, "session") as behind,
        aggregator(nats.url, behind) as running,
    ):
        asyncio.run(send(running))
        assert sql.counts(database) == {1: 40}

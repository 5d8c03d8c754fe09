"""The embedded servers: real programs, started the way `clickmill up` starts them."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import nats as nats_client
import psycopg
import pytest

from stack.embedded import leftovers as embedded_leftovers
from stack.embedded import postgres as embedded_postgres
from stack.embedded import probes as embedded_probes
from stack.embedded import server as embedded_server
from stack.errors import StackError
from tests.support.fix_nats import NatsServer
from tests.support.fix_postgres import PostgresServer
from tests.support.wait import eventually

ORPHAN = """
import os, subprocess, sys, time
from pathlib import Path
from stack.embedded import nats as embedded_nats
from stack.embedded import postgres as embedded_postgres
data = Path(sys.argv[1])
for server in (embedded_nats.prepare(data, 1 << 26), embedded_postgres.prepare(data)):
    process = subprocess.Popen(server.argv, **server.popen_options(), stderr=subprocess.DEVNULL)
    print(process.pid, server.port, flush=True)
time.sleep(60)
"""


def test_jetstream_runs_and_requires_the_password(nats: NatsServer) -> None:
    async def account() -> int:
        client = await nats_client.connect(nats.url, allow_reconnect=False)
        info = await client.jetstream().account_info()
        await client.close()
        return info.streams

    assert asyncio.run(account()) == 0
    assert asyncio.run(embedded_probes.nats_is_ready(nats.server))
    with socket.create_connection(("127.0.0.1", nats.port), timeout=5) as stranger:
        stranger.sendall(b"CONNECT {}\r\nPING\r\n")
        said = b"".join(iter(lambda: stranger.recv(4096), b""))
    assert b"Authorization Violation" in said


def test_nats_syncs_always(nats: NatsServer) -> None:
    assert "sync_interval: always" in (nats.server.cwd / "nats.conf").read_text()


def test_postgres_has_the_configured_version_and_settings(own_postgres: PostgresServer) -> None:
    wanted = {
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "listen_addresses": "127.0.0.1",
        "fsync": "on",
        "password_encryption": "scram-sha-256",
    }
    with psycopg.connect(own_postgres.dsn) as connection:
        for name, value in wanted.items():
            (row,) = connection.execute("SELECT current_setting(%s)", [name]).fetchall()
            assert row == (value,), name
        provider = connection.execute(
            "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'clickmill'"
        ).fetchone()
        assert provider == ("b", "C.UTF-8")


def test_postgres_asks_for_the_password(own_postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://clickmill:wrong@127.0.0.1:{own_postgres.port}/clickmill")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account to run it as")
def test_postgres_does_not_run_as_root(own_postgres: PostgresServer) -> None:
    assert Path(f"/proc/{own_postgres.pid}").stat().st_uid != 0


def test_postgres_of_another_version_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "postgres"
    home.mkdir()
    (home / "PG_VERSION").write_text("16\n")
    with pytest.raises(
        StackError, match=r"created by Postgres 16, and this is Postgres 18.*--data-dir"
    ):
        embedded_postgres.prepare(tmp_path)


def test_a_directory_without_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with pytest.raises(StackError, match="no complete database"):
        embedded_postgres.prepare(tmp_path)


def test_the_remains_of_a_killed_initdb_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "postgres.new" / "base").mkdir(parents=True)
    embedded_postgres.prepare(tmp_path)
    assert not (tmp_path / "postgres.new").exists()
    assert (tmp_path / "postgres" / "PG_VERSION").exists()


def test_another_programs_pid_in_the_lock_file_does_not_prevent_a_start(
    own_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own_postgres.kill()
    lock = own_postgres.server.cwd / "postmaster.pid"
    account = own_postgres.server.account
    with subprocess.Popen(["sleep", "60"], **embedded_server.as_account(account)) as stranger:
        lines = eventually(lambda: lock.read_text().split("\n"), 5)
        lock.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        again = PostgresServer(own_postgres.server.cwd.parent)
        again.start()
        again.stop()
        stranger.kill()


def test_a_start_waits_for_a_server_that_is_stopping(own_postgres: PostgresServer) -> None:
    stop = threading.Timer(0.5, own_postgres.signal, [signal.SIGQUIT])
    stop.start()
    again = PostgresServer(own_postgres.server.cwd.parent)
    eventually(lambda: not own_postgres.still_runs(), 5, "it is gone, a moment after its lock file")
    again.start()
    again.stop()


def test_a_server_that_does_not_stop_is_reported(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_leftovers, "PREDECESSOR_SECONDS", 0.2)
    with pytest.raises(StackError, match=f"process {own_postgres.pid}, is using"):
        PostgresServer(own_postgres.server.cwd.parent)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another account")
def test_data_and_programs_that_the_account_cannot_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = embedded_postgres.install_dir().parent
    programs = closed / package.name / embedded_postgres.install_dir().name
    shutil.copytree(embedded_postgres.install_dir(), programs)
    libraries = embedded_postgres.LIBRARIES
    shutil.copytree(package.parent / libraries, closed / libraries)
    shared = Path("/var/tmp") / f"clickmill-test-{os.getpid()}"
    monkeypatch.setattr(embedded_postgres, "install_dir", lambda: programs)
    monkeypatch.setattr(embedded_postgres, "SHARED_COPY", shared)
    try:
        server = PostgresServer(closed / "data")
        assert server.server.argv[0].startswith(str(shared))
        server.start()
        with psycopg.connect(server.dsn) as connection:
            # plpgsql and the time zones come from lib and share
            connection.execute("DO $$ BEGIN PERFORM now() AT TIME ZONE 'Europe/Berlin'; END $$")
        server.stop()
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def test_servers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline().split()[0]) for _ in range(2)]
        eventually(lambda: (tmp_path / "postgres" / "postmaster.pid").exists(), 10)
        parent.send_signal(signal.SIGKILL)
        for pid in pids:
            eventually(functools.partial(is_gone, pid), 2, f"{pid} is gone")


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()

"""Backup and restore: with real workers, aggregators, NATS and Postgres.

A backup is complete or refused; a restored click counts once, whatever a worker sends again.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aggregator.writing.fold import Arrival
from aggregator.writing.store import Store
from clickmill import wire
from ingest.durable.spool import Spool
from stack.backup import spools
from stack.embedded import postgres
from stack.embedded.server import Server, as_account
from stack.supervise.process import is_stopped
from tests.support import backups, sql
from tests.support.aggregators import aggregator
from tests.support.fix_nats import NatsServer
from tests.support.fix_postgres import PostgresServer, has_sessions
from tests.support.fix_servers import RealServer
from tests.support.fix_system import SystemFactory
from tests.support.fix_worker import Worker
from tests.support.frames import frame
from tests.support.ports import free_port
from tests.support.raw import ask
from tests.support.stores import with_store
from tests.support.wait import eventually

BANNER = 7


@contextmanager
def worker(nats: NatsServer, data_dir: Path) -> Iterator[Worker]:
    """Without the tap, which would confirm frames that no Postgres has."""
    data_dir.mkdir()
    running = Worker(nats, data_dir, {"CLICKMILL_RESEND_AFTER_SECONDS": "1"})
    running.tap.close()
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def empty(postgres_server: PostgresServer) -> Iterator[str]:
    """A second database."""
    yield postgres_server.make_database("restored")
    postgres_server.drop_database("restored")


@pytest.fixture
def postgres16(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the oldest version that is supported: its DSN without the database."""
    work = tmp_path_factory.mktemp("postgres16")
    account = postgres._account(work / "db")
    programs = postgres._reachable(postgres.client_programs("postgres")[0].parents[1], account)
    home, port = work / "db", free_port()
    home.mkdir(mode=0o700)
    if account is not None:
        os.chown(home, account.pw_uid, account.pw_gid)
    server = Server(
        "postgres16",
        (
            str(programs / "bin" / "postgres"), f"-p{port}", "-F", "-h127.0.0.1", "-k", "",
            "-D", postgres.HERE,
        ),
        home, port, "", admin=f"postgresql://clickmill@127.0.0.1:{port}/postgres", account=account,
    )  # fmt: skip
    initdb = [
        str(programs / "bin" / "initdb"),
        "-D",
        postgres.HERE,
        "-U",
        "clickmill",
        "-A",
        "trust",
    ]
    subprocess.run(
        [*initdb, "--no-sync", "--no-locale", "-E", "UTF8"], cwd=home, env=server.env, check=True,
        stdout=subprocess.DEVNULL, **as_account(account),
    )  # fmt: skip
    running = RealServer(server, work / "log", has_sessions)
    running.start()
    yield server.admin.removesuffix("postgres")
    running.stop()


def click(running: Worker, times: int) -> None:
    for _ in range(times):
        assert ask(running.port, "POST", f"/counter/{BANNER}").status == 200


def wait_committed(dsn: str, clicks: int) -> None:
    def exact() -> bool:
        assert sql.counts(dsn).get(BANNER, 0) <= clicks
        return sql.counts(dsn) == {BANNER: clicks}

    eventually(exact, 30, f"Postgres has {clicks} clicks")


def test_a_running_system_is_restored_on_another_machine(
    system: SystemFactory, tmp_path: Path
) -> None:
    one, file = system(), tmp_path / "backup.zip"
    assert one.click(BANNER, 12) == 12
    one.wait_counts(BANNER, 12)
    code, text = backups.run("backup", file, data_dir=one.data_dir)
    assert code == 0, text
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
    assert one.click(BANNER, 3) == 3  # it is still running
    new = tmp_path / "new"
    code, text = backups.run("restore", file, data_dir=new)
    assert code == 0, text
    two = system(data_dir=new)
    two.wait_counts(BANNER, 12)
    assert two.click(BANNER, 2) == 2
    two.wait_counts(BANNER, 14)
    eventually(lambda: "completeBut" not in statistics(two.stats_url), 20, "nothing holds it back")
    code, text = backups.run("restore", file, data_dir=new)
    assert code == 1
    assert text == (
        f"Clickmill is already running on {new}, as process {two.pid}: stop it first "
        f"(kill {two.pid}), or choose another directory with --data-dir.\n"
    )


def test_a_stopped_system_is_backed_up_and_never_overwritten(
    system: SystemFactory, tmp_path: Path
) -> None:
    one, file = system(), tmp_path / "backup.zip"
    assert one.click(BANNER, 5) == 5
    one.wait_counts(BANNER, 5)
    one.stop()
    code, text = backups.run("backup", file, data_dir=one.data_dir)
    assert code == 0, text
    one.wait_gone()
    code, text = backups.run("restore", file, data_dir=one.data_dir)
    assert code == 1
    assert "The database is not empty (its table banner_minute has rows)" in text
    assert len(text.splitlines()) == 1, text
    code, text = backups.run("backup", file, data_dir=one.data_dir)
    assert code == 1
    assert "exists: choose another name" in text
    system(data_dir=one.data_dir).wait_counts(BANNER, 5)


def test_a_restored_database_has_every_row_and_index(
    database: str, empty: str, tmp_path: Path
) -> None:
    file = tmp_path / "backup.zip"
    fill(database)
    assert backups.run("backup", file, postgres_dsn=database, data_dir=tmp_path)[0] == 0
    code, text = backups.run("restore", file, postgres_dsn=empty, data_dir=tmp_path)
    assert code == 0, text
    before, after = backups.content(database), backups.content(empty)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"source", "source_given_up"}
    assert sql.query(empty, "SELECT count(*) FROM source WHERE NOT closed") == [(0,)]
    assert sql.query(empty, "SELECT node, total FROM source_given_up") == [("far", 30)]


def test_postgres_16_is_backed_up_and_takes_no_backup_of_a_newer_version(
    postgres16: str, database: str, tmp_path: Path
) -> None:
    old, new = tmp_path / "16.zip", tmp_path / "18.zip"
    sql.query(f"{postgres16}postgres", "CREATE DATABASE one")
    sql.query(f"{postgres16}postgres", "CREATE DATABASE two")
    for dsn, file in ((f"{postgres16}one", old), (database, new)):
        fill(dsn)
        assert backups.run("backup", file, postgres_dsn=dsn, data_dir=tmp_path)[0] == 0
    code, text = backups.run("restore", new, postgres_dsn=f"{postgres16}two", data_dir=tmp_path)
    assert code == 1
    assert "is of Postgres 18 and the server is version 16" in text
    code, text = backups.run("restore", old, postgres_dsn=f"{postgres16}two", data_dir=tmp_path)
    assert code == 0, text
    assert sql.counts(f"{postgres16}two") == {BANNER: 30}


def test_uncommitted_frames_are_in_the_backup_and_count_once(
    nats: NatsServer, database: str, empty: str, tmp_path: Path
) -> None:
    """The worker has sent them to NATS, and sends them again to the restored database."""
    file, home = tmp_path / "backup.zip", tmp_path / "worker"
    with worker(nats, home) as running:
        with aggregator(nats.url, database):
            click(running, 10)
            wait_committed(database, 10)
        click(running, 6)
        eventually(lambda: spooled_clicks(home) == 16, 10, "all clicks are in frames")
        code, text = backups.run("backup", file, postgres_dsn=database, data_dir=home)
        assert code == 0, text
        assert "uncommitted frames with 6 clicks" in text
        code, text = backups.run("restore", file, postgres_dsn=empty, data_dir=tmp_path)
        assert code == 0, text
        assert sql.counts(empty) == {BANNER: 16}
        with aggregator(nats.url, empty) as restored:
            click(running, 4)
            wait_committed(empty, 20)
            eventually(lambda: restored.metric("clickmill_frames_duplicate_total") > 0, 20, "sent")
            eventually(lambda: open_sources(empty) == 1, 20, "the worker's source is open again")
            click(running, 1)
            wait_committed(empty, 21)
    assert sql.quarantine(empty) == []
    sql.assert_rollups_equal_minutes(empty)


def test_spools_send_what_was_committed_after_the_backup(
    nats: NatsServer, database: str, empty: str, tmp_path: Path
) -> None:
    file, home = tmp_path / "backup.zip", tmp_path / "worker"
    with worker(nats, home) as running:
        with aggregator(nats.url, database):
            click(running, 10)
            wait_committed(database, 10)
            code, text = backups.run("backup", file, postgres_dsn=database, data_dir=home)
            assert code == 0, text
            click(running, 7)
            wait_committed(database, 17)
        code, text = backups.run("restore", file, postgres_dsn=empty, data_dir=tmp_path)
        assert code == 0, text
        assert sql.counts(empty) == {BANNER: 10}
        with aggregator(nats.url, empty):
            wait_committed(empty, 17)
            click(running, 2)
            wait_committed(empty, 19)
    assert sql.quarantine(empty) == []


def test_clicks_that_are_committed_during_a_backup_count_once(
    database: str, empty: str, tmp_path: Path
) -> None:
    """Frame 2 is in the spool, and then in the database; 4 is in the spool, and 3 is damaged."""
    file, settings = tmp_path / "backup.zip", {"postgres_dsn": database, "data_dir": tmp_path}
    fill(database)
    frames = {seq: frame(seq, {BANNER: 1}, 29 + seq) for seq in (2, 3, 4)}
    spool(tmp_path, [frames[2], frames[4]])
    running = backups.start("backup", file, **settings, failpoints="backup.frames=stop")
    eventually(lambda: is_stopped(running.pid), 30, "it has read the frames")
    apply(database, frames[2])
    running.send_signal(signal.SIGCONT)
    text = running.communicate(timeout=60)[0]
    assert "2 uncommitted frames with 2 clicks" in text
    code, text = backups.run("restore", file, postgres_dsn=empty, data_dir=tmp_path)
    assert code == 0, text
    assert sql.counts(empty) == {BANNER: 32}
    assert sql.quarantine(empty) == [(4, "lost_range", 1)]
    for late in frames.values():
        apply(empty, late)
    assert sql.counts(empty) == {BANNER: 32}


def test_a_restore_beside_an_aggregator_is_refused(
    nats: NatsServer, database: str, empty: str, tmp_path: Path
) -> None:
    file = tmp_path / "backup.zip"
    fill(database)
    assert backups.run("backup", file, postgres_dsn=database, data_dir=tmp_path)[0] == 0
    with aggregator(nats.url, empty):
        code, text = backups.run("restore", file, postgres_dsn=empty, data_dir=tmp_path)
        assert (code, text) == (1, "An aggregator is connected to this database: stop it first.\n")
    # It has made the tables, which are empty.
    code, text = backups.run("restore", file, postgres_dsn=empty, data_dir=tmp_path)
    assert code == 0, text
    assert sql.counts(empty) == {BANNER: 30}


@pytest.mark.parametrize("step", ["backup.frames", "backup.dump", "backup.dumped"])
def test_a_killed_backup_leaves_no_backup(database: str, tmp_path: Path, step: str) -> None:
    file, settings = tmp_path / "backup.zip", {"postgres_dsn": database, "data_dir": tmp_path}
    fill(database)
    code, _ = backups.run("backup", file, **settings, failpoints=f"{step}=kill")
    assert code == -signal.SIGKILL
    assert not file.exists()
    draft = tmp_path / "backup.zip.part"
    code, text = backups.run("restore", draft, **settings)
    assert code == 1
    assert text.startswith(f"{draft} is not a complete Clickmill backup (")
    assert backups.run("backup", file, **settings)[0] == 0
    assert not draft.exists()


def test_a_backup_that_is_stopped_or_out_of_space_removes_its_draft(
    database: str, tmp_path: Path
) -> None:
    file, settings = tmp_path / "backup.zip", {"postgres_dsn": database, "data_dir": tmp_path}
    fill(database)
    code, text = backups.run("backup", file, **settings, failpoints="backup.dumped=enospc")
    assert code == 1
    assert "can't be written (No space left on device" in text
    assert "free space on its disk" in text
    running = backups.start("backup", file, **settings, failpoints="backup.dumped=sleep:60")
    draft = tmp_path / "backup.zip.part"
    eventually(lambda: draft.exists() and draft.stat().st_size > 0, 30, "it is being written")
    running.send_signal(signal.SIGTERM)
    assert running.communicate(timeout=30)[0] == "Interrupted.\n"
    assert running.returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["restore.prepared", "restore.tables", "restore.frames"])
def test_an_interrupted_restore_is_completed_by_the_same_command(
    nats: NatsServer, database: str, empty: str, tmp_path: Path, step: str
) -> None:
    file, settings = tmp_path / "backup.zip", {"postgres_dsn": empty, "data_dir": tmp_path}
    fill(database)
    assert backups.run("backup", file, postgres_dsn=database, data_dir=tmp_path)[0] == 0
    code, _ = backups.run("restore", file, **settings, failpoints=f"{step}=kill")
    assert code == -signal.SIGKILL
    with aggregator(nats.url, empty, wait=False) as refusing:
        eventually(
            lambda: "run the same `clickmill restore` again" in (refusing.not_ready() or ""), 20,
            "an aggregator refuses the database",
        )  # fmt: skip
    code, text = backups.run("restore", file, **settings)
    assert code == 0, text
    assert sql.counts(empty) == {BANNER: 30}
    with aggregator(nats.url, empty):
        assert sql.counts(empty) == {BANNER: 30}


def fill(dsn: str) -> None:
    """30 clicks of an open source on the node `far`, three days ago, a banner with a name, and a
    correction, whose rows can't be changed."""
    apply(dsn, frame(1, {BANNER: 30}, 30, minute=int(time.time()) // 60 - 3 * 1440))
    sql.query(dsn, "UPDATE source SET node = 'far'")
    sql.query(dsn, "INSERT INTO banner VALUES (%s, 'Frühling', 'https://example.org/')", BANNER)
    sql.query(
        dsn,
        """
        WITH made AS (
            INSERT INTO correction
                (author, reason, kind, banners, ts_from, ts_to, per_minute, clicks)
            VALUES ('a', 'test', 'clicks', '{7}', now(), now() + interval '1 minute', 5, 5)
            RETURNING id
        )
        INSERT INTO correction_minute SELECT 7, date_trunc('minute', now()), id, 5 FROM made
        """,
    )


def apply(dsn: str, sealed: wire.Frame) -> None:
    async def apply_one(store: Store) -> None:
        await store.apply([Arrival(sealed.source, sealed.seq, sealed)])

    with_store(dsn, apply_one)


def spool(data_dir: Path, frames: list[wire.Frame]) -> None:
    home = data_dir / "ingest" / str(frames[0].source)
    home.mkdir(parents=True)
    written = Spool(home / "spool", 1 << 30)
    written.append(frames)
    written.close()


def spooled_clicks(data_dir: Path) -> int:
    return spools.collect(data_dir / "ingest", {}, io.BytesIO()).clicks


def open_sources(dsn: str) -> int:
    [(n,)] = sql.query(dsn, "SELECT count(*) FROM source WHERE NOT closed")
    return int(n)


def statistics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/stats/{BANNER}", timeout=5) as response:
        return str(response.read().decode())

"""Faults of NATS and Postgres: killed, emptied, put back to an older copy, out of room."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT

import psycopg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from clickmill import bus, wire
from tests.crash.stage import Stage, fill, small_disk
from tests.support.sql import query
from tests.support.wait import eventually

LAG_AFTERWARDS_S = 10.0
NATS_DISK = "16m"
POSTGRES_DISK = "160m"
COPY_KEEP_S = 120


def nats_killed(stage: Stage, times: int) -> None:
    """NATS is killed every three seconds; the lag is under 10 s as soon as that ends."""
    stage.aggregator()
    stage.worker()
    stage.load()
    for _ in range(times):
        stage.play(3.0)
        stage.nats.kill()
        stage.nats.start()
    stage.check(within=LAG_AFTERWARDS_S)


def stream_deleted(stage: Stage, times: int) -> None:
    """The stream is deleted, or consumers of it, or all its messages, with frames in it."""
    stage.worker()
    stage.load()
    for n in range(times):
        stage.aggregator()
        stage.play(1.5)
        _pile_up(stage)
        _with_jetstream(stage, (_delete_stream, _purge, _delete_consumers)[n % 3])
        stage.play(0.5)
    stage.aggregator()
    stage.check()


def _pile_up(stage: Stage) -> None:
    """Without an aggregator frames stay in the stream: what befalls it then, befalls them."""
    stage.aggregators[-1].process.kill()
    stage.play(1.0)


def store_restored(stage: Stage, times: int) -> None:
    """The server comes back with an older copy of its store: acknowledged messages come again."""
    stage.worker()
    stage.load()
    copy = stage.home / "store-copy"
    for _ in range(times):
        stage.aggregator()
        stage.play(1.5)
        _pile_up(stage)
        stage.nats.kill()
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(stage.nats.store, copy)
        stage.nats.start()
        stage.aggregator()
        stage.play(2.0)
        _pile_up(stage)
        stage.nats.kill()
        shutil.rmtree(stage.nats.store)
        shutil.copytree(copy, stage.nats.store)
        stage.nats.start()
    stage.aggregator()
    stage.check()


def nats_disk_full(stage: Stage, seconds: int) -> None:
    """The disk of the store fills up, and is freed after a while."""
    stage.nats.stop()
    with small_disk(stage.nats.store, NATS_DISK) as disk:
        stage.nats.start()
        stage.aggregator()
        stage.worker()
        stage.load()
        stage.play(2.0)
        filler = fill(disk)
        time.sleep(seconds)
        filler.unlink()
        stage.clicks_come()
        stage.check()
        stage.nats.stop()


def postgres_restarted(stage: Stage, times: int) -> None:
    """Backends terminated, fast stop, immediate stop, the postmaster killed: in turns."""
    stage.aggregator()
    stage.worker()
    stage.load()
    for n in range(times):
        stage.play(1.5)
        if n % 4 == 0:
            terminate_backends(stage)
        else:
            stage.postgres.stop((SIGINT, SIGQUIT, SIGKILL)[n % 4 - 1])
            stage.play(1.0)
            stage.postgres.start()
    stage.check()


def postgres_put_back(stage: Stage, seconds: int) -> None:
    """Postgres is put back to a copy of some time ago, twice: what it forgot comes from spools."""
    stage.settings |= {"spool_keep_seconds": COPY_KEEP_S}
    stage.aggregator()
    stage.worker()
    stage.load()
    home, copy = stage.postgres.server.cwd, stage.home / "postgres-copy"
    for _ in range(2):
        time.sleep(seconds)
        stage.postgres.stop()
        shutil.rmtree(copy, ignore_errors=True)
        _copy(home, copy)
        stage.postgres.start()
        time.sleep(seconds)
        before = stage.counts().total()
        stage.postgres.stop(SIGKILL)
        shutil.rmtree(home)
        _copy(copy, home)
        stage.postgres.start()
        stage.notes.append(f"put back from {before} clicks to {stage.counts().total()}")
    stage.check()


def postgres_disk_full(stage: Stage, seconds: int) -> None:
    """The disk of Postgres fills up; it may stop altogether, and is started again when freed."""
    disk = stage.postgres.server.cwd.parent
    stage.aggregator()
    stage.worker()
    stage.load()
    stage.play(2.0)
    filler = fill(disk)
    # A log file that is begun already has room for long: make it begin others.
    eventually(lambda: _asked(stage, "SELECT pg_switch_wal()") is None, 20, "the disk is full")
    time.sleep(seconds)
    assert "No space left on device" in stage.postgres.log.read_text()
    filler.unlink()
    try:
        eventually(lambda: _asked(stage, "SELECT 1"), 10, "Postgres takes sessions again")
    except AssertionError:
        stage.notes.append("Postgres had ended itself, and was started again")
        stage.postgres.kill()
        stage.postgres.start()
    stage.check()


def both_away(stage: Stage, seconds: int) -> None:
    """NATS and Postgres are gone for long; clicks are answered all the while, just as fast."""
    stage.aggregator()
    stage.worker()
    stage.load()
    time.sleep(seconds / 2)
    before = len(stage.ledger.latencies)
    stage.nats.kill()
    stage.postgres.stop(SIGKILL)
    time.sleep(seconds)
    after = len(stage.ledger.latencies)
    spool = sum(p.stat().st_size for p in stage.data_dir.rglob("*.frames"))
    stage.nats.start()
    stage.postgres.start()
    usual, away = _p99(stage.ledger.latencies[:before]), _p99(stage.ledger.latencies[before:after])
    stage.notes.append(f"p99 {usual * 1e3:.1f} ms, away {away * 1e3:.1f} ms; spool {spool} bytes")
    assert after - before > (before / 2), "clicks went on being answered"
    assert not stage.ledger.refused, stage.ledger.refused
    assert away < 3 * usual + 0.01
    stage.check()


def _p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)]


def _asked(stage: Stage, sql: str) -> list[tuple[object, ...]] | None:
    """The rows; None where Postgres does not answer."""
    try:
        return query(stage.postgres.admin_dsn, sql)
    except psycopg.Error:
        return None


def _copy(source: Path, target: Path) -> None:
    """Everything with its owner: Postgres is another user than we are."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def terminate_backends(stage: Stage) -> None:
    query(
        stage.postgres.admin_dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
    )


def lose_messages(stage: Stage) -> None:
    """Delete the stream, with all that is in it, if it is there."""
    with contextlib.suppress(NotFoundError):
        _with_jetstream(stage, _delete_stream)


def _with_jetstream(stage: Stage, act: Callable[[JetStreamContext], Awaitable[None]]) -> None:
    async def run() -> None:
        client = await bus.connect(stage.nats.url, "crash")
        await act(client.jetstream())
        await bus.close(client)

    asyncio.run(run())


async def _delete_stream(js: JetStreamContext) -> None:
    await js.delete_stream(wire.STREAM)


async def _delete_consumers(js: JetStreamContext) -> None:
    for shard in range(wire.SHARDS):
        await js.delete_consumer(wire.STREAM, bus.consumer_name(shard))


async def _purge(js: JetStreamContext) -> None:
    await js.purge_stream(wire.STREAM)

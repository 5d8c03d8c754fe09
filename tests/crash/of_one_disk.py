"""The whole `up` on one small disk, as a single machine has it: everything runs out of room."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import time
from pathlib import Path

import psycopg

from tests.crash.stage import Stage, fill, small_disk
from tests.support.sql import query
from tests.support.wait import eventually

ONE_DISK = "192m"
LONGEST_GAP_S = 3.0
"""Between two answers, all clients together: what a loaded machine may hold a worker up."""
HEALS_S = 120.0
WAL_BYTES = 8 << 20
_WRITE_WAL = f"SELECT pg_logical_emit_message(false, 'crash', repeat('x', {WAL_BYTES}))"


def one_disk_full(stage: Stage, seconds: int) -> None:
    """The one disk is full and Postgres ends; a worker is killed, the workers are reloaded."""
    stage.by_minute = False
    with small_disk(stage.data_dir, ONE_DISK) as disk:
        system = stage.supervised(2, "up")
        stage.load()
        stage.play(2.0)
        before, began = system.children(), time.monotonic()
        filler = fill(disk)
        eventually(functools.partial(_out_of_room, stage), 30, "Postgres is out of room")
        fill(disk)
        os.kill(before["ingest-1"], signal.SIGKILL)
        _keep_full(disk, seconds / 2)
        system.signal(signal.SIGHUP)
        _keep_full(disk, seconds / 2)
        stage.clicks_come()
        assert system.process.poll() is None, system.output[-4000:]
        filler.unlink()
        gap = _longest_gap(stage, began)
        stage.notes.append(f"{gap:.2f} s at most between two answers")
        assert gap < LONGEST_GAP_S, stage.notes
        eventually(lambda: system.replaced("ingest-1", before["ingest-1"]), 30, "it is replaced")
        eventually(lambda: system.ready_status(stats=True) == 200, HEALS_S, "all of it is ready")
        assert not stage.ledger.refused, stage.ledger.refused
        stage.check(within=HEALS_S)
        system.stop()


def _keep_full(disk: Path, seconds: float) -> None:
    """Take whatever room somebody gives back, for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fill(disk)
        time.sleep(0.1)


def _out_of_room(stage: Stage) -> bool:
    """Has Postgres write until it can't; true once it has ended."""
    try:
        query(stage.dsn, _WRITE_WAL)
    except psycopg.Error as error:
        return "No space left" in str(error) or "connection" in str(error)
    return False


def _longest_gap(stage: Stage, since: float) -> float:
    times = [at for at, _ in list(stage.ledger.times) if at >= since]
    return max(later - earlier for earlier, later in itertools.pairwise(times))

"""Faults of a worker's own machine: its disk, its clock, its power."""

from __future__ import annotations

import asyncio
import functools
import random
import signal
import time
from pathlib import Path

from clickmill import bus, wire
from tests.crash.stage import Stage, Worker, fill, frames_in, small_disk
from tests.support.sql import query
from tests.support.wait import eventually

SPOOL_DISK = "4m"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
HOUR, YEAR = 3600, 365 * 86_400
SLACK_S = 0.5
"""What a loaded machine may add to one interval and one sync."""
SLOW_DISK_S = 0.4
COUNTERS_BOOT_ID = slice(32, 68)


def spool_disk_full(stage: Stage, seconds: int) -> None:
    """The disk under spool and counters fills up; clicks go on, sealing waits until it is freed."""
    stage.by_minute = False
    with small_disk(stage.data_dir, SPOOL_DISK) as disk:
        stage.aggregator()
        worker = stage.worker()
        stage.load()
        stage.play(1.5)
        filler = fill(disk)
        time.sleep(seconds)
        alarmed = "can't be written" in worker.output
        doomed = stage.worker() if seconds > 5 else None
        filler.unlink()
        stage.clicks_come()
        assert not stage.ledger.refused
        assert alarmed, worker.output[-2000:]
        if doomed is not None:
            doomed.kill()
        stage.check()
        for one in stage.workers:
            one.kill()


def spool_errors(stage: Stage, times: int) -> None:
    """Writing, syncing: each refuses once, and later for good; the worker is killed then."""
    stage.by_minute = False
    stage.aggregator()
    stage.worker()
    stage.load()
    for n in range(times):
        last = ("ingest.append", "ingest.appended", "ingest.fsync")[n % 3]
        worker = stage.worker(
            "ingest.append=enospc@2;ingest.appended=error@3;ingest.fsync=error@4"
            if n % 2
            else f"{last}=error@3+"
        )
        eventually(functools.partial(_complains, worker), 15, "the worker complains")
        stage.play(1.0)
        worker.kill()
    stage.check()


def _complains(worker: Worker) -> bool:
    return "can't be written" in worker.output or "failpoint" in worker.output


def slow_disk_at_minute_edges(stage: Stage, minutes: int) -> None:
    """Each append takes longer than the flush interval: the minutes end while one is under way."""
    stage.aggregator()
    for _ in range(2):
        stage.worker(f"ingest.appended=sleep:{SLOW_DISK_S}")
    stage.load()
    end = wire.minute_of(time.time()) + minutes
    eventually(lambda: wire.minute_of(time.time()) >= end, 60 * minutes + 5, "the minutes are over")
    time.sleep(3 * SLOW_DISK_S)
    stage.check()


def spool_damaged(stage: Stage, times: int) -> None:
    """A byte is flipped in what a dead worker left and nobody else has: it is reported as lost."""
    worker = stage.worker()
    stage.load()
    eventually(lambda: len(_frames(stage)) > 6, 20, "frames in the spool")
    worker.kill()
    _delete_stream(stage)
    (segment,) = stage.data_dir.rglob("*.frames")
    data = bytearray(segment.read_bytes())
    frames = _frames(stage)
    first, last = 1, len(frames) - 2
    chosen = sorted(stage.chance.sample(range(first, last), min(times, last - first)))
    for i in chosen:
        offset = sum(len(wire.encode(frame)) for frame in frames[:i])
        data[offset + stage.chance.randrange(len(wire.encode(frames[i])))] ^= 0x10
    segment.write_bytes(data)
    missing = sum(frames[i].clicks for i in chosen)
    stage.aggregator()
    stage.worker()
    stage.clicks_come()
    eventually(lambda: _reported(stage) == missing, 30 + 30 * times,
               f"{missing} missing clicks are reported")  # fmt: skip
    sums = stage.check(missing=missing, within=60)
    assert _reported(stage) == missing
    assert sums.answered - missing <= sums.found <= sums.answered + sums.in_flight - missing
    stage.notes.append(f"{missing} clicks in {len(chosen)} damaged frames, all of them reported")


def _reported(stage: Stage) -> int:
    rows = query(stage.dsn, "SELECT reason, clicks FROM quarantine")
    return sum(clicks for reason, clicks in rows if reason.startswith("lost_range"))


def _frames(stage: Stage) -> list[wire.Frame]:
    """Every frame in the one spool there is."""
    return [frame for path in sorted(stage.data_dir.rglob("*.frames")) for frame in frames_in(path)]


def _delete_stream(stage: Stage) -> None:
    async def run() -> None:
        client = await bus.connect(stage.nats.url, "crash")
        await client.jetstream().delete_stream(wire.STREAM)
        await bus.close(client)

    asyncio.run(run())


def clock_jumps(stage: Stage, times: int) -> None:
    """A worker's clock goes back and forth by an hour, to 1970 and to 2099."""
    stage.by_minute = False
    stage.aggregator()
    clock = stage.home / "clock"
    clock.write_text("+0")
    stage.worker(
        LD_PRELOAD=str(FAKETIME), FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1", NO_FAKE_STAT="1",
    )  # fmt: skip
    stage.load()
    now = time.time()
    jumps = [f"+{HOUR}", f"-{HOUR}", f"-{int(now) - 60}", f"+{73 * YEAR}", "+0"]
    for _ in range(times):
        for jump in jumps:
            stage.clicks_come()
            clock.write_text(jump)
            stage.play(1.0)
    stage.clicks_come()
    stage.check()
    rows = query(
        stage.dsn, "SELECT count(DISTINCT date_trunc('minute', minute)) FROM banner_minute"
    )
    stage.notes.append(f"{rows[0][0]} minutes in the table")
    assert rows[0][0] >= 3, "the clock has not jumped at all"


def power_cut(stage: Stage, times: int) -> None:
    """The files as they were at the last sync: the frame being written is torn or gone, and the
    counters are of another boot, or blank. At most an interval and a sync are lost."""
    stage.settings |= {"flush_interval": 1.0}
    stage.aggregator()
    kept = lost = 0
    worst = 0.0
    for n in range(times):
        worker = stage.worker(f"ingest.appended=kill@{stage.chance.randint(2, 3)}")
        loader = stage.load()
        assert worker.wait_death(30) == -signal.SIGKILL
        cut_at = time.monotonic()
        ledger = loader.stop()
        _as_of_the_last_sync(stage, blank=n % 2 == 1)
        before = stage.counts().total() if n else 0
        heir = stage.worker()
        stage.wait_settled()
        found = stage.counts().total() - kept
        assert found <= ledger.clicks + ledger.in_flight.total(), "clicks were doubled"
        window = next(w / 100 for w in range(10_000)
                      if ledger.answered_before(cut_at - w / 100) <= found)  # fmt: skip
        worst = max(worst, window)
        kept += found
        lost += max(0, ledger.clicks - found)
        assert before <= kept
        heir.stop()
    stage.notes.append(
        f"{lost} clicks lost in {times} cuts, all answered in the last {worst:.2f} s before one; "
        "none doubled; flush interval 1 s"
    )
    assert worst <= 1.0 + SLACK_S, stage.notes


def _as_of_the_last_sync(stage: Stage, blank: bool) -> None:
    """What the disk may hold after the power has gone: unsynced bytes whole, torn or not there."""
    chance: random.Random = stage.chance
    for directory in stage.sources():
        counters = directory / "counters"
        if not counters.exists():
            continue
        segment = max((directory / "spool").glob("*.frames"))
        data = segment.read_bytes()
        last = data.rindex(wire.MAGIC)
        segment.write_bytes(data[: chance.randint(last, len(data) - 1)])
        content = bytearray(counters.read_bytes())
        if blank:
            content[:] = bytes(len(content))
        else:
            content[COUNTERS_BOOT_ID] = b"00000000-0000-0000-0000-000000000000"
        counters.write_bytes(content)

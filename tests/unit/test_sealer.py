"""Sealing: on disk first, cleared after; one at a time; and what a broken disk does to it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from clickmill import wire
from ingest._fastcount import Counters
from ingest.durable import spool
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source
from ingest.metrics import Slot, cell
from ingest.shipping.sealer import Sealer

NS = 10**9


class Room:
    """A sealer with all that it needs."""

    def __init__(self, root: Path, max_bytes: int = 1 << 30) -> None:
        self.source = Source.create(root, 100, max_bytes)
        assert self.source.counters is not None
        self.counters: Counters = self.source.counters
        self.outbox = Outbox(900, 30, mark=0)
        self.slot = Slot(root / "meters")
        self.sealer = Sealer(self.source, self.outbox, asyncio.Lock(), self.slot)

    def on_disk(self) -> list[int]:
        """The clicks of each frame."""
        spool = self.source.spool
        return [wire.decode(spool.read(seq)).clicks for seq in spool.seqs()]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def test_all_counted_clicks_are_on_disk_and_in_the_outbox(room: Room) -> None:
    minute = room.counters.now() // (60 * NS)
    room.counters.hit_at(1, 5, (minute - 1) * 60 * NS)
    room.counters.hit_at(1, 6, minute * 60 * NS)
    assert room.sealer.trouble == ""
    assert run(room.sealer.seal())
    assert room.on_disk() == [5, 6]
    assert room.outbox.held == [1, 2]
    assert (room.counters.pending, room.sealer.trouble) == (0, "")
    assert room.slot.meters.get(cell("clickmill_frames_sealed")) == 2
    room.outbox.acknowledge(2)
    assert room.outbox.check_progress(time.monotonic() + 30), "they wait from now on"
    assert run(room.sealer.seal())
    assert room.on_disk() == [5, 6], "nothing new, no frame"


def test_while_frames_can_not_be_sent_each_minute_makes_one(room: Room) -> None:
    minute = room.counters.now() // (60 * NS)
    room.counters.hit_at(1, 5, (minute - 1) * 60 * NS)
    assert run(room.sealer.seal(edges_only=True))
    assert room.on_disk() == [5], "that minute is over"
    room.counters.clock_offset = 30 - int(time.time()) % 60
    for _ in range(3):
        room.counters.hit(1)
        assert run(room.sealer.seal(edges_only=True))
    assert (room.on_disk(), room.counters.pending) == ([5], 3)


def test_a_minute_is_over_with_its_last_second(room: Room) -> None:
    minute = int(time.time()) // 60
    room.counters.clock_offset = minute * 60 - int(time.time())  # its first second
    room.counters.hit_at(1, 5, minute * 60 * NS - 1)
    assert run(room.sealer.seal(edges_only=True))
    assert room.on_disk() == [5]


def test_a_broken_disk_keeps_the_clicks_in_the_epochs(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    spool = room.source.spool
    good, spool.sync = spool.sync, refuse
    room.counters.hit(1, 5)
    assert not run(room.sealer.seal())
    room.counters.hit(1, 6)
    assert not run(room.sealer.seal())
    assert "can't be written" in room.sealer.trouble
    assert len(caplog.records) == 1, "not at every try"
    assert (room.outbox.held, room.counters.pending) == ([], 11)
    spool.sync = good
    assert run(room.sealer.seal())
    assert (room.on_disk(), room.counters.pending, room.sealer.trouble) == ([5, 6], 0, "")


def refuse(_: int) -> None:
    raise OSError(5, "Input/output error")


def test_a_full_spool_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    room = Room(tmp_path, max_bytes=wire.HEADER_BYTES + 13)
    room.counters.hit(1, 5)
    assert run(room.sealer.seal())
    room.counters.hit(1, 6)
    assert not run(room.sealer.seal())
    assert "CLICKMILL_SPOOL_MAX_BYTES" in room.sealer.trouble
    room.source.spool.trim(1)
    assert run(room.sealer.seal())
    assert room.on_disk() == [6]


FRAME = wire.HEADER_BYTES + wire.BYTES_PER_PAIR


def test_at_the_bound_committed_frames_go_and_frames_that_are_not_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_FRAMES", 1)
    room = Room(tmp_path, max_bytes=3 * FRAME)
    for clicks in (5, 6, 7):
        room.counters.hit(1, clicks)
        assert run(room.sealer.seal())
    room.outbox.committed(2, time.monotonic())
    assert room.outbox.keep_short(time.monotonic()) == 0
    for clicks in (8, 9):
        room.counters.hit(1, clicks)
        assert run(room.sealer.seal())
    assert (room.on_disk(), room.outbox.held) == ([7, 8, 9], [3, 4, 5])
    assert room.sealer.trouble == ""
    assert 890 < room.outbox.keep_short(time.monotonic()) <= 900
    (said,) = [record.getMessage() for record in caplog.records]
    assert "instead of the 900 s" in said
    assert "CLICKMILL_SPOOL_MAX_BYTES" in said
    room.counters.hit(1, 10)
    assert not run(room.sealer.seal()), "not one of these is committed"
    assert (room.on_disk(), room.outbox.held) == ([7, 8, 9], [3, 4, 5])


def test_committed_frames_stay_where_their_room_would_not_be_enough(tmp_path: Path) -> None:
    room = Room(tmp_path, max_bytes=2 * FRAME)
    for clicks in (5, 6):
        room.counters.hit(1, clicks)
        assert run(room.sealer.seal())
    room.outbox.committed(1, time.monotonic())
    room.counters.hit(1, 7)
    assert not run(room.sealer.seal()), "one segment holds both"
    assert room.on_disk() == [5, 6]
    room.outbox.committed(2, time.monotonic())
    assert run(room.sealer.seal())
    assert room.on_disk() == [7]


def test_an_empty_spool_takes_one_epoch_whatever_its_bound(tmp_path: Path) -> None:
    room = Room(tmp_path, max_bytes=1)
    for seq in (1, 2):
        room.counters.hit(1, 5)
        assert run(room.sealer.seal())
        assert room.on_disk() == [5]
        room.source.spool.trim(seq)


def test_clicks_are_cleared_only_once_they_are_synced(room: Room) -> None:
    pending: list[int] = []

    def sync(fd: int) -> None:
        pending.append(room.counters.pending)
        os.fdatasync(fd)

    room.source.spool.sync = sync
    room.counters.hit(1, 5)
    assert run(room.sealer.seal())
    assert pending == [5]


def test_a_minute_that_begins_while_the_disk_syncs_gets_its_own_clicks(room: Room) -> None:
    minute = room.counters.now() // (60 * NS)
    clicks = [(minute - 2, 6), (minute - 1, 7)]

    def slow(_: int) -> None:
        """The minute ends while this sync is under way; some clicks come before its end."""
        while clicks:
            at, n = clicks.pop(0)
            room.counters.hit_at(1, n, at * 60 * NS)

    room.source.spool.sync = slow
    room.counters.hit_at(1, 5, (minute - 2) * 60 * NS)
    assert run(room.sealer.seal())
    spool = room.source.spool
    frames = [wire.decode(spool.read(seq)) for seq in spool.seqs()]
    assert [(frame.minute, frame.clicks) for frame in frames] == [
        (minute - 2, 5), (minute - 2, 6),
    ]  # fmt: skip
    assert run(room.sealer.seal())
    last = wire.decode(spool.read(3))
    assert (last.minute, last.clicks, room.counters.pending) == (minute - 1, 7, 0)


def test_two_at_once_do_not_clear_each_others_epochs(room: Room) -> None:
    """A stopping worker seals while its loop may be in the middle of sealing too."""
    syncing, go_on = threading.Event(), threading.Event()
    pending: list[int] = []

    def slow(fd: int) -> None:
        syncing.set()
        go_on.wait(10)
        pending.append(room.counters.pending)

    room.source.spool.sync = slow

    async def both() -> None:
        room.counters.hit(1, 5)
        first = asyncio.create_task(room.sealer.seal())
        await asyncio.to_thread(syncing.wait, 10)
        second = asyncio.create_task(room.sealer.seal())
        await asyncio.sleep(0)
        room.counters.hit(2, 6)
        go_on.set()
        assert await first
        assert await second

    run(both())
    assert room.on_disk() == [5, 6]
    assert pending == [11, 6], "each epoch is still counted in while it is being synced"
    assert room.source.spool.size == 2 * (wire.HEADER_BYTES + wire.BYTES_PER_PAIR)

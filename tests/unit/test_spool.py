"""Frames on disk: every byte cut or flipped, disks that are full or broken, and trimming."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clickmill import wire
from ingest.durable import spool as spool_module
from ingest.durable.spool import (
    SEGMENT_FRAMES,
    Damage,
    Spool,
    SpoolError,
    SpoolFullError,
)
from tests.support.frames import frame, of_another_version, run_of, with_features
from tests.support.limits import largest_file

BIG = 1 << 30


def open_spool(path: Path, max_bytes: int = BIG) -> Spool:
    return Spool(path / "spool", max_bytes)


def clicks_in(spool: Spool) -> dict[int, int]:
    return {seq: wire.decode(spool.read(seq)).clicks for seq in spool.seqs()}


def segments(spool: Spool) -> list[Path]:
    return sorted(spool.directory.glob("*.frames"))


def test_frames_survive_a_death(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    assert (spool.seqs(), spool.last_seq, spool.size) == ([], 0, 0)
    spool.append(run_of(1, 2))
    spool.append(run_of(3, 3))
    for held in (spool, open_spool(tmp_path)):
        assert held.seqs() == [1, 2, 3]
        assert clicks_in(held) == {1: 1, 2: 2, 3: 3}
        assert (held.seqs()[0], held.last_seq, held.last_total) == (1, 3, 6)
        assert held.size == sum(p.stat().st_size for p in segments(held))
        assert held.damages == []


def test_a_file_of_a_dead_process_is_never_appended_to(tmp_path: Path) -> None:
    open_spool(tmp_path).append(run_of(1, 1))
    second = open_spool(tmp_path)
    second.append(run_of(2, 2))
    assert len(segments(second)) == 2


@pytest.fixture
def three_frames(tmp_path: Path) -> tuple[Path, bytes]:
    spool = open_spool(tmp_path)
    spool.append(run_of(1, 3))
    (segment,) = segments(spool)
    return segment, segment.read_bytes()


def only_whole_frames(spool: Spool) -> None:
    """Whatever is readable is exactly what was written: frame n has n clicks."""
    assert clicks_in(spool) == {seq: seq for seq in spool.seqs()}


def test_every_truncation_drops_the_tail_and_reports_it(
    tmp_path: Path, three_frames: tuple[Path, bytes]
) -> None:
    segment, data = three_frames
    size = len(data) // 3
    for end in range(len(data)):
        segment.write_bytes(data[:end])
        spool = open_spool(tmp_path)
        only_whole_frames(spool)
        assert spool.seqs() == list(range(1, end // size + 1))
        if end % size:
            (damage,) = spool.damages
            assert damage.torn
            assert (damage.offset, damage.length) == (end // size * size, end % size)
            aside = segment.with_name(f"{segment.name}.{damage.offset}.torn")
            assert aside.read_bytes() == data[end // size * size : end]
        else:
            assert spool.damages == []


def test_every_flipped_byte_is_set_aside_and_never_counted(
    tmp_path: Path, three_frames: tuple[Path, bytes]
) -> None:
    segment, data = three_frames
    size = len(data) // 3
    for at in range(len(data)):
        for flip in (0xFF, 0x01):
            damaged = bytearray(data)
            damaged[at] ^= flip
            segment.write_bytes(damaged)
            spool = open_spool(tmp_path)
            only_whole_frames(spool)
            hit = at // size + 1
            assert spool.seqs() == [seq for seq in (1, 2, 3) if seq != hit]
            (damage,) = spool.damages
            start, kind = (hit - 1) * size, "torn" if hit == 3 else "damaged"
            assert damage[:4] == (segment, start, size, hit == 3)
            assert damage.reason
            aside = segment.with_name(f"{segment.name}.{start}.{kind}")
            assert aside.read_bytes() == damaged[start : start + size]


def test_noise_in_the_middle_costs_no_frame(
    tmp_path: Path, three_frames: tuple[Path, bytes]
) -> None:
    segment, data = three_frames
    size = len(data) // 3
    segment.write_bytes(data[:size] + b"CMF1 noise CMF1" + data[size:])
    spool = open_spool(tmp_path)
    assert spool.seqs() == [1, 2, 3]
    assert [(d.offset, d.length, d.torn) for d in spool.damages] == [(size, 15, False)]


def test_a_frame_damaged_after_opening_is_an_error(
    tmp_path: Path, three_frames: tuple[Path, bytes]
) -> None:
    segment, data = three_frames
    spool = open_spool(tmp_path)
    segment.write_bytes(data[:-1] + b"\xff")
    with pytest.raises(wire.FrameError):
        spool.read(3)
    spool.note_loss(3, "rot")
    size = len(data) // 3
    assert spool.damages == [Damage(segment, 2 * size, size, False, "rot")]


def broken(number: int) -> Callable[[int], None]:
    def sync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    return sync


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_bytes_of_a_failed_sync_are_never_read(tmp_path: Path, number: int) -> None:
    """They can be read from the page cache for a while, and are gone later."""
    spool = open_spool(tmp_path)
    spool.append(run_of(1, 2))
    good, spool.sync = spool.sync, broken(number)
    with pytest.raises(SpoolError, match="can't be written"):
        spool.append(run_of(3, 4))
    assert (spool.seqs(), spool.last_seq) == ([1, 2], 2)
    assert open_spool(tmp_path).seqs() == [1, 2]
    assert open_spool(tmp_path).damages == []
    spool.sync = good
    spool.append(run_of(3, 4))
    assert len(segments(spool)) == 2, "a file whose sync has failed is not written again"
    assert clicks_in(open_spool(tmp_path)) == {1: 1, 2: 2, 3: 3, 4: 4}


def test_the_first_sync_fails(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    good, spool.sync = spool.sync, broken(errno.EIO)
    for _ in range(3):
        with pytest.raises(SpoolError):
            spool.append(run_of(1, 1))
    assert segments(spool) == []
    spool.sync = good
    spool.sync_all()
    spool.append(run_of(1, 1))
    assert open_spool(tmp_path).seqs() == [1]


def test_nothing_is_appended_before_what_failed_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other frames with the same seqs may follow: of two frames with a seq, one would be lost."""
    spool = open_spool(tmp_path)
    spool.append(run_of(1, 2))
    good, spool.sync = spool.sync, broken(errno.EIO)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: broken(errno.EIO)(0))
        with pytest.raises(SpoolError):
            spool.append([frame(3, {1: 77}, 80)])
        spool.sync = good
        with pytest.raises(SpoolError):
            spool.append([frame(3, {1: 88}, 91)])
    assert open_spool(tmp_path).seqs() == [1, 2, 3], "the disk refuses to forget it"
    spool.append([frame(3, {1: 99}, 102)])
    assert clicks_in(open_spool(tmp_path)) == {1: 1, 2: 2, 3: 99}


def test_a_partial_write_leaves_nothing(tmp_path: Path) -> None:
    for cut in range(1, len(wire.encode(run_of(3, 3)[0]))):
        home = tmp_path / str(cut)
        home.mkdir()
        spool = open_spool(home)
        spool.append(run_of(1, 2))
        size = spool.size
        for limit in (size + cut, cut):  # into the open file, and then into a new one
            with largest_file(limit), pytest.raises(SpoolError):
                spool.append(run_of(3, 3))
            again = open_spool(home)
            assert (again.seqs(), again.damages, again.size) == ([1, 2], [], size)
        spool.append(run_of(3, 3))
        assert open_spool(home).seqs() == [1, 2, 3]


def test_full_means_nothing_is_written(tmp_path: Path) -> None:
    one = len(wire.encode(frame(1, {1: 1})))
    spool = open_spool(tmp_path, max_bytes=3 * one)
    spool.append(run_of(1, 2))
    with pytest.raises(SpoolFullError, match="CLICKMILL_SPOOL_MAX_BYTES"):
        spool.append(run_of(3, 4))
    assert open_spool(tmp_path).seqs() == [1, 2]
    spool.append(run_of(3, 3))
    spool.append(run_of(4, 4), bounded=False)
    spool.close()
    spool.trim(4)
    assert (spool.size, spool.frames) == (0, 0)
    spool.append(run_of(5, 7))


def test_trimming_removes_whole_segments_and_drops_frames_immediately(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for seq in range(1, 2 * SEGMENT_FRAMES + 2):
        spool.append(run_of(seq, seq))
    assert len(segments(spool)) == 3
    spool.trim(SEGMENT_FRAMES - 1)
    assert (len(segments(spool)), spool.seqs()[0]) == (3, SEGMENT_FRAMES)
    spool.trim(SEGMENT_FRAMES)
    assert (len(segments(spool)), spool.seqs()[0]) == (2, SEGMENT_FRAMES + 1)
    last = 2 * SEGMENT_FRAMES + 1
    spool.trim(last)
    assert (segments(spool), spool.size, spool.last_seq) == ([], 0, last)
    spool.append(run_of(last + 1, last + 1))
    assert open_spool(tmp_path).seqs() == [last + 1]


def test_what_follows_a_trim_of_everything_goes_to_a_file_that_is_there(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(run_of(1, 1))
    spool.trim(1)
    spool.append(run_of(2, 2))
    assert open_spool(tmp_path).seqs() == [2]


def test_a_segment_that_somebody_removed_is_trimmed_all_the_same(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(run_of(1, 1))
    segments(spool)[0].unlink()
    spool.trim(1)
    assert (spool.size, spool.seqs()) == (0, [])


def test_settling_syncs_the_writes_of_another_process(tmp_path: Path) -> None:
    """Who wrote it may have died between the write and the sync."""
    for seq in (1, 2):
        open_spool(tmp_path).append(run_of(seq, seq))
    synced: list[int] = []
    spool = Spool(tmp_path / "spool", BIG, sync=lambda fd: synced.append(os.fstat(fd).st_ino))
    spool.sync_all()
    assert sorted(synced) == sorted(p.stat().st_ino for p in segments(spool))
    spool.sync = broken(errno.EIO)
    with pytest.raises(SpoolError, match="made durable"):
        spool.sync_all()


def test_the_directory_itself_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(spool_module, "sync_directory", synced.append)
    spool = open_spool(tmp_path)
    spool.append(run_of(1, 1))
    assert synced == [tmp_path, spool.directory]


@pytest.mark.parametrize("make", [lambda f: with_features(f, 4), of_another_version])
@pytest.mark.parametrize("before", [b"", b"torn bytes"])
def test_a_newer_spool_is_left_untouched(
    tmp_path: Path,
    three_frames: tuple[Path, bytes],
    make: Callable[[wire.Frame], bytes],
    before: bytes,
) -> None:
    segment, data = three_frames
    later = segment.with_name(f"{4:020d}-0000.frames")
    segment.write_bytes(data[:-1])
    later.write_bytes(before + make(frame(4, {4: 4}, 10)))
    there = {path: path.read_bytes() for path in segment.parent.iterdir()}
    with pytest.raises(wire.NewerFrameError):
        open_spool(tmp_path)
    assert {path: path.read_bytes() for path in segment.parent.iterdir()} == there


def test_the_oldest_frames_that_make_room_are_whole_segments(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    assert spool.oldest(1, BIG) == 0, "it is empty"
    for seq in range(1, 2 * SEGMENT_FRAMES + 2):
        spool.append(run_of(seq, seq))
    first, second, _ = (path.stat().st_size for path in segments(spool))
    assert spool.oldest(1, BIG) == spool.oldest(first, BIG) == SEGMENT_FRAMES
    assert spool.oldest(first + 1, BIG) == spool.oldest(first + second, BIG) == 2 * SEGMENT_FRAMES
    assert spool.oldest(first + 1, 2 * SEGMENT_FRAMES) == 2 * SEGMENT_FRAMES
    assert spool.oldest(first + 1, 2 * SEGMENT_FRAMES - 1) == 0, "it would not be enough"
    assert spool.oldest(BIG, BIG) == spool.last_seq, "all of it can go: then it is empty"
    assert spool.oldest(BIG, spool.last_seq - 1) == 0


def test_a_full_spool_says_how_much_it_lacks(tmp_path: Path) -> None:
    one = len(wire.encode(frame(1, {1: 1})))
    spool = open_spool(tmp_path, max_bytes=2 * one)
    spool.append(run_of(1, 2))
    with pytest.raises(SpoolFullError) as caught:
        spool.append(run_of(3, 5))
    assert caught.value.lacking == 3 * one


def test_many_frames_at_once_are_read_each_from_its_own_place(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(run_of(1, 3))
    spool.append(run_of(4, 7))
    assert clicks_in(spool) == {seq: seq for seq in range(1, 8)}


def test_the_bound_is_the_last_byte_that_fits(tmp_path: Path) -> None:
    one = len(wire.encode(frame(1, {1: 1})))
    for max_bytes, fits in ((2 * one, True), (2 * one - 1, False)):
        home = tmp_path / str(max_bytes)
        home.mkdir()
        spool = open_spool(home, max_bytes)
        spool.append(run_of(1, 1))
        with contextlib.nullcontext() if fits else pytest.raises(SpoolFullError):
            spool.append(run_of(2, 2))


def test_a_source_that_was_closed_is_known_to_be(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(run_of(1, 1))
    assert not spool.last_closed
    spool.append([run_of(2, 2)[0]._replace(closed=True)])
    assert (spool.last_closed, open_spool(tmp_path).last_closed) == (True, True)


def test_a_write_that_goes_on_in_small_pieces_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, bytes(data)[:10], offset))
    open_spool(tmp_path).append(run_of(1, 2))
    monkeypatch.undo()
    assert clicks_in(open_spool(tmp_path)) == {1: 1, 2: 2}


def test_a_segment_that_is_large_enough_gets_no_more_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 2 * len(wire.encode(frame(1, {1: 1}))))
    spool = open_spool(tmp_path)
    for seq in range(1, 6):
        spool.append(run_of(seq, seq))
    assert [path.name[:20].lstrip("0") for path in segments(spool)] == ["1", "3", "5"]


def test_segments_that_could_not_be_removed_are_in_nobodys_way(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for attempt in (0, 1):
        (spool.directory / f"{1:020d}-{attempt:04d}.frames").touch()
    spool.append(run_of(1, 1))
    assert len(segments(spool)) == 3
    assert open_spool(tmp_path).seqs() == [1]

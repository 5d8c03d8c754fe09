"""One source's directory: whole or not there, locked, and adoptable again and again.

The deaths in here are real: a process that counts and seals is killed at any instruction, and
adopters die at each of their steps.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from clickmill import wire
from ingest.durable import counters_file
from ingest.durable import source as source_module
from ingest.durable import spool as spool_module
from ingest.durable.counters_file import FOREIGN
from ingest.durable.source import SET_ASIDE, SWEEP_AFTER_S, Source, adopt
from ingest.durable.spool import SpoolError
from tests.crash.stage import fill, small_disk
from tests.support.frames import MINUTE, with_features
from tests.support.frames import frame as make_frame
from tests.support.limits import largest_file

CAPACITY = 100
BIG = 1 << 30
NS = 10**9
PAGE = 4096
ADOPT_STEPS = ("adopt.lock", "adopt.seal", "ingest.append", "ingest.appended", "ingest.fsync",
               "adopt.sealed", "adopt.discard", "adopt.remove")  # fmt: skip


class Death(BaseException):
    """Where a process would have died."""


def make(root: Path, counters_dir: Path | None = None) -> Source:
    return Source.create(root, CAPACITY, BIG, counters_dir)


def seal(source: Source) -> None:
    """What the sealer does, in one go."""
    assert source.counters is not None
    source.counters.flip()
    if frames := source.frames(source.counters.frozen()):
        source.spool.append(frames)
    source.counters.clear()


def count(source: Source, banner: int, clicks: int = 1, minute: int = 0) -> None:
    assert source.counters is not None
    assert source.counters.hit_at(banner, clicks, (MINUTE + minute) * 60 * NS)


def adopted(root: Path) -> list[Source]:
    return list(adopt(root, BIG))


def adopt_one(root: Path) -> Source:
    (source,) = adopted(root)
    source.seal_rest()
    return source


def frames_of(source: Source) -> list[wire.Frame]:
    return [wire.decode(source.spool.read(seq)) for seq in source.spool.seqs()]


def clicks_of(source: Source) -> Counter[tuple[int, int]]:
    """Clicks by (minute, banner), of frames that follow each other without a gap."""
    sums: Counter[tuple[int, int]] = Counter()
    total = 0
    for n, frame in enumerate(frames_of(source), 1):
        assert frame.seq == n
        total += frame.clicks
        assert frame.total == total
        for banner, clicks in frame.pairs:
            sums[frame.minute - MINUTE, banner] += clicks
    return sums


def test_a_live_source_can_not_be_adopted(tmp_path: Path) -> None:
    source = make(tmp_path)
    assert adopted(tmp_path) == []
    count(source, 1)
    source.release()
    (left,) = adopted(tmp_path)
    assert left.id == source.id
    assert adopted(tmp_path) == [], "one adopter at a time"


def test_the_counts_of_a_dead_worker_are_sealed_under_its_source(tmp_path: Path) -> None:
    source = make(tmp_path)
    count(source, 1, 5)
    seal(source)
    count(source, 2, 7, minute=1)
    count(source, 3, 9, minute=2)  # makes minute 1 the frozen epoch
    source.release()
    again = adopt_one(tmp_path)
    assert again.trusted
    assert clicks_of(again) == {(0, 1): 5, (1, 2): 7, (2, 3): 9}
    assert [frame.closed for frame in frames_of(again)] == [False, False, True]
    assert again.counters is None
    assert not (again.directory / "counters").exists()
    again.remove()
    assert not again.directory.exists()


def test_an_idle_source_ends_with_an_empty_closing_frame(tmp_path: Path) -> None:
    source = make(tmp_path)
    count(source, 1, 5)
    seal(source)
    source.release()
    *_, last = frames_of(adopt_one(tmp_path))
    assert (last.seq, last.closed, last.clicks, last.total) == (2, True, 0, 5)


def die_at(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def failpoint(name: str) -> None:
        if name == step:
            raise Death(name)

    monkeypatch.setattr(source_module, "failpoint", failpoint)
    monkeypatch.setattr(spool_module, "failpoint", failpoint)


@pytest.mark.parametrize("left", ["both", "frozen", "active", "none", "cleared by half"])
@pytest.mark.parametrize("step", ADOPT_STEPS)
def test_an_adopter_may_die_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, left: str
) -> None:
    source = make(tmp_path)
    count(source, 1, 5)
    count(source, 2, 6)
    assert source.counters is not None
    if left == "cleared by half":
        source.counters.flip()
        source.spool.append(source.frames(source.counters.frozen()))
        zero_count(source.directory / "counters", side=0, banner=1)
    elif left in ("active", "none"):
        seal(source)
    if left in ("active", "both"):
        count(source, 3, 7, minute=1)
    if left == "frozen":
        source.counters.flip()
    wanted = {(0, 1): 5, (0, 2): 6} | ({(1, 3): 7} if left in ("active", "both") else {})
    source.release()

    die_at(monkeypatch, step)
    try:
        for adopter in adopt(tmp_path, BIG):
            adopter.seal_rest()
            assert clicks_of(adopter) == wanted
            adopter.remove()
    except Death:
        (locked,) = tmp_path.iterdir()
        drop_locks_of(locked)
    monkeypatch.undo()
    if step != "adopt.remove" and not list(tmp_path.iterdir()):
        return
    survivor = adopt_one(tmp_path)
    assert clicks_of(survivor) == wanted
    assert [frame.closed for frame in frames_of(survivor)][-1]
    assert sum(frame.closed for frame in frames_of(survivor)) == 1
    survivor.remove()
    assert list(tmp_path.iterdir()) == []


def drop_locks_of(directory: Path) -> None:
    """What the kernel does at a death: every descriptor of the lock is closed."""
    lock = (directory / "lock").resolve()
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            if entry.readlink() == lock:
                os.close(int(entry.name))
        except OSError:
            continue


def zero_count(path: Path, side: int, banner: int) -> None:
    """One count of a frozen epoch set to zero, as by a `clear` that was cut short."""
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        struct.pack_into("<Q", mapped, PAGE + 8 * CAPACITY * side + 8 * banner, 0)
        mapped.close()


COUNT_AND_SEAL = """
import mmap, os, sys
from pathlib import Path
from ingest.durable.source import Source
root, ledger, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
fd = os.open(ledger, os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 8)
answered = memoryview(mmap.mmap(fd, 8)).cast("Q")
source = Source.create(root, 100, 1 << 30)
source.spool.sync = lambda fd: None
counters = source.counters
print("counting", flush=True)
n = 0
while True:
    n += 1
    counters.hit((n * 7 + seed) % 100)
    answered[0] = n
    if n % 37 == 0:
        counters.flip()
        if parts := counters.frozen():
            source.spool.append(source.frames(parts))
            counters.clear()
"""


def test_a_process_killed_at_any_instruction_loses_nothing(tmp_path: Path) -> None:
    """Counts, flips, seals and clears as fast as it can, and is killed at a random moment."""
    seed = 20261123
    print(f"seed {seed}")
    chance = random.Random(seed)
    root = tmp_path / "root"
    for n in range(12):
        ledger = tmp_path / f"ledger-{n}"
        with subprocess.Popen(
            [sys.executable, "-c", COUNT_AND_SEAL, str(root), str(ledger), str(n)],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"counting\n"
            time.sleep(chance.uniform(0.001, 0.05))
            process.send_signal(signal.SIGKILL)
        (answered,) = struct.unpack("<Q", ledger.read_bytes())
        source = adopt_one(root)
        assert answered <= sum(clicks_of(source).values()) <= answered + 1
        wanted: Counter[int] = Counter((i * 7 + n) % 100 for i in range(1, answered + 1))
        found: Counter[int] = Counter()
        for (_, banner), clicks in clicks_of(source).items():
            found[banner] += clicks
        assert sum((found - wanted).values()) <= 1
        assert not wanted - found
        source.remove()


def test_an_incomplete_source_is_invisible(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.release()
    hidden = tmp_path / f".{uuid4()}"
    made.directory.rename(hidden)
    assert adopted(tmp_path) == []
    assert hidden.exists(), "its maker may be alive"
    old = time.time() - SWEEP_AFTER_S - 1
    os.utime(hidden, (old, old))
    assert adopted(tmp_path) == []
    assert not hidden.exists()


def test_after_a_reboot_only_the_spool_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path)
    count(source, 1, 5)
    seal(source)
    count(source, 2, 7)
    source.release()
    monkeypatch.setattr(counters_file, "boot_id", lambda: str(UUID(int=1)))
    again = adopt_one(tmp_path)
    assert not again.trusted
    assert clicks_of(again) == {(0, 1): 5}
    assert (again.directory / FOREIGN).exists()
    again.release()
    twice = adopt_one(tmp_path)
    assert clicks_of(twice) == {(0, 1): 5}
    twice.remove()
    assert [p.name for p in tmp_path.iterdir()] == [SET_ASIDE]
    assert adopted(tmp_path) == []


@pytest.mark.parametrize("content", [b"", bytes(PAGE + 16 * CAPACITY)])
def test_lost_counters_do_not_hold_back_the_spool(tmp_path: Path, content: bytes) -> None:
    """A power cut within the first seconds: the file's first page was never written."""
    source = make(tmp_path)
    count(source, 1, 5)
    seal(source)
    source.release()
    (source.directory / "counters").write_bytes(content)
    again = adopt_one(tmp_path)
    assert not again.trusted
    assert clicks_of(again) == {(0, 1): 5}


def test_counters_of_another_version_are_left_alone(tmp_path: Path) -> None:
    source = make(tmp_path)
    count(source, 1, 5)
    source.release()
    path = source.directory / "counters"
    data = path.read_bytes()
    path.write_bytes(data[:8] + b"\1\0\0\0" + data[12:])
    assert adopted(tmp_path) == []
    assert path.exists()


def test_a_copied_directory_makes_no_frames(tmp_path: Path) -> None:
    """The original may live on elsewhere, and give the same seqs to other clicks."""
    root, clone = tmp_path / "root", tmp_path / "clone"
    source = make(root)
    count(source, 1, 5)
    seal(source)
    count(source, 2, 7)
    shutil.copytree(root, clone)
    cloned = adopt_one(clone)
    assert not cloned.trusted
    assert clicks_of(cloned) == {(0, 1): 5}
    seal(source)
    assert clicks_of(source) == {(0, 1): 5, (0, 2): 7}


def test_counters_on_another_file_system(tmp_path: Path) -> None:
    root, fast = tmp_path / "root", tmp_path / "fast"
    source = make(root, fast)
    count(source, 1, 5)
    assert [p.name for p in fast.iterdir()] == [f"{source.id}.counters"]
    source.release()
    again = adopt_one(root)
    assert again.trusted
    assert clicks_of(again) == {(0, 1): 5}
    assert list(fast.iterdir()) == []


def test_counters_on_a_file_system_that_a_reboot_has_emptied(tmp_path: Path) -> None:
    root, fast = tmp_path / "root", tmp_path / "fast"
    source = make(root, fast)
    count(source, 1, 5)
    seal(source)
    source.release()
    shutil.rmtree(fast)
    again = adopt_one(root)
    assert not again.trusted
    assert clicks_of(again) == {(0, 1): 5}


def test_a_full_spool_is_no_obstacle_for_an_adopter(tmp_path: Path) -> None:
    """Else it could never be emptied: what is in it goes out only once it is adopted."""
    source = make(tmp_path)
    for n in range(5):
        count(source, 1, 5, minute=n)
        seal(source)
    count(source, 2, 7)
    source.release()
    (again,) = list(adopt(tmp_path, source.spool.size))
    with pytest.raises(SpoolError):
        again.spool.append(again.frames(again.counters.rest(1) if again.counters else []))
    again.seal_rest()
    assert clicks_of(again)[0, 2] == 7


def test_a_broken_disk_leaves_the_epochs_as_they_are(tmp_path: Path) -> None:
    source = make(tmp_path)
    count(source, 2, 7)
    source.release()
    (again,) = adopted(tmp_path)
    good, again.spool.sync = again.spool.sync, refuse
    for _ in range(2):
        with pytest.raises(SpoolError):
            again.seal_rest()
        assert again.counters is not None
    again.spool.sync = good
    again.seal_rest()
    assert clicks_of(again) == {(0, 2): 7}


def refuse(_: int) -> None:
    raise OSError(5, "Input/output error")


def test_damaged_data_is_kept(tmp_path: Path) -> None:
    source = make(tmp_path)
    for n in range(3):
        count(source, 1, 5, minute=n)
        seal(source)
    source.release()
    (segment,) = source.spool.directory.glob("*.frames")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    again = adopt_one(tmp_path)
    assert [frame.seq for frame in frames_of(again)] == [1, 3, 4]
    again.remove()
    (kept,) = (tmp_path / SET_ASIDE).iterdir()
    assert list((kept / "spool").glob("*.damaged"))


def test_what_was_damaged_is_kept_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        source = make(tmp_path)
        (source.directory / FOREIGN).touch()
        source.remove()
    assert len(list((tmp_path / SET_ASIDE).iterdir())) == 2


def test_nobody_else_may_look_at_any_of_it(tmp_path: Path) -> None:
    root, fast = tmp_path / "root", tmp_path / "deep" / "fast"
    before = time.time_ns()
    source = make(root, fast)
    assert before <= source.created_at <= time.time_ns()
    private = [source.directory, fast]
    (source.directory / FOREIGN).touch()
    assert [path.stat().st_mode & 0o777 for path in private] == [0o700] * 2
    source.remove()
    assert (root / SET_ASIDE).stat().st_mode & 0o777 == 0o700


def test_unknown_files_are_ignored(tmp_path: Path) -> None:
    for name in ("meters", "lost+found", "set-aside"):
        (tmp_path / name).mkdir()
    (tmp_path / "targets.json").write_text("{}")
    assert adopted(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_frames_in_the_spool_are_not_sealed_again(tmp_path: Path) -> None:
    source = make(tmp_path)
    count(source, 1, 5)
    assert source.counters is not None
    source.counters.flip()
    first = source.frames(source.counters.frozen())
    source.spool.append(first)
    assert source.frames(source.counters.frozen()) == []
    count(source, 1, 5)
    source.counters.clear()
    source.counters.flip()
    later = source.frames(source.counters.frozen())
    assert [frame.seq for frame in (*first, *later)] == [1, 2]


def test_a_source_of_a_newer_release_is_left_to_a_worker_of_that_release(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make(tmp_path)
    count(source, 1, 5)
    seal(source)
    count(source, 1, 7)
    source.release()
    (segment,) = (source.directory / "spool").glob("*.frames")
    whole = segment.read_bytes()
    segment.write_bytes(whole + with_features(make_frame(2, {1: 1}, 6, source=source.id), 4))
    there = {p: p.read_bytes() for p in source.directory.rglob("*") if p.is_file()}
    assert list(adopt(tmp_path, BIG)) == []
    assert "a worker of that release" in caplog.text
    assert {p: p.read_bytes() for p in source.directory.rglob("*") if p.is_file()} == there
    segment.write_bytes(whole)  # what the newer worker understood, so does this one now
    (adopted,) = adopt(tmp_path, BIG)
    adopted.seal_rest()
    assert adopted.spool.last_total == 12
    adopted.release()


def left_in(*places: Path) -> list[str]:
    return sorted(path.name for place in places if place.exists() for path in place.rglob("*"))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_source_that_finds_no_room_leaves_nothing(tmp_path: Path, elsewhere: bool) -> None:
    """The kernel refuses the counters' file halfway (EFBIG), as a full disk does."""
    root, fast = tmp_path / "root", tmp_path / "fast"
    with largest_file(PAGE), pytest.raises(OSError, match="no room for the click counters"):
        make(root, fast if elsewhere else None)
    assert left_in(root, fast) == []
    assert open_descriptors(root) == []
    make(root, fast if elsewhere else None)


def open_descriptors(root: Path) -> list[str]:
    """What this process still has open under `root`."""
    links = (fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())
    return [str(link) for link in links if link.is_relative_to(root)]


@pytest.mark.parametrize("fails", ["rename", "sync_directory", "Spool"])
def test_a_source_that_is_broken_off_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def refused(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if fails == "rename" else source_module, fails, refused)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path / "root")
    assert left_in(tmp_path / "root") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_nearly_full_disk_keeps_the_room_that_it_has(tmp_path: Path) -> None:
    capacity = 100_000
    with small_disk(tmp_path / "disk", "4m") as disk:
        root = disk / "ingest"
        root.mkdir()
        fill(disk, leave=capacity * 8)  # a third of what the counters want
        free = os.statvfs(disk).f_bavail
        for _ in range(3):
            with pytest.raises(OSError, match="no room for the click counters"):
                Source.create(root, capacity, BIG)
            assert left_in(root) == []
            assert os.statvfs(disk).f_bavail == free

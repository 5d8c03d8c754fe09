"""The compiled counters against a twin in plain Python: the same steps, the same figures.

The file is opened again at any moment, as an adopter does after a death: what was counted is there.
"""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ingest._epochs import CountersError
from ingest._fastcount import Counters
from ingest._parts import MAX_PAIRS, Part
from ingest.http.batch import Click
from tests.support.frames import MINUTE, SOURCE

BOOT = "0" * 36
CAPACITY = 40
NS = 10**9
S = 60 * NS
_names = itertools.count()


class Epoch:
    """One epoch of the twin."""

    def __init__(self, seq: int, base: int, minute: int = -1) -> None:
        self.seq, self.base, self.minute, self.frozen_at = seq, base, minute, 0
        self.counts: dict[int, int] = {}

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def parts(self, sealed_at: int) -> list[Part]:
        if not self.counts:
            return []
        ids = sorted(self.counts)
        counts = struct.pack(f"<{len(ids)}Q", *[self.counts[i] for i in ids])
        total = self.base + self.total
        return [
            (self.seq, self.minute, sealed_at, total, struct.pack(f"<{len(ids)}I", *ids), counts)
        ]


class Twin:
    """What ingest/_fastcount.pyx does, said in Python."""

    def __init__(self) -> None:
        self.active = Epoch(1, 0)
        self.frozen: list[Epoch] = []

    def hit(self, banner_id: int, clicks: int, now_ns: int) -> bool:
        if banner_id >= CAPACITY:
            return False
        minute = now_ns // S
        if minute != self.active.minute:
            if not self.active.counts:
                self.active.minute = minute
            elif self.has_room:
                self._freeze(minute, now_ns)
        self._add(banner_id, clicks)
        return True

    @property
    def has_room(self) -> bool:
        """Whether one of the three epochs is clear, and not the active one."""
        return len(self.frozen) < 2

    def _add(self, banner_id: int, clicks: int) -> None:
        self.active.counts[banner_id] = self.active.counts.get(banner_id, 0) + clicks

    def hit_all(self, clicks: list[Click], now_ns: int) -> int:
        for i, click in enumerate(clicks):
            if click.bannerID >= CAPACITY:
                return -1 - i
        for i, click in enumerate(clicks):
            if i == 0:
                self.hit(click.bannerID, click.count, now_ns)
            else:
                self._add(click.bannerID, click.count)
        return sum(click.count for click in clicks)

    def flip(self, now_ns: int) -> bool:
        if not self.active.counts or self.frozen:
            return False
        self._freeze(-1, now_ns)
        return True

    def _freeze(self, minute: int, now_ns: int) -> None:
        old = self.active
        old.frozen_at = now_ns
        self.active = Epoch(old.seq + 1, old.base + old.total, minute)
        self.frozen.append(old)

    def clear(self) -> None:
        del self.frozen[:1]


ids = st.integers(0, CAPACITY + 2)
counts = st.integers(1, 2**40)
times = st.integers(MINUTE * 60, MINUTE * 60 + 240).map(lambda second: second * NS)
batches = st.lists(st.builds(Click, bannerID=ids, count=counts), max_size=6)


class Counting(RuleBasedStateMachine):
    """Both do the same, and after each step both say the same."""

    @initialize()
    def make(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="fastcount-")
        self.path = Path(self.folder.name) / "counters"
        self.counters = Counters.create(self.path, SOURCE.bytes, BOOT, CAPACITY)
        self.twin = Twin()

    @rule(banner_id=ids, clicks=counts, now_ns=times)
    def hit_at(self, banner_id: int, clicks: int, now_ns: int) -> None:
        assert self.counters.hit_at(banner_id, clicks, now_ns) == self.twin.hit(
            banner_id, clicks, now_ns
        )

    @rule(clicks=batches, minute=st.integers(MINUTE, MINUTE + 3))
    def hit_all(self, clicks: list[Click], minute: int) -> None:
        """By the process's own clock, shifted to the middle of the minute; to the second, since
        a frame made at the edge has the moment in it."""
        if self.counters.active_minute not in (minute, -1):
            self.counters.flip(MINUTE * S)
            self.twin.flip(MINUTE * S)
        self.counters.clock_offset = minute * 60 + 30 - int(time.time())
        if self.twin.active.counts and self.twin.active.minute != minute and self.twin.has_room:
            return
        assert self.counters.hit_all(clicks) == self.twin.hit_all(clicks, minute * S)

    @rule(now_ns=times)
    def flip(self, now_ns: int) -> None:
        assert self.counters.flip(now_ns) == self.twin.flip(now_ns)

    @rule()
    def clear(self) -> None:
        self.counters.clear()
        self.twin.clear()

    @rule()
    def die_and_open_again(self) -> None:
        self.counters = Counters.open(self.path)

    @rule()
    @precondition(lambda self: not self.twin.active.counts and not self.twin.frozen)
    def idle(self) -> None:
        self.counters.clock_offset = 0
        assert abs(self.counters.idle_as_of() - time.time_ns()) < 10 * NS

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "twin"):
            return
        active, frozen = self.twin.active, self.twin.frozen
        parts = [epoch.parts(epoch.frozen_at) for epoch in frozen]
        assert self.counters.frozen() == (parts[0] if parts else [])
        assert self.counters.rest(77) == [*itertools.chain(*parts), *active.parts(77)]
        assert self.counters.pending == active.total + sum(epoch.total for epoch in frozen)
        assert self.counters.total == active.base + active.total
        assert self.counters.active_seq == active.seq
        assert self.counters.next_seq == active.seq + bool(active.counts)
        assert self.counters.source == SOURCE
        assert (self.counters.idle_as_of() == 0) == bool(active.counts or frozen)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


class Sealed(NamedTuple):
    seq: int
    minute: int
    clicks: dict[int, int]
    total: int


def sealed(parts: list[Part]) -> list[Sealed]:
    """Parts with their arrays unpacked."""
    found = []
    for seq, minute, _, total, packed_ids, packed in parts:
        n = len(packed_ids) // 4
        pairs = zip(
            struct.unpack(f"<{n}I", packed_ids), struct.unpack(f"<{n}Q", packed), strict=True
        )
        found.append(Sealed(seq, minute, dict(pairs), total))
    return found


@pytest.fixture
def counters(tmp_path: Path) -> Counters:
    return Counters.create(tmp_path / "counters", SOURCE.bytes, BOOT, CAPACITY)


def second(n: float) -> int:
    """So many seconds after the minute MINUTE began, in nanoseconds."""
    return MINUTE * S + int(n * NS)


def test_the_minute_edge(counters: Counters) -> None:
    #  minute |--------- M ---------|-------- M+1 --------|--- M+2
    #  second 0        58   59.999  60   61        119.99 120
    #  clicks           7      7    8    8            8    9
    #  seal                                  ^ (late)
    #  epoch  [   1: minute M      ][ 2: minute M+1      ][ 3
    counters.hit_at(7, 1, second(58))
    counters.hit_at(7, 1, second(59.999))
    assert counters.frozen() == []
    counters.hit_at(8, 1, second(60))
    assert sealed(counters.frozen()) == [Sealed(1, MINUTE, {7: 2}, 2)]
    counters.hit_at(8, 1, second(61))
    counters.clear()
    counters.hit_at(8, 1, second(119.99))
    counters.hit_at(9, 1, second(120))
    assert sealed(counters.frozen()) == [Sealed(2, MINUTE + 1, {8: 3}, 5)]
    assert sealed(counters.rest(0))[1:] == [Sealed(3, MINUTE + 2, {9: 1}, 6)]


def test_a_minute_that_begins_while_the_last_seconds_are_being_sealed(counters: Counters) -> None:
    #  minute |--------- M ---------|-------- M+1
    #  second      59.5   59.9      60.1    60.4
    #  clicks        7      8         9       9
    #  seal          ^flip ............^clear       (the disk takes 0.6 s)
    #  epoch  [ 1   ][ 2: M        ][ 3: M+1
    counters.hit_at(7, 1, second(59.5))
    assert counters.flip(second(59.6))
    counters.hit_at(8, 1, second(59.9))
    counters.hit_at(9, 1, second(60.1))
    assert sealed(counters.frozen()) == [Sealed(1, MINUTE, {7: 1}, 1)]
    counters.clear()
    counters.hit_at(9, 1, second(60.4))
    assert not counters.flip(second(60.5)), "the rest of minute M comes first"
    assert sealed(counters.frozen()) == [Sealed(2, MINUTE, {8: 1}, 2)]
    counters.clear()
    assert sealed(counters.rest(0)) == [Sealed(3, MINUTE + 1, {9: 2}, 4)]


def test_while_nothing_can_be_sealed_minutes_merge_and_no_click_is_lost(counters: Counters) -> None:
    #  minute |-- M --|-- M+1 --|-- M+2 --|-- M+3 --|
    #  clicks     6        7         8         9        the disk is full all the while
    #  epoch  [ 1    ][ 2      ][ 3: minute M+2, with M+3's click in it
    for n, banner in enumerate((6, 7, 8, 9)):
        counters.hit_at(banner, 1, second(60 * n))
    assert not counters.flip(second(240))
    assert sealed(counters.rest(0)) == [
        Sealed(1, MINUTE, {6: 1}, 1),
        Sealed(2, MINUTE + 1, {7: 1}, 2),
        Sealed(3, MINUTE + 2, {8: 1, 9: 1}, 4),
    ]


def test_a_clock_that_goes_back_makes_epochs_and_loses_nothing(counters: Counters) -> None:
    clicks = 0
    for moment in (second(0), second(-3600), 30 * NS, 4_070_908_800 * NS, second(1)):
        counters.hit_at(1, 1, moment)
        clicks += 1
        if parts := sealed(counters.frozen()):
            assert [part.minute for part in parts] == [parts[0].minute]
            counters.clear()
    assert counters.total == clicks


def test_more_ids_than_a_frame_holds_become_parts_with_seqs_of_their_own(tmp_path: Path) -> None:
    capacity = 2 * MAX_PAIRS + 10
    path = tmp_path / "counters"
    counters = Counters.create(path, SOURCE.bytes, BOOT, capacity)
    for banner in range(capacity):
        counters.hit_at(banner, banner + 1, second(0))
    counters.hit_at(3, 5, second(60))
    for again in (counters, Counters.open(path)):
        parts = sealed(again.frozen())
        assert [part.seq for part in parts] == [1, 2, 3]
        assert [len(part.clicks) for part in parts] == [MAX_PAIRS, MAX_PAIRS, 10]
        running = itertools.accumulate(sum(part.clicks.values()) for part in parts)
        assert [part.total for part in parts] == list(running)
        assert [part[2] for part in again.frozen()] == [0, 0, second(60)]
        assert (again.active_seq, again.next_seq) == (4, 5)
        assert sealed(again.rest(1))[-1].total == parts[-1].total + 5
    counters.clear()
    assert counters.frozen() == []
    assert counters.pending == 5


def test_a_batch_is_counted_whole_or_not_at_all(counters: Counters) -> None:
    good = [Click(bannerID=1, count=2), Click(bannerID=1, count=3), Click(bannerID=2)]
    assert counters.hit_all([*good, Click(bannerID=CAPACITY), *good]) == -4
    assert counters.pending == 0
    assert counters.hit_all(good) == 6
    assert counters.hit_all([]) == 0
    assert sealed(counters.rest(0))[0].clicks == {1: 5, 2: 1}


def test_what_is_no_counters_file(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    counters = Counters.create(path, SOURCE.bytes, BOOT, CAPACITY)
    stat = path.stat()
    assert counters.identity == (stat.st_dev, stat.st_ino)
    assert counters.boot_id == BOOT
    with pytest.raises(FileExistsError):
        Counters.create(path, SOURCE.bytes, BOOT, CAPACITY)
    whole = path.read_bytes()
    for bad in (b"", whole[:4096], whole[:-1], b"X" + whole[1:], whole[:8] + b"\1" + whole[9:]):
        path.write_bytes(bad)
        with pytest.raises(CountersError):
            Counters.open(path)
    for arguments in ((b"short", BOOT, 5), (SOURCE.bytes, "boot", 5), (SOURCE.bytes, BOOT, 0)):
        with pytest.raises(CountersError):
            Counters.create(tmp_path / "other", *arguments)


def test_the_source_is_a_uuid(counters: Counters) -> None:
    assert isinstance(counters.source, UUID)


def test_parts_are_as_large_as_was_asked_when_their_epoch_was_frozen(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    counters = Counters.create(path, SOURCE.bytes, BOOT, CAPACITY)
    assert counters.max_pairs == MAX_PAIRS

    def sizes(counters: Counters) -> list[int]:
        return [len(part.clicks) for part in sealed(counters.frozen())]

    counters.max_pairs = 3
    for banner in range(7):
        counters.hit_at(banner, 1, second(0))
    assert counters.next_seq == 4
    counters.hit_at(1, 1, second(60))
    counters.max_pairs = 2
    for again in (counters, Counters.open(path)):
        assert sizes(again) == [3, 3, 1], "what may be in the spool already never changes"
        assert [part.seq for part in sealed(again.frozen())] == [1, 2, 3]
        assert (again.active_seq, again.next_seq) == (4, 5)
    counters.clear()
    for banner in range(2, 5):
        counters.hit_at(banner, 1, second(60))
    for again in (counters, Counters.open(path)):
        assert [len(part.clicks) for part in sealed(again.rest(0))] == [2, 2]
    assert counters.flip()
    assert sizes(counters) == [2, 2]
    assert counters.active_seq == 6
    counters.max_pairs = 0
    assert counters.max_pairs == 1
    counters.max_pairs = MAX_PAIRS + 1
    assert counters.max_pairs == MAX_PAIRS


TEN_OF_TEN_MILLION = """
import sys
from ingest._fastcount import Counters

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))

before = resident()
counters = Counters.create(sys.argv[1], bytes(16), "0" * 36, 10_000_000)
for banner in range(0, 10_000_000, 1_000_000):
    assert counters.hit(banner)
assert counters.flip() and counters.frozen()
counters.clear()
print(resident() - before)
"""


def test_memory_grows_with_the_banners_that_are_clicked(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TEN_OF_TEN_MILLION, str(tmp_path / "counters")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 10_000, "kB"

"""The compiled counters where a moment decides: the clock's minute edge, and each instruction.

A click by the process's own clock is put on the seconds around an edge. And a process is stopped
after every single instruction of a flip: whatever the mapped file holds then is what an adopter
finds after a death there.
"""

from __future__ import annotations

import itertools
import mmap
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ingest._fastcount import Counters
from ingest._parts import Part
from ingest.http.batch import Click
from tests.support.frames import MINUTE, SOURCE
from tests.support.singlestep import NoTracingError, stepped

BOOT = "0" * 36
CAPACITY = 40
NS = 10**9
HITS: dict[str, Callable[[Counters, int], object]] = {
    "hit": lambda counters, banner: counters.hit(banner),
    "hit_all": lambda counters, banner: counters.hit_all([Click(bannerID=banner)]),
}


def made(path: Path) -> Counters:
    return Counters.create(path, SOURCE.bytes, BOOT, CAPACITY)


def clicks_of(counters: Counters) -> list[tuple[int, int, list[int]]]:
    """(seq, minute, clicks of banners 1, 2 and 3) of each epoch that has any, oldest first."""
    found = []
    for seq, minute, _, _, ids, counts in counters.rest(0):
        n = len(ids) // 4
        pairs = zip(struct.unpack(f"<{n}I", ids), struct.unpack(f"<{n}Q", counts), strict=True)
        clicks = dict(pairs)
        found.append((seq, minute, [clicks.get(banner, 0) for banner in (1, 2, 3)]))
    return found


@pytest.mark.parametrize("way", HITS)
@pytest.mark.parametrize(
    ("seconds", "epochs"),
    [
        #  second  0  59 | 60 119 | 120
        #  banner  1   1 |  2   2 |   3
        (((0, 1), (59, 1), (60, 2), (119, 2), (120, 3)),
         [(1, 0, [2, 0, 0]), (2, 1, [0, 2, 0]), (3, 2, [0, 0, 1])]),
        #  second 60 | 59 | 60     (a clock that is set back by a second)
        (((60, 1), (59, 2), (60, 3)),
         [(1, 1, [1, 0, 0]), (2, 0, [0, 1, 0]), (3, 1, [0, 0, 1])]),
    ],
)  # fmt: skip
def test_a_click_counts_in_the_clocks_own_minute(
    tmp_path: Path,
    way: str,
    seconds: tuple[tuple[int, int], ...],
    epochs: list[tuple[int, int, list[int]]],
) -> None:
    for attempt in itertools.count():
        counters = made(tmp_path / f"counters-{attempt}")
        if all(hit_in(counters, HITS[way], *at) for at in seconds):
            break
        assert attempt < 20, "no second is long enough for a click on this machine"
    assert clicks_of(counters) == [(seq, MINUTE + m, clicks) for seq, m, clicks in epochs]


def hit_in(
    counters: Counters, hit: Callable[[Counters, int], object], second: int, banner: int
) -> bool:
    """A click in that second after MINUTE began; whether the clock's own second lasted for it."""
    wanted = MINUTE * 60 + second
    counters.clock_offset = wanted - int(time.time())
    before = counters.now() // NS
    hit(counters, banner)
    return before == counters.now() // NS == wanted


class Moment(NamedTuple):
    """What is done before, with `sealed` as the last seq in the spool and `clicks` in it; and the
    step that is broken off, which counts `adds` clicks."""

    before: Callable[[Counters], object]
    step: Callable[[Counters], object]
    sealed: int = 0
    clicks: int = 0
    adds: int = 0


def hit(banner: int, clicks: int, minute: int = 0) -> Callable[[Counters], object]:
    return lambda counters: counters.hit_at(banner, clicks, (MINUTE + minute) * 60 * NS)


def flip(counters: Counters) -> None:
    counters.flip(MINUTE * 60 * NS)


def in_turn(*steps: Callable[[Counters], object]) -> Callable[[Counters], object]:
    return lambda counters: [step(counters) for step in steps]


MOMENTS: dict[str, Moment] = {
    "a click": Moment(hit(1, 5), hit(2, 3), adds=3),
    "a flip": Moment(hit(1, 5), flip),
    "a flip into an epoch that was cleared": Moment(
        in_turn(hit(1, 5), flip, Counters.clear, hit(2, 7)), flip, sealed=1, clicks=5
    ),
    "the minute's edge": Moment(hit(1, 5), hit(2, 3, minute=1), adds=3),
    "the minute's edge while an epoch is being sealed": Moment(
        in_turn(hit(1, 5), flip, hit(1, 7)), hit(2, 3, minute=1), adds=3
    ),
    "a clear": Moment(
        in_turn(hit(1, 5), hit(2, 6), flip, hit(3, 7)), Counters.clear, sealed=1, clicks=11
    ),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_death_between_any_two_instructions_costs_nothing(tmp_path: Path, moment: Moment) -> None:
    counters = made(tmp_path / "counters")
    moment.before(counters)
    answered = counters.total
    seen = states(tmp_path / "counters", lambda: moment.step(counters))
    assert len(seen) > 1, "the step stores something"
    for n, state in enumerate(seen):
        copy = tmp_path / f"copy-{n}"
        copy.write_bytes(state)
        left = Counters.open(copy)
        parts = [part for part in left.rest(0) if part[0] > moment.sealed]
        assert [part[0] for part in parts] == [moment.sealed + 1 + i for i in range(len(parts))]
        running = itertools.accumulate(map(clicks_in, parts), initial=moment.clicks)
        assert [moment.clicks, *(part[3] for part in parts)] == list(running)
        assert left.total in (answered, answered + moment.adds)
        assert left.total == (parts[-1][3] if parts else moment.clicks)
        assert left.next_seq == moment.sealed + len(parts) + 1
    assert left.total == answered + moment.adds


def clicks_in(part: Part) -> int:
    return sum(memoryview(part[5]).cast("Q"))


def states(path: Path, step: Callable[[], object]) -> list[bytes]:
    """What the file holds after each instruction, where it differs from the one before."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        found = [mapped[:]]
        try:
            for _ in stepped(step):
                if (now := mapped[:]) != found[-1]:
                    found.append(now)
        except NoTracingError as error:
            pytest.skip(str(error))
    return found

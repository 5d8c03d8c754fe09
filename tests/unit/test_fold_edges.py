"""Counting once at its limits: the largest that is allowed, and what a quarantine row says."""

from __future__ import annotations

import pytest

from aggregator.writing.fold import (
    MAX_BATCH_FRAMES,
    Arrival,
    Mark,
    Quarantined,
    Verdict,
    Window,
    fold,
    source_of,
)
from aggregator.writing.plausible import MAX_BANNER_ID, MAX_FRAME_CLICKS, MAX_SEQ, MAX_TOTAL
from clickmill import wire
from tests.support.fakes import NOW, FakeSource, arrival

WINDOW = Window(NOW - 1000, NOW + 60)
NO_TABLE_HOLDS_IT = {2**31: 1}


@pytest.mark.parametrize(
    "beside", [{1: 1}, NO_TABLE_HOLDS_IT], ids=["well", "beside one too large"]
)
def test_the_largest_that_is_allowed_counts(beside: dict[int, int]) -> None:
    """Alone frames are looked at together; beside one that is too large, one by one."""
    a, b, c, other = (FakeSource() for _ in range(4))
    b.total = MAX_TOTAL - 1
    batch = [a.arrival({MAX_BANNER_ID: 1}), b.arrival({1: 1}), c.arrival({1: MAX_FRAME_CLICKS})]
    folded = fold({b.id: Mark(0, MAX_TOTAL - 1)}, [*batch, other.arrival(beside)], WINDOW)
    assert folded.verdicts[:3] == [Verdict.APPLIED] * 3
    assert folded.marks[b.id].total == MAX_TOTAL
    too_large = beside == NO_TABLE_HOLDS_IT
    assert folded.clicks == MAX_FRAME_CLICKS + 3 - too_large
    assert (folded.verdicts[3] is Verdict.QUARANTINED) == too_large


@pytest.mark.parametrize(
    ("counts", "total", "fault"),
    [
        ({2**31: 1}, 0, f"banner {2**31} is over {MAX_BANNER_ID}"),
        ({1: MAX_FRAME_CLICKS + 1}, 0,
         f"{MAX_FRAME_CLICKS + 1} clicks in one frame are over {MAX_FRAME_CLICKS}"),
        ({1: 1}, MAX_TOTAL, f"a total of {MAX_TOTAL + 1} clicks is over {MAX_TOTAL}"),
    ],
)  # fmt: skip
def test_what_no_table_can_hold_is_set_aside_with_its_reason(
    counts: dict[int, int], total: int, fault: str
) -> None:
    a = FakeSource()
    a.total = total
    large = a.arrival(counts)
    assert fold({}, [large], WINDOW).quarantine == [
        Quarantined(a.id, 1, f"unreadable: {fault}", None, large.raw)
    ]


def test_the_last_seq_there_is_has_a_place() -> None:
    a = FakeSource()
    assert source_of(Arrival(a.id, MAX_SEQ, None)) == a.id
    assert source_of(Arrival(a.id, MAX_SEQ + 1, None)) is None
    assert source_of(Arrival(a.id, 0, None)) is None


def test_a_batch_may_be_as_large_as_is_said() -> None:
    a = FakeSource()
    assert len(fold({}, [a.arrival({1: 1})] * MAX_BATCH_FRAMES, WINDOW).verdicts) == 16_384


def test_an_unreadable_frame_behind_a_hole_is_reported_with_the_hole() -> None:
    a = FakeSource()
    a.seq = 4
    damaged = a.unreadable()._replace(floor=5)
    assert fold({a.id: Mark(2, 7)}, [damaged], WINDOW).quarantine == [
        Quarantined(a.id, 5, "lost_range: frames 3 to 4 are lost", None, damaged.raw),
        Quarantined(a.id, 5, "unreadable: the CRC does not match", None, damaged.raw),
    ]


def test_a_message_that_says_nothing_of_itself_is_kept_as_it_came() -> None:
    a = FakeSource()
    nameless = Arrival(a.id, None, None, 1, b"junk", "")
    assert fold({}, [nameless], WINDOW).quarantine == [
        Quarantined(a.id, None, "unreadable: its source or seq is not known", None, b"junk")
    ]


def test_a_total_that_disagrees_is_reported_with_both() -> None:
    a = FakeSource()
    a.total = 50
    late = a.arrival({1: 2})
    assert fold({a.id: Mark(0, 10)}, [late], WINDOW).quarantine == [
        Quarantined(a.id, 1, "total: 52, not 12", 40, late.raw)
    ]


def test_a_mark_is_complete_up_to_the_latest_moment_that_was_told() -> None:
    """The parts of one epoch but the last say 0."""
    a = FakeSource()
    told = [a.frame({1: 1})._replace(sealed_at=at) for at in (500, 0)]
    marks = fold({a.id: Mark()}, [arrival(frame) for frame in told], WINDOW).marks
    assert marks[a.id] == Mark(2, 2, 500, False)
    later: wire.Frame = a.frame({1: 1}, closed=True)._replace(sealed_at=700)
    assert fold(marks, [arrival(later)], WINDOW).marks[a.id] == Mark(3, 3, 700, True)

"""The rules of counting once, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.writing.fold import (
    MAX_BATCH_FRAMES,
    Arrival,
    Folded,
    Mark,
    Verdict,
    Window,
    fold,
)
from aggregator.writing.plausible import MAX_FRAME_CLICKS, MAX_TOTAL
from clickmill import wire
from tests.support.fakes import NOW, FakeSource, arrival

WINDOW = Window(NOW - 1000, NOW + 60)
APPLIED, DUPLICATE, GAP, QUARANTINED = (
    Verdict.APPLIED, Verdict.DUPLICATE, Verdict.GAP, Verdict.QUARANTINED,
)  # fmt: skip


def rows(folded: Folded) -> list[tuple[int, int, int]]:
    columns = (column.tolist() for column in folded.rows)
    return list(zip(*columns, strict=True))


def test_no_arrivals_change_nothing() -> None:
    folded = fold({}, [], WINDOW)
    assert (folded.verdicts, rows(folded), folded.marks) == ([], [], {})


def test_frames_are_summed_by_minute_and_banner_in_order() -> None:
    a, b = FakeSource(), FakeSource()
    folded = fold(
        {},
        [
            a.arrival({17: 3, 4: 1}, NOW),
            a.arrival({17: 2}, NOW + 1),
            b.arrival({17: 10, 99_999: 1}, NOW),
        ],
        WINDOW,
    )
    assert rows(folded) == [
        (NOW, 4, 1),
        (NOW, 17, 13),
        (NOW, 99_999, 1),
        (NOW + 1, 17, 2),
    ]
    assert folded.verdicts == [APPLIED] * 3
    assert folded.marks[a.id][:2] == (2, 6)
    assert folded.marks[b.id][:2] == (1, 11)
    assert (folded.clicks, folded.pairs) == (17, 5)


def test_what_is_at_or_under_the_mark_is_a_duplicate() -> None:
    a = FakeSource()
    first, second = a.arrival({1: 1}), a.arrival({1: 2})
    folded = fold({a.id: Mark(1, 1)}, [first, second], WINDOW)
    assert folded.verdicts == [DUPLICATE, APPLIED]
    assert rows(folded) == [(NOW, 1, 2)]


def test_a_frame_twice_in_one_batch_counts_once() -> None:
    a = FakeSource()
    first = a.arrival({1: 1})
    folded = fold({}, [first, first], WINDOW)
    assert folded.verdicts == [APPLIED, DUPLICATE]
    assert rows(folded) == [(NOW, 1, 1)]


def test_order_within_a_batch_does_not_matter() -> None:
    a = FakeSource()
    frames = [a.arrival({n: 1}) for n in range(1, 6)]
    folded = fold({}, list(reversed(frames)), WINDOW)
    assert folded.verdicts == [APPLIED] * 5
    assert folded.marks[a.id].last_seq == 5
    assert not folded.quarantine


def test_nothing_after_a_gap_is_applied() -> None:
    a = FakeSource()
    frames = [a.arrival({1: 1}) for _ in range(4)]
    del frames[1]
    folded = fold({}, frames, WINDOW)
    assert folded.verdicts == [APPLIED, GAP, GAP]
    assert folded.marks[a.id].last_seq == 1
    assert rows(folded) == [(NOW, 1, 1)]


def test_a_gap_of_one_source_does_not_stop_another() -> None:
    a, b = FakeSource(), FakeSource()
    a.frame({1: 1})
    folded = fold({}, [a.arrival({1: 1}), b.arrival({2: 1})], WINDOW)
    assert folded.verdicts == [GAP, APPLIED]
    assert a.id not in folded.marks


def test_an_unreadable_frame_in_order_is_quarantined_and_the_next_applied() -> None:
    a = FakeSource()
    batch = [a.arrival({1: 1}), a.unreadable(), a.arrival({1: 5})]
    folded = fold({}, batch, WINDOW)
    assert folded.verdicts == [APPLIED, QUARANTINED, APPLIED]
    assert folded.marks[a.id].last_seq == 3
    assert [(q.seq, q.reason.partition(":")[0]) for q in folded.quarantine] == [(2, "unreadable")]
    assert folded.quarantine[0].raw == b"\xff damaged"


def test_an_unreadable_frame_after_a_gap_waits_like_any_other() -> None:
    a = FakeSource()
    a.frame({1: 1})
    folded = fold({}, [a.unreadable()], WINDOW)
    assert folded.verdicts == [GAP]
    assert not folded.quarantine


def test_a_readable_copy_is_preferred_to_a_damaged_one() -> None:
    a = FakeSource()
    damaged = Arrival(a.id, 1, None, 1, b"?", "the CRC does not match")
    folded = fold({}, [damaged, a.arrival({1: 7})], WINDOW)
    assert folded.verdicts == [DUPLICATE, APPLIED]
    assert rows(folded) == [(NOW, 1, 7)]


@pytest.mark.parametrize(("known", "seq"), [(False, 1), (True, None), (True, 0), (True, 2**63)])
def test_a_message_without_source_or_seq_is_quarantined_without_a_mark(
    known: bool, seq: int | None
) -> None:
    a = FakeSource()
    nameless = Arrival(a.id if known else None, seq, None, 1, b"junk", "not a frame")
    folded = fold({}, [nameless], WINDOW)
    assert folded.verdicts == [QUARANTINED]
    assert not folded.marks
    assert folded.quarantine[0].raw == b"junk"


def test_a_total_that_disagrees_is_counted_and_reported() -> None:
    a = FakeSource()
    first = a.arrival({1: 1})
    a.total += 100
    second = a.arrival({1: 2})
    folded = fold({}, [first, second], WINDOW)
    assert folded.verdicts == [APPLIED, APPLIED]
    assert folded.clicks == 3
    assert [(q.seq, q.clicks) for q in folded.quarantine] == [(2, 100)]
    assert folded.quarantine[0].reason.startswith("total: ")
    assert folded.marks[a.id].total == 103, "the next frame is checked against what this one said"


def test_a_lost_range_below_the_first_available_seq_is_skipped_and_reported() -> None:
    a = FakeSource()
    frames = [a.frame({1: 1}) for _ in range(5)]
    folded = fold({a.id: Mark(1, 1)}, [arrival(f, floor=4) for f in frames[3:]], WINDOW)
    assert folded.verdicts == [APPLIED, APPLIED]
    assert folded.marks[a.id][:2] == (5, 5)
    assert [(q.reason, q.clicks) for q in folded.quarantine] == [
        ("lost_range: frames 2 to 3 are lost", 2)
    ]


def test_above_the_first_available_seq_a_gap_is_still_a_gap() -> None:
    a = FakeSource()
    frames = [a.frame({1: 1}) for _ in range(6)]
    folded = fold({a.id: Mark(1, 1)}, [arrival(frames[5], floor=4)], WINDOW)
    assert folded.verdicts == [GAP]


def test_the_first_available_seq_of_one_frame_applies_to_its_source() -> None:
    a = FakeSource()
    frames = [a.frame({1: 1}) for _ in range(5)]
    batch = [arrival(frames[2]), arrival(frames[3], floor=4), arrival(frames[4], floor=4)]
    folded = fold({a.id: Mark(1, 1)}, batch, WINDOW)
    assert folded.verdicts == [APPLIED, APPLIED, APPLIED]
    assert sum(q.clicks or 0 for q in folded.quarantine) == 1


@pytest.mark.parametrize(
    ("minute", "expected"),
    [
        (0, WINDOW.first),
        (-(2**40), WINDOW.first),
        (wire.minute_of(4_070_908_800), WINDOW.last),
        (NOW, NOW),
        (WINDOW.first, WINDOW.first),
        (WINDOW.last, WINDOW.last),
    ],
    # Without a time in them: the processes of one run may collect in different minutes.
    ids=["1970", "before", "2099", "now", "first", "last"],
)
def test_minutes_are_clamped_into_the_window(minute: int, expected: int) -> None:
    a = FakeSource()
    folded = fold({}, [a.arrival({1: 5}, minute)], WINDOW)
    assert rows(folded) == [(expected, 1, 5)]
    assert folded.clamped == (minute != expected)


def test_a_closed_source_stays_closed() -> None:
    a = FakeSource()
    batch = [a.arrival({1: 1}, closed=True), a.arrival({1: 1})]
    assert fold({}, batch, WINDOW).marks[a.id].closed


def test_an_empty_frame_moves_the_mark() -> None:
    a = FakeSource()
    folded = fold({}, [a.arrival({}, closed=True)], WINDOW)
    assert folded.verdicts == [APPLIED]
    assert folded.marks[a.id].last_seq == 1
    assert rows(folded) == []


def test_empty_frames_between_others_do_not_shift_the_clicks() -> None:
    a, b = FakeSource(), FakeSource()
    batch = [a.arrival({}), b.arrival({3: 2}), a.arrival({}), b.arrival({4: 5}), a.arrival({5: 1})]
    folded = fold({}, batch, WINDOW)
    assert not folded.quarantine
    assert rows(folded) == [(NOW, 3, 2), (NOW, 4, 5), (NOW, 5, 1)]


def test_numbers_too_large_for_the_tables_are_quarantined() -> None:
    a, b, c, d = (FakeSource() for _ in range(4))
    big = b.arrival({1: MAX_FRAME_CLICKS + 1})
    c.total = MAX_TOTAL
    batch = [a.arrival({2**31: 1}), big, c.arrival({1: 1}), d.arrival({1: 9})]
    folded = fold({}, batch, WINDOW)
    assert folded.verdicts == [QUARANTINED, QUARANTINED, QUARANTINED, APPLIED]
    assert rows(folded) == [(NOW, 1, 9)]
    assert [folded.marks[s.id].last_seq for s in (a, b, c, d)] == [1, 1, 1, 1]


def test_counts_that_wrap_a_u64_are_not_taken_for_small_ones() -> None:
    a = FakeSource()
    ids, counts = np.array([1, 2], "<u4"), np.array([2**63, 2**63], "<u8")
    frame = wire.Frame(a.id, 1, NOW, 0, 0, False, ids.tobytes(), counts.tobytes())
    folded = fold({}, [arrival(frame)], WINDOW)
    assert folded.verdicts == [QUARANTINED]


def test_sums_beyond_what_a_float_holds_are_exact() -> None:
    sources = [FakeSource() for _ in range(64)]
    folded = fold({}, [s.arrival({1: MAX_FRAME_CLICKS - n}) for n, s in enumerate(sources)], WINDOW)
    assert rows(folded) == [(NOW, 1, 64 * MAX_FRAME_CLICKS - sum(range(64)))]
    assert not folded.quarantine


def test_a_batch_is_bounded() -> None:
    a = FakeSource()
    one = a.arrival({1: 1})
    with pytest.raises(ValueError, match="at most"):
        fold({}, [one] * (MAX_BATCH_FRAMES + 1), WINDOW)

"""Batches with a key: once in a transaction, once beside what is counted, never on a guess."""

from __future__ import annotations

from aggregator.writing.fold import Arrival, Folded, Verdict, Walk, Window, fold
from clickmill.batches import key_of
from clickmill.wire import Batch
from tests.support.fakes import NOW, FakeSource

WINDOW = Window(NOW - 100, NOW + 100, NOW - 1000)
APPLIED, REPEATED, QUARANTINED, DUPLICATE, GAP = (
    Verdict.APPLIED, Verdict.REPEATED, Verdict.QUARANTINED, Verdict.DUPLICATE, Verdict.GAP,
)  # fmt: skip
K = key_of("k")


def rows(folded: Folded) -> list[tuple[int, int, int]]:
    return list(zip(*(column.tolist() for column in folded.rows), strict=True))


def batch_of(arrival: Arrival) -> Batch:
    assert arrival.frame is not None
    assert arrival.frame.batch is not None
    return arrival.frame.batch


def test_a_batch_counts_in_all_of_its_minutes() -> None:
    a = FakeSource()
    clicks = [(7, 3, NOW - 50), (7, 1, None), (8, 2, NOW - 50), (7, 4, NOW - 50)]
    folded = fold({}, [a.batch("k", clicks), a.arrival({7: 5})], WINDOW)
    assert rows(folded) == [(NOW - 50, 7, 7), (NOW - 50, 8, 2), (NOW, 7, 6)]
    assert folded.clicks == 15
    assert folded.marks[a.id].counted == 15


def test_of_two_batches_with_a_key_one_counts() -> None:
    a, b = FakeSource(), FakeSource()
    batch = [(7, 3, None), (8, 1, NOW - 5)]
    folded = fold({}, [a.batch("k", batch), b.batch("k", batch), a.batch("k", batch)], WINDOW)
    assert sorted(v.value for v in folded.verdicts) == ["applied", "repeated", "repeated"]
    assert folded.clicks == 4
    assert sum(mark.counted for mark in folded.marks.values()) == 4
    assert sum(mark.total for mark in folded.marks.values()) == 12
    assert not folded.quarantine


def test_a_batch_that_is_counted_moves_its_mark_alone() -> None:
    a = FakeSource()
    again = a.batch("k", [(7, 3, None)])
    folded = fold({}, [again, a.arrival({1: 1})], WINDOW, {K: batch_of(again).digest})
    assert folded.verdicts == [REPEATED, APPLIED]
    assert rows(folded) == [(NOW, 1, 1)]
    assert (folded.marks[a.id].last_seq, folded.marks[a.id].counted) == (2, 1)


def test_another_body_never_counts_beside_the_first_and_is_reported() -> None:
    a, b = FakeSource(), FakeSource()
    folded = fold({}, [a.batch("k", [(7, 3, None)]), b.batch("k", [(7, 9, None)])], WINDOW)
    assert folded.verdicts == [APPLIED, QUARANTINED]
    assert rows(folded) == [(NOW, 7, 3)]
    (row,) = folded.quarantine
    assert (row.source, row.seq, row.reason.partition(":")[0], row.clicks) == (b.id, 1, "key", 9)


def test_a_batch_behind_a_gap_claims_no_key() -> None:
    a, b = FakeSource(), FakeSource()
    a.arrival({1: 1})  # on its way
    early, turn = a.batch("k", [(7, 3, None)]), b.batch("k", [(7, 4, None)])
    walk = Walk({}, [early, turn])
    assert walk.keys.claims == {K: batch_of(turn).digest}
    folded = walk.sum({}, WINDOW)
    assert folded.verdicts == [GAP, APPLIED]
    assert folded.clicks == 4


def test_a_frame_that_is_sent_again_is_a_duplicate_and_asks_for_no_key() -> None:
    a = FakeSource()
    first = a.batch("k", [(7, 3, None)])
    before = fold({}, [first], WINDOW)
    walk = Walk(before.marks, [first])
    assert not walk.keys
    assert walk.sum({}, WINDOW).verdicts == [DUPLICATE]


def test_a_late_batch_counts_only_beside_the_row_of_its_key() -> None:
    a, b = FakeSource(), FakeSource()
    alone, copy = a.batch("alone", [(7, 3, None)], 99), a.batch("k", [(7, 4, None)], 99)
    known, other = a.batch("known", [(7, 5, None)], 99), a.batch("other", [(7, 6, None)], 99)
    fresh = b.batch("k", [(7, 4, None)], 100)
    counted = {key_of("known"): batch_of(known).digest, key_of("other"): K}
    walk = Walk({}, [alone, copy, known, other, fresh], late_before=100)
    assert walk.keys.claims == {K: batch_of(fresh).digest}
    assert walk.keys.all == {key_of(name) for name in ("alone", "k", "known", "other")}
    folded = walk.sum(counted, WINDOW)
    assert folded.verdicts == [QUARANTINED, REPEATED, REPEATED, QUARANTINED, APPLIED]
    assert [row.reason.partition(":")[0] for row in folded.quarantine] == ["late", "key"]
    assert (folded.clicks, folded.marks[a.id].counted) == (4, 0)


def test_own_times_have_a_window_of_their_own() -> None:
    a, b = FakeSource(), FakeSource()
    batch = a.batch("k", [(7, 1, NOW - 1000), (7, 1, NOW - 1001), (7, 1, NOW + 200)])
    folded = fold({}, [batch, b.arrival({7: 1}, NOW - 1000), b.arrival({8: 1})], WINDOW)
    assert rows(folded) == [
        (NOW - 1000, 7, 2), (NOW - 100, 7, 1), (NOW, 8, 1), (NOW + 100, 7, 1),
    ]  # fmt: skip
    assert folded.clamped == 2

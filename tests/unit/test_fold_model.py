"""Fold under Hypothesis: any order, any copies, any batches come to the same as none of it."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from aggregator.writing.fold import Arrival, Mark, Verdict, Window, fold
from tests.support.fakes import NOW, FakeSource

WINDOW = Window(NOW - 10, NOW + 10)

counts = st.dictionaries(st.integers(0, 5), st.integers(1, 1000), max_size=4)
frames = st.lists(st.tuples(st.integers(0, 2), counts, st.integers(-12, 12)), max_size=30)


def arrivals_of(drawn: list[tuple[int, dict[int, int], int]]) -> list[Arrival]:
    sources = [FakeSource() for _ in range(3)]
    return [sources[s].arrival(c, NOW + shift) for s, c, shift in drawn]


def expected(arrivals: list[Arrival]) -> Counter[tuple[int, int]]:
    """A plain sum over the frames, each once, as a naive program would make it."""
    sums: Counter[tuple[int, int]] = Counter()
    for arrival in arrivals:
        assert arrival.frame is not None
        minute = min(max(arrival.frame.minute, WINDOW.first), WINDOW.last)
        for banner, n in arrival.frame.pairs:
            sums[minute, banner] += n
    return sums


@given(frames, st.data())
def test_any_schedule_of_batches_copies_and_orders_counts_each_frame_once(
    drawn: list[tuple[int, dict[int, int], int]], data: st.DataObject
) -> None:
    arrivals = arrivals_of(drawn)
    copies = data.draw(st.lists(st.sampled_from(arrivals), max_size=10)) if arrivals else []
    bus = data.draw(st.permutations(arrivals + copies))
    marks: dict[UUID, Mark] = {}
    sums: Counter[tuple[int, int]] = Counter()
    waiting: list[Arrival] = list(bus)
    while waiting:
        size = data.draw(st.integers(1, len(waiting)))
        batch, rest = waiting[:size], waiting[size:]
        folded = fold(marks, batch, WINDOW)
        for when, banner, n in zip(*(c.tolist() for c in folded.rows), strict=True):
            sums[when, banner] += n
        marks.update(folded.marks)
        late = [a for a, v in zip(batch, folded.verdicts, strict=True) if v is Verdict.GAP]
        assert not folded.quarantine
        # A gap stays on the bus; it comes again after the rest.
        if not rest and len(late) == len(batch):
            raise AssertionError("nothing moves although every frame is there")
        waiting = rest + late
    assert sums == expected(arrivals)


@given(frames, st.sets(st.integers(0, 29)))
def test_with_frames_missing_exactly_the_runs_before_the_gaps_count(
    drawn: list[tuple[int, dict[int, int], int]], missing: set[int]
) -> None:
    arrivals = arrivals_of(drawn)
    there = [a for n, a in enumerate(arrivals) if n not in missing]
    gone = [a for n, a in enumerate(arrivals) if n in missing]
    first_gone: dict[object, int] = {}
    for arrival in gone:
        assert arrival.seq is not None
        first_gone.setdefault(arrival.source, arrival.seq)
    run = [a for a in there if (a.seq or 0) < first_gone.get(a.source, 10**9)]
    folded = fold({}, there, WINDOW)
    sums = Counter({
        (when, banner): n
        for when, banner, n in zip(*(c.tolist() for c in folded.rows), strict=True)
    })  # fmt: skip
    assert sums == expected(run)
    assert [v is Verdict.APPLIED for v in folded.verdicts] == [a in run for a in there]


def test_the_model_sees_a_rule_that_applies_over_gaps() -> None:
    """A fold that applied whatever is over the mark would lose the frame that comes late."""
    a = FakeSource()
    first, second, third = (a.arrival({1: 1}) for _ in range(3))
    folded = fold({}, [first, third], WINDOW)
    assert folded.marks[a.id].last_seq == 1
    assert fold({a.id: Mark(3, 3)}, [second], WINDOW).verdicts == [Verdict.DUPLICATE]

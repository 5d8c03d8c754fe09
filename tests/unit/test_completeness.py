"""completeThrough and silent sources, on a clock that the test turns.

seconds      0    1    2    3
source a     ----S1---S2-------    S: sealed and committed
source b     ----S1------------    b holds the figures back at 1 s
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from aggregator.writing.completeness import SECOND, SILENT_AFTER, OpenSource, Progress
from aggregator.writing.fold import Mark
from clickmill.messages import Committed, SourceStatus

START = 1_800_000_000 * SECOND
A, B = uuid4(), uuid4()


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(START // SECOND + seconds, UTC)


def ns(seconds: float) -> int:
    return START + int(seconds * SECOND)


def begin() -> tuple[Progress, Clock]:
    clock = Clock()
    progress = Progress(clock)
    progress.reload({}, new_session=True)
    return progress, clock


def silent_sources(progress: Progress) -> list[OpenSource]:
    return [source for source in progress.open_sources() if source.silent]


def test_nothing_is_known_before_the_table_was_read() -> None:
    progress = Progress(Clock())
    progress.committed({A: Mark(1, 1, ns(0))})
    assert progress.complete_through() is None
    assert progress.freshness_seconds() is None
    assert progress.mark_of(A) is None


def test_without_sources_all_is_complete() -> None:
    progress, _ = begin()
    assert progress.complete_through() == at(0)


def test_the_slowest_open_source_decides() -> None:
    progress, clock = begin()
    clock.now = ns(3)
    progress.committed({A: Mark(2, 2, ns(2)), B: Mark(1, 1, ns(1))})
    assert progress.complete_through() == at(1)
    assert progress.freshness_seconds() == 2
    assert progress.sources_live == 2


def test_a_closed_source_holds_nothing_back() -> None:
    progress, clock = begin()
    clock.now = ns(3)
    progress.committed({A: Mark(2, 2, ns(2)), B: Mark(1, 1, ns(1))})
    progress.committed({B: Mark(2, 1, ns(1), closed=True)})
    assert progress.complete_through() == at(2)


def test_an_idle_source_advances_with_its_heartbeats() -> None:
    progress, clock = begin()
    clock.now = ns(5)
    progress.committed({A: Mark(3, 3, ns(1))})
    progress.heard(SourceStatus(A, 3, ns(4)))
    assert progress.complete_through() == at(4)


def test_a_heartbeat_counts_only_after_its_frames_are_committed() -> None:
    progress, clock = begin()
    clock.now = ns(5)
    progress.committed({A: Mark(3, 3, ns(1))})
    progress.heard(SourceStatus(A, 4, ns(4)))
    assert progress.complete_through() == at(1)
    clock.now = ns(6)
    progress.committed({A: Mark(4, 4, ns(2))})
    assert progress.complete_through() == at(4)


def test_a_worker_without_frames_is_known_by_its_first_heartbeat() -> None:
    progress, clock = begin()
    progress.heard(SourceStatus(A, 0, ns(0)))
    clock.now = ns(2)
    assert progress.complete_through() == at(0)
    progress.reload({}, new_session=False)
    assert progress.complete_through() == at(0), "the table knows nothing of it, and keeps quiet"


def test_a_source_is_complete_through_its_creation() -> None:
    """It has counted, and none of it is committed: nothing was answered before it was made."""
    progress, clock = begin()
    clock.now = ns(5)
    progress.heard(SourceStatus(A, 0, 0, created_at=ns(1)))
    assert progress.complete_through() == at(1)
    progress.heard(SourceStatus(A, 3, 0, created_at=ns(1)))
    progress.reload({A: (Mark(), START)}, new_session=False)
    assert progress.complete_through() == at(1), "a row that its first frame has made"
    clock.now = ns(6)
    progress.committed({A: Mark(3, 3, ns(4))})
    assert progress.complete_through() == at(4)
    progress.reload({A: (Mark(), START)}, new_session=True)
    assert progress.complete_through() == at(1), "Postgres has lost what was committed"


def test_a_source_without_a_row_is_complete_through_its_creation() -> None:
    progress, clock = begin()
    clock.now = ns(5)
    progress.heard(SourceStatus(A, 2, 0, created_at=ns(1)))
    assert progress.complete_through() is None, "it may be in the table"
    assert progress.mark_of(A) is None
    progress.looked_up([A], {})
    assert progress.complete_through() == at(1)
    assert progress.to_look_up() == [A], "another aggregator may commit its first frame"
    clock.now = ns(6)
    progress.looked_up([A], {A: (Mark(2, 2, ns(3)), START)})
    assert (progress.complete_through(), progress.to_look_up()) == (at(3), [])


def test_a_source_without_a_creation_time_promises_nothing() -> None:
    progress, clock = begin()
    clock.now = ns(5)
    progress.heard(SourceStatus(A, 0, 0))
    assert progress.complete_through() is None
    assert progress.freshness_seconds() is None
    clock.now = ns(6)
    progress.committed({A: Mark(1, 1, ns(2))})
    assert progress.complete_through() == at(2)


def test_a_source_created_by_a_fast_clock_does_not_promise_the_future() -> None:
    progress, _ = begin()
    progress.heard(SourceStatus(A, 0, 0, created_at=ns(10**6)))
    assert progress.complete_through() == at(0)


def test_a_worker_that_stops_without_a_click_is_dropped() -> None:
    progress, clock = begin()
    progress.heard(SourceStatus(A, 0, ns(0)))
    clock.now = ns(2)
    progress.heard(SourceStatus(A, 0, ns(0), closed=True))
    assert progress.complete_through() == at(2)


def test_fast_clocks_do_not_promise_the_future() -> None:
    progress, clock = begin()
    clock.now = ns(1)
    progress.committed({A: Mark(1, 1, ns(10**6))})
    progress.heard(SourceStatus(A, 1, ns(10**6)))
    assert progress.complete_through() == at(1)


def test_a_clock_before_1970_does_no_harm() -> None:
    progress, clock = begin()
    clock.now = ns(1)
    progress.committed({A: Mark(1, 1, -(2**62))})
    assert progress.complete_through() is not None


def test_a_silent_source_is_reported_and_holds_back() -> None:
    progress, clock = begin()
    progress.committed({A: Mark(1, 1, ns(0)), B: Mark(1, 1, ns(0))})
    clock.now = START + SILENT_AFTER + SECOND
    progress.heard(SourceStatus(B, 1, clock.now))
    (silent,) = silent_sources(progress)
    assert (silent.source, silent.heard, silent.through) == (A, ns(0), ns(0))
    assert (progress.sources_live, progress.sources_silent) == (1, 1)
    assert progress.complete_through() == at(0)
    progress.heard(SourceStatus(A, 1, clock.now))
    assert not silent_sources(progress)


def test_lower_marks_are_accepted_on_a_new_session_only() -> None:
    progress, _ = begin()
    progress.committed({A: Mark(9, 9, ns(0))})
    older = {A: (Mark(4, 4, ns(0)), START)}
    progress.reload(older, new_session=False)
    assert progress.mark_of(A) == Committed(9, 9)
    progress.reload(older, new_session=True)
    assert progress.mark_of(A) == Committed(4, 4)


def test_after_a_lower_mark_nothing_beyond_it_is_promised() -> None:
    progress, clock = begin()
    clock.now = ns(9)
    progress.committed({A: Mark(9, 9, ns(8))})
    progress.heard(SourceStatus(A, 9, ns(9)))
    assert progress.complete_through() == at(9)
    progress.reload({A: (Mark(4, 4, ns(3)), START)}, new_session=True)
    assert progress.complete_through() == at(3)
    progress.committed({A: Mark(9, 9, ns(8))})
    clock.now = ns(10)
    assert progress.complete_through() == at(9)


def test_a_source_without_a_read_row_makes_completeness_unknown() -> None:
    progress, clock = begin()
    progress.heard(SourceStatus(A, 3, ns(1)))  # it sealed clicks before we were there
    clock.now = ns(2)
    assert progress.complete_through() is None
    assert progress.to_look_up() == [A]
    progress.looked_up([A], {})
    assert progress.complete_through() is None, "its first frame is on the way"
    assert (progress.sources_live, progress.sources_silent) == (1, 0)
    clock.now = START + SILENT_AFTER + 2 * SECOND
    assert [silent.source for silent in silent_sources(progress)] == [A]
    progress.looked_up([A], {A: (Mark(3, 7, ns(1)), START)})
    assert (progress.complete_through(), progress.to_look_up()) == (at(1), [])


def test_a_source_closed_unseen_is_dropped() -> None:
    progress, clock = begin()
    progress.heard(SourceStatus(A, 0, ns(0)))  # a worker without clicks, killed
    progress.heard(SourceStatus(B, 4, ns(0)))
    clock.now = ns(2)
    assert sorted(progress.to_look_up()) == sorted([A, B])
    closed = {u: (Mark(4, 4, ns(1), closed=True), START) for u in (A, B)}
    progress.looked_up([A, B], closed)
    assert (progress.complete_through(), progress.to_look_up()) == (at(2), [])


def test_a_row_that_was_read_before_our_own_commit_does_not_undo_it() -> None:
    progress, clock = begin()
    clock.now = ns(5)
    progress.heard(SourceStatus(A, 0, ns(0)))
    progress.committed({A: Mark(5, 5, ns(4))})
    progress.looked_up([A], {A: (Mark(3, 3, ns(2)), START)})
    assert progress.mark_of(A) == Committed(5, 5)


def test_a_source_closed_elsewhere_is_dropped_at_the_next_reload() -> None:
    progress, clock = begin()
    clock.now = ns(5)
    progress.committed({A: Mark(1, 1, ns(1)), B: Mark(1, 1, ns(4))})
    progress.reload({B: (Mark(1, 1, ns(4)), START)}, new_session=False)
    assert progress.complete_through() == at(4)
    assert progress.mark_of(A) is None


def test_the_rates_include_clicks_committed_by_any_aggregator() -> None:
    progress, _ = begin()
    progress.committed({A: Mark(1, 5, ns(0))})
    assert progress.rates.total == 5, "our own commit"
    progress.reload(
        {A: (Mark(2, 8, ns(1)), ns(1)), B: (Mark(1, 4, ns(1)), ns(1))}, new_session=False
    )
    assert progress.rates.total == 12, "and those of another aggregator, read from the table"
    progress.reload(
        {A: (Mark(1, 5, ns(0)), ns(0)), B: (Mark(1, 4, ns(1)), ns(1))}, new_session=False
    )
    assert progress.rates.total == 12, "a reading that our commit has overtaken"
    progress.committed({A: Mark(3, 10, ns(2), closed=True)})
    assert progress.rates.total == 14, "the last frame of a source"
    progress.committed({A: Mark(3, 10, ns(2), closed=True)})
    assert progress.rates.total == 14, "the same, late and once more"


def test_clicks_of_an_unobserved_time_are_not_counted_as_current() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.reload({A: (Mark(9, 10**10, ns(-5)), ns(-5))}, new_session=True)
    assert progress.rates.total == 0
    progress.forget()
    clock.now = ns(30)
    progress.reload({A: (Mark(12, 10**10 + 99, ns(29)), ns(29))}, new_session=True)
    assert progress.rates.total == 0
    clock.now = ns(33)
    assert [at - START // SECOND for at, _ in progress.rates.history()] == [1, 31, 32, 33]

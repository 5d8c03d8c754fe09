"""completeThrough where the first reading, a bound or a clock's step decides."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from aggregator.writing import completeness as module
from aggregator.writing.completeness import CACHE_FOR, SECOND, SILENT_AFTER, Progress
from aggregator.writing.fold import Mark
from clickmill.messages import Committed, SourceStatus
from tests.unit.test_completeness import START, A, B, Clock, at, begin, ns, silent_sources

C = uuid4()


def test_the_first_reading_of_the_table_says_all_there_is_to_know() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.heard(SourceStatus(A, 3, ns(0)))
    clock.now = ns(5)
    progress.reload(
        {A: (Mark(3, 7, ns(2)), ns(4)), B: (Mark(1, 1, ns(1)), ns(3))}, new_session=True
    )
    assert (progress.complete_through(), progress.to_look_up()) == (at(1), [])
    assert progress.mark_of(A) == Committed(3, 7)
    assert progress.freshness_seconds() == 4
    clock.now = ns(3) + SILENT_AFTER + 1
    assert [silent.source for silent in silent_sources(progress)] == [B]


def test_what_cannot_be_read_any_more_is_not_known() -> None:
    progress, _ = begin()
    progress.committed({A: Mark(1, 1, ns(0))})
    progress.forget()
    assert progress.complete_through() is None
    assert progress.mark_of(A) is None
    progress.reload({A: (Mark(1, 1, ns(0)), START)}, new_session=True)
    assert progress.mark_of(A) == Committed(1, 1)


def test_a_reading_that_our_own_commit_has_overtaken_takes_nothing_back() -> None:
    progress, clock = begin()
    clock.now = ns(9)
    progress.committed({A: Mark(9, 9, ns(8))})
    progress.reload({A: (Mark(4, 4, ns(3)), START)}, new_session=False)
    assert progress.complete_through() == at(8)


def test_a_row_that_was_looked_up_is_as_old_as_it_says() -> None:
    progress, clock = begin()
    clock.now = START + SILENT_AFTER + SECOND
    progress.heard(SourceStatus(A, 3, ns(0)))
    progress.looked_up([A], {A: (Mark(3, 3, ns(0)), START)})
    assert (progress.sources_live, progress.sources_silent) == (0, 1)
    progress.committed({A: Mark(4, 4, ns(0))})
    assert (progress.sources_live, progress.sources_silent) == (1, 0)


def test_a_source_is_silent_only_after_its_time() -> None:
    progress, clock = begin()
    progress.committed({A: Mark(1, 1, ns(0))})
    progress.heard(SourceStatus(B, 1, ns(0)))
    clock.now = START + SILENT_AFTER
    assert (silent_sources(progress), progress.sources_live) == ([], 2)
    clock.now += 1
    assert sorted(s.source for s in silent_sources(progress)) == sorted([A, B])
    assert progress.sources_silent == 2


def test_a_closed_source_that_was_not_seen_is_not_waited_for() -> None:
    progress, _ = begin()
    progress.heard(SourceStatus(A, 3, ns(0), closed=True))
    assert progress.to_look_up() == []
    progress.heard(SourceStatus(B, 3, ns(0)))
    progress.heard(SourceStatus(B, 3, ns(0), closed=True))
    assert progress.to_look_up() == []


def test_no_more_sources_are_known_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SOURCES", 2)
    progress, _ = begin()
    progress.committed({A: Mark(1, 1, ns(0))})
    progress.heard(SourceStatus(B, 1, ns(0)))
    progress.heard(SourceStatus(C, 1, ns(0)))
    assert progress.to_look_up() == [B]
    progress.committed({B: Mark(1, 1, ns(0)), C: Mark(1, 1, ns(0))})
    assert progress.mark_of(B) == Committed(1, 1)
    assert progress.mark_of(C) is None


def test_an_answer_holds_for_a_moment_unless_the_clock_goes_back() -> None:
    progress, clock = begin()
    progress.committed({A: Mark(1, 1, ns(0) - 5 * SECOND)})
    assert progress.complete_through() == at(-5)
    progress.committed({A: Mark(2, 2, ns(0) - 4 * SECOND)})
    assert progress.complete_through() == at(-5), "in the same nanosecond"
    clock.now += CACHE_FOR - 1
    assert progress.complete_through() == at(-5)
    clock.now += 1
    assert progress.complete_through() == at(-4)
    progress.committed({A: Mark(3, 3, ns(0) - 3 * SECOND)})
    clock.now -= SECOND
    assert progress.complete_through() == at(-3)


def test_nothing_later_is_promised_than_is_known() -> None:
    progress, clock = begin()
    assert progress.freshness_seconds() == 0
    clock.now = ns(5)
    progress.committed({A: Mark(1, 1, ns(1) + 1999)})
    assert progress.complete_through() == at(1) + timedelta(microseconds=1)


def test_a_worker_without_a_click_is_looked_up_in_vain() -> None:
    progress, clock = begin()
    progress.heard(SourceStatus(A, 0, ns(0)))
    clock.now = ns(2)
    progress.looked_up([A, B], {})
    assert progress.to_look_up() == [A]
    assert progress.complete_through() == at(0)

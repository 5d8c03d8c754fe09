"""No answered click is lost or doubled, in whatever order things happen: checked on schedules.

And the proof that the model can find a loss: with one rule changed for a plausible worse one, it
does, every time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from aggregator.writing.fold import Arrival, Mark, Walk
from ingest.durable.outbox import Outbox
from tests.model import schedule
from tests.model.outside import Postgres
from tests.model.world import Rules

SCHEDULES = int(os.environ.get("SCHEDULES", "300"))
SEED = int(os.environ.get("SEED", "1"))
MUTANT_SCHEDULES = 600
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

steps = st.tuples(st.sampled_from([*schedule.STEPS, *schedule.OFTEN]), st.integers(0, 2**24 - 1))
schedules = st.lists(steps, min_size=schedule.MIN_STEPS, max_size=schedule.MAX_STEPS)


@seed(SEED)
@settings(max_examples=SCHEDULES, deadline=None, database=None, suppress_health_check=QUIET,
          print_blob=True)  # fmt: skip
@given(schedules)
def test_no_click_is_lost_or_counted_twice(steps: list[schedule.Step]) -> None:
    schedule.run(steps, Rules())


class ApplyWheneverLater(Rules):
    """Applies a frame whenever its seq is above the mark: gaps count as lost."""

    def walk(self, seen: dict[UUID, Mark], postgres: Postgres, arrivals: list[Arrival]) -> Walk:
        leaping = [arrival._replace(floor=arrival.seq or 1) for arrival in arrivals]
        return Walk(postgres.state.marks, leaping)


class _TrimsAtAcknowledgement(Outbox):
    def trim(self, now: float) -> int:
        self.held = [seq for seq in self.held if seq > self.acknowledged]
        return self.acknowledged


class TrimAtAcknowledgement(Rules):
    """Forgets a frame once NATS has taken it."""

    outbox = _TrimsAtAcknowledgement


class _TrimsAtCommit(Outbox):
    def trim(self, now: float) -> int:
        self.held = [seq for seq in self.held if seq > (self.mark or 0)]
        return self.mark or 0


class TrimAtCommit(Rules):
    """Forgets a frame as soon as Postgres has committed it, without the keep time."""

    outbox = _TrimsAtCommit


class ClearFirst(Rules):
    """Empties the epoch before its frame is on disk."""

    clear_first = True


class FloorAlways(Rules):
    """Says with every frame that those before it will never come."""

    def floor(self, seq: int, floor: int) -> int:
        return seq


class MarksFromMemory(Rules):
    """Folds against the marks that the aggregator remembers, not against those in Postgres."""

    def walk(self, seen: dict[UUID, Mark], postgres: Postgres, arrivals: list[Arrival]) -> Walk:
        return Walk(seen, arrivals)


class CountWithoutKeys(Rules):
    """Counts a batch whenever its frame is new, whatever its key."""

    def counted(self, walk: Walk, keys: Mapping[UUID, UUID]) -> Mapping[UUID, UUID]:
        return {}


class ClaimAtArrival(Rules):
    """Inserts the keys of batches whose turn has not come."""

    def claims(self, walk: Walk, arrivals: list[Arrival]) -> Mapping[UUID, UUID]:
        frames = [arrival.frame for arrival in arrivals if arrival.frame is not None]
        return {frame.batch.key: frame.batch.digest for frame in frames if frame.batch}


class AnswerFirst(Rules):
    """Answers a batch before it is on disk."""

    answer_first = True


@pytest.mark.parametrize(
    "mutant",
    [ApplyWheneverLater, TrimAtAcknowledgement, TrimAtCommit, ClearFirst, FloorAlways,
     MarksFromMemory, CountWithoutKeys, ClaimAtArrival, AnswerFirst],
)  # fmt: skip
def test_the_model_detects_a_wrong_rule(mutant: type[Rules]) -> None:
    tried = 0

    @seed(SEED)
    @settings(max_examples=MUTANT_SCHEDULES, phases=[Phase.generate], deadline=None, database=None,
              suppress_health_check=QUIET, verbosity=Verbosity.quiet)  # fmt: skip
    @given(schedules)
    def search(steps: list[schedule.Step]) -> None:
        nonlocal tried
        tried += 1
        schedule.run(steps, mutant())

    with pytest.raises(AssertionError, match=r"answered|disagree"):
        search()
    print(f"{mutant.__name__} was found out after {tried} schedules")

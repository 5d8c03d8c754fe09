"""What waits behind a gap: by source, bounded, the latest copy of each frame."""

from __future__ import annotations

from uuid import UUID

from aggregator.writing.message import Delivery
from aggregator.writing.reorder import Held
from clickmill import wire
from tests.support.fakes import FakeSource


def delivery(source: FakeSource, reply: str = "") -> Delivery:
    arrived = source.arrival({1: 1})
    return Delivery(arrived, reply or f"ack-{arrived.seq}", 0)


def holding(**bounds: int) -> Held:
    """One that has every shard."""
    held = Held(**bounds)
    for shard in range(wire.SHARDS):
        held.assign(shard)
    return held


def test_what_is_kept_comes_back_in_order_and_once() -> None:
    held, a, b = holding(), FakeSource(), FakeSource()
    first, second, other = delivery(a), delivery(a), delivery(b)
    for each in (second, first, other):
        assert held.keep(each, 0) == []
    assert (held.sources, held.frames) == (2, 3)
    assert held.take([a.id, None]) == [first, second]
    assert held.take([a.id]) == []
    assert (held.sources, held.frames) == (1, 1)


def test_a_later_copy_takes_the_place_of_the_earlier() -> None:
    held, a = holding(), FakeSource()
    first = delivery(a)
    again = first._replace(reply="ack-again")
    held.keep(first, 0)
    held.keep(again, 0)
    assert held.take([a.id]) == [again]
    assert held.bytes == 0


def test_over_its_bounds_the_longest_waiting_source_goes() -> None:
    held, a, b = holding(max_frames=3), FakeSource(), FakeSource()
    kept = [delivery(a), delivery(a), delivery(b)]
    for each in kept:
        assert held.keep(each, 0) == []
    assert held.keep(delivery(b), 0) == kept[:2]
    assert held.frames == 2
    assert held.bytes == sum(len(d.arrival.raw) for d in held.take([b.id]))


def test_a_single_frame_over_the_bytes_is_given_back_itself() -> None:
    held, a = holding(max_bytes=10), FakeSource()
    big = delivery(a)
    assert held.keep(big, 0) == [big]
    assert (held.frames, held.bytes, held.sources) == (0, 0, 0)


def test_a_shard_that_goes_takes_its_frames_along() -> None:
    held = holding()
    a, b = FakeSource(UUID(int=3)), FakeSource(UUID(int=4))
    held.keep(delivery(a), 0)
    held.keep(delivery(b), 0)
    held.revoke(3)
    assert held.take([a.id]) == []
    assert len(held.take([b.id])) == 1


def test_what_turns_late_after_its_shard_went_is_not_kept() -> None:
    held, a = holding(), FakeSource(UUID(int=3))
    late = delivery(a)
    held.keep(late, 10)
    held.take([a.id])  # into a batch, which is done only after the shard has gone
    held.revoke(3)
    assert held.keep(late, 20) == []
    assert (held.sources, held.frames, held.bytes) == (0, 0, 0)
    held.assign(3)
    held.keep(late, 30)
    assert held.waiting_for(a.id, 31) == 1, "the time before it went is over"


def test_the_time_behind_a_gap_goes_on_until_nothing_waits() -> None:
    held, a = holding(), FakeSource()
    late = delivery(a)
    assert held.waiting_for(a.id, 5) == 0
    held.keep(late, 10)
    held.take([a.id])
    held.keep(late, 14)
    assert held.waiting_for(a.id, 15) == 5
    held.settle([a.id])
    assert held.waiting_for(a.id, 15) == 5, "it waits right now"
    held.take([a.id])
    held.settle([a.id, None])
    assert held.waiting_for(a.id, 15) == 0

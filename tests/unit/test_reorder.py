"""What waits behind a gap: by source, bounded, the latest copy of each frame."""

from __future__ import annotations

from uuid import UUID

from aggregator.writing.message import Delivery
from aggregator.writing.reorder import ReorderBuffer
from clickmill import wire
from tests.support.fakes import FakeSource


def delivery(source: FakeSource, reply: str = "") -> Delivery:
    arrived = source.arrival({1: 1})
    return Delivery(arrived, reply or f"ack-{arrived.seq}", 0, 0.0)


def buffer_of(**bounds: int) -> ReorderBuffer:
    """One that has every shard."""
    buffer = ReorderBuffer(**bounds)
    for shard in range(wire.SHARDS):
        buffer.assign(shard)
    return buffer


def test_what_is_kept_comes_back_in_order_and_once() -> None:
    buffer, a, b = buffer_of(), FakeSource(), FakeSource()
    first, second, other = delivery(a), delivery(a), delivery(b)
    for each in (second, first, other):
        assert buffer.retain(each, 0) == []
    assert (buffer.sources, buffer.frames) == (2, 3)
    assert buffer.pop([a.id, None]) == [first, second]
    assert buffer.pop([a.id]) == []
    assert (buffer.sources, buffer.frames) == (1, 1)


def test_a_later_copy_takes_the_place_of_the_earlier() -> None:
    buffer, a = buffer_of(), FakeSource()
    first = delivery(a)
    again = first._replace(reply="ack-again")
    buffer.retain(first, 0)
    buffer.retain(again, 0)
    assert buffer.pop([a.id]) == [again]
    assert buffer.bytes == 0


def test_over_its_bounds_the_longest_waiting_source_goes() -> None:
    buffer, a, b = buffer_of(max_frames=3), FakeSource(), FakeSource()
    kept = [delivery(a), delivery(a), delivery(b)]
    for each in kept:
        assert buffer.retain(each, 0) == []
    assert buffer.retain(delivery(b), 0) == kept[:2]
    assert buffer.frames == 2
    assert buffer.bytes == sum(len(d.arrival.raw) for d in buffer.pop([b.id]))


def test_a_single_frame_over_the_bytes_is_given_back_itself() -> None:
    buffer, a = buffer_of(max_bytes=10), FakeSource()
    big = delivery(a)
    assert buffer.retain(big, 0) == [big]
    assert (buffer.frames, buffer.bytes, buffer.sources) == (0, 0, 0)


def test_a_shard_that_goes_takes_its_frames_along() -> None:
    buffer = buffer_of()
    a, b = FakeSource(UUID(int=3)), FakeSource(UUID(int=4))
    buffer.retain(delivery(a), 0)
    buffer.retain(delivery(b), 0)
    buffer.revoke(3)
    assert buffer.pop([a.id]) == []
    assert len(buffer.pop([b.id])) == 1


def test_what_turns_late_after_its_shard_went_is_not_kept() -> None:
    buffer, a = buffer_of(), FakeSource(UUID(int=3))
    late = delivery(a)
    buffer.retain(late, 10)
    buffer.pop([a.id])  # into a batch, which is done only after the shard has gone
    buffer.revoke(3)
    assert buffer.retain(late, 20) == []
    assert (buffer.sources, buffer.frames, buffer.bytes) == (0, 0, 0)
    buffer.assign(3)
    buffer.retain(late, 30)
    assert buffer.waiting_for(a.id, 31) == 1, "the time before it went is over"


def test_the_time_behind_a_gap_goes_on_until_nothing_waits() -> None:
    buffer, a = buffer_of(), FakeSource()
    late = delivery(a)
    assert buffer.waiting_for(a.id, 5) == 0
    buffer.retain(late, 10)
    buffer.pop([a.id])
    buffer.retain(late, 14)
    assert buffer.waiting_for(a.id, 15) == 5
    buffer.gap_closed([a.id])
    assert buffer.waiting_for(a.id, 15) == 5, "it waits right now"
    buffer.pop([a.id])
    buffer.gap_closed([a.id, None])
    assert buffer.waiting_for(a.id, 15) == 0

"""What waits behind a gap, at its bounds."""

from __future__ import annotations

from tests.support.fakes import FakeSource
from tests.unit.test_reorder import buffer_of, delivery


def test_what_fits_exactly_is_kept() -> None:
    a = FakeSource()
    one = delivery(a)
    buffer = buffer_of(max_frames=1, max_bytes=len(one.arrival.raw))
    assert buffer.retain(one, 0) == []


def test_all_that_had_to_go_is_given_back() -> None:
    a, b, c = FakeSource(), FakeSource(), FakeSource()
    small = [delivery(a), delivery(b)]
    big = c.arrival(dict.fromkeys(range(100), 1))
    size = len(big.raw)
    buffer = buffer_of(max_bytes=size)
    for each in small:
        assert buffer.retain(each, 0) == []
    assert buffer.retain(delivery(c)._replace(arrival=big), 0) == small
    assert (buffer.sources, buffer.bytes) == (1, size)


def test_a_source_that_had_to_go_waits_from_its_return_on() -> None:
    a, b = FakeSource(), FakeSource()
    buffer = buffer_of(max_frames=1)
    buffer.retain(delivery(a), 10)
    buffer.retain(delivery(b), 20)
    assert buffer.waiting_for(a.id, 25) == 0
    buffer.retain(delivery(a), 30)
    assert buffer.waiting_for(a.id, 31) == 1


def test_nothing_waits_of_a_source_that_never_did() -> None:
    a, buffer = FakeSource(), buffer_of()
    buffer.gap_closed([a.id])
    assert buffer.waiting_for(a.id, 5) == 0

"""What waits behind a gap, at its bounds."""

from __future__ import annotations

from tests.support.fakes import FakeSource
from tests.unit.test_held import delivery, holding


def test_what_fits_exactly_is_kept() -> None:
    a = FakeSource()
    one = delivery(a)
    held = holding(max_frames=1, max_bytes=len(one.arrival.raw))
    assert held.keep(one, 0) == []


def test_all_that_had_to_go_is_given_back() -> None:
    a, b, c = FakeSource(), FakeSource(), FakeSource()
    small = [delivery(a), delivery(b)]
    big = c.arrival(dict.fromkeys(range(100), 1))
    size = len(big.raw)
    held = holding(max_bytes=size)
    for each in small:
        assert held.keep(each, 0) == []
    assert held.keep(delivery(c)._replace(arrival=big), 0) == small
    assert (held.sources, held.bytes) == (1, size)


def test_a_source_that_had_to_go_waits_from_its_return_on() -> None:
    a, b = FakeSource(), FakeSource()
    held = holding(max_frames=1)
    held.keep(delivery(a), 10)
    held.keep(delivery(b), 20)
    assert held.waiting_for(a.id, 25) == 0
    held.keep(delivery(a), 30)
    assert held.waiting_for(a.id, 31) == 1


def test_nothing_waits_of_a_source_that_never_did() -> None:
    a, held = FakeSource(), holding()
    held.settle([a.id])
    assert held.waiting_for(a.id, 5) == 0

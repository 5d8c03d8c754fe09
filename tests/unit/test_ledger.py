"""The ledger of clicks: it must see one click too few, and one too many."""

from __future__ import annotations

import pytest

from bench.load.ledger import Counts, Ledger, compare, shown

MINUTE = 29_000_000
MIDDLE, END = MINUTE * 60 + 30.0, MINUTE * 60 + 59.9


class Clock:
    def __init__(self) -> None:
        self.now = MIDDLE

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    """Banner 1: 3 answered, 1 in flight. Banner 2: 2 answered over the minute's edge."""
    ledger = Ledger(clock)
    ledger.answer(ledger.send({1: 3}))
    ledger.lose(ledger.send({1: 1}))
    clock.now = END
    late = ledger.send({2: 2})
    clock.now += 0.2
    ledger.answer(late)
    return ledger


@pytest.mark.parametrize("ones", [3, 4])
@pytest.mark.parametrize("edge", [0, 1, 2])
def test_within_bounds(ledger: Ledger, ones: int, edge: int) -> None:
    found = Counts({(1, MINUTE): ones, (2, MINUTE): edge, (2, MINUTE + 1): 2 - edge})
    assert ledger.wrong(found) == []
    sums = ledger.sums(found)
    assert (sums.lost, sums.doubled, sums.answered, sums.in_flight) == (0, 0, 5, 1)


@pytest.mark.parametrize("ones", [0, 2, 5])
def test_one_too_few_or_too_many(ledger: Ledger, ones: int) -> None:
    found = Counts({(1, MINUTE): ones, (2, MINUTE): 2})
    assert ledger.wrong(found, by_minute=False) == [f"banner 1: 3 to 4 clicked, {ones} counted"]
    assert len(ledger.wrong(found)) == 2


def test_the_wrong_minute(ledger: Ledger) -> None:
    found = Counts({(1, MINUTE - 1): 3, (2, MINUTE): 2})
    assert len(ledger.wrong(found)) == 2
    assert ledger.wrong(found, by_minute=False) == []


def test_a_banner_without_clicks(ledger: Ledger) -> None:
    found = Counts({(1, MINUTE): 3, (2, MINUTE): 2, (3, MINUTE): 1})
    assert ledger.wrong(found, by_minute=False) == ["banner 3: 0 clicked, 1 counted"]


def test_a_request_without_an_answer_is_in_flight_and_an_error_is_not(clock: Clock) -> None:
    ledger = Ledger(clock)
    ledger.send({1: 1, 2: 1})
    ledger.refuse(ledger.send({2: 1}), 503)
    assert ledger.clicks == 0
    assert ledger.in_flight == {1: 1, 2: 1}
    assert ledger.refused == {503: 1}
    assert ledger.wrong(Counts({(1, MINUTE): 1})) == []
    assert ledger.wrong(Counts({(2, MINUTE): 2}), by_minute=False)


def test_a_lost_request_counts_no_later_than_its_end(clock: Clock) -> None:
    ledger = Ledger(clock)
    lost, still_open = ledger.send({1: 1}), ledger.send({2: 1})
    ledger.lose(lost)
    clock.now += 60
    assert ledger.wrong(Counts({(2, MINUTE + 1): 1})) == []
    assert len(ledger.wrong(Counts({(1, MINUTE + 1): 1}))) == 1
    assert still_open.ended_at is None


def test_minutes_of_all_banners_together(ledger: Ledger) -> None:
    found = Counts({(1, MINUTE): 3, (2, MINUTE + 1): 2})
    (first, at_first), (second, at_second) = ledger.by_minute(found)
    assert (first, second) == (MINUTE, MINUTE + 1)
    assert (at_first.low, at_first.high, at_first.counted) == (3, 6, 3)
    assert (at_second.low, at_second.high, at_second.counted) == (0, 2, 2)


def test_comparing_allows_what_was_in_flight_and_no_more() -> None:
    answered, in_flight = {1: 10, 2: 5}, {2: 1}
    assert not compare("banner", answered, in_flight, {1: 10, 2: 5})
    assert not compare("banner", answered, in_flight, {1: 10, 2: 6})
    for counted in ({1: 9, 2: 5}, {1: 11, 2: 5}, {1: 10, 2: 7}, {1: 10, 2: 5, 3: 1}, {1: 10}):
        assert len(compare("banner", answered, in_flight, counted)) == 1, counted


def test_a_long_list_is_cut() -> None:
    assert shown(["x"] * 25).endswith("… and 5 more")

"""The crash suite's ledger: it must see one click too few, and one too many."""

from __future__ import annotations

import pytest

from tests.crash.ledger import Ledger

MINUTE = 29_000_000
MIDDLE, END = MINUTE * 60 + 30.0, MINUTE * 60 + 59.9


@pytest.fixture
def ledger() -> Ledger:
    """Banner 1: 3 answered, 1 in flight. Banner 2: 2 answered over the minute's edge."""
    ledger = Ledger()
    ledger.answer({1: 3}, MIDDLE, 0.01)
    ledger.broke({1: 1}, MIDDLE, 0.01)
    ledger.answer({2: 2}, END, 0.2)
    return ledger


@pytest.mark.parametrize("ones", [3, 4])
@pytest.mark.parametrize("edge", [0, 1, 2])
def test_within_bounds(ledger: Ledger, ones: int, edge: int) -> None:
    found = {(1, MINUTE): ones, (2, MINUTE): edge, (2, MINUTE + 1): 2 - edge}
    assert ledger.wrong(found) == []
    sums = ledger.sums(found)
    assert (sums.lost, sums.doubled, sums.answered, sums.in_flight) == (0, 0, 5, 1)


@pytest.mark.parametrize("ones", [0, 2, 5])
def test_one_too_few_or_too_many(ledger: Ledger, ones: int) -> None:
    found = {(1, MINUTE): ones, (2, MINUTE): 2}
    assert ledger.wrong(found, by_minute=False) == [f"banner 1: {ones} in Postgres, 3 to 4 clicked"]
    assert len(ledger.wrong(found)) == 2


def test_the_wrong_minute(ledger: Ledger) -> None:
    found = {(1, MINUTE - 1): 3, (2, MINUTE): 2}
    assert len(ledger.wrong(found)) == 2
    assert ledger.wrong(found, by_minute=False) == []


def test_a_banner_that_nobody_clicked(ledger: Ledger) -> None:
    found = {(1, MINUTE): 3, (2, MINUTE): 2, (3, MINUTE): 1}
    assert ledger.wrong(found, by_minute=False) == ["banner 3: 1 in Postgres, 0 to 0 clicked"]

"""Clicks per second, drawn as what is committed in each second.

seconds   0    1    2    3    4
clicks    -    6    0    3    ?      -: nothing is known;  ?: the running one
"""

from __future__ import annotations

from aggregator.writing.rates import HISTORY_S, Rates

START = 1_000


class Clock:
    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


def begin() -> tuple[Rates, Clock]:
    clock = Clock()
    rates = Rates(clock)
    clock.now += 1
    rates.known(True)
    return rates, clock


def test_each_known_second_has_a_rate() -> None:
    rates, clock = begin()
    for second, clicks in ((1, 6), (3, 3)):
        clock.now = START + second + 0.5
        rates.add(clicks)
    assert rates.total == 9
    clock.now = START + 4
    assert rates.history() == [(START + 2, 6.0), (START + 3, 3.0), (START + 4, 3.0)]


def test_seconds_without_clicks_count_although_nothing_is_called() -> None:
    rates, clock = begin()
    clock.now = START + 1
    rates.add(9)
    clock.now = START + 6
    assert [rate for _, rate in rates.history()] == [9.0, 4.5, 3.0, 0.0, 0.0]
    assert rates.rate() == 0


def test_the_running_second_counts_at_once() -> None:
    rates, clock = begin()
    clock.now = START + 4
    rates.add(12)
    assert rates.rate() == 4
    clock.now = START + 5
    assert rates.rate() == 4
    clock.now = START + 8
    assert rates.rate() == 0


def test_unknown_seconds_are_left_out_of_all_means() -> None:
    rates, clock = begin()
    clock.now = START + 1
    rates.add(9)
    clock.now = START + 2.5
    rates.known(False)
    assert rates.rate() is None
    clock.now = START + 20.5
    rates.known(True)
    assert rates.rate() == 0
    clock.now = START + 21
    rates.add(4)
    clock.now = START + 23
    assert rates.history() == [
        (START + 2, 9.0), (START + 3, 4.5),
        (START + 21, 0.0), (START + 22, 2.0), (START + 23, 1.3),
    ]  # fmt: skip


def test_the_history_is_bounded() -> None:
    rates, clock = begin()
    clock.now = START + 50
    rates.add(1)
    clock.now = START + 100_000
    history = rates.history()
    assert len(history) == HISTORY_S
    assert history[-1] == (START + 100_000, 0.0)
    assert {rate for _, rate in history} == {0.0}


def test_a_clock_that_is_set_back_leaves_no_second_twice() -> None:
    rates, clock = begin()
    clock.now = START + 10
    rates.add(5)
    clock.now = START + 3
    rates.add(7)
    clock.now = START + 5
    history = rates.history()
    assert [at for at, _ in history] == sorted({at for at, _ in history})
    assert (rates.total, history[-1][0]) == (12, START + 5)

"""The arithmetic of the live figures, drawn as looks at the minutes."""

from __future__ import annotations

from aggregator.reading.live_events import HISTORY_MINUTES, Activity, Pipeline, increases
from aggregator.reading.queries import Recent
from aggregator.writing.rates import Rates

PIPELINE = Pipeline(None, None, 0, 0)
M = 60


def seen(**minutes: dict[int, int]) -> Recent:
    """`m0={17: 3}`: in minute 0 banner 17 has 3 clicks."""
    banners = {
        (banner, int(name[1:]) * M): n for name, by in minutes.items() for banner, n in by.items()
    }
    totals: dict[int, int] = {}
    for (_, minute), n in banners.items():
        totals[minute] = totals.get(minute, 0) + n
    return Recent(totals, banners)


def started() -> tuple[Activity, Rates]:
    """A activity, and rates on a clock that stands still."""
    rates = Rates(lambda: 1_000.0)
    rates.known(True)
    return Activity(rates), rates


def test_clicks_between_two_reads() -> None:
    before = seen(m0={1: 5}, m1={1: 2, 2: 1})
    #  minute 0 left the window, minute 1 grew, minute 2 began
    after = seen(m1={1: 4, 2: 1}, m2={3: 7})
    assert increases(before, after) == {1: 2, 3: 7}
    assert increases(after, after) == {}


def test_banners_that_were_not_listed_before_are_not_taken_for_new() -> None:
    before = seen(m0={1: 50, 2: 49})._replace(cut=True)
    #  banner 3 has come into the list with 51 clicks; 48 of them may be old
    after = seen(m0={1: 50, 3: 51}, m1={4: 6})._replace(cut=True)
    assert increases(before, after) == {4: 6}


def test_a_click_shows_immediately_and_its_rate_decays() -> None:
    activity, rates = started()
    activity.look(0, seen(m0={17: 10}))
    assert activity.tick(1_000, PIPELINE).banners == {}
    activity.sent()
    rates.add(6)
    activity.look(1, seen(m0={17: 16}))
    tick = activity.tick(1_001, PIPELINE)
    assert (tick.clicks, tick.clicksPerSecond, tick.banners) == (6, 6, {"17": 6})
    activity.sent()
    for second in (2, 3, 4):
        activity.look(second, seen(m0={17: 16}))
        assert activity.clicks == 0
    activity.look(5, seen(m0={17: 16}))
    assert activity.tick(1_005, PIPELINE).banners == {}


def test_clicks_without_an_event_add_up_in_the_next() -> None:
    activity, rates = started()
    rates.add(1)
    rates.add(2)
    assert activity.clicks == 3


def test_after_a_pause_old_clicks_do_not_count_as_new() -> None:
    activity, rates = started()
    activity.look(0, seen(m0={1: 1}))
    activity.sent()
    rates.add(99)
    activity.clear()
    activity.look(500, seen(m9={1: 100}))
    tick = activity.tick(9 * M, PIPELINE)
    assert (tick.clicks, tick.banners) == (0, {})


def test_the_history_of_minutes_is_kept_current_and_bounded() -> None:
    activity, _ = started()
    assert activity.needs_minutes(6_000)
    assert activity.snapshot(6_000, PIPELINE).minutes is None, "not known is not the same as none"
    activity.set_minutes({n * M: 1 for n in range(70, 101)}, 6_000)
    assert not activity.needs_minutes(6_001)
    assert activity.needs_minutes(6_030), "a late delta may have come for a minute long past"
    activity.look(0, seen(m100={1: 9}, m101={1: 2}))
    activity.tick(6_060, PIPELINE)
    minutes = dict(activity.snapshot(6_060, PIPELINE).minutes or [])
    assert (minutes[100 * M], minutes[101 * M]) == (9, 2)
    assert len(minutes) <= HISTORY_MINUTES + 2
    assert activity.needs_minutes(6_060 + 300)

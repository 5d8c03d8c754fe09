"""The commit interval: short where rows are few, longer where many distinct banners come."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.writing.pace import COMFORTABLE, FEW_ROWS, LINGER_S, MOST_SHARE, Pace, interval

ROW_S = 4e-6  # of a commit, for each row
LONGEST_S = 10.0


def settled(banners: int, pairs_per_second: float, row_s: float = ROW_S) -> tuple[float, float]:
    """(interval, seconds of a commit) in the long run, where pairs are drawn from the banners."""
    every, seconds = 1.0, 0.0
    for _ in range(200):
        rows = banners * (1 - math.exp(-pairs_per_second * every / banners))
        seconds = 0.003 + rows * row_s
        every = max(interval(int(rows), seconds, LONGEST_S), seconds)
    return every, seconds


@given(st.integers(0, FEW_ROWS), st.floats(0, 60))
def test_few_rows_never_wait_however_slow_the_disk(rows: int, seconds: float) -> None:
    assert interval(rows, seconds, LONGEST_S) == LINGER_S


@given(st.integers(0, 10**7), st.floats(0, 60), st.floats(0, 60))
def test_it_is_never_longer_than_the_setting(rows: int, seconds: float, longest: float) -> None:
    assert interval(rows, seconds, longest) <= longest


def test_many_banners_stretch_it_until_each_row_is_written_a_few_times_a_minute() -> None:
    every, _ = settled(100_000, 44_000)
    assert 2 < every <= LONGEST_S * COMFORTABLE


def test_rows_that_waiting_would_not_save_do_not_wait() -> None:
    """Each banner comes once a minute, and commits take a small part of the time."""
    every, _ = settled(10**9, 16_700)
    assert every <= 1


@pytest.mark.parametrize("per_second", [100_000, 150_000, 300_000])
def test_a_click_waits_for_part_of_the_setting_while_that_is_enough(per_second: float) -> None:
    every, seconds = settled(1_000_000, per_second, 2e-6)
    assert every + seconds <= LONGEST_S * COMFORTABLE + 0.1


def test_slow_commits_leave_time_for_others_up_to_the_setting() -> None:
    every, seconds = settled(1_000_000, 300_000, 4e-6)
    assert seconds / every == pytest.approx(MOST_SHARE, abs=0.1)
    assert every <= LONGEST_S


def test_the_first_click_after_a_pause_is_committed_at_once() -> None:
    pace = Pace(LONGEST_S)
    assert pace.wait(100.0) <= 0
    pace.committed(100.0, 100.4, 90_000)
    assert pace.wait(100.4) == pytest.approx(3.2)
    assert pace.wait(103.7) <= 0

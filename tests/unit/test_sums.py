"""The NumPy sums against a plain dictionary, over all three ways they may be made."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.writing import sums
from clickmill import wire
from tests.support.fakes import FakeSource

big = st.integers(0, 2**50)
pairs = st.lists(
    st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 2**31 - 1), big), max_size=50
)
near = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 9)), max_size=50)


def as_columns(drawn: list[tuple[int, int, int]]) -> list[np.ndarray]:
    return [np.array([row[n] for row in drawn], dtype=np.int64) for n in range(3)]


def summed(frames: list[wire.Frame]) -> sums.Rows:
    rows, clamped = sums.sum_within(frames, sums.gather(frames), 0, 2**40, 0)
    assert not clamped
    return rows


@given(st.one_of(pairs, near))
def test_grouping_equals_a_dictionary(drawn: list[tuple[int, int, int]]) -> None:
    plain: Counter[tuple[int, int]] = Counter()
    for when, banner, n in drawn:
        plain[when, banner] += n
    rows = sums._grouped(*as_columns(drawn))
    got = {(w, b): n for w, b, n in zip(*(c.tolist() for c in rows), strict=True)}
    assert got == {key: n for key, n in plain.items() if n}
    assert list(got) == sorted(got), "sorted by (when, banner)"


@given(near, st.integers(-5, 100))
def test_earlier_rows_are_those_before_a_time(drawn: list[tuple[int, int, int]], at: int) -> None:
    rows = sums._grouped(*as_columns(drawn))
    earlier = rows.before(at)
    assert (earlier.when < at).all()
    assert len(earlier.when) == len(earlier.clicks) == (rows.when < at).sum()


def test_each_frames_clicks_are_its_own() -> None:
    a = FakeSource()
    frames = [a.frame({1: 5, 2: 6}), a.frame({}), a.frame({3: 2**40}), a.frame({})]
    assert sums.clicks_of_each(sums.gather(frames)) == [11, 0, 2**40, 0]


def test_minutes_too_far_apart_for_one_key_add_up_all_the_same() -> None:
    #       when    banner  clicks   (no single number of 63 bits holds both)
    drawn = [(2**40, 5, 1), (-(2**40), 2**31 - 1, 2), (2**40, 5, 3), (2**40, 4, 9), (2**40, 6, 0)]
    rows = sums._grouped(*as_columns(drawn))
    assert list(zip(*(column.tolist() for column in rows), strict=True)) == [
        (-(2**40), 2**31 - 1, 2), (2**40, 4, 9), (2**40, 5, 4),
    ]  # fmt: skip


def test_clicks_of_several_frames_add_up_by_minute_and_banner() -> None:
    a, b = FakeSource(), FakeSource()
    frames = [a.frame({1: 5, 7: 6}), a.frame({1: 2}), b.frame({}), b.frame({7: 1, 2**32 - 1: 3})]
    rows = summed([f._replace(minute=m) for f, m in zip(frames, [100, 101, 101, 100], strict=True)])
    assert list(zip(*(column.tolist() for column in rows), strict=True)) == [
        (100, 1, 5), (100, 7, 7), (100, 2**32 - 1, 3), (101, 1, 2),
    ]  # fmt: skip


def test_clicks_of_each_are_right_where_their_running_sum_has_wrapped_around() -> None:
    a = FakeSource()
    frames = [a.frame({1: 2**62}) for _ in range(5)] + [a.frame({2: 3})]
    assert sums.clicks_of_each(sums.gather(frames)) == [2**62] * 5 + [3]


@pytest.mark.parametrize("total", [2**53 - 1, 2**53, 2**53 + 1, 2**60 + 1])
def test_around_the_limit_of_floats_every_click_counts(total: int) -> None:
    rows = sums._grouped(
        np.zeros(2, dtype=np.int64), np.full(2, 7), np.array([total - 1, 1], dtype=np.int64)
    )
    assert rows.clicks.tolist() == [total]


@pytest.mark.parametrize("part", [1, 7, 10_000])
def test_sums_made_in_parts_are_the_same(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "PART_PAIRS", part)
    chance = random.Random(part)
    frames, minutes = [], []
    plain: Counter[tuple[int, int]] = Counter()
    for _ in range(50):
        counts = {b: chance.randint(1, 9) for b in chance.sample(range(30), chance.randrange(12))}
        frames.append(FakeSource().frame(counts))
        minutes.append(chance.choice([100, 101, 103]))
        plain.update({(minutes[-1], banner): n for banner, n in counts.items()})
    rows = sums.sum_by_minute(sums.gather(frames), np.array(minutes))
    got = {(w, b): n for w, b, n in zip(*(c.tolist() for c in rows), strict=True)}
    assert got == plain
    assert list(got) == sorted(got)


def test_frames_without_pairs_make_no_rows() -> None:
    a = FakeSource()
    rows = summed([a.frame({})])
    assert len(rows.when) == 0
    assert len(rows.before(60).when) == 0

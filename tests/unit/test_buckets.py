"""Steps and zones: buckets as a person would draw them, and a cover that misses no minute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aggregator.reading import buckets
from aggregator.reading.cover import Marks, Piece, cover_of, within, without
from aggregator.reading.shapes import Shape
from aggregator.reading.timerange import MINUTE_S, Range, iso
from clickmill.contract.problem import Problem

# Whole hours, half hours, quarters, changes at midnight, by half an hour, a day left out.
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu",
    "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia", "America/St_Johns",
    "Africa/Cairo", "Africa/Monrovia", "Etc/UTC", "Antarctica/Troll",
]  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def span(since: str, until: str) -> Range:
    return Range(at(since), at(until))


def starts(since: str, until: str, step: str, zone: str = "UTC") -> list[str]:
    return [iso(s) for s in buckets.starts_of(span(since, until), step, ZoneInfo(zone))]


def test_buckets_begin_where_a_clock_says() -> None:
    assert starts("2024-12-10T12:57", "2024-12-10T13:06", "5m") == [
        "2024-12-10T12:55:00Z", "2024-12-10T13:00:00Z", "2024-12-10T13:05:00Z",
    ]  # fmt: skip
    assert starts("2024-12-10T12:57", "2024-12-10T13:00", "1h") == ["2024-12-10T12:00:00Z"]
    assert starts("2024-12-10T12:57", "2024-12-10T12:57", "1h") == []


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2024-03-31", 23),
        ("Europe/Berlin", "2024-10-27", 25),
        ("America/New_York", "2024-03-10", 23),
        ("America/New_York", "2024-11-03", 25),
        ("Australia/Lord_Howe", "2024-04-07", 24.5),
        ("Australia/Lord_Howe", "2024-10-06", 23.5),
        ("America/Sao_Paulo", "2018-11-04", 23),
        ("America/Sao_Paulo", "2018-02-17", 25),
        ("Africa/Cairo", "2024-04-26", 23),
        ("Africa/Cairo", "2024-10-31", 25),
        ("Asia/Kolkata", "2024-03-31", 24),
    ],
)
def test_days_have_the_hours_of_their_time_zone(zone: str, day: str, hours: float) -> None:
    noon = datetime.fromisoformat(day).replace(hour=12, tzinfo=ZoneInfo(zone))
    days = buckets.starts_of(
        Range(noon - timedelta(days=3), noon + timedelta(days=3)), "1d", ZoneInfo(zone)
    )
    begins = max(start for start in days if start <= noon.timestamp())
    ends = min(start for start in days if start > noon.timestamp())
    assert (ends - begins) / 3600 == hours
    assert datetime.fromtimestamp(begins, ZoneInfo(zone)).strftime("%H:%M") in {"00:00", "01:00"}


def test_a_day_that_a_zone_left_out_is_no_bucket() -> None:
    # Apia went from 29 to 31 December 2011 at midnight.
    zone = ZoneInfo("Pacific/Apia")
    days = buckets.starts_of(span("2011-12-28T10:00", "2012-01-02T10:00"), "1d", zone)
    names = [datetime.fromtimestamp(start, zone).strftime("%d") for start in days]
    assert names == ["28", "29", "31", "01", "02"]


def test_weeks_begin_on_monday() -> None:
    """ISO 8601: Friday 1 January 2021 is in the last week of 2020."""
    assert starts("2020-12-31T12:00", "2021-01-11T00:01", "1w") == [
        "2020-12-28T00:00:00Z", "2021-01-04T00:00:00Z", "2021-01-11T00:00:00Z",
    ]  # fmt: skip
    # In Berlin it is Monday an hour before.
    assert starts("2021-01-03T23:00", "2021-01-03T23:01", "1w", "Europe/Berlin") == [
        "2021-01-03T23:00:00Z"
    ]
    assert starts("1970-01-01T00:00", "1970-01-02T00:00", "1w") == ["1969-12-29T00:00:00Z"]


def test_months_begin_on_their_first_day() -> None:
    assert starts("2024-01-31T12:00", "2024-03-01T00:01", "1mo") == [
        "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z",
    ]  # fmt: skip
    # March has an hour less in Berlin, and October one more.
    assert starts("2024-03-01T00:00", "2024-04-01T00:00", "1mo", "Europe/Berlin") == [
        "2024-02-29T23:00:00Z", "2024-03-31T22:00:00Z",
    ]  # fmt: skip
    assert starts("2024-10-01T00:00", "2024-11-01T00:00", "1mo", "Europe/Berlin") == [
        "2024-09-30T22:00:00Z", "2024-10-31T23:00:00Z",
    ]  # fmt: skip


def test_hours_of_zones_with_half_hour_offsets() -> None:
    assert starts("2024-12-10T12:00", "2024-12-10T13:00", "1h", "Asia/Kolkata") == [
        "2024-12-10T11:30:00Z", "2024-12-10T12:30:00Z",
    ]  # fmt: skip
    # Where hours are whole, nothing changes.
    assert starts("2024-12-10T12:10", "2024-12-10T12:50", "1h", "Europe/Berlin") == [
        "2024-12-10T12:00:00Z"
    ]


SIZES = (buckets.DAY_S, buckets.HOUR_S, buckets.QUARTER_S, MINUTE_S)

spans = st.builds(
    lambda first, size, spread: Range(first, first + timedelta(minutes=size, seconds=spread)),
    st.datetimes(datetime(1970, 1, 2), datetime(2037, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.one_of(st.integers(0, 11_000), st.integers(0, 400_000)),
    st.integers(0, 59),
)


@given(spans, st.sampled_from(list(buckets.STEPS)), st.sampled_from(ZONES))
@example(span("1972-01-01T00:15", "1972-01-01T00:44:01"), "1h", "Africa/Monrovia")
def test_every_minute_is_read_once_and_falls_into_one_bucket(
    whole: Range, step: str, name: str
) -> None:
    zone = ZoneInfo(name)
    begins = buckets.starts_of(whole, step, zone)
    cover = cover_of(whole, begins)
    pieces = sorted([*cover.days, *cover.hours, *cover.quarters, *cover.minutes])
    reached = whole.first
    for left, right in pieces:
        assert left == reached
        assert left < right
        reached = right
    assert reached == max(whole.end, whole.first)
    assert begins == sorted(set(begins))
    if begins:
        assert begins[0] <= whole.first < whole.end
        assert begins[-1] < whole.end
    # What is read from a rollup lies within one bucket, so it can be given to that bucket whole. A
    # minute is in the bucket that it begins in: until 1972 Monrovia's hours began at second 30.
    for size, parts in zip(SIZES, cover, strict=True):
        for left, right in parts:
            assert left % size == right % size == 0
            if size == MINUTE_S:
                continue
            inner = [start for start in begins[1:] if left < start < right]
            assert all(start % size == 0 for start in inner)


PERIODS: dict[str, Callable[[datetime], object]] = {
    "1d": lambda local: local.date(),
    "1w": lambda local: local.isocalendar()[:2],
    "1mo": lambda local: (local.year, local.month),
}


@given(spans, st.sampled_from(ZONES), st.sampled_from(list(PERIODS)))
def test_a_zones_days_weeks_and_months_are_those_of_its_calendar(
    whole: Range, name: str, step: str
) -> None:
    """Each bucket is one of the calendar's, and the next one begins where that ends."""
    zone, period = ZoneInfo(name), PERIODS[step]
    begins = buckets.starts_of(whole, step, zone)
    for start, end in pairwise([*begins, whole.end]):
        first, last, before = (
            period(datetime.fromtimestamp(at, zone))
            for at in (start, end - MINUTE_S, start - MINUTE_S)
        )
        assert before != first == last, (start, end)


@given(spans, st.sampled_from(ZONES), st.sampled_from(list(buckets.STEPS)))
def test_buckets_are_at_most_one_more_than_counted(whole: Range, name: str, step: str) -> None:
    exact = len(buckets.starts_of(whole, step, buckets.UTC_ZONE))
    assert exact == buckets.count(whole, step)
    assert len(buckets.starts_of(whole, step, ZoneInfo(name))) <= exact + 1


@given(
    spans, st.sampled_from(list(buckets.STEPS)), st.sampled_from(ZONES),
    st.lists(st.floats(-0.1, 1.1), min_size=2, max_size=2),
)  # fmt: skip
def test_what_is_not_rolled_up_is_read_from_finer_tables(
    whole: Range, step: str, name: str, at: list[float]
) -> None:
    """The same time, each part once, and no rollup beyond its mark."""
    cover = cover_of(whole, buckets.starts_of(whole, step, ZoneInfo(name)))
    reached = sorted(whole.first + int(part * (whole.end - whole.first)) for part in at)
    quarter_from, quarter = (moment // SIZES[2] * SIZES[2] for moment in reached)
    hour, day = (quarter // size * size for size in (SIZES[1], SIZES[0]))
    parts = within(cover, Marks(quarter_from, quarter, hour, day))
    ends = {0: day, 1: hour, 2: quarter}
    for n, pieces in enumerate(parts):
        assert all(left % SIZES[n] == right % SIZES[n] == 0 for left, right in pieces)
        assert all(right <= ends.get(n, right) for _, right in pieces)
    assert all(left >= quarter_from for left, _ in parts.quarters)
    covered = sorted(piece for pieces in parts for piece in pieces)
    assert all(a[1] <= b[0] for a, b in pairwise(covered))
    assert sum(b - a for a, b in covered) == sum(b - a for pieces in cover for a, b in pieces)


edges = st.lists(st.integers(0, 30), max_size=12).map(lambda some: sorted(set(some)))


def pieces_between(moments: list[int]) -> list[Piece]:
    return list(zip(moments[::2], moments[1::2], strict=False))


@given(edges, edges)
def test_what_is_left_without_a_part(whole: list[int], taken: list[int]) -> None:
    def moments(pieces: list[Piece]) -> set[int]:
        return {moment for left, right in pieces for moment in range(left, right)}

    pieces = pieces_between(whole)
    cut = [
        (max(a, left), min(b, right))
        for left, right in pieces
        for a, b in pieces_between(taken)
        if max(a, left) < min(b, right)
    ]
    rest = without(pieces, cut)
    assert moments(rest) == moments(pieces) - moments(cut)
    assert all(a[1] < b[0] for a, b in pairwise(rest))


def test_too_many_points_names_the_smallest_step_that_fits() -> None:
    week = span("2024-12-01T00:00", "2024-12-08T00:00")
    buckets.check_points(week, "1m")
    for until, step, banners, fits in [
        ("2024-12-09T00:00", "1m", 1, "step=5m"),
        ("2025-12-01T00:00", "1m", 1, "step=1h"),
        ("2030-12-01T00:00", "1h", 1, "step=1d"),
        ("2024-12-02T00:00", "1m", 100, "step=15m"),
        ("2099-12-01T00:00", "1m", 1, "step=1w"),
        ("2499-12-01T00:00", "1h", 1, "step=1mo"),
        ("2999-12-01T00:00", "1m", 1, "no step fits"),
        ("2024-12-09T00:00", "1d", 2000, "step=1w"),
        ("2024-12-09T00:00", "1d", 11_001, "no step fits"),
    ]:
        with pytest.raises(Problem) as refused:
            buckets.check_points(span("2024-12-01T00:00", until), step, banners)
        assert (refused.value.status, refused.value.code) == (400, "too_many_points")
        assert fits in refused.value.sentence


def test_at_the_limit() -> None:
    first = at("2024-12-01T00:00")
    buckets.check_points(Range(first, first + timedelta(minutes=buckets.MAX_POINTS)), "1m")
    with pytest.raises(Problem):
        buckets.check_points(
            Range(first, first + timedelta(minutes=buckets.MAX_POINTS, seconds=1)), "1m"
        )


@pytest.mark.parametrize(
    "name", ["Mars/Base", "", "../../etc/passwd", "europe/berlin", "Europe", "localtime", "\x00"]
)
def test_unknown_zones(name: str) -> None:
    with pytest.raises(Problem) as refused:
        buckets.parse_zone(name)
    assert refused.value.code == "invalid_tz"


def test_steps() -> None:
    now = at("2024-12-01T00:00")
    assert Shape({}, now, None).step == "1m"
    with pytest.raises(Problem) as refused:
        Shape({"step": ["2m"]}, now, None)
    assert refused.value.code == "invalid_step"

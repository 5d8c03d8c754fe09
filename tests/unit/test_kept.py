"""What can be asked where minutes are gone, and that what a refusal advises works."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.reading.buckets import DAY_S, HOUR_S, MAX_POINTS, STEPS, count, starts_of
from aggregator.reading.cover import Cover, Marks, cover_of, within
from aggregator.reading.kept import Kept, Question
from aggregator.reading.timerange import Range, parse_time
from clickmill.contract.problem import Problem

SINCE = datetime(2024, 12, 10, tzinfo=UTC)
BEFORE = SINCE - timedelta(days=100)
KEPT = Kept((int(BEFORE.timestamp()), int(SINCE.timestamp())))
# As on tables of releases before 0.3, which have no quarter-hours.
NO_QUARTERS = KEPT._replace(quarters=int(SINCE.timestamp()))
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu",
    "Australia/Lord_Howe", "America/St_Johns",
]  # fmt: skip


def ask(since: str, until: str, step: str | None, zone: str = "UTC") -> Question:
    span = Range(*(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (since, until)))
    return Question(span, step, ZoneInfo(zone))


def refusal(asked: Question, kept: Kept = KEPT, banners: int = 1) -> str:
    with pytest.raises(Problem) as refused:
        asked.check(kept, banners)
    assert (refused.value.status, refused.value.code) == (400, "too_fine")
    return refused.value.sentence


@pytest.mark.parametrize("step", STEPS)
def test_every_step_works_while_all_minutes_are_kept(step: str) -> None:
    ask("2024-12-10T00:00", "2024-12-10T12:34", step, "Asia/Kolkata").check(KEPT)
    ask("2024-12-01T00:07", "2024-12-01T12:34", step, "Asia/Kolkata").check(Kept())
    ask("2024-12-01T00:07", "2024-12-01T00:07", step).check(KEPT)
    ask("2024-08-31T20:07", "2024-08-31T23:07", step, "Asia/Kolkata").check(KEPT)


@pytest.mark.parametrize("step", ["1h", "1d", None])
def test_full_hours_need_no_minutes(step: str | None) -> None:
    ask("2024-12-01T07:00", "2024-12-02T15:00", step).check(KEPT)
    ask("2024-12-01T07:00", "2024-12-10T12:34", step).check(KEPT)
    ask("2024-11-30T23:00", "2024-12-02T15:00", step, "Europe/Berlin").check(KEPT)


def test_quarter_hours_need_no_minutes_where_there_are_any() -> None:
    for asked in (
        ask("2024-12-01T07:15", "2024-12-02T15:45", "15m"),
        ask("2024-12-01T07:15", "2024-12-02T15:45", "1d"),
        ask("2024-11-30T18:30", "2024-12-10T12:34", "1d", "Asia/Kolkata"),
        ask("2024-11-30T18:15", "2024-12-10T12:34", "1h", "Asia/Kathmandu"),
    ):
        asked.check(KEPT)
        refusal(asked, NO_QUARTERS)


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        (ask("2024-12-09T23:00", "2024-12-10T12:34", "1m"), "use step=1h, or"),
        (ask("2024-12-01T00:00", "2024-12-02T00:00", "15m", "Europe/Berlin"), "use step=1h, or"),
        (ask("2020-01-01T00:00", "2024-12-02T00:00", "1m"), "use step=1d, or"),
        (ask("2024-12-01T07:20", "2024-12-10T12:34", "1d"), "use tsFrom=2024-12-01T07:00:00Z, or"),
        (
            ask("2024-12-01T07:20", "2024-12-01T09:01", "1m"),
            "use step=1h with tsFrom=2024-12-01T07:00:00Z and tsTo=2024-12-01T10:00:00Z, or",
        ),
        (
            ask("2024-12-01T07:00", "2024-12-01T09:01", None),
            "use tsTo=2024-12-01T10:00:00Z, or",
        ),
        (
            ask("2024-11-30T18:30", "2024-12-10T12:34", "1d", "Asia/Kolkata"),
            "use tz=UTC with tsFrom=2024-11-30T18:00:00Z, or",
        ),
        (
            ask("2024-12-01T07:00", "2024-12-10T12:34", "5m", "Asia/Kolkata"),
            "use step=1h with tz=UTC, or",
        ),
    ],
)
def test_a_refusal_names_the_smallest_step_and_all_necessary_changes(
    asked: Question, advice: str
) -> None:
    sentence = refusal(asked, NO_QUARTERS)
    assert advice in sentence
    assert sentence.endswith("or a tsFrom from 2024-12-10T00:00:00Z on")


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        (ask("2024-12-09T23:00", "2024-12-10T12:34", "1m"), "use step=15m, or"),
        (ask("2024-12-01T07:00", "2024-12-10T12:34", "5m", "Asia/Kolkata"), "use step=15m, or"),
        (ask("2024-12-01T07:20", "2024-12-10T12:34", "1d"), "use tsFrom=2024-12-01T07:15:00Z, or"),
        (
            ask("2024-12-01T07:20", "2024-12-01T09:01", "1m"),
            "use step=15m with tsFrom=2024-12-01T07:15:00Z and tsTo=2024-12-01T09:15:00Z, or",
        ),
    ],
)
def test_a_refusal_advises_quarter_hours(asked: Question, advice: str) -> None:
    assert advice in refusal(asked)


def test_many_banners_need_a_coarser_step_still() -> None:
    asked = ask("2024-11-01T00:00", "2024-12-01T00:00", "1m")
    assert "use step=1h, or" in refusal(asked, banners=15)
    assert "use step=1d, or" in refusal(asked, banners=16)
    assert "use step=1w, or" in refusal(asked, banners=367)
    assert "use step=1mo, or" in refusal(asked, banners=2_201)
    assert "use a tsFrom from" in refusal(asked, banners=11_001)


spans = st.builds(
    lambda minutes, size, spread: Range(
        SINCE + timedelta(minutes=minutes),
        SINCE + timedelta(minutes=minutes + size, seconds=spread),
    ),
    st.one_of(st.integers(-160_000, 5_000), st.integers(-2_500, 80).map(lambda hours: 60 * hours)),
    st.one_of(st.integers(0, 12_000), st.integers(0, 200).map(lambda hours: 60 * hours)),
    st.sampled_from([0, 0, 1, 59]),
)
advised = re.compile(r"(step|tz|tsFrom|tsTo)=([^ ,]+)")


def refused(asked: Question, kept: Kept) -> Problem | None:
    try:
        asked.check(kept)
    except Problem as error:
        return error
    return None


def as_advised(asked: Question, sentence: str) -> Question:
    """The question with the parameters that the sentence names."""
    head = sentence.partition(", or a tsFrom from ")[0].partition(": use ")[2]
    other = dict(advised.findall(head))
    assert other, sentence
    bounds = {"tsFrom": asked.span.since, "tsTo": asked.span.until}
    bounds |= {name: parse_time(name, other[name]) for name in bounds if name in other}
    zone = ZoneInfo(other["tz"]) if "tz" in other else asked.zone
    return Question(Range(*bounds.values()), other.get("step", asked.step), zone)


@given(
    spans, st.sampled_from([*STEPS, None]), st.sampled_from(ZONES),
    st.sampled_from([KEPT, NO_QUARTERS]),
)  # fmt: skip
def test_deleted_minutes_are_never_read_and_the_advice_works(
    span: Range, step: str | None, zone: str, kept: Kept
) -> None:
    asked = Question(span, step, ZoneInfo(zone))
    refusal = refused(asked, kept)
    if refusal is None:
        starts = [span.first] if step is None else starts_of(span, step, asked.zone)
        pieces = cover_of(span, starts if span.first < span.end else [])
        pieces = within(pieces, Marks(kept.quarters, 2**40, 2**40, 2**40))
        gone_from, kept_from = KEPT.gone
        assert all(left >= kept_from or right <= gone_from for left, right in pieces.minutes)
    elif refusal.code == "too_fine":
        new = as_advised(asked, refusal.sentence)
        assert refused(new, kept) is None
        assert new.span.since <= span.since <= span.until <= new.span.until
        if step is not None and new.step is not None:
            finer = [name for name in STEPS if STEPS[step] <= STEPS[name] < STEPS[new.step]]
            assert all(refused(new._replace(step=name), kept) for name in finer)
    else:
        assert refusal.code == "too_many_points"
        assert count(span, step or "") > MAX_POINTS


def test_hours_and_days_being_deleted_are_not_read() -> None:
    day = DAY_S
    kept = Kept((0, 10 * day), rollups=5 * day)
    whole = Cover([(2 * day, 8 * day)], [(day, 2 * day), (8 * day, 8 * day + HOUR_S)], [], [])
    assert kept.pieces(whole) == Cover([(5 * day, 8 * day)], [(8 * day, 8 * day + HOUR_S)], [], [])
    assert Kept().pieces(whole) == whole

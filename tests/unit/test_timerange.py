"""Ranges: the contract's examples, what is refused, and that nothing else comes out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.reading.shapes import next_second
from aggregator.reading.timerange import (
    EARLIEST,
    LATEST,
    MINUTE_S,
    Range,
    iso,
    parse_range,
    parse_time,
)
from clickmill.contract.problem import Problem

NOW = datetime(2024, 12, 10, 13, 0, 30, tzinfo=UTC)


def minutes(ts_from: str | None, ts_to: str | None) -> list[str]:
    span = parse_range(ts_from, ts_to, NOW)
    return [iso(at)[11:16] for at in range(span.first, span.end, MINUTE_S)]


def test_a_range_includes_every_minute_that_overlaps_it() -> None:
    #  12:55        12:56        12:57        12:58
    #    |            [----------------------x)           tsTo 12:57:59
    assert minutes("2024-12-10T12:56:00Z", "2024-12-10T12:57:59Z") == ["12:56", "12:57"]
    #    |            [------------)                      tsTo 12:57:00
    assert minutes("2024-12-10T12:56:00Z", "2024-12-10T12:57:00Z") == ["12:56"]
    #    |                      [x)|
    assert minutes("2024-12-10T12:56:58Z", "2024-12-10T12:56:59Z") == ["12:56"]
    #    |                      [-----)
    assert minutes("2024-12-10T12:56:59Z", "2024-12-10T12:57:00.5Z") == ["12:56", "12:57"]
    #    |            [)
    assert minutes("2024-12-10T12:56:00Z", "2024-12-10T12:56:00Z") == []
    assert minutes("2024-12-10T12:56:30Z", "2024-12-10T12:56:30Z") == []


def test_a_missing_bound_comes_from_the_other_and_the_clock() -> None:
    assert parse_range(None, None, NOW) == Range(NOW - timedelta(hours=1), NOW)
    assert parse_range("2024-12-10T12:56:00Z", None, NOW).until == NOW
    only_to = parse_range(None, "2024-12-10T12:56:00Z", NOW)
    assert only_to.until - only_to.since == timedelta(hours=1)
    assert parse_range(None, "60", NOW).since == EARLIEST


@pytest.mark.parametrize(
    "text",
    [
        "2024-12-10T12:56:00Z",
        "2024-12-10t12:56:00z",
        "2024-12-10T15:56:00+03:00",
        "2024-12-10T15:56:00 03:00",
        "2024-12-10T07:26:00-05:30",
        "2024-12-10T12:56:00.000000000Z",
        "2024-12-10T12:55:60Z",
        "1733835360",
    ],
)
def test_ways_to_write_one_moment(text: str) -> None:
    assert parse_time("tsFrom", text) == datetime(2024, 12, 10, 12, 56, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "yesterday", "2024-12-10", "2024-12-10T12:56:00", "2024-12-10 12:56:00Z",
        "2024-12-10T12:56Z", "2024-02-30T00:00:00Z", "2024-12-10T24:00:00Z",
        "2024-12-10T12:56:61Z", "2024-12-10T12:56:00+24:00", "2024-12-10T12:56:00+03",
        "0000-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01", "-1", "1e9", "1.5", "0x10", "９９", "1" * 16, "1733835360Z",
        "2024-12-10T12:56:00Z\n", "2024-12-10T12:56:00Z ", "\x00", "٢٠٢٤-12-10T12:56:00Z",
        "999999999999999", "NaN", "null",
    ],
)  # fmt: skip
def test_invalid_times(text: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_time("tsFrom", text)
    assert (refused.value.status, refused.value.code) == (400, "invalid_range")
    assert "tsFrom" in refused.value.sentence
    assert refused.value.sentence.isascii() or "…" in refused.value.sentence


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(Problem, match="tsFrom is after tsTo"):
        parse_range("2024-12-10T12:56:01Z", "2024-12-10T12:56:00Z", NOW)
    with pytest.raises(Problem, match="tsFrom is after now"):
        parse_range("2025-01-01T00:00:00Z", None, NOW)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        moment = parse_time("tsTo", text)
    except Problem:
        return
    assert EARLIEST <= moment < LATEST


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1)),  # noqa: DTZ001
    st.integers(-23 * 60, 23 * 60),
)
def test_every_rfc3339_time_is_read_as_python_reads_it(naive: datetime, offset: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset)))
    assert parse_time("tsFrom", moment.isoformat(timespec="microseconds")) == moment


def test_until_now_includes_the_running_second() -> None:
    # Rounded down, a minute's first second would leave the clicks of that minute out.
    asked = datetime.now(UTC)
    assert asked < next_second() <= datetime.now(UTC) + timedelta(seconds=1)
    assert next_second().microsecond == 0

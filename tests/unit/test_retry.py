"""Pauses between attempts, log lines between attempts, errors in one line."""

from __future__ import annotations

import pytest

from clickmill.retry import JITTER, Backoff, Throttle, first_line


def test_pauses_double_up_to_the_bound_within_their_jitter() -> None:
    backoff = Backoff(first_s=0.1, max_s=1.0)
    for base in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0):
        assert base * (1 - JITTER) <= backoff.pause() <= base * (1 + JITTER)


def test_pauses_differ() -> None:
    assert len({Backoff().pause() for _ in range(10)}) > 1


def test_a_success_resets_the_pause() -> None:
    backoff = Backoff(first_s=0.1, max_s=10)
    for _ in range(6):
        backoff.pause()
    backoff.succeeded()
    assert backoff.pause() <= 0.1 * (1 + JITTER)


def test_after_years_of_failures_the_pause_is_still_the_bound() -> None:
    assert Backoff(failures=10**9).pause() <= 2.0 * (1 + JITTER)


def test_one_line_for_each_interval() -> None:
    throttle = Throttle(every_s=10)
    allowed = [now for now in range(100, 125) if throttle.allows(now)]
    assert allowed == [100, 110, 120]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("  first\nsecond"), "first"),
        (ValueError(""), "ValueError"),
        (TimeoutError(), "TimeoutError"),
        (ConnectionError("refused"), "refused"),
    ],
)
def test_an_error_in_one_line(error: BaseException, line: str) -> None:
    assert first_line(error) == line

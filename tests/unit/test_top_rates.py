"""What two looks at /metrics say: rates, quantiles, and what is missing."""

from __future__ import annotations

import math
import random

import pytest

from stack import rates
from stack.rates import Look

NAME = rates.DURATION


def look(at: float, text: str) -> Look:
    return rates.read(text, at)


def durations(counts: dict[str, int]) -> str:
    total, lines = 0, [f"# TYPE {NAME} histogram"]
    for le, count in counts.items():
        total += count
        lines.append(f'{NAME}_bucket{{le="{le}"}} {total}')
    return "\n".join([*lines, f"{NAME}_count {total}", f"{NAME}_sum 1", ""])


def test_a_rate_is_the_difference_over_the_seconds() -> None:
    before = look(10, "# TYPE a counter\na_total 100\n")
    now = look(12, "# TYPE a counter\na_total 160\n")
    assert rates.rate(before, now, "a_total") == 30


def test_a_total_that_fell_has_restarted() -> None:
    before = look(10, "# TYPE a counter\na_total 100\n")
    now = look(12, "# TYPE a counter\na_total 6\n")
    assert rates.rate(before, now, "a_total") == 3


def test_a_missing_metric_is_not_zero() -> None:
    nothing = look(1, "")
    assert math.isnan(nothing.total("a_total"))
    assert math.isnan(rates.rate(nothing, nothing, "a_total"))
    assert math.isnan(rates.quantiles(nothing, nothing, [0.5])[0])


def test_errors_are_statuses_from_500() -> None:
    def answers(*counts: int) -> str:
        by_status = zip((200, 404, 500, 503), counts, strict=True)
        lines = [f'{rates.REQUESTS}{{status="{status}"}} {n}' for status, n in by_status]
        return "\n".join(["# TYPE clickmill_http_requests counter", *lines, ""])

    before, now = look(0, answers(1, 1, 1, 1)), look(2, answers(9, 9, 3, 7))
    assert rates.failures(before, now) == 4
    assert rates.by_label(before, now, rates.REQUESTS, "status")["200"] == 4


@pytest.mark.parametrize(
    ("counts", "q", "wanted"),
    [
        ({"0.1": 10, "0.2": 0, "+Inf": 0}, 0.5, 0.05),
        ({"0.1": 10, "0.2": 10, "+Inf": 0}, 0.75, 0.15),
        ({"0.1": 1, "0.2": 0, "+Inf": 99}, 0.99, 0.2),
        ({"0.1": 0, "0.2": 10, "+Inf": 0}, 1.0, 0.2),
    ],
)
def test_a_quantile_is_linear_within_its_bucket(
    counts: dict[str, int], q: float, wanted: float
) -> None:
    before, now = look(0, durations(dict.fromkeys(counts, 0))), look(1, durations(counts))
    assert rates.quantiles(before, now, [q]) == [pytest.approx(wanted)]


def test_quantiles_are_those_of_the_values_between_the_looks() -> None:
    rng = random.Random(7)
    bounds = [n / 100 for n in range(1, 101)]
    values = sorted(rng.random() for _ in range(5000))
    counts = {str(b): sum(b - 0.01 < v <= b for v in values) for b in bounds} | {"+Inf": 0}
    old = {str(b): 1000 if b < 0.5 else 0 for b in bounds} | {"+Inf": 0}
    both = {le: counts[le] + old[le] for le in counts}
    for q in (0.5, 0.95, 0.99):
        (found,) = rates.quantiles(look(0, durations(old)), look(1, durations(both)), [q])
        assert found == pytest.approx(values[int(q * len(values))], abs=0.011)


def test_invalid_text_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid metric name"):
        rates.read("<html>not here</html>\n", 0)

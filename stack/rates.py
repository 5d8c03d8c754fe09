"""Rates and quantiles between two readings of `/metrics`, for `clickmill top`. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

DURATION: Final = "clickmill_http_request_duration_seconds"
REQUESTS: Final = "clickmill_http_requests_total"
FAILED_FROM: Final = 500

Labels = Mapping[str, str]


class Look(NamedTuple):
    """One reading: `at` in monotonic seconds, samples by name, each with its labels."""

    at: float
    samples: dict[str, list[tuple[Labels, float]]]

    def total(self, name: str) -> float:
        """The sum of a metric over its labels; NaN if it is missing."""
        found = self.samples.get(name)
        return sum(value for _, value in found) if found else math.nan


def read(text: str, at: float) -> Look:
    """Parses the text of `/metrics`. Raises ValueError if it is invalid."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return Look(at, samples)


def rate(before: Look, now: Look, name: str) -> float:
    """Per second. A total that fell has restarted at 0. NaN if the metric is missing."""
    seconds = now.at - before.at
    was, is_now = before.total(name), now.total(name)
    if math.isnan(is_now) or seconds <= 0:
        return math.nan
    return (is_now - was if is_now >= was else is_now) / seconds


def by_label(before: Look, now: Look, name: str, label: str) -> dict[str, float]:
    """Rates per second by the values of a label, without those that are 0."""
    seconds = max(now.at - before.at, 1e-9)
    was, is_now = _sums(before, name, label), _sums(now, name, label)
    rates = {key: (value - was.get(key, 0.0)) / seconds for key, value in is_now.items()}
    return {key: value for key, value in rates.items() if value > 0}


def _sums(look: Look, name: str, label: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for labels, value in look.samples.get(name, ()):
        key = labels.get(label, "")
        sums[key] = sums.get(key, 0.0) + value
    return sums


def failures(before: Look, now: Look) -> float:
    """Responses with status 500 and above, per second."""
    rates = by_label(before, now, REQUESTS, "status")
    return sum(value for status, value in rates.items() if int(status) >= FAILED_FROM)


def quantiles(
    before: Look, now: Look, wanted: Iterable[float], name: str = DURATION
) -> list[float]:
    """Quantiles in seconds of the requests between the two readings; NaN if there were none.

    Linear within a bucket, as in Prometheus; the lower bound for the last bucket.
    """
    was, is_now = _sums(before, f"{name}_bucket", "le"), _sums(now, f"{name}_bucket", "le")
    buckets = sorted((float(le), count - was.get(le, 0.0)) for le, count in is_now.items())
    return [_quantile(buckets, q) for q in wanted]


def _quantile(buckets: list[tuple[float, float]], q: float) -> float:
    if not buckets or buckets[-1][1] <= 0:
        return math.nan
    rank = q * buckets[-1][1]
    low = below = 0.0
    for bound, count in buckets:
        if count >= rank:
            if math.isinf(bound):
                return low
            share = (rank - below) / (count - below) if count > below else 1.0
            return low + (bound - low) * share
        low, below = bound, count
    return low

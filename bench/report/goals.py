"""The goals of the benchmark, each against what was measured: pure, from results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Measured = dict[str, dict[str, Any]]
"""Results of each section that has been run, by its name."""

NOT_RUN = "not measured yet"


@dataclass(frozen=True, slots=True)
class Goal:
    """One row: the goal, what was measured, with its spread, and whether the goal is met."""

    subject: str
    wanted: str
    measured: str
    spread: str = ""
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """As text."""
        return {True: "met", False: "**not met**", None: "—"}[self.met]


CPU_GOALS = (
    ("go", "CPU per click against Go net/http with an atomic counter", 0.60),
    ("gin", "against gin", 0.85),
    ("granian", "against Granian RSGI answering only 200", 0.85),
    ("openresty", "against nginx with Lua and a shared dict", 1.08),
    ("nginx", "against nginx `return 200`", 1.45),
    ("fastapi", "against FastAPI with Redis", 0.035),
)
P99_AGAINST_GO = 0.8
PRICE = "CPU per click with sealing, syncing and publishing every second against without"
TAIL = "p99.9 at half load with flushing against without"
MANY_IDS = "CPU per click with 1,000,000 IDs at random against 10"
REDIRECT = "p50 of a redirect against a click"
SLOW = "p99 of a click among 2,000 slow sockets against without"
BODY = "CPU per click with a body of two bytes in the same segment as the headers against none"
BODY_GO = "the same, against Go net/http with that body"
BATCH_CLICKS = 3_000_000
FRESH = (
    ("alone", "alone, at ten clicks a second", 0.6, 1.5),
    ("seconds", "at half load", 1.2, 1.8),
)
"""Result, load, and what p50 and p99 must be under, in seconds."""
PAIRS, SOURCES, LAG_SECONDS = 2_000_000, (1_000, 10_000), 3
LAGS = {
    "lag": "default configuration of NATS",
    "lag_synced": "NATS syncs each message, as in `clickmill up`",
}
MEMORY_DEFAULT, MEMORY_MILLION = 60e6, 90e6


def goals(measured: Measured) -> Iterator[Goal]:
    """All goals, in the order of the table."""
    yield from _side(measured)
    yield _ratio(measured, "bodies", "body_ratio", BODY, 1.30)
    yield _ratio(measured, "bodies", "go_ratio", BODY_GO, 0.80)
    yield _ratio(measured, "price", "cpu_ratio", PRICE, 1.05)
    yield _ratio(measured, "tail", "p999_ratio", TAIL, 1.1)
    yield from _freshness(measured)
    yield _batch(measured)
    yield _ratio(measured, "ids", "cpu_ratio", MANY_IDS, 1.25)
    yield from _aggregator(measured)
    yield _memory(measured)
    yield _ratio(measured, "middleware", "redirect_ratio", REDIRECT, 1.3)
    yield _ratio(measured, "middleware", "slow_ratio", SLOW, 2)


def span(spread: dict[str, float], digits: int = 2) -> str:
    """Lowest to highest of a spread."""
    return f"{spread['low']:,.{digits}f} to {spread['high']:,.{digits}f}"


def at_most(name: str, limit: float, ratio: dict[str, float] | None, digits: int = 2) -> Goal:
    """A goal that a ratio must not pass."""
    wanted = f"at most {limit:g}"
    if ratio is None:
        return Goal(name, wanted, NOT_RUN)
    met = round(ratio["median"], digits) <= limit
    return Goal(name, wanted, f"{ratio['median']:.{digits}f}", span(ratio, digits), met)


def _ratio(measured: Measured, section: str, key: str, name: str, limit: float) -> Goal:
    return at_most(name, limit, measured.get(section, {}).get(key))


def _side(measured: Measured) -> Iterator[Goal]:
    rows = {row["key"]: row for row in measured.get("side", {}).get("rows", [])}
    missing = measured.get("side", {}).get("missing", {})
    for key, name, limit in CPU_GOALS:
        if key in missing:
            yield Goal(name, f"at most {limit:g}", missing[key])
        else:
            yield at_most(name, limit, rows.get(key, {}).get("ratio"), 4 if limit < 0.1 else 2)
    yield at_most(
        "p99 at saturation against Go", P99_AGAINST_GO, rows.get("go", {}).get("p99_ratio")
    )


def _freshness(measured: Measured) -> Iterator[Goal]:
    for key, load, p50, p99 in FRESH:
        name = f"freshness: from the response until the statistics include the click, {load}"
        wanted = f"p50 under {p50} s, p99 under {p99} s"
        fresh = measured.get("freshness", {}).get(key)
        if fresh is None:
            yield Goal(name, wanted, NOT_RUN)
            continue
        met = fresh["p50"] < p50 and fresh["p99"] < p99
        shown = f"p50 {fresh['p50']:.2f} s, p99 {fresh['p99']:.2f} s"
        yield Goal(name, wanted, shown, f"maximum {fresh['max']:.2f} s", met)


def _batch(measured: Measured) -> Goal:
    name = "clicks per second and core through `POST /clicks`, 1,000 per array"
    wanted = f"at least {BATCH_CLICKS / 1e6:g} million"
    rate = measured.get("batch", {}).get("clicks_per_cpu_second")
    if rate is None:
        return Goal(name, wanted, NOT_RUN)
    met = rate["median"] >= BATCH_CLICKS
    millions = {key: value / 1e6 for key, value in rate.items()}
    return Goal(name, wanted, f"{millions['median']:.2f} million", span(millions), met)


def _aggregator(measured: Measured) -> Iterator[Goal]:
    """From bench/sections/aggregator: `pairs_per_cpu_second`, and rows of `lag`."""
    found = measured.get("aggregator", {})
    name, wanted = "aggregator: pairs committed per second and core", "at least 2 million"
    pairs = found.get("pairs_per_cpu_second")
    if pairs is None:
        yield Goal(name, wanted, NOT_RUN)
    else:
        yield Goal(name, wanted, f"{pairs / 1e6:.2f} million", met=pairs >= PAIRS)
    for key, how in LAGS.items():
        # JSON has no infinity: null means that not all frames were committed.
        lags = {
            row["sources"]: math.inf if row["lag_seconds"] is None else row["lag_seconds"]
            for row in found.get(key, [])
        }
        for sources in SOURCES:
            yield _lag(f"aggregator: lag with {sources:,} sources, {how}", sources, lags)


def _lag(name: str, sources: int, lags: dict[int, float]) -> Goal:
    """If it is not met: the highest number of sources for which it is."""
    wanted = f"under {LAG_SECONDS} s"
    if sources not in lags:
        return Goal(name, wanted, NOT_RUN)
    met = lags[sources] < LAG_SECONDS
    holds = max((n for n, lag in lags.items() if lag < LAG_SECONDS), default=0)
    spread = "" if met else f"met with {holds:,} sources"
    shown = f"{lags[sources]:.2f} s" if math.isfinite(lags[sources]) else "incomplete"
    return Goal(name, wanted, shown, spread, met)


def _memory(measured: Measured) -> Goal:
    name = "memory of a worker, default maximum ID / one million"
    wanted = f"{MEMORY_DEFAULT / 1e6:.0f} MB / {MEMORY_MILLION / 1e6:.0f} MB"
    memory = measured.get("memory", {})
    if "default_bytes" not in memory:
        return Goal(name, wanted, NOT_RUN)
    small, large = memory["default_bytes"], memory["million_bytes"]
    met = small <= MEMORY_DEFAULT and large <= MEMORY_MILLION
    return Goal(name, wanted, f"{small / 1e6:.1f} MB / {large / 1e6:.1f} MB", met=met)

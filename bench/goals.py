"""The goals of the benchmark, each against the figure that was measured: pure, from figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Results = dict[str, dict[str, Any]]
"""Figures of each section that has been run, by its name."""

NOT_RUN = "not measured yet"


@dataclass(frozen=True, slots=True)
class Goal:
    """One row: what is wanted, what was measured, with its spread, and whether it is met."""

    figure: str
    wanted: str
    measured: str
    spread: str = ""
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """As text."""
        return {True: "met", False: "**not met**", None: "—"}[self.met]


CPU_GOALS = (
    ("go", "CPU per click against Go net/http with an atomic counter", 0.90),
    ("gin", "against gin", 0.85),
    ("granian", "against Granian RSGI answering only 200", 0.85),
    ("nginx", "against nginx `return 200`", 1.6),
    ("fastapi", "against FastAPI with Redis", 0.035),
)
P99_AGAINST_GO = 0.8
PRICE_RATIO = 1.05
TAIL_RATIO = 1.1
BATCH_CLICKS = 3_000_000
FRESH_P50, FRESH_P99 = 1.2, 1.8
MANY_IDS_RATIO = 1.25
PAIRS, SOURCES, LAG_SECONDS = 2_000_000, (1_000, 10_000), 3
LAGS = {"lag": "NATS as it comes", "lag_synced": "NATS syncing each message, as in `clickmill up`"}
MEMORY_DEFAULT, MEMORY_MILLION = 60e6, 90e6


def span(figure: dict[str, float], digits: int = 2) -> str:
    """Lowest to highest of a spread."""
    return f"{figure['low']:,.{digits}f} to {figure['high']:,.{digits}f}"


def at_most(name: str, limit: float, figure: dict[str, float], digits: int = 2) -> Goal:
    """A goal that a ratio must not pass."""
    measured = figure["median"]
    return Goal(
        name,
        f"at most {limit:g}",
        f"{measured:.{digits}f}",
        span(figure, digits),
        round(measured, digits) <= limit,
    )


def goals(results: Results) -> Iterator[Goal]:
    """All goals, in the order of the table."""
    yield from _side(results)
    yield from _price(results)
    yield from _half_load(results)
    yield from _saturation(results)
    yield from _aggregator(results)
    yield from _memory(results)


def _side(results: Results) -> Iterator[Goal]:
    rows = {row["key"]: row for row in results.get("side", {}).get("rows", [])}
    missing = results.get("side", {}).get("missing", {})
    for key, name, limit in CPU_GOALS:
        if key in rows:
            digits = 4 if limit < 0.1 else 2
            yield at_most(name, limit, rows[key]["ratio"], digits)
        else:
            yield Goal(name, f"at most {limit:g}", missing.get(key, NOT_RUN))
    if "go" in rows:
        yield at_most("p99 at saturation against Go", P99_AGAINST_GO, rows["go"]["p99_ratio"])
    else:
        yield Goal("p99 at saturation against Go", f"at most {P99_AGAINST_GO}", NOT_RUN)


def _price(results: Results) -> Iterator[Goal]:
    name = "CPU per click with sealing, syncing and publishing each second against without"
    if "cpu_ratio" in results.get("price", {}):
        yield at_most(name, PRICE_RATIO, results["price"]["cpu_ratio"])
    else:
        yield Goal(name, f"at most {PRICE_RATIO}", NOT_RUN)


def _half_load(results: Results) -> Iterator[Goal]:
    name = "p99.9 at half load with flushing against without"
    if "p999_ratio" in results.get("tail", {}):
        yield at_most(name, TAIL_RATIO, results["tail"]["p999_ratio"])
    else:
        yield Goal(name, f"at most {TAIL_RATIO}", NOT_RUN)
    name = "freshness, answer to visible in statistics, at half load"
    wanted = f"p50 under {FRESH_P50} s, p99 under {FRESH_P99} s"
    fresh = results.get("freshness", {}).get("seconds")
    if fresh:
        measured = f"p50 {fresh['p50']:.2f} s, p99 {fresh['p99']:.2f} s"
        met = fresh["p50"] < FRESH_P50 and fresh["p99"] < FRESH_P99
        yield Goal(name, wanted, measured, f"longest {fresh['max']:.2f} s", met)
    else:
        yield Goal(name, wanted, NOT_RUN)


def _saturation(results: Results) -> Iterator[Goal]:
    name = "clicks a second and core through `POST /clicks`, 1,000 an array"
    wanted = f"at least {BATCH_CLICKS / 1e6:g} million"
    rate = results.get("batch", {}).get("clicks_per_cpu_second")
    if rate:
        low, high = rate["low"] / 1e6, rate["high"] / 1e6
        yield Goal(
            name, wanted, f"{rate['median'] / 1e6:.2f} million", f"{low:.2f} to {high:.2f}",
            rate["median"] >= BATCH_CLICKS,
        )  # fmt: skip
    else:
        yield Goal(name, wanted, NOT_RUN)
    name = "CPU per click with 1,000,000 IDs at random against 10"
    if "cpu_ratio" in results.get("ids", {}):
        yield at_most(name, MANY_IDS_RATIO, results["ids"]["cpu_ratio"])
    else:
        yield Goal(name, f"at most {MANY_IDS_RATIO}", NOT_RUN)


def _aggregator(results: Results) -> Iterator[Goal]:
    """From what bench/aggregator_bench.py writes: `pairs_per_cpu_second`, and rows of `lag`."""
    figures = results.get("aggregator", {}).get("figures", {})
    name, wanted = "aggregator: pairs a second and core, to the commit", "at least 2 million"
    pairs = figures.get("pairs_per_cpu_second")
    if pairs is None:
        yield Goal(name, wanted, NOT_RUN)
    else:
        yield Goal(name, wanted, f"{pairs / 1e6:.2f} million", met=pairs >= PAIRS)
    for key, how in LAGS.items():
        # JSON has no infinity: null stands for sources of which nothing came through.
        lags = {
            row["sources"]: math.inf if row["lag_seconds"] is None else row["lag_seconds"]
            for row in figures.get(key, [])
        }
        for sources in SOURCES:
            yield _lag(f"aggregator: lag with {sources:,} sources, {how}", sources, lags)


def _lag(name: str, sources: int, lags: dict[int, float]) -> Goal:
    """Where it does not hold: the highest number of sources for which it does."""
    wanted = f"under {LAG_SECONDS} s"
    if sources not in lags:
        return Goal(name, wanted, NOT_RUN)
    met = lags[sources] < LAG_SECONDS
    holds = max((n for n, lag in lags.items() if lag < LAG_SECONDS), default=0)
    spread = "" if met else f"it holds with {holds:,} sources"
    measured = f"{lags[sources]:.2f} s" if math.isfinite(lags[sources]) else "not all came through"
    return Goal(name, wanted, measured, spread, met)


def _memory(results: Results) -> Iterator[Goal]:
    name = "memory of a worker, default maximum ID / one million"
    wanted = f"{MEMORY_DEFAULT / 1e6:.0f} MB / {MEMORY_MILLION / 1e6:.0f} MB"
    memory = results.get("memory", {})
    if "default_bytes" not in memory:
        yield Goal(name, wanted, NOT_RUN)
        return
    small, large = memory["default_bytes"], memory["million_bytes"]
    met = small <= MEMORY_DEFAULT and large <= MEMORY_MILLION
    yield Goal(name, wanted, f"{small / 1e6:.1f} MB / {large / 1e6:.1f} MB", met=met)

"""The section `scale` as text, and the number of cores that a load needs, by what was measured.

A stage's cost is linear: so much for each frame, each pair and each row. `fit` finds the three from
runs with few and many of each, `need` multiplies them by a load.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, Final, NamedTuple

import numpy as np

from aggregator.writing.pace import LINGER_S, interval
from bench.report.tables import markdown
from clickmill.wire import SHARDS

Results = dict[str, Any]
Cost = tuple[float, float, float]
"""CPU seconds, or bytes, for each frame, pair and row."""

MILLION: Final = 1e6
FULL: Final = 0.7
"""The share of a core, or of its time, that a process is planned to use at most."""
COMMIT_INTERVAL_MAX_S: Final = 10.0
"""The default of CLICKMILL_COMMIT_INTERVAL_MAX."""
PACE_STEPS: Final = 50
CLICKS: Final = (10_000, 100_000, 1_000_000)
BANNERS: Final = (1_000, 100_000, 1_000_000)
MOST: Final = {"NATS": FULL, "aggregator": SHARDS * FULL, "Postgres": SHARDS * FULL}
"""Cores that a stage can use: a stream is taken as one core's work, since its messages are stored
one after the other; each of up to 16 aggregators is a process that writes over one connection."""


class Costs(NamedTuple):
    """What each stage was measured to cost."""

    click_s: float
    ingest: Cost
    nats: Cost
    aggregator: Cost
    postgres: Cost
    wal: Cost


class Need(NamedTuple):
    """What a load needs: cores by stage, in the order in which a click travels."""

    workers: int
    aggregators: int
    cores: dict[str, float]
    rows: float
    """A second."""
    wal: float
    """Bytes a second, without the full pages of each checkpoint that the runs did not have."""

    @property
    def limit(self) -> tuple[str, float]:
        """(the stage that is nearest to its most, how near). Ingest has no most."""
        shares = {stage: self.cores[stage] / most for stage, most in MOST.items()}
        stage = max(shares, key=shares.__getitem__)
        return stage, shares[stage]


# --- from runs to costs -----------------------------------------------------------------------


def fit(rows: Sequence[Results], name: str, columns: Sequence[str]) -> Cost:
    """The costs, none below zero, with the least squares of relative errors."""
    values = np.array([max(row[name], 1e-9) for row in rows])
    counts = np.array([[row[column] for column in columns] for row in rows], dtype=float)
    weighted, ones = counts / values[:, None], np.ones(len(rows))
    best, least = np.zeros(len(columns)), math.inf
    for size in range(1, len(columns) + 1):
        for chosen in combinations(range(len(columns)), size):
            some = np.linalg.lstsq(weighted[:, chosen], ones, rcond=None)[0]
            error = float(np.sum((weighted[:, chosen] @ some - ones) ** 2))
            if error < least and (some >= 0).all():
                best, least = np.zeros(len(columns)), error
                best[list(chosen)] = some
    found = dict(zip(columns, best.tolist(), strict=True))
    return found["frames"], found.get("pairs", 0.0), found.get("rows", 0.0)


def error(rows: Iterable[Results], name: str, cost: Cost) -> float:
    """How far the runs are from the costs, at worst: 0.1 is a tenth more or less."""
    worst = 0.0
    for row in rows:
        computed = times(cost, row["frames"], row["pairs"], row.get("rows", 0.0))
        worst = max(worst, abs(computed / max(row[name], 1e-9) - 1))
    return worst


def costs(results: Results) -> Costs:
    """The costs of all stages."""
    runs, per_frame = results["costs"], ("frames", "pairs")
    return Costs(
        results.get("click_us", {"median": 0.0})["median"] / MILLION,
        fit(results["ingest"], "ingest", per_frame),
        fit(runs, "nats", per_frame),
        fit(runs, "aggregator", (*per_frame, "rows")),
        fit(runs, "postgres", (*per_frame, "rows")),
        fit(runs, "wal_bytes", ("frames", "rows")),
    )


def times(cost: Cost, frames: float, pairs: float, rows: float) -> float:
    """What so many of each cost."""
    return cost[0] * frames + cost[1] * pairs + cost[2] * rows


# --- from costs to cores ----------------------------------------------------------------------


def distinct(banners: float, clicks: float) -> float:
    """Distinct banners of so many clicks, each on one of the banners at random."""
    return banners * -math.expm1(-clicks / banners)


def need(cost: Costs, clicks: float, banners: float) -> Need:
    """Cores for so many clicks a second on so many banners at random, a frame a second of each
    worker, with the fewest aggregators that are not full."""
    workers = max(1, math.ceil(clicks * cost.click_s / FULL))
    pairs = workers * distinct(banners, clicks / workers)
    for aggregators in range(1, SHARDS + 1):
        rows = aggregators * _rows(cost, clicks / aggregators, pairs / aggregators, banners)
        writing, postgres = (
            times(each, workers, pairs, rows) for each in (cost.aggregator, cost.postgres)
        )
        if max(writing, postgres) <= FULL * aggregators:
            break
    cores = {
        "ingest": clicks * cost.click_s + times(cost.ingest, workers, pairs, 0),
        "NATS": times(cost.nats, workers, pairs, 0),
        "aggregator": writing,
        "Postgres": postgres,
    }
    return Need(workers, aggregators, cores, rows, times(cost.wal, workers, pairs, rows))


def _rows(cost: Costs, clicks: float, pairs: float, banners: float) -> float:
    """Rows a second of one aggregator: those of a commit, by its interval. It gathers frames for
    longer the longer its commits take, by the rule of `pace`."""
    seconds = LINGER_S
    for _ in range(PACE_STEPS):
        rows = min(distinct(banners, clicks * seconds), pairs * seconds)
        taken = times(cost.postgres, 0, 0, rows)
        seconds = interval(round(rows), taken, COMMIT_INTERVAL_MAX_S)
    return rows / seconds


# --- the text ---------------------------------------------------------------------------------


def scale(results: Results) -> list[str]:
    """10,000 workers; the costs; how many cores."""
    lines = ["## 10,000 workers, and the cost of each stage", "", *_crowd(results["crowd"]), ""]
    lines += ["For one million pairs, CPU seconds:", "", *_millions(results), ""]
    found = costs(results)
    lines += ["So the costs are, in µs of CPU and bytes of WAL:", "", *_costs(results, found), ""]
    if not found.click_s:
        return [*lines, "A click's CPU was not measured, so cores can't be computed."]
    lines += [
        (f"Cores by these costs, {found.click_s * MILLION:.1f} µs of CPU for a click, clicks on "
        f"banners at random, a frame a second of each worker. Workers and aggregators are as many "
        f"as keep each at {FULL:.0%} of a core or less. *Limit*: the stage nearest to what it can "
        f"use, which is {FULL:.0%} of one core for NATS (one stream) and of {SHARDS} for "
        "aggregators and for Postgres; in bold where that is not enough:"), "",
    ]  # fmt: skip
    return [*lines, *_cores(found)]


def _crowd(rows: Iterable[Results]) -> list[str]:
    head = (
        "workers", "pairs per frame", "banners", "frames/s", "lag p50 s", "lag p99 s",
        "cores of NATS", "aggregator", "Postgres", "memory of the aggregator MB",
    )  # fmt: skip
    cells = [
        (
            f"{row['workers']:,}", f"{row['pairs_per_frame']:,}", f"{row['banners']:,}",
            f"{row['frames_per_second']:,.0f}", f"{row['lag_p50_seconds']:.2f}",
            f"{row['lag_p99_seconds']:.2f}", f"{row['nats_cores']:.2f}",
            f"{row['aggregator_cores']:.2f}", f"{row['postgres_cores']:.2f}",
            f"{row['aggregator_mb']:.0f}",
        )
        for row in rows
    ]  # fmt: skip
    return markdown(head, cells)


def _millions(results: Results) -> list[str]:
    head = ("pairs per frame", "banners", "rows", "ingest", "NATS", "aggregator", "Postgres",
            "WAL MB")  # fmt: skip
    ingest = {row["pairs_per_frame"]: MILLION * row["ingest"] / row["pairs"]
              for row in results["ingest"]}  # fmt: skip
    cells = []
    for row in results["costs"]:
        part = MILLION / row["pairs"]
        seconds = [row[name] * part for name in ("nats", "aggregator", "postgres")]
        cells.append((
            f"{row['pairs_per_frame']:,}", f"{row['banners']:,}", f"{row['rows'] * part:,.0f}",
            *(f"{each:,.2f}" for each in (ingest[row["pairs_per_frame"]], *seconds)),
            f"{row['wal_bytes'] * part / MILLION:,.0f}",
        ))  # fmt: skip
    return markdown(head, cells)


def _costs(results: Results, cost: Costs) -> list[str]:
    runs = results["costs"]
    stages = (
        ("ingest", results["ingest"], "ingest", cost.ingest),
        ("NATS", runs, "nats", cost.nats),
        ("aggregator", runs, "aggregator", cost.aggregator),
        ("Postgres", runs, "postgres", cost.postgres),
    )
    rows = [
        (title, *(f"{each * MILLION:,.2f}" for each in of), f"{error(measured, name, of):.0%}")
        for title, measured, name, of in stages
    ]
    off = f"{error(runs, 'wal_bytes', cost.wal):.0%}"
    rows.append(("WAL, bytes", *(f"{each:,.0f}" for each in cost.wal), off))
    return markdown(("", "a frame", "a pair", "a row", "largest error of a run"), rows)


def _cores(cost: Costs) -> list[str]:
    head = (
        "clicks/s", "banners", "workers", "aggregators", "ingest", "NATS", "aggregator",
        "Postgres", "rows/s", "WAL MB/s", "limit",
    )  # fmt: skip
    rows = []
    for clicks in CLICKS:
        for banners in BANNERS:
            found = need(cost, clicks, banners)
            rows.append((
                f"{clicks:,}", f"{banners:,}", f"{found.workers:,}", f"{found.aggregators}",
                *(f"{cores:,.2f}" for cores in found.cores.values()), f"{found.rows:,.0f}",
                f"{found.wal / MILLION:,.1f}", _limit(*found.limit),
            ))  # fmt: skip
    return markdown(head, rows)


def _limit(stage: str, share: float) -> str:
    text = f"{stage}, {share:.0%}"
    return f"**{text}**" if share > 1 else text

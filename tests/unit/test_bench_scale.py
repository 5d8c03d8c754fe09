"""From the runs of the section `scale` to costs, and from costs to cores."""

from __future__ import annotations

from typing import Any

import pytest

from bench.report import scale
from bench.sections.scale.frames import Frames, Load
from clickmill import wire

FRAME, PAIR, ROW = 20e-6, 0.3e-6, 3e-6
COSTS = scale.Costs(10e-6, (1e-3, 1e-7, 0), (5e-5, 1e-8, 0), (3e-5, 1e-7, 5e-7), (1e-5, 0, 3e-6),
                    (200, 0, 100))  # fmt: skip


def test_frames_go_round_and_are_valid() -> None:
    frames = Frames(Load(sources=2, clicks=8, banners=10, frames=4))
    sent = [wire.decode(wire.encode(frames.next())) for _ in range(6)]
    assert [frame.seq for frame in sent] == [1, 1, 2, 2, 3, 3]
    assert [frame.source for frame in sent] == frames.sources * 3
    assert sent[4].total == sum(frame.clicks for frame in sent[::2])
    assert all(frame.clicks == len(frame.ids) // 4 <= 8 for frame in sent)


def run(frames: int, pairs: int, rows: int) -> dict[str, Any]:
    used = frames * FRAME + pairs * PAIR + rows * ROW
    return {"pairs_per_frame": pairs // frames, "banners": 1_000, "frames": frames,
            "pairs": pairs, "rows": rows, "nats": used, "aggregator": used, "postgres": used,
            "wal_bytes": 100.0 * rows, "ingest": used, "frames_per_second": 1_000.0}  # fmt: skip


RUNS = [run(1_000, 1_000, 900), run(1_000, 100_000, 1_000), run(1_000, 1_000_000, 500_000),
        run(5_000, 50_000, 100)]  # fmt: skip


def test_fit_finds_the_costs_that_runs_were_made_of() -> None:
    assert scale.fit(RUNS, "postgres", ("frames", "pairs", "rows")) == pytest.approx(
        (FRAME, PAIR, ROW)
    )


def test_no_cost_is_below_zero() -> None:
    runs = [{"frames": 1, "pairs": 1, "cpu": 2.0}, {"frames": 1, "pairs": 100, "cpu": 1.0}]
    assert scale.fit(runs, "cpu", ("frames", "pairs"))[1] == 0


def test_clicks_need_workers_and_banners_need_postgres() -> None:
    few, many = scale.need(COSTS, 100_000, 1_000), scale.need(COSTS, 100_000, 1_000_000)
    assert few.workers == many.workers == 2
    assert few.cores["ingest"] == pytest.approx(1.0, rel=0.1)
    assert many.cores["Postgres"] > 10 * few.cores["Postgres"]
    assert many.rows <= 100_000


def test_aggregators_are_added_until_none_is_full() -> None:
    found = scale.need(COSTS, 1_000_000, 1_000_000)
    assert 1 < found.aggregators < 16
    assert max(found.cores["aggregator"], found.cores["Postgres"]) <= 0.7 * found.aggregators


def test_the_limit_is_the_stage_nearest_to_its_most() -> None:
    need = scale.Need(1, 1, {"ingest": 90.0, "NATS": 0.1, "aggregator": 1.0, "Postgres": 5.6}, 0, 0)
    assert need.limit[0] == "Postgres"
    assert need.limit[1] == pytest.approx(0.5)


def test_the_text_has_all_tables() -> None:
    crowd = {"workers": 10_000, "pairs_per_frame": 10, "banners": 10_000,
             "frames_per_second": 9_999.0, "lag_p50_seconds": 0.5, "lag_p99_seconds": 1.0,
             "nats_cores": 0.5, "aggregator_cores": 0.5, "postgres_cores": 0.5,
             "aggregator_mb": 100.0}  # fmt: skip
    results = {"crowd": [crowd], "costs": RUNS, "ingest": RUNS, "click_us": {"median": 10.0}}
    lines = scale.scale(results)
    assert "| 10,000 | 10 | 10,000 | 9,999 | 0.50 | 1.00 | 0.50 | 0.50 | 0.50 | 100 |" in lines
    assert "| Postgres | 20.00 | 0.30 | 3.00 | 0% |" in lines
    assert sum(line.startswith("| 1,000,000 | ") for line in lines) == 3
    del results["click_us"]
    assert scale.scale(results)[-1].startswith("A click's CPU was not measured")

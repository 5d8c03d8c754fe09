"""The mapped meters: what they tell of all workers, of dead ones, and what telling costs."""

from __future__ import annotations

import fcntl
import gc
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ingest import metrics
from ingest.metrics import METHODS, ROUTES, STATUSES, NodeCollector, Slot
from tests.support.limits import no_more_files

Values = dict[tuple[str, tuple[str, ...]], float]


def told(directory: Path) -> Values:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(directory))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def die(slot: Slot) -> None:
    """What the kernel does for a process that is killed: its lock is free."""
    fcntl.flock(slot._fd, fcntl.LOCK_UN)


def test_one_worker_reports_the_metrics_of_all(tmp_path: Path) -> None:
    slots = [Slot(tmp_path) for _ in range(3)]
    for slot in slots:
        slot.add("clickmill_clicks", 5)
        slot.set("clickmill_spool_frames", 2)
        slot.request("counter", "POST", 200, 30_000)
    values = told(tmp_path)
    assert values["clickmill_clicks_total", ()] == 15
    assert values["clickmill_spool_frames", ()] == 6
    assert values["clickmill_workers", ()] == 3
    assert values["clickmill_worker_starts_total", ()] == 3
    labels = [key[1] for key in values if key[0] == "clickmill_http_requests_total"]
    assert labels == [("POST", "counter", "200")]
    assert values["clickmill_http_requests_total", labels[0]] == 3
    assert values["clickmill_ingest_process_resident_memory_bytes", ()] > 1 << 20


def test_the_shortest_keep_time_of_all_workers_is_reported(tmp_path: Path) -> None:
    slots = [Slot(tmp_path) for _ in range(3)]
    for slot, short in zip(slots, (7, 820, 5), strict=True):
        slot.set("clickmill_spool_keep_short_seconds", short)
    assert told(tmp_path)["clickmill_spool_keep_short_seconds", ()] == 820
    die(slots[1])
    assert told(tmp_path)["clickmill_spool_keep_short_seconds", ()] == 7


def test_no_gauge_ends_a_worker_that_can_open_no_file(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    before = told(tmp_path)["clickmill_ingest_process_resident_memory_bytes", ()]
    with no_more_files():
        with pytest.raises(OSError, match="Too many open files"):
            tmp_path.joinpath("any").touch()
        slot.sample_process()
    assert told(tmp_path)["clickmill_ingest_process_resident_memory_bytes", ()] == before


def test_totals_survive_a_worker_and_gauges_do_not(tmp_path: Path) -> None:
    one, other = Slot(tmp_path), Slot(tmp_path)
    for slot in (one, other):
        slot.add("clickmill_clicks", 7)
        slot.set("clickmill_spool_frames", 4)
    die(one)
    values = told(tmp_path)
    assert values["clickmill_clicks_total", ()] == 14
    assert values["clickmill_spool_frames", ()] == 4
    assert values["clickmill_workers", ()] == 1
    successor = Slot(tmp_path)
    successor.add("clickmill_clicks")
    values = told(tmp_path)
    assert values["clickmill_clicks_total", ()] == 15
    assert values["clickmill_workers", ()] == 2
    assert values["clickmill_worker_starts_total", ()] == 3
    assert values["clickmill_ingest_process_cpu_seconds_total", ()] > 0


def test_meters_of_another_version_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slot(tmp_path).add("clickmill_clicks", 7)
    monkeypatch.setattr(metrics, "LAYOUT", "another")
    Slot(tmp_path).add("clickmill_clicks", 1)
    assert told(tmp_path)["clickmill_clicks_total", ()] == 1


def test_a_request_that_is_not_listed_counts_as_other(tmp_path: Path) -> None:
    Slot(tmp_path).request("wp-admin", "BREW", 418, 1)
    found = [k for k in told(tmp_path) if k[0] == "clickmill_http_requests_total"]
    assert found == [("clickmill_http_requests_total", ("other", "other", "500"))]


def test_the_disk_is_that_of_the_spools(tmp_path: Path) -> None:
    Slot(tmp_path)
    values = told(tmp_path)
    size = values["clickmill_spool_disk_size_bytes", ()]
    assert 0 < values["clickmill_spool_disk_free_bytes", ()] <= size


def test_buckets_add_up_in_seconds(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    for took_ns in (1, 2_000, 2_001, 10**12):
        slot.request("counter", "POST", 200, took_ns)
    name = "clickmill_http_request_duration_seconds"
    values = told(tmp_path)
    assert values[f"{name}_bucket", ("2e-06",)] == 2
    assert values[f"{name}_bucket", ("4e-06",)] == 3
    assert values[f"{name}_bucket", ("5.0",)] == 3
    assert values[f"{name}_bucket", ("+Inf",)] == values[f"{name}_count", ()] == 4
    assert values[f"{name}_sum", ()] == pytest.approx(1000.000004002)


def test_reporting_costs_under_five_milliseconds(tmp_path: Path) -> None:
    # Sixteen workers, and more kinds of answers than a server ever gives. CPU time of this
    # thread, the best of some: another process on this core is not what is asked about.
    slots = [Slot(tmp_path) for _ in range(16)]
    for slot in slots:
        for route in ROUTES:
            for method in METHODS[:2]:
                for status in STATUSES[:4]:
                    slot.request(route, method, status, 30_000)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(tmp_path))

    def cost() -> float:
        gc.collect()
        began = time.thread_time()
        assert generate_latest(registry)
        return time.thread_time() - began

    assert min(cost() for _ in range(15)) < 0.005

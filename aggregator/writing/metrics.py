"""Every metric of the aggregator's writing side: name, type, one line of meaning.

The registry is handed in, so a test can have its own. No label holds a banner, a source or
anything else without a bound. The HTTP side has its own table in http_metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from clickmill.build_info import BuildInfo

SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
LAG_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 1800)
QUARANTINE_REASONS: Final = ("unreadable", "hole", "total", "refused")

_Kind = TypeVar("_Kind", Counter, Gauge)


def register_process(registry: CollectorRegistry) -> None:
    """Adds the metrics of this process, and its versions."""
    # Without it, each counter has a second series that nobody uses.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    ProcessCollector(registry=registry)
    registry.register(BuildInfo())


def _maker(kind: type[_Kind], registry: CollectorRegistry) -> Callable[[str, str], _Kind]:
    return lambda name, text: kind(f"clickmill_{name}", text, registry=registry)


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...]
) -> Histogram:
    return Histogram(f"clickmill_{name}", text, buckets=buckets, registry=registry)


class Metrics:
    """The metrics, one attribute each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = _maker(Counter, registry), _maker(Gauge, registry)
        histogram = partial(_histogram, registry)
        self.applied = counter("frames_applied", "Frames applied and committed")
        self.duplicates = counter("frames_duplicate", "Frames that had been applied before")
        self.gaps = counter(
            "frames_gap", "Frames that came before an earlier frame of their source"
        )
        self.shed = counter(
            "frames_shed",
            "Frames behind a gap acknowledged uncounted, for the worker to send again",
        )
        self.clicks = counter("clicks_committed", "Clicks committed to Postgres")
        self.pairs = counter("pairs_committed", "(banner, count) pairs committed to Postgres")
        self.clamped = counter(
            "frames_clamped", "Frames whose minute was outside the allowed range and was clamped"
        )
        self.quarantined = Counter(
            "clickmill_quarantined",
            "Rows added to the quarantine table, by the first word of their reason",
            ["reason"],
            registry=registry,
        )
        for reason in QUARANTINE_REASONS:
            self.quarantined.labels(reason)
        self.missing = counter(
            "clicks_missing", "Clicks in frames that are lost for good, by the sources' totals"
        )
        self.retries = counter("commit_retries", "Attempts to commit that failed and were repeated")
        self.commit = histogram(
            "commit_duration_seconds", "Seconds from a batch's first statement to COMMIT", SECONDS
        )
        self.lag = histogram(
            "frame_lag_seconds", "Seconds from a frame's sealing to its commit", LAG_SECONDS
        )
        self.batch = histogram(
            "batch_frames", "Frames in a batch", (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
        )
        self.freshness = gauge(
            "freshness_seconds", "Seconds that completeThrough is behind the clock"
        )
        self.complete_through = gauge(
            "complete_through_timestamp_seconds", "completeThrough, its last known value"
        )
        self.quarantine_waiting = gauge(
            "quarantine_waiting_rows", "Rows in the quarantine table now, counted up to 1,000"
        )
        self.sources_live = gauge("sources_live", "Open sources with a heartbeat in the last 10 s")
        self.sources_silent = gauge(
            "sources_silent",
            "Open sources without a heartbeat for 10 s; they hold completeThrough back",
        )
        self.sources_newer = gauge(
            "sources_newer", "Sources whose frames need an aggregator of a newer release"
        )
        self.sources_waiting = gauge("sources_waiting", "Sources with a gap in their frames")
        self.pending = gauge("frames_pending", "Messages of own shards still in the stream")
        self.buffered = gauge("frames_buffered", "Frames in this process, not yet committed")
        self.shards = gauge("shards_owned", "Shards this aggregator pulls")
        self.members = gauge("aggregators", "Aggregators that share the shards")
        self.nats_up = gauge("nats_up", "1 while NATS is connected")
        self.postgres_up = gauge("postgres_up", "1 while Postgres answers")

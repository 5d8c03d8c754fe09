"""Every metric of the aggregator's writing side: name, type, one line of meaning.

The registry is handed in, so a test can have its own. No label holds a banner, a source or
anything else without a bound. The HTTP side has its own table in `http/metrics`.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from clickmill import build_info

SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
LAG_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 1800)
QUARANTINE_REASONS: Final = ("unreadable", "lost_range", "total", "refused", "key", "late")


def register_process(registry: CollectorRegistry) -> None:
    """Adds the metrics of this process, and its versions."""
    # Without it, each counter has a second series, of its creation time.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    ProcessCollector(registry=registry)
    build_info.register(registry)


class _Make:
    """Makes metrics named clickmill_… in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"clickmill_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"clickmill_{name}", text, registry=self._registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"clickmill_{name}", text, buckets=buckets, registry=self._registry)


class BatchMetrics:
    """What becomes of frames: counted once for each batch (see `batch_metrics`)."""

    def __init__(self, make: _Make) -> None:
        self.applied = make.counter("frames_applied", "Frames applied and committed")
        self.duplicates = make.counter("frames_duplicate", "Frames that had been applied before")
        self.repeated = make.counter(
            "frames_repeated", "Batches that had been counted before, by their Idempotency-Key"
        )
        self.direct = make.counter(
            "frames_direct", "Frames that came past the stream, while it took none"
        )
        self.gaps = make.counter(
            "frames_gap", "Frames that came before an earlier frame of their source"
        )
        self.shed = make.counter(
            "frames_shed",
            "Frames behind a gap acknowledged uncounted, for the worker to send again",
        )
        self.clicks = make.counter("clicks_committed", "Clicks committed to Postgres")
        self.pairs = make.counter("pairs_committed", "(banner, count) pairs committed to Postgres")
        self.rows = make.counter("rows_written", "Rows of minutes inserted or updated in Postgres")
        self.interval = make.gauge(
            "commit_interval_seconds",
            "Seconds between the last commit's beginning and the next one's, while frames wait",
        )
        self.clamped = make.counter(
            "frames_clamped", "Frames whose minute was outside the allowed range and was clamped"
        )
        self.quarantined = make.counter(
            "quarantined", "Rows added to the quarantine table, by the first word of their reason",
            "reason",
        )  # fmt: skip
        for reason in QUARANTINE_REASONS:
            self.quarantined.labels(reason)
        self.missing = make.counter(
            "clicks_missing", "Clicks in frames that are lost for good, by the sources' totals"
        )
        self.returned = make.counter(
            "sources_returned", "Sources that were given up as lost and came back"
        )
        self.retries = make.counter(
            "commit_retries", "Attempts to commit that failed and were repeated"
        )
        self.commit = make.histogram(
            "commit_duration_seconds", "Seconds from a batch's first statement to COMMIT", SECONDS
        )
        self.lag = make.histogram(
            "frame_lag_seconds", "Seconds from a frame's sealing to its commit", LAG_SECONDS
        )
        self.batch = make.histogram(
            "batch_frames", "Frames in a batch", (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
        )


class StateMetrics:
    """The state of the process and its sources: set every half second."""

    def __init__(self, make: _Make) -> None:
        self.freshness = make.gauge(
            "freshness_seconds", "Seconds that completeThrough is behind the clock"
        )
        self.complete_through = make.gauge(
            "complete_through_timestamp_seconds", "completeThrough, its last known value"
        )
        self.quarantine_waiting = make.gauge(
            "quarantine_waiting_rows", "Rows in the quarantine table now, counted up to 1,000"
        )
        self.sources_live = make.gauge(
            "sources_live", "Open sources with a heartbeat in the last 10 s"
        )
        self.sources_silent = make.gauge(
            "sources_silent",
            "Open sources without a heartbeat for 10 s; they hold completeThrough back",
        )
        self.sources_newer = make.gauge(
            "sources_newer", "Sources whose frames need an aggregator of a newer release"
        )
        self.sources_waiting = make.gauge("sources_waiting", "Sources with a gap in their frames")
        self.pending = make.gauge("frames_pending", "Messages of own shards still in the stream")
        self.buffered = make.gauge("frames_buffered", "Frames in this process, not yet committed")
        self.shards = make.gauge("shards_owned", "Shards this aggregator pulls")
        self.members = make.gauge("aggregators", "Aggregators that share the shards")
        self.nats_up = make.gauge("nats_up", "1 while NATS is connected")
        self.postgres_up = make.gauge("postgres_up", "1 while Postgres answers")


class Metrics(BatchMetrics, StateMetrics):
    """All of them, one attribute each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = _Make(registry)
        BatchMetrics.__init__(self, make)
        StateMetrics.__init__(self, make)

"""What a committed batch adds to the metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from aggregator.writing.fold import Verdict
from aggregator.writing.message import Delivery
from aggregator.writing.metrics import Metrics
from aggregator.writing.store import Applied


def record(metrics: Metrics, batch: Sequence[Delivery], applied: Applied) -> None:
    """Count one batch; called once its last transaction is committed."""
    verdicts = Counter(applied.verdicts)
    metrics.batch.observe(len(batch))
    metrics.applied.inc(verdicts[Verdict.APPLIED])
    metrics.repeated.inc(verdicts[Verdict.REPEATED])
    metrics.duplicates.inc(verdicts[Verdict.DUPLICATE])
    metrics.gaps.inc(verdicts[Verdict.GAP])
    metrics.clicks.inc(applied.clicks)
    metrics.pairs.inc(applied.pairs)
    metrics.rows.inc(applied.rows)
    metrics.clamped.inc(applied.clamped)
    for seconds in applied.seconds:
        metrics.commit.observe(seconds)
    for row in applied.quarantine:
        word = row.reason.partition(":")[0]
        metrics.quarantined.labels(word).inc()
        if word in ("lost_range", "total"):
            metrics.missing.inc(max(0, row.clicks or 0))
    _record_lag(metrics, batch, applied)


def _record_lag(metrics: Metrics, batch: Sequence[Delivery], applied: Applied) -> None:
    """The lag of the oldest frame alone: the worst is what one wants to know."""
    oldest = min(
        (
            delivery.arrival.frame.sealed_at
            for delivery, verdict in zip(batch, applied.verdicts, strict=True)
            if verdict is Verdict.APPLIED and delivery.arrival.frame is not None
        ),
        default=None,
    )
    if oldest is not None:
        metrics.lag.observe(max(0.0, (time.time_ns() - oldest) / 1e9))

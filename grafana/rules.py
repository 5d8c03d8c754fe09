"""Recording rules and alert rules of Prometheus, as data.

Why by code: every alert must carry a sentence that says what to do and a link that exists, and
the tests need the same rules with all durations shortened, so that each alert can be provoked on
a real system within seconds. `[5m]` in an expression is a duration that `scaled` shortens.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

INGEST: Final = "clickmill-ingest"
AGGREGATOR: Final = "clickmill-aggregator"
SCRAPE_SECONDS: Final = 5
EVALUATE_SECONDS: Final = 5
RUNBOOK: Final = "docs/runbook.md"
LEAST_RANGE_SECONDS: Final = 2
"""A scaled range must still hold a few scrapes of the tests' Prometheus."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
# A port that isn't ready says 503 on purpose, so that a balancer leaves it alone.
_ANSWERS: Final = 'clickmill_http_requests_total{route!~"/?readyz"}'
_FAILURES: Final = 'clickmill_http_requests_total{route!~"/?readyz",status=~"5.."}'


class Recording(NamedTuple):
    """A figure that is worked out once for all panels and alerts that show it."""

    name: str
    expr: str


class Alert(NamedTuple):
    """`wait` is how long it must be so before anybody is woken; `todo` is the first thing to do."""

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    todo: str

    @property
    def anchor(self) -> str:
        """The alert's heading in the runbook."""
        return self.name.lower()


def _quantiles(metric: str) -> list[Recording]:
    return [
        Recording(
            f"job:{metric}:p{q}_5m",
            f"histogram_quantile({q / 100:g}, sum by (job, le) (rate({metric}_bucket[5m])))",
        )
        for q in (50, 95, 99)
    ]


RECORDINGS: Final = (
    Recording("instance:clickmill_clicks:rate1m", "sum by (instance) "
              "(rate(clickmill_clicks_total[1m]))"),
    Recording("job_route:clickmill_http_requests:rate1m", "sum by (job, route) "
              "(rate(clickmill_http_requests_total[1m]))"),
    Recording(
        "job_route:clickmill_http_errors:ratio5m",
        f"(sum by (job, route) (rate({_FAILURES}[5m]))"
        f" or 0 * sum by (job, route) (rate({_ANSWERS}[5m])))"
        f" / (sum by (job, route) (rate({_ANSWERS}[5m])) > 0)",
    ),
    *_quantiles("clickmill_http_request_duration_seconds"),
    *_quantiles("clickmill_commit_duration_seconds"),
    *_quantiles("clickmill_frame_lag_seconds"),
)  # fmt: skip

ALERTS: Final = (
    Alert(
        "ClickmillIngestDown",
        f'up{{job="{INGEST}"}} == 0',
        "1m", "critical",
        "No worker answers on {{ $labels.instance }}: clicks sent there are not counted.",
        "Start ingest again on that machine (`clickmill doctor` says what is in its way), or take "
        "it out of the load balancer.",
    ),
    Alert(
        "ClickmillStatisticsDown",
        f'(sum(up{{job="{AGGREGATOR}"}}) or vector(0)) == 0',
        "1m", "critical",
        "No aggregator answers: there are no statistics, and the spools grow. Clicks are counted.",
        "Start an aggregator; what has piled up is committed by itself.",
    ),
    Alert(
        "ClickmillFramesNotCommitted",
        "min_over_time(clickmill_spool_frames[1m]) > 0"
        " and on () ((sum(rate(clickmill_frames_applied_total[1m])) or vector(0)) == 0)",
        "1m", "critical",
        "Frames wait on {{ $labels.instance }}, and nothing is committed anywhere.",
        "Look which of Postgres, NATS and the aggregator is down; the spool holds every click "
        "until then.",
    ),
    Alert(
        "ClickmillPostgresUnreachable",
        "max(clickmill_postgres_up) == 0",
        "1m", "critical",
        "Aggregators can't reach Postgres: statistics are late, clicks wait in NATS and spools.",
        "Bring Postgres back (its log, its disk, its connections); the rest heals by itself.",
    ),
    Alert(
        "ClickmillNatsUnreachable",
        "clickmill_workers_connected < clickmill_workers",
        "1m", "critical",
        "Workers on {{ $labels.instance }} have no connection to NATS: their clicks stay in the "
        "spool.",
        "Bring NATS back, or mend the way to it; the workers connect again by themselves.",
    ),
    Alert(
        "ClickmillStatisticsLate",
        "clickmill_freshness_seconds > 10",
        "1m", "warning",
        "Statistics are {{ $value | humanizeDuration }} behind.",
        "Look at the Pipeline dashboard for the stage that waits: a source, NATS, or the commit.",
    ),
    Alert(
        "ClickmillSpoolGrowing",
        "clickmill_spool_frames > 5 * clickmill_workers"
        " and delta(clickmill_spool_frames[5m]) > 0",
        "2m", "warning",
        "{{ $value }} frames wait on {{ $labels.instance }}, and their number grows.",
        "Find why they aren't committed before the spool's limit or the disk is reached.",
    ),
    Alert(
        "ClickmillSpoolNotWritten",
        "increase(clickmill_spool_errors_total[5m]) > 0",
        "0s", "critical",
        "A spool on {{ $labels.instance }} can't be written: clicks are counted in memory-mapped "
        "files alone, minutes may smear, and a power cut would cost them.",
        "Make room on the disk or replace it, or raise CLICKMILL_SPOOL_MAX_BYTES; don't switch "
        "the machine off.",
    ),
    Alert(
        "ClickmillDiskFilling",
        "clickmill_spool_disk_free_bytes < 0.1 * clickmill_spool_disk_size_bytes"
        " or (clickmill_spool_disk_free_bytes < 0.5 * clickmill_spool_disk_size_bytes"
        " and predict_linear(clickmill_spool_disk_free_bytes[30m], 4 * 3600) < 0)",
        "5m", "warning",
        "{{ $value | humanize1024 }}B are left on the spools' disk of {{ $labels.instance }}.",
        "Make room: see what fills it, and whether frames are committed.",
    ),
    Alert(
        "ClickmillSilentSource",
        "clickmill_sources_silent > 0",
        "1m", "warning",
        "{{ $value }} open sources say nothing and hold completeThrough back.",
        "Bring their machine back: its clicks are in its spool. Close them only if it never "
        "returns.",
    ),
    Alert(
        "ClickmillWorkerRestarts",
        "increase(clickmill_worker_starts_total[10m]) > 1.5 * clickmill_workers + 1",
        "0s", "warning",
        "Workers on {{ $labels.instance }} die and are started again, more often than by a reload.",
        "Read the log of that machine for the reason: memory, a damaged spool, or a defect.",
    ),
    Alert(
        "ClickmillQuarantine",
        "max(clickmill_quarantine_waiting_rows) > 0",
        "0s", "critical",
        "{{ $value }} rows lie in quarantine: clicks that could not be counted as they came.",
        "Read the rows, settle each, then delete it.",
    ),
    Alert(
        "ClickmillErrors",
        "job_route:clickmill_http_errors:ratio5m > 0.01",
        "2m", "warning",
        "{{ $value | humanizePercentage }} of {{ $labels.job }}'s answers on route "
        "{{ $labels.route }} are 5xx.",
        "503 stats_unavailable means that no aggregator answers; anything else is in the log.",
    ),
)  # fmt: skip


def scaled(text: str, scale: float) -> str:
    """The ranges in an expression, multiplied; `scale` 1 changes nothing."""
    return re.sub(r"\[(\d+)([smh])\]", lambda m: f"[{duration(m[1] + m[2], scale)}]", text)


def duration(text: str, scale: float, least: float = LEAST_RANGE_SECONDS) -> str:
    """A duration such as 5m, multiplied, in Prometheus' own form."""
    seconds = int(text[:-1]) * _UNITS[text[-1]]
    if scale == 1 or not seconds:
        return text
    return f"{int(max(seconds * scale, least) * 1000)}ms"


def rule_file(scale: float = 1) -> dict[str, Any]:
    """The rules as Prometheus reads them."""
    every = "500ms" if scale != 1 else f"{EVALUATE_SECONDS}s"
    recordings = [{"record": r.name, "expr": scaled(r.expr, scale)} for r in RECORDINGS]
    alerts = [_alert(alert, scale) for alert in ALERTS]
    return {
        "groups": [
            {"name": "clickmill-figures", "interval": every, "rules": recordings},
            {"name": "clickmill-alerts", "interval": every, "rules": alerts},
        ]
    }


def _alert(alert: Alert, scale: float) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": scaled(alert.expr, scale),
        "for": duration(alert.wait, scale),
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.todo,
            "runbook_url": f"{RUNBOOK}#{alert.anchor}",
        },
    }

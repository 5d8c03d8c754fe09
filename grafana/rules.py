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
# A port that isn't ready answers 503 on purpose, so that a load balancer sends it nothing.
_ANSWERS: Final = 'clickmill_http_requests_total{route!~"/?readyz"}'
_FAILURES: Final = 'clickmill_http_requests_total{route!~"/?readyz",status=~"5.."}'


class Recording(NamedTuple):
    """A value that is computed once for all panels and alerts that use it."""

    name: str
    expr: str


class Alert(NamedTuple):
    """`wait` is how long the condition must last; `todo` is the first thing to do."""

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
        "Take the machine out of the load balancer, then start ingest there again; `clickmill "
        "doctor` shows what prevents it.",
    ),
    Alert(
        "ClickmillStatisticsDown",
        f'(sum(up{{job="{AGGREGATOR}"}}) or vector(0)) == 0',
        "1m", "critical",
        "No aggregator answers: there are no statistics, and the spools grow. Clicks are "
        "still counted.",
        "Start an aggregator. It commits the backlog by itself.",
    ),
    Alert(
        "ClickmillFramesNotCommitted",
        "min_over_time(clickmill_spool_frames[1m]) > 0"
        " and on () ((sum(rate(clickmill_frames_applied_total[1m])) or vector(0)) == 0)",
        "1m", "critical",
        "{{ $labels.instance }} has uncommitted frames, and no aggregator commits anything.",
        "Check Postgres, NATS and the aggregator: one of them is down. Until it is back, the "
        "spool keeps every click.",
    ),
    Alert(
        "ClickmillPostgresUnreachable",
        "max(clickmill_postgres_up) == 0",
        "1m", "critical",
        "No aggregator can reach Postgres: statistics are late, clicks stay in NATS and in "
        "the spools.",
        "Bring Postgres back: check its log, its disk and its connections. Then the backlog "
        "is committed by itself.",
    ),
    Alert(
        "ClickmillNatsUnreachable",
        "clickmill_workers_connected < clickmill_workers",
        "1m", "critical",
        "Workers on {{ $labels.instance }} have no connection to NATS: their clicks stay in "
        "the spool.",
        "Bring NATS back, or repair the network to it. The workers reconnect by themselves.",
    ),
    Alert(
        "ClickmillFramesNotPublished",
        "increase(clickmill_publish_failures_total[2m]) > 0",
        "3m", "warning",
        "The stream in NATS takes no frames from {{ $labels.instance }}. They go straight to the "
        "aggregators; what those don't commit stays in the spool.",
        "Read the worker's log: it says why. See that NATS has a quorum, disk space and room for "
        "CLICKMILL_NATS_MAX_BYTES.",
    ),
    Alert(
        "ClickmillStatisticsLate",
        "clickmill_freshness_seconds > 10",
        "1m", "warning",
        "Statistics are {{ $value | humanizeDuration }} late.",
        "Find the stage that lags on the Pipeline dashboard: a source, NATS, or the commit.",
    ),
    Alert(
        "ClickmillSpoolGrowing",
        "clickmill_spool_frames > 5 * clickmill_workers"
        " and delta(clickmill_spool_frames[5m]) > 0",
        "2m", "warning",
        "{{ $labels.instance }} has {{ $value }} uncommitted frames, and their number grows.",
        "Find out why they aren't committed, before the spool reaches its limit or the disk "
        "is full.",
    ),
    Alert(
        "ClickmillSpoolNotWritten",
        "increase(clickmill_spool_errors_total[5m]) > 0",
        "0s", "critical",
        "A spool on {{ $labels.instance }} can't be written: clicks are only in memory-mapped "
        "files, may be counted in a wrong minute, and would be lost in a power cut.",
        "Free disk space, replace the disk, or raise CLICKMILL_SPOOL_MAX_BYTES. Don't switch "
        "the machine off.",
    ),
    Alert(
        "ClickmillKeepTimeShort",
        "clickmill_spool_keep_short_seconds > 0",
        "1m", "warning",
        "Committed frames on {{ $labels.instance }} are kept {{ $value | humanizeDuration }} "
        "shorter than they should be: the spool is at its limit.",
        "Raise CLICKMILL_SPOOL_MAX_BYTES, or lower CLICKMILL_SPOOL_KEEP_SECONDS to what a failover "
        "of Postgres may cost.",
    ),
    Alert(
        "ClickmillDiskFilling",
        "clickmill_spool_disk_free_bytes < 0.1 * clickmill_spool_disk_size_bytes"
        " or (clickmill_spool_disk_free_bytes < 0.5 * clickmill_spool_disk_size_bytes"
        " and predict_linear(clickmill_spool_disk_free_bytes[30m], 4 * 3600) < 0)",
        "5m", "warning",
        "{{ $value | humanize1024 }}B are left on the spools' disk of {{ $labels.instance }}.",
        "Free disk space: find what fills the disk, and check that frames are committed.",
    ),
    Alert(
        "ClickmillSilentSource",
        "clickmill_sources_silent > 0",
        "1m", "warning",
        "{{ $value }} open sources have sent no heartbeat for 10 s and hold completeThrough "
        "back.",
        "Bring their machine back: its clicks are in its spool. Close them only if the "
        "machine never returns.",
    ),
    Alert(
        "ClickmillWorkerRestarts",
        "increase(clickmill_worker_starts_total[10m]) > 1.5 * clickmill_workers + 1",
        "0s", "warning",
        "Workers on {{ $labels.instance }} restart more often than a reload explains.",
        "Read that machine's log for the reason: memory, a damaged spool, or a bug.",
    ),
    Alert(
        "ClickmillQuarantine",
        "max(clickmill_quarantine_waiting_rows) > 0",
        "0s", "critical",
        "{{ $value }} rows are in quarantine: frames that could not be counted as they came.",
        "Read the rows, resolve each as the runbook says, then delete it.",
    ),
    Alert(
        "ClickmillUpgradeAggregator",
        "max(clickmill_sources_newer) > 0",
        "0s", "critical",
        "{{ $value }} sources send frames of a newer release, which no aggregator applies.",
        "Upgrade the aggregators. The frames stay in NATS and in the spools until then; none is "
        "lost.",
    ),
    Alert(
        "ClickmillErrors",
        "job_route:clickmill_http_errors:ratio5m > 0.01",
        "2m", "warning",
        "{{ $value | humanizePercentage }} of {{ $labels.job }}'s responses on route {{ "
        "$labels.route }} are 5xx.",
        "503 stats_unavailable means that no aggregator answers. For anything else, read the "
        "log.",
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
            {"name": "clickmill-recordings", "interval": every, "rules": recordings},
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

"""The dashboard *Pipeline*: a click's way from the counter to Postgres, stage by stage."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard

from grafana.panels import Line, board, curves, number, sql_number, sql_table, steps
from grafana.rules import AGGREGATOR

AT: Final = 'instance=~"$instance"'
RANGE: Final = "[$__rate_interval]"


def _rate(metric: str) -> str:
    return f"sum(rate({metric}{{{AT}}}{RANGE}))"


def _quantiles(metric: str, prefix: str = "") -> list[Line]:
    rate = f"sum by (le) (rate({metric}_bucket{{{AT}}}{RANGE}))"
    names = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    return [Line(f"histogram_quantile({q}, {rate})", prefix + name) for q, name in names]


def _of_processes(expr: str) -> list[Line]:
    """The same of both parts, whose metrics differ in their prefix."""
    of_aggregators = f'{{job="{AGGREGATOR}",{AT}}}'
    return [
        Line(expr.format("clickmill_ingest_process", f"{{{AT}}}"), "ingest {{instance}}"),
        Line(expr.format("process", of_aggregators), "aggregator {{instance}}"),
    ]


def _glance(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("At a glance"))
    made.with_panel(
        number(
            "Alerts that fire",
            "short",
            "Each has a heading of its own in docs/runbook.md.",
            'count(ALERTS{alertname=~"Clickmill.*",alertstate="firing"}) or vector(0)',
            4,
            steps((1, "red")),
        )
    )
    made.with_panel(
        number(
            "Statistics are behind by",
            "s",
            "Every click answered before this many seconds ago is in the figures.",
            f"max(clickmill_freshness_seconds{{{AT}}})",
            4,
            steps((5, "yellow"), (10, "red")),
        )
    )
    made.with_panel(
        number(
            "completeThrough",
            "dateTimeFromNow",
            "The moment up to which statistics are complete, as each answer of /stats tells it.",
            f"1000 * min(clickmill_complete_through_timestamp_seconds{{{AT}}})",
            4,
            steps(base="blue"),
        )
    )
    made.with_panel(
        number(
            "Frames that wait",
            "short",
            "Frames in spools that Postgres is not known to have. A few are the normal state.",
            f"sum(clickmill_spool_frames{{{AT}}})",
            4,
            steps((20, "yellow"), (100, "red")),
        )
    )
    made.with_panel(
        number(
            "Silent sources",
            "short",
            "Open sources that nobody has heard of for 10 s: they hold completeThrough back.",
            f"max(clickmill_sources_silent{{{AT}}})",
            4,
            steps((1, "red")),
        )
    )
    made.with_panel(
        number(
            "Rows in quarantine",
            "short",
            "Clicks that could not be counted as they came. Anything but 0 wants a person.",
            f"max(clickmill_quarantine_waiting_rows{{{AT}}})",
            4,
            steps((1, "red")),
        )
    )


def _way(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("From the counter to Postgres"))
    made.with_panel(
        curves(
            "Clicks: counted and committed",
            "cps",
            "The two lines lie on each other while all is well; committed runs behind, then "
            "catches up, after a fault.",
            Line(_rate("clickmill_clicks_total"), "counted"),
            Line(_rate("clickmill_clicks_committed_total"), "committed"),
        )
    )
    made.with_panel(
        curves(
            "How far statistics are behind",
            "s",
            "Freshness is completeThrough's age. Lag is a frame's time from sealing to commit.",
            Line(f"max(clickmill_freshness_seconds{{{AT}}})", "freshness"),
            *_quantiles("clickmill_frame_lag_seconds", "lag "),
            thresholds=steps((10, "red")),
        )
    )


def _spool(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Spool and publishing (ingest)"))
    made.with_panel(
        curves(
            "Frames that wait",
            "short",
            "Frames not known to be committed, by machine. Rising for minutes is an alert.",
            Line(f"sum by (instance) (clickmill_spool_frames{{{AT}}})", "{{instance}}"),
            span=8,
        )
    )
    made.with_panel(
        curves(
            "Bytes in the spools",
            "bytes",
            "Committed frames are kept for a while (CLICKMILL_SPOOL_KEEP_SECONDS), so this is "
            "not the backlog.",
            Line(f"sum(clickmill_spool_bytes{{{AT}}})", "held"),
            Line(f"sum(clickmill_spool_max_bytes{{{AT}}})", "limit"),
            span=8,
        )
    )
    made.with_panel(
        curves(
            "Room on the spools' disk",
            "percentunit",
            "Free share of the disk, by machine.",
            Line(
                f"clickmill_spool_disk_free_bytes{{{AT}}}"
                f" / clickmill_spool_disk_size_bytes{{{AT}}}",
                "{{instance}}",
            ),
            span=8,
            thresholds=steps((0, "red"), (0.1, "green"), base="red"),
        )
    )
    made.with_panel(
        curves(
            "Frames sealed and sent",
            "ops",
            "Sealed is one a flush interval and worker while there are clicks. The others are "
            "faults: a try that NATS did not take, a source sent again from its mark, a spool "
            "not written, a damaged place in one.",
            Line(_rate("clickmill_frames_sealed_total"), "sealed"),
            Line(_rate("clickmill_publish_failures_total"), "publish failures"),
            Line(_rate("clickmill_resends_total"), "sent again"),
            Line(_rate("clickmill_spool_errors_total"), "spool errors"),
            Line(_rate("clickmill_spool_damages_total"), "spool damages"),
        )
    )
    made.with_panel(
        curves(
            "Clicks not yet in a spool",
            "short",
            "Clicks in the memory-mapped epochs: at most those of a flush interval, while spools "
            "can be written.",
            Line(f"sum by (instance) (clickmill_unsealed_clicks{{{AT}}})", "{{instance}}"),
        )
    )


def _commit(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Commit (aggregator)"))
    made.with_panel(
        curves(
            "Time of a commit",
            "s",
            "From a batch's first statement to COMMIT.",
            *_quantiles("clickmill_commit_duration_seconds"),
            span=8,
            thresholds=steps((1, "red")),
        )
    )
    made.with_panel(
        curves(
            "Frames applied",
            "ops",
            "Duplicates are frames that came twice and counted once; gaps wait for a resend.",
            Line(_rate("clickmill_frames_applied_total"), "applied"),
            Line(_rate("clickmill_frames_duplicate_total"), "duplicates"),
            Line(_rate("clickmill_frames_gap_total"), "gaps"),
            Line(_rate("clickmill_commit_retries_total"), "commit retries"),
            span=8,
        )
    )
    made.with_panel(
        curves(
            "Frames on their way",
            "short",
            "In the stream: not yet fetched. In memory: fetched, not yet committed.",
            Line(f"sum(clickmill_frames_pending{{{AT}}})", "in the stream"),
            Line(f"sum(clickmill_frames_buffered{{{AT}}})", "in memory"),
            span=8,
        )
    )


def _sources(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Sources and workers"))
    made.with_panel(
        curves(
            "Workers",
            "short",
            "Running, and connected to NATS. A restart by itself costs no click.",
            Line(f"sum(clickmill_workers{{{AT}}})", "running"),
            Line(f"sum(clickmill_workers_connected{{{AT}}})", "connected"),
            Line(f"sum(increase(clickmill_worker_starts_total{{{AT}}}{RANGE}))", "started"),
            Line(
                f"sum(increase(clickmill_sources_adopted_total{{{AT}}}{RANGE}))", "adopted sources"
            ),
            span=8,
        )
    )
    made.with_panel(
        curves(
            "Sources, as the aggregators see them",
            "short",
            "A source is one life of one worker. Silent ones hold completeThrough back; waiting "
            "ones have a gap in their frames.",
            Line(f"max(clickmill_sources_live{{{AT}}})", "live"),
            Line(f"max(clickmill_sources_silent{{{AT}}})", "silent"),
            Line(f"max(clickmill_sources_waiting{{{AT}}})", "waiting"),
            span=8,
        )
    )
    made.with_panel(
        sql_table(
            "Open sources, the furthest behind first",
            "From Postgres: each source's high-water mark, and how old its last frame is. An idle "
            "source seals no frames, and is not behind for that.",
            "SELECT left(source::text, 8) AS source, last_seq AS frames, total AS clicks, "
            "extract(epoch FROM now() - sealed_at)::float8 AS age FROM source "
            "WHERE NOT closed AND last_seq > 0 ORDER BY sealed_at LIMIT 20",
            8,
            {"age": "s", "frames": "none"},
        )
    )
    made.with_panel(
        sql_number(
            "Clicks in Postgres",
            "short",
            "Of all sources that ever were, by their marks.",
            "SELECT coalesce(sum(total), 0)::bigint AS clicks FROM source",
            4,
            steps(base="blue"),
        )
    )
    made.with_panel(
        sql_table(
            "Quarantine",
            "The latest rows. See docs/runbook.md, ClickmillQuarantine.",
            "SELECT received_at AS received, reason, clicks, left(source::text, 8) AS source, seq, "
            "coalesce(length(raw), 0) AS bytes FROM quarantine ORDER BY id DESC LIMIT 20",
            20,
            {"seq": "none", "bytes": "bytes"},
        )
    )


def _processes(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Processes"))
    made.with_panel(
        curves(
            "CPU",
            "short",
            "Cores in use: all workers of a machine together; an aggregator by itself.",
            *_of_processes("rate({}_cpu_seconds_total{}" + RANGE + ")"),
            span=8,
        )
    )
    made.with_panel(
        curves(
            "Memory",
            "bytes",
            "Resident memory: workers of a machine together; each aggregator.",
            *_of_processes("{}_resident_memory_bytes{}"),
            span=8,
        )
    )
    made.with_panel(
        curves(
            "Open files and sockets",
            "short",
            "Every connection is one.",
            *_of_processes("{}_open_fds{}"),
            span=8,
        )
    )


def build() -> dashboard.Dashboard:
    """The dashboard."""
    made = board(
        "clickmill-pipeline",
        "Clickmill: Pipeline",
        "A click's way from the counter to Postgres, stage by stage.",
    )
    for add in (_glance, _way, _spool, _commit, _sources, _processes):
        add(made)
    return made

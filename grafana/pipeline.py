"""The dashboard *Pipeline*: the life of a click from the counter to Postgres, stage by stage."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard

from grafana.panels import Line, Row, board, curves, number, sql_number, sql_table, steps
from grafana.promql import (
    AT,
    FRESHNESS,
    RANGE,
    by_machine,
    highest,
    of_processes,
    quantiles,
    rate,
    total,
)

FIRING: Final = 'ALERTS{alertname=~"Clickmill.*",alertstate="firing"}'
FREE: Final = f"clickmill_spool_disk_free_bytes{{{AT}}} / clickmill_spool_disk_size_bytes{{{AT}}}"
SOURCES_SQL: Final = (
    "SELECT left(source::text, 8) AS source, last_seq AS frames, total AS clicks, "
    "extract(epoch FROM now() - sealed_at)::float8 AS age FROM source "
    "WHERE NOT closed AND last_seq > 0 ORDER BY sealed_at LIMIT 20"
)
QUARANTINE_SQL: Final = (
    "SELECT received_at AS received, reason, clicks, left(source::text, 8) AS source, seq, "
    "coalesce(length(raw), 0) AS bytes FROM quarantine ORDER BY id DESC LIMIT 20"
)

GLANCE: Final = (
    number("Firing alerts", "short",
           "Each alert has its own heading in docs/runbook.md.",
           f"count({FIRING}) or vector(0)", steps((1, "red"))),
    number("Statistics lag", "s",
           "Every click answered before this many seconds ago is in the statistics.",
           FRESHNESS, steps((5, "yellow"), (10, "red"))),
    number("completeThrough", "dateTimeFromNow",
           "The moment up to which the statistics are complete, as in each answer of /stats.",
           f"1000 * min(clickmill_complete_through_timestamp_seconds{{{AT}}})",
           steps(base="blue")),
    number("Uncommitted frames", "short",
           "Frames in spools that are not known to be in Postgres. A few are normal.",
           total("clickmill_spool_frames"), steps((20, "yellow"), (100, "red"))),
    number("Silent sources", "short",
           "Open sources without a heartbeat for 10 s. They hold completeThrough back.",
           highest("clickmill_sources_silent"), steps((1, "red"))),
    number("Rows in quarantine", "short",
           "Frames that could not be counted as they came. If there are any, follow "
           "ClickmillQuarantine in docs/runbook.md.",
           highest("clickmill_quarantine_waiting_rows"), steps((1, "red"))),
)  # fmt: skip

STAGES: Final = (
    curves("Clicks counted and committed", "cps",
           "Both lines are equal in normal operation. After a fault, committed is lower, then "
           "higher until the backlog is gone.",
           Line(rate("clickmill_clicks_total"), "counted"),
           Line(rate("clickmill_clicks_committed_total"), "committed")),
    curves("Lag of the statistics", "s",
           "Freshness is the age of completeThrough. Lag is the time from sealing a frame to its "
           "commit.",
           Line(FRESHNESS, "freshness"),
           *quantiles("clickmill_frame_lag_seconds", prefix="lag "),
           thresholds=steps((10, "red"))),
)  # fmt: skip

SPOOL: Final = (
    curves("Uncommitted frames, by machine", "short",
           "Frames that are not known to be in Postgres. An alert fires when they grow for "
           "minutes.",
           by_machine("clickmill_spool_frames"), span=8),
    curves("Size of the spools", "bytes",
           "Committed frames are kept for CLICKMILL_SPOOL_KEEP_SECONDS, so this is not the "
           "backlog.",
           Line(total("clickmill_spool_bytes"), "used"),
           Line(total("clickmill_spool_max_bytes"), "limit"), span=8),
    curves("Free space on the spools' disk", "percentunit",
           "Free share of the disk, by machine.",
           Line(FREE, "{{instance}}"), span=8,
           thresholds=steps((0, "red"), (0.1, "green"), base="red")),
    curves("Frames sealed, failures and resends", "ops",
           "Each worker with clicks seals one frame a flush interval. The other lines are faults: "
           "NATS did not take a frame, a source was sent again from its mark, a spool could not be "
           "written, a spool is damaged.",
           Line(rate("clickmill_frames_sealed_total"), "sealed"),
           Line(rate("clickmill_publish_failures_total"), "publish failures"),
           Line(rate("clickmill_resends_total"), "resends"),
           Line(rate("clickmill_spool_errors_total"), "spool errors"),
           Line(rate("clickmill_spool_damages_total"), "damaged spools")),
    curves("Clicks not yet in a spool", "short",
           "Clicks in the memory-mapped counters: at most those of one flush interval, while "
           "spools can be written.",
           by_machine("clickmill_unsealed_clicks")),
)  # fmt: skip

COMMIT: Final = (
    curves("Commit duration", "s",
           "From a batch's first statement to COMMIT.",
           *quantiles("clickmill_commit_duration_seconds"), span=8,
           thresholds=steps((1, "red"))),
    curves("Frames applied", "ops",
           "Duplicates came twice and were counted once. Gaps came before an earlier frame of "
           "their source, which is sent again. Direct ones came past the stream, which took none.",
           Line(rate("clickmill_frames_applied_total"), "applied"),
           Line(rate("clickmill_frames_duplicate_total"), "duplicates"),
           Line(rate("clickmill_frames_gap_total"), "gaps"),
           Line(rate("clickmill_frames_direct_total"), "direct"),
           Line(rate("clickmill_commit_retries_total"), "commit retries"), span=8),
    curves("Frames before their commit", "short",
           "In the stream: not yet fetched. In memory: fetched, not yet committed.",
           Line(total("clickmill_frames_pending"), "in the stream"),
           Line(total("clickmill_frames_buffered"), "in memory"), span=8),
)  # fmt: skip

SOURCES: Final = (
    curves("Workers", "short",
           "Running, and connected to NATS. A restart loses no click.",
           Line(total("clickmill_workers"), "running"),
           Line(total("clickmill_workers_connected"), "connected"),
           Line(f"sum(increase(clickmill_worker_starts_total{{{AT}}}{RANGE}))", "started"),
           Line(f"sum(increase(clickmill_sources_adopted_total{{{AT}}}{RANGE}))",
                "adopted sources"), span=8),
    curves("Sources", "short",
           "A source is one run of one worker. Silent sources hold completeThrough back; waiting "
           "sources have a gap in their frames.",
           Line(highest("clickmill_sources_live"), "live"),
           Line(highest("clickmill_sources_silent"), "silent"),
           Line(highest("clickmill_sources_waiting"), "waiting"), span=8),
    sql_table("Open sources, oldest frame first",
              "From Postgres: each source's high-water mark, and the age of its last frame. An "
              "idle source seals no frames, so its age grows without a fault.",
              SOURCES_SQL, 8, {"age": "s", "frames": "none"}),
    sql_number("Clicks in Postgres", "short",
               "Total clicks of all sources, by their high-water marks.",
               "SELECT coalesce(sum(total), 0)::bigint AS clicks FROM source",
               steps(base="blue")),
    sql_table("Quarantine",
              "The latest rows. See ClickmillQuarantine in docs/runbook.md.",
              QUARANTINE_SQL, 20, {"seq": "none", "bytes": "bytes"}),
)  # fmt: skip

PROCESSES: Final = (
    curves("CPU", "short",
           "Cores in use: the workers of each machine together, and each aggregator.",
           *of_processes("rate({}_cpu_seconds_total{}" + RANGE + ")"), span=8),
    curves("Memory", "bytes",
           "Resident memory: the workers of each machine together, and each aggregator.",
           *of_processes("{}_resident_memory_bytes{}"), span=8),
    curves("Open files and sockets", "short",
           "Each connection is one of them.",
           *of_processes("{}_open_fds{}"), span=8),
)  # fmt: skip

ROWS: Final = (
    Row("At a glance", GLANCE),
    Row("From the counter to Postgres", STAGES),
    Row("Spool and publishing (ingest)", SPOOL),
    Row("Commit (aggregator)", COMMIT),
    Row("Sources and workers", SOURCES),
    Row("Processes", PROCESSES),
)


def build() -> dashboard.Dashboard:
    """The dashboard."""
    what = "The life of a click from the counter to Postgres, stage by stage."
    return board("clickmill-pipeline", "Clickmill: Pipeline", what, ROWS)

"""The dashboard *Traffic*: what comes in, how fast it is answered, and which banners get it."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard

from grafana.panels import (
    Line,
    Row,
    banners,
    board,
    curves,
    number,
    sql_bars,
    sql_curves,
    sql_number,
    sql_table,
    steps,
)
from grafana.promql import AT, FRESHNESS, RANGE, quantile, quantiles, rate
from grafana.rules import AGGREGATOR, INGEST

DURATION: Final = "clickmill_http_request_duration_seconds"
CLICK_PORT: Final = f'job="{INGEST}",{AT}'
STATISTICS_PORT: Final = f'job="{AGGREGATOR}",{AT}'
REQUESTS: Final = f"rate(clickmill_http_requests_total{{{AT}}}{RANGE})"
FAILED: Final = (
    f'rate(clickmill_http_requests_total{{{AT},status=~"5..",route!~"/?readyz"}}{RANGE})'
)

TOP_SQL: Final = """
    SELECT banner_id, sum(clicks)::bigint AS clicks FROM banner_minute
    WHERE $__timeFilter(minute) GROUP BY banner_id ORDER BY clicks DESC, banner_id LIMIT 10
"""
TOP: Final = (
    f"({TOP_SQL}) t LEFT JOIN banner b ON b.id = t.banner_id ORDER BY t.clicks DESC, t.banner_id"
)
# The rollups up to their mark, and the minutes after it: see rollup_mark in schema.sql.
TODAY_SQL: Final = (
    "WITH mark AS (SELECT greatest(quarter, date_trunc('day', now(), 'UTC')) AS at "
    "FROM rollup_mark) "
    "SELECT coalesce(sum(clicks), 0)::bigint AS clicks FROM ("
    "SELECT clicks FROM rollup_quarter "
    "WHERE quarter >= date_trunc('day', now(), 'UTC') AND quarter < (SELECT at FROM mark) "
    "UNION ALL SELECT clicks FROM rollup_late "
    "WHERE minute >= date_trunc('day', now(), 'UTC') AND minute < (SELECT at FROM mark) "
    "UNION ALL SELECT clicks FROM banner_minute "
    "WHERE minute >= date_trunc('day', now(), 'UTC') AND minute >= (SELECT at FROM mark)) t"
)
TOP_MINUTES_SQL: Final = (
    "SELECT date_trunc('minute', m.minute) AS time, "
    "coalesce(max(b.name), 'banner ' || m.banner_id) AS metric, "
    "sum(m.clicks)::bigint AS value "
    "FROM banner_minute m LEFT JOIN banner b ON b.id = m.banner_id "
    "WHERE $__timeFilter(m.minute) AND m.banner_id IN "
    f"(SELECT banner_id FROM ({TOP_SQL}) t) GROUP BY 1, m.banner_id ORDER BY 1, 2"
)
SELECTED_SQL: Final = (
    "SELECT date_trunc('minute', minute) AS time, 'clicks' AS metric, sum(clicks)::bigint AS value "
    "FROM banner_minute WHERE $__timeFilter(minute) "
    "AND ('-1' IN (${banner:sqlstring}) OR banner_id::text IN (${banner:sqlstring})) "
    "GROUP BY 1 ORDER BY 1"
)
REGISTER_SQL: Final = (
    f"SELECT t.banner_id AS banner, b.name, b.target_url AS target, t.clicks FROM {TOP}"
)

GLANCE: Final = (
    number("Clicks per second", "cps",
           "Clicks counted now, batches included.",
           rate("clickmill_clicks_total"), steps(base="blue")),
    number("Requests per second", "reqps",
           "Requests answered on both ports, with any status.",
           f"sum({REQUESTS})", steps(base="blue")),
    number("Click port latency, p95", "s",
           "95 % of the requests to the click port are answered faster. The limit of the load "
           "scenario is 200 ms.",
           quantile(0.95, DURATION, CLICK_PORT), steps((0.05, "yellow"), (0.2, "red"))),
    number("Error rate", "percentunit",
           "Share of 5xx responses. The only one by design is 503 while no aggregator answers.",
           f"(sum({FAILED}) or vector(0)) / sum({REQUESTS})",
           steps((0.001, "yellow"), (0.01, "red"))),
    number("Statistics lag", "s",
           "Every click answered before this many seconds ago is in the statistics.",
           FRESHNESS, steps((5, "yellow"), (10, "red"))),
    sql_number("Clicks today (UTC)", "short",
               "Clicks in Postgres since midnight.",
               TODAY_SQL, steps(base="blue")),
)  # fmt: skip

PORTS: Final = (
    curves("Clicks per second, by machine", "cps",
           "Clicks counted by the workers of each machine. A gap means that Prometheus could not "
           "scrape that machine.",
           Line(f"sum by (instance) (rate(clickmill_clicks_total{{{AT}}}{RANGE}))",
                "{{instance}}"), stacked=True),
    curves("Requests per second, by route", "reqps",
           "Requests on both ports.",
           Line(f"sum by (job, route) ({REQUESTS}) > 0", "{{job}} {{route}}"), stacked=True),
    curves("Click port latency", "s",
           "From Granian's hand-over to the response. Of plain clicks 1 in 128 is measured.",
           *quantiles(DURATION, CLICK_PORT), thresholds=steps((0.2, "red"))),
    curves("Statistics port latency", "s",
           "From a request's arrival to the last byte of its response. Open streams are left out.",
           *quantiles(DURATION, STATISTICS_PORT), thresholds=steps((1, "red"))),
    curves("Responses per second, by status", "reqps",
           "4xx: the request is wrong, and nothing was counted. 5xx: see ClickmillErrors in "
           "docs/runbook.md.",
           Line(f"sum by (status) ({REQUESTS}) > 0", "{{status}}"), stacked=True),
    curves("Errors per second, by route", "reqps",
           "5xx responses. Normally 0.",
           Line(f"sum by (job, route, status) ({FAILED}) or vector(0)", "{{job}} {{route}}"),
           thresholds=steps((1, "red"))),
)  # fmt: skip

BANNERS: Final = (
    sql_bars("Top banners", "short",
             "The ten banners with the most clicks in the time range.",
             f"SELECT coalesce(b.name, 'banner ' || t.banner_id) AS banner, t.clicks FROM {TOP}",
             8),
    sql_curves("Clicks per minute, top banners", "short",
               "The ten banners with the most clicks in the time range.",
               TOP_MINUTES_SQL, 16),
    sql_curves("Clicks per minute, selected banners", "short",
               "The sum of the banners that are selected under Banner, above.",
               SELECTED_SQL, 12, stacked=True),
    sql_table("Top banners, with name and target",
              "The ten banners with the most clicks in the time range, as they are registered.",
              REGISTER_SQL, 12, {"banner": "none"}),
)  # fmt: skip

ROWS: Final = (
    Row("At a glance", GLANCE),
    Row("Requests", PORTS),
    Row("Banners, from Postgres", BANNERS),
)


def build() -> dashboard.Dashboard:
    """The dashboard."""
    what = "What comes in, how fast it is answered, and which banners get it."
    return board("clickmill-traffic", "Clickmill: Traffic", what, ROWS, banners())

"""The dashboard *Traffic*: what comes in, how fast it is answered, and which banners get it."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard

from grafana.panels import (
    Line,
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
from grafana.rules import AGGREGATOR, INGEST

AT: Final = 'instance=~"$instance"'
RANGE: Final = "[$__rate_interval]"
CLICKS: Final = f"sum(rate(clickmill_clicks_total{{{AT}}}{RANGE}))"
REQUESTS: Final = f"rate(clickmill_http_requests_total{{{AT}}}{RANGE})"
FAILED: Final = (
    f'rate(clickmill_http_requests_total{{{AT},status=~"5..",route!~"/?readyz"}}{RANGE})'
)

# The heaviest banners of the shown range, by the rollup that is read fastest.
TOP_SQL: Final = """
    SELECT banner_id, sum(clicks)::bigint AS clicks FROM banner_minute
    WHERE $__timeFilter(minute) GROUP BY banner_id ORDER BY clicks DESC, banner_id LIMIT 10
"""
TOP: Final = (
    f"({TOP_SQL}) t LEFT JOIN banner b ON b.id = t.banner_id ORDER BY t.clicks DESC, t.banner_id"
)


def quantile(q: float, job: str) -> str:
    """A quantile of the time to answer, in seconds."""
    bucket = f'clickmill_http_request_duration_seconds_bucket{{job="{job}",{AT}}}'
    return f"histogram_quantile({q}, sum by (le) (rate({bucket}{RANGE})))"


def _quantiles(job: str) -> list[Line]:
    return [
        Line(quantile(q, job), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]


def _glance(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("At a glance"))
    made.with_panel(
        number(
            "Clicks per second",
            "cps",
            "Clicks counted now, batches included.",
            CLICKS,
            4,
            steps(base="blue"),
        )
    )
    made.with_panel(
        number(
            "Requests per second",
            "reqps",
            "Requests answered on both ports, whatever the answer.",
            f"sum({REQUESTS})",
            4,
            steps(base="blue"),
        )
    )
    made.with_panel(
        number(
            "p95 of a click port's answer",
            "s",
            "95 of 100 requests to the click port are answered in less. The promise is 200 ms.",
            quantile(0.95, INGEST),
            4,
            steps((0.05, "yellow"), (0.2, "red")),
        )
    )
    made.with_panel(
        number(
            "Answers that are errors",
            "percentunit",
            "Share of 5xx answers. The only one by design is 503 while no aggregator answers.",
            f"(sum({FAILED}) or vector(0)) / sum({REQUESTS})",
            4,
            steps((0.001, "yellow"), (0.01, "red")),
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
        sql_number(
            "Clicks today (UTC)",
            "short",
            "From Postgres: the day's figures so far.",
            "SELECT coalesce(sum(clicks), 0)::bigint AS clicks FROM banner_day "
            "WHERE day = date_trunc('day', now(), 'UTC')",
            4,
            steps(base="blue"),
        )
    )


def _requests(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Requests"))
    made.with_panel(
        curves(
            "Clicks per second, by machine",
            "cps",
            "Clicks counted by the workers of each machine. A gap is a machine that nobody could "
            "scrape.",
            Line(
                f"sum by (instance) (rate(clickmill_clicks_total{{{AT}}}{RANGE}))", "{{instance}}"
            ),
            stacked=True,
        )
    )
    made.with_panel(
        curves(
            "Requests per second, by route",
            "reqps",
            "What is asked for, on both ports.",
            Line(f"sum by (job, route) ({REQUESTS}) > 0", "{{job}} {{route}}"),
            stacked=True,
        )
    )
    made.with_panel(
        curves(
            "Time to answer on the click port",
            "s",
            "From the server's hand-over to the answer. Plain clicks are sampled, 1 in 128.",
            *_quantiles(INGEST),
            thresholds=steps((0.2, "red")),
        )
    )
    made.with_panel(
        curves(
            "Time to answer on the statistics port",
            "s",
            "From a request's arrival to its last byte; open streams are left out.",
            *_quantiles(AGGREGATOR),
            thresholds=steps((1, "red")),
        )
    )
    made.with_panel(
        curves(
            "Answers per second, by status",
            "reqps",
            "4xx: the client is wrong, nothing was counted. 5xx: ClickmillErrors in the runbook.",
            Line(f"sum by (status) ({REQUESTS}) > 0", "{{status}}"),
            stacked=True,
        )
    )
    made.with_panel(
        curves(
            "Errors per second, by route",
            "reqps",
            "5xx answers. None is the normal state, and shown as 0.",
            Line(f"sum by (job, route, status) ({FAILED}) or vector(0)", "{{job}} {{route}}"),
            thresholds=steps((1, "red")),
        )
    )


def _banners(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Banners, from Postgres"))
    made.with_panel(
        sql_bars(
            "Top banners",
            "short",
            "The ten most clicked banners of the shown range.",
            f"SELECT coalesce(b.name, 'banner ' || t.banner_id) AS banner, t.clicks FROM {TOP}",
            8,
        )
    )
    made.with_panel(
        sql_curves(
            "Minutes of the top banners",
            "short",
            "Clicks per minute of the ten most clicked banners.",
            "SELECT m.minute AS time, coalesce(b.name, 'banner ' || m.banner_id) AS metric, "
            "m.clicks AS value FROM banner_minute m LEFT JOIN banner b ON b.id = m.banner_id "
            "WHERE $__timeFilter(m.minute) AND m.banner_id IN "
            f"(SELECT banner_id FROM ({TOP_SQL}) t) ORDER BY 1, 2",
            16,
        )
    )
    made.with_panel(
        sql_curves(
            "Minutes of the chosen banners",
            "short",
            "Clicks per minute of what is chosen above under Banner, summed.",
            "SELECT minute AS time, 'clicks' AS metric, sum(clicks)::bigint AS value "
            "FROM banner_minute WHERE $__timeFilter(minute) "
            "AND ('-1' IN (${banner:sqlstring}) OR banner_id::text IN (${banner:sqlstring})) "
            "GROUP BY minute ORDER BY minute",
            12,
            stacked=True,
        )
    )
    made.with_panel(
        sql_table(
            "The register and its figures",
            "The most clicked banners of the shown range, with what is registered of them.",
            f"SELECT t.banner_id AS banner, b.name, b.target_url AS target, t.clicks FROM {TOP}",
            12,
            {"banner": "none"},
        )
    )


def build() -> dashboard.Dashboard:
    """The dashboard."""
    made = board(
        "clickmill-traffic",
        "Clickmill: Traffic",
        "What comes in, how fast it is answered, and which banners get it.",
        banners(),
    )
    for add in (_glance, _requests, _banners):
        add(made)
    return made

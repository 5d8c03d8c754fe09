"""Expressions that both dashboards ask, of the machines that are selected above the panels."""

from __future__ import annotations

from typing import Final

from grafana.panels import Line
from grafana.rules import AGGREGATOR

AT: Final = 'instance=~"$instance"'
RANGE: Final = "[$__rate_interval]"
FRESHNESS: Final = f"max(clickmill_freshness_seconds{{{AT}}})"
QUANTILES: Final = (0.5, 0.95, 0.99)


def total(metric: str) -> str:
    """The sum of a gauge."""
    return f"sum({metric}{{{AT}}})"


def highest(metric: str) -> str:
    """Its highest value: every aggregator reports the whole system's."""
    return f"max({metric}{{{AT}}})"


def rate(metric: str) -> str:
    """Per second, all machines together."""
    return f"sum(rate({metric}{{{AT}}}{RANGE}))"


def by_machine(metric: str) -> Line:
    """A line for each machine."""
    return Line(f"sum by (instance) ({metric}{{{AT}}})", "{{instance}}")


def quantile(q: float, metric: str, where: str = AT) -> str:
    """A quantile of a histogram, in seconds."""
    return f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{where}}}{RANGE})))"


def quantiles(metric: str, where: str = AT, prefix: str = "") -> list[Line]:
    """p50, p95 and p99 of a histogram."""
    return [Line(quantile(q, metric, where), f"{prefix}p{q * 100:g}") for q in QUANTILES]


def of_processes(expr: str) -> list[Line]:
    """The same of workers and aggregators, whose metrics differ in their prefix."""
    aggregators = f'{{job="{AGGREGATOR}",{AT}}}'
    return [
        Line(expr.format("clickmill_ingest_process", f"{{{AT}}}"), "ingest {{instance}}"),
        Line(expr.format("process", aggregators), "aggregator {{instance}}"),
    ]

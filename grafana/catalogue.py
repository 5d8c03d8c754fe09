"""Every metric that the code defines, read from the code itself; docs/metrics.md is made from it.

The dashboards' tests use the same list: a panel with a metric that is not in it fails.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from aggregator.http.metrics import HttpMetrics
from aggregator.writing.metrics import Metrics, register_process
from clickmill import build_info
from ingest.metrics import METHODS, ROUTES, STATUSES, NodeCollector

_SUFFIXES: Final = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
    "gauge": ("",),
}


class Known(NamedTuple):
    """A metric: `name` as a reader of /metrics sees it (a histogram without its suffixes)."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> set[str]:
        """The names of its series in an expression."""
        base = self.name
        for suffix in ("_total", "_info"):
            base = base.removesuffix(suffix) if _SUFFIXES[self.kind] == (suffix,) else base
        return {base + suffix for suffix in _SUFFIXES[self.kind]}


def ingest() -> list[Known]:
    """The metrics of a worker."""
    registry = CollectorRegistry()
    build_info.register(registry)
    with tempfile.TemporaryDirectory() as directory:
        families = list(NodeCollector(Path(directory)).collect())
    return _known([*families, *registry.collect()], {})


def aggregator() -> list[Known]:
    """The metrics of an aggregator."""
    registry = CollectorRegistry()
    Metrics(registry)
    HttpMetrics(registry)
    register_process(registry)
    labels = {
        name: tuple(getattr(collector, "_labelnames", ()))
        for collector, names in registry._collector_to_names.items()
        for name in names
    }
    return _known(registry.collect(), labels)


def _known(families: Iterable[Metric], labels: dict[str, tuple[str, ...]]) -> list[Known]:
    return [_one(family, labels) for family in sorted(families, key=lambda f: f.name)]


def _one(family: Any, labels: dict[str, tuple[str, ...]]) -> Known:
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    given = labels.get(family.name) or tuple(getattr(family, "_labelnames", ()))
    if family.type == "info":
        given = tuple(family.samples[0].labels)
    return Known(family.name + suffix, family.type, given, family.documentation)


@cache
def series() -> frozenset[str]:
    """Every name that a panel or a rule may use."""
    return frozenset(name for known in (*ingest(), *aggregator()) for name in known.series)


def page() -> str:
    """docs/metrics.md."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield from (
        "# Metrics",
        "",
        "<!-- Made by `make docs` from ingest/metrics.py, aggregator/writing/metrics.py and",
        "aggregator/http/metrics.py: change those files, not this one. -->",
        "",
        "Both ports serve them at `/metrics`, in Prometheus' text format, or in OpenMetrics if the",
        "request accepts it. Where `CLICKMILL_STATS_TOKEN` is set, both require it.",
        "No label has a banner, a source or any other unbounded value.",
        "",
        "## Ingest (port 8080)",
        "",
        "Each worker answers for all workers of its machine: the values are in memory-mapped slots",
        "that outlive the workers, so no counter goes down when a worker is replaced. The metrics",
        "of a click cost a few nanoseconds, and no lock.",
        "",
        *_table(ingest()),
        "",
        f"`route` is one of {_list(ROUTES)}; `method` one of {_list(METHODS)}; `status` one of",
        f"{_list(STATUSES)}.",
        "",
        "## Aggregator (port 8081)",
        "",
        "Each aggregator reports its own; the sum over all aggregators is the system's.",
        "",
        *_table(aggregator()),
        "",
        "`route` is the route's template, such as `/stats/{banner_id}`, or `other`.",
    )


def _list(values: Iterable[object]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _table(metrics: list[Known]) -> Iterator[str]:
    yield "| metric | type | labels | meaning |"
    yield "| --- | --- | --- | --- |"
    for known in metrics:
        meaning = known.meaning.rstrip(".") + "."
        yield f"| `{known.name}` | {known.kind} | {', '.join(known.labels)} | {meaning} |"

"""Metrics of the aggregator's HTTP side: requests and their durations.

Labels are bounded: the route's template (or "other"), known methods (or "other"), the status.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

OTHER: Final = "other"
METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class HttpMetrics:
    """What is counted of each request."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "clickmill_http_requests",
            "HTTP requests answered",
            ["method", "route", "status"],
            registry=registry,
        )
        self.duration = Histogram(
            "clickmill_http_request_duration_seconds",
            "Seconds from a request's arrival to its last byte (streams are left out)",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.listeners = Gauge(
            "clickmill_live_listeners", "Open streams of GET /live", registry=registry
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request; `route` is a template such as /stats/{banner_id}."""
        method = method if method in METHODS else OTHER
        self.requests.labels(method, route or OTHER, str(status)).inc()
        self.duration.observe(seconds)


def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """(text, content type) of all metrics: OpenMetrics where that is asked for."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type

"""What `/metrics` of the ingest port shows."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from clickmill import build_info
from ingest.metrics import NodeCollector


class Exposition:
    """The metrics of all workers of this node, as text for Prometheus."""

    def __init__(self, directory: Path) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(NodeCollector(directory))
        build_info.register(self._registry)

    def text(self, accept: str) -> tuple[str, bytes]:
        """(content type, text); OpenMetrics where asked for."""
        encode, kind = choose_encoder(accept)
        return kind, encode(self._registry)

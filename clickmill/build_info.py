"""What runs here: the labels of `clickmill_build_info`, the same on both ports."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from prometheus_client.core import InfoMetricFamily
from prometheus_client.metrics_core import Metric


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a tree that was never installed
        return "unknown"


@cache
def build() -> dict[str, str]:
    """Versions of Clickmill and of what it runs on."""
    return {
        "version": _version("clickmill"),
        "python": platform.python_version(),
        "granian": _version("granian"),
    }


class BuildInfo:
    """A prometheus-client collector of one metric that is always 1."""

    def describe(self) -> list[Metric]:
        """The metric without its values."""
        return list(self.collect())

    def collect(self) -> Iterator[Metric]:
        """The metric."""
        yield InfoMetricFamily("clickmill_build", "Versions that run here.", value=build())

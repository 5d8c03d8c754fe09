"""What runs here: the labels of `clickmill_build_info`, the same on both ports."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Info


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


def register(registry: CollectorRegistry) -> None:
    """Add the metric, which is always 1."""
    Info("clickmill_build", "Versions that run here.", registry=registry).info(build())

"""What rows cost by the number of distinct banners, and what more aggregators add: a program of
its own, among the sections."""

from __future__ import annotations

from typing import Any

from bench.harness.measure import Plan
from bench.sections import program

LONGEST_SECONDS = 3_600


def cardinality(plan: Plan) -> dict[str, Any]:
    """Pairs and rows a second, WAL, lag, lock waits, memory."""
    return program.run(plan, "bench.sections.cardinality.bench", LONGEST_SECONDS)

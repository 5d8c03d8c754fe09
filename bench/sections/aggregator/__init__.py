"""The aggregator's own bench, a program of its own, among the sections."""

from __future__ import annotations

from typing import Any

from bench.harness.measure import Plan
from bench.sections import program

LONGEST_SECONDS = 1_800


def aggregator(plan: Plan) -> dict[str, Any]:
    """(banner, count) pairs a second to the commit, and the lag with many sources.

    It chooses the length of its runs, and pins its own parts.
    """
    return program.run(plan, "bench.sections.aggregator.bench", LONGEST_SECONDS)

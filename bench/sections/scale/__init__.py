"""10,000 workers, and what each stage costs for a million pairs: a program of its own, among the
sections."""

from __future__ import annotations

from typing import Any

from bench.harness.measure import Plan
from bench.load import wrk
from bench.sections import program

LONGEST_SECONDS = 3_600


def scale(plan: Plan) -> dict[str, Any]:
    """CPU of ingest, NATS, aggregator and Postgres by frames, pairs and rows."""
    wrk.program()  # MissingProgramError now, not after half of the program
    return program.run(plan, "bench.sections.scale.bench", LONGEST_SECONDS)

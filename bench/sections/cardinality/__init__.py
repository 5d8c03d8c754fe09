"""What rows cost by the number of distinct banners, and what more aggregators add: a program of
its own, among the sections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.harness.measure import Plan
from bench.harness.servers import ROOT, ServerError

LONGEST_SECONDS = 3_600


def cardinality(plan: Plan) -> dict[str, Any]:
    """Pairs and rows a second, WAL, lag, lock waits, memory. It is given all cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        return _run(plan)
    finally:
        os.sched_setaffinity(0, cores)


def _run(plan: Plan) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "results.json"
        command = [sys.executable, "-m", "bench.sections.cardinality.bench", "--json", str(target)]
        plan.say(" ".join(command[1:3]))
        done = subprocess.run(command, cwd=ROOT, timeout=LONGEST_SECONDS, check=False)
        if done.returncode:
            raise ServerError(f"{command[2]} ended with {done.returncode}: see above")
        results: dict[str, Any] = json.loads(target.read_text())
        return results

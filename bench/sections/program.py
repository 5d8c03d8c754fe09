"""A section that is a program of its own, with all cores and lengths of its own."""

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


def run(plan: Plan, module: str, longest_seconds: float) -> dict[str, Any]:
    """Run `python -m module --json FILE` on all cores; what it wrote. Raises ServerError."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        return _run(plan, module, longest_seconds)
    finally:
        os.sched_setaffinity(0, cores)


def _run(plan: Plan, module: str, longest_seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "results.json"
        command = [sys.executable, "-m", module, "--json", str(target)]
        plan.say(" ".join(command[1:3]))
        done = subprocess.run(command, cwd=ROOT, timeout=longest_seconds, check=False)
        if done.returncode:
            raise ServerError(f"{module} ended with {done.returncode}: see above")
        results: dict[str, Any] = json.loads(target.read_text())
        return results

"""Memory of a worker, after clicks over its whole range of IDs."""

from __future__ import annotations

from typing import Any

from bench.harness import machine
from bench.harness.measure import Plan
from bench.harness.servers import LOAD_CORE
from bench.harness.system import Clickmill
from bench.load import wrk

DEFAULT_MAX, MILLION_MAX = 99_999, 999_999


def memory(plan: Plan) -> dict[str, Any]:
    """Resident bytes with the default maximum ID and with one million."""
    return {
        "default_bytes": _after_load(plan, DEFAULT_MAX),
        "million_bytes": _after_load(plan, MILLION_MAX),
    }


def _after_load(plan: Plan, max_id: int) -> int:
    with Clickmill({"MAX_BANNER_ID": str(max_id)}) as system:
        wrk.run(wrk.Load(system.port, LOAD_CORE, plan.seconds, first_id=0, last_id=max_id))
        system.wait_complete()
        resident = max(machine.resident_bytes(pid) for pid in system.clicking())
    plan.say(f"maximum ID {max_id:,}: {resident / 1e6:.1f} MB resident")
    return resident

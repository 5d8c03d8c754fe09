"""What an Idempotency-Key costs a batch: the same batches with and without one, in turns.

A batch with a key is a frame of its own, written and synced before its answer, so it takes the time
of the disk; those that wait together share one sync.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from bench.harness import machine
from bench.harness.measure import Plan, check_count, in_turns, ratios, spread
from bench.harness.servers import LOAD_CORE
from bench.harness.system import Clickmill
from bench.load import wrk

SIZES: Final = (10, 1_000)
"""Items of a batch."""
CONNECTIONS: Final = (1, 64)
MODES: Final = ("batch", "keyed")


class Variant(NamedTuple):
    """Which batches, over how many connections."""

    mode: str
    items: int
    connections: int


class Result(msgspec.Struct, frozen=True):
    """One turn: times of a batch in microseconds."""

    cpu_us: float
    helping_us: float
    rate: float
    p50_us: float
    p99_us: float


def keyed(plan: Plan) -> dict[str, Any]:
    """CPU and time for each batch, without a key and with one."""
    with Clickmill() as system:
        rows = [_row(system, plan, items, n) for items in SIZES for n in CONNECTIONS]
    return {"rows": rows}


def _row(system: Clickmill, plan: Plan, items: int, connections: int) -> dict[str, Any]:
    variants = [(mode, Variant(mode, items, connections)) for mode in MODES]

    def measure(variant: Variant) -> Result:
        return _turn(system, plan, variant)

    plain, with_key = in_turns(plan, variants, measure, _shown)
    return {
        "items": items,
        "connections": connections,
        "plain": _spreads(plain),
        "keyed": _spreads(with_key),
        "cpu_ratio": ratios(with_key, plain, lambda r: r.cpu_us),
        "p50_ratio": ratios(with_key, plain, lambda r: r.p50_us),
    }


def _turn(system: Clickmill, plan: Plan, variant: Variant) -> Result:
    load = wrk.Load(
        system.port, LOAD_CORE, plan.seconds, variant.mode, items=variant.items,
        connections=variant.connections,
    )  # fmt: skip
    before = system.total()
    clicking, helping = machine.CpuWindow(system.clicking), machine.CpuWindow(system.helping)
    result = wrk.run(load)
    used, helped = clicking.used_ns(), helping.used_ns()
    clicks = result.requests * variant.items
    check_count(before, system.total(), clicks, load.connections * variant.items)
    return Result(
        used / 1e3 / result.requests, helped / 1e3 / result.requests, result.rate, result.p50_us,
        result.p99_us,
    )  # fmt: skip


def _spreads(turns: list[Result]) -> dict[str, Any]:
    names = Result.__struct_fields__
    return {name: spread([getattr(turn, name) for turn in turns]) for name in names}


def _shown(done: Result) -> str:
    return f"{done.cpu_us:9.1f} µs a batch  {done.rate:8,.0f} batches/s  p99 {done.p99_us:9,.0f} µs"

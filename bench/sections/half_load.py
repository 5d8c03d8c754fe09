"""Sections at half of saturation: what flushing costs the slowest answers, counters on disk against
in memory, and how soon a click is in the statistics.

At half load the latency is the server's, not that of a queue before it. The rate is fixed, and a
latency begins when its request was due.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.harness import machine
from bench.harness.measure import Plan, in_turns, ratios, spread
from bench.harness.servers import LOAD_CORE, SERVER_CORE, ServerError, wait_until
from bench.harness.system import Clickmill
from bench.load import fixed_rate, wrk
from bench.load.programs import MissingProgramError
from bench.sections.prober import Prober

SATURATION_SECONDS = 2.0
MEMORY_DISK = Path("/dev/shm")
NO_FLUSH_SECONDS = 60
"""The longest flush interval: frames are sealed, synced and published at minute edges only."""
FRESHNESS_ROUND_SECONDS = 10.0
PROBED = 10_000
"""The first banner of the clicks that are followed: far from those of the load."""


def _half_rate(system: Clickmill) -> float:
    """Half of what the system takes at saturation, requests a second."""
    return wrk.run(wrk.Load(system.port, LOAD_CORE, SATURATION_SECONDS)).rate / 2


def _spreads(rounds: Sequence[fixed_rate.Fixed]) -> dict[str, Any]:
    names = ("p50_us", "p99_us", "p999_us", "max_us", "send_late_p99_us")
    spreads: dict[str, Any] = {n: spread([getattr(r, n) for r in rounds]) for n in names}
    return {**spreads, "rounds": [msgspec.to_builtins(r) for r in rounds]}


def _two_variants(
    plan: Plan, first: tuple[str, dict[str, str]], second: tuple[str, dict[str, str]]
) -> dict[str, Any]:
    """Two settings of the same system at the same fixed rate, in turns."""
    with Clickmill(first[1]) as a, Clickmill(second[1]) as b:
        rate = min(_half_rate(a), _half_rate(b))
        for system in (a, b):
            system.calm()

        def measure(system: Clickmill) -> fixed_rate.Fixed:
            return fixed_rate.run(system.port, LOAD_CORE, rate, plan.seconds)

        one, other = in_turns(plan, ((first[0], a), (second[0], b)), measure, _shown)
    return {
        "rate": rate,
        "first_name": first[0],
        "second_name": second[0],
        "first": _spreads(one),
        "second": _spreads(other),
        "p99_ratio": ratios(one, other, lambda r: r.p99_us),
        "p999_ratio": ratios(one, other, lambda r: r.p999_us),
    }


def _shown(done: fixed_rate.Fixed) -> str:
    return f"{done.rate:,.0f} clicks/s, p99 {done.p99_us:,.0f} µs, p99.9 {done.p999_us:,.0f} µs"


def tail(plan: Plan) -> dict[str, Any]:
    """With flushing each second against without."""
    without = {"FLUSH_INTERVAL": str(NO_FLUSH_SECONDS)}
    return _two_variants(plan, ("flushing each second", {}), ("no flushing", without))


def counters_place(plan: Plan) -> dict[str, Any]:
    """Counters in a file on disk against one in memory."""
    if not MEMORY_DISK.is_dir():
        raise MissingProgramError(f"{MEMORY_DISK} is missing: no place in memory to compare")
    place = {"COUNTERS_DIR": str(MEMORY_DISK / "clickmill-bench")}
    return _two_variants(plan, ("counters on disk", {}), ("counters in memory", place))


def freshness(plan: Plan) -> dict[str, Any]:
    """Seconds from a click's answer until the statistics show it, alone and under half load."""
    system = Clickmill()
    length = max(plan.seconds, FRESHNESS_ROUND_SECONDS) * plan.rounds
    try:
        # What follows a click needs a core as well: the loader leaves too little of its own, and
        # at half load the worker leaves half of the other one.
        machine.pin([*system.helping(), os.getpid()], {SERVER_CORE, LOAD_CORE})
        alone = _follow(system, length, PROBED)
        plan.say(f"{len(alone.seen)} clicks followed alone")
        rate = _half_rate(system)
        load = fixed_rate.start(system.port, LOAD_CORE, rate, length)
        loaded = _follow(system, length, 2 * PROBED)
        under_load = fixed_rate.finish(load, length)
    finally:
        machine.pin([os.getpid()], {LOAD_CORE})
        system.stop()
    plan.say(f"{len(loaded.seen)} clicks followed at {rate:,.0f} clicks/s")
    return {
        "rate": rate,
        "probes_alone": len(alone.seen),
        "alone": alone.quantiles(),
        "probes": len(loaded.seen),
        "seconds": loaded.quantiles(),
        "load": msgspec.to_builtins(under_load),
    }


def _follow(system: Clickmill, length: float, first_banner: int) -> Prober:
    """Clicks for so many seconds, until all are in the statistics. Raises ServerError."""
    prober = Prober(system.port, system.stats_port, first_banner)
    try:
        wait_until(lambda: prober.step() >= length, length + 5, "the probes are sent")
        wait_until(lambda: prober.poll() == 0, 10, "the last probes are in the statistics")
    except ServerError as error:
        raise ServerError(f"{error}: {prober.waiting} clicks are not in the statistics") from error
    return prober

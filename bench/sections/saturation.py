"""Sections at saturation, on Clickmill alone: the price, batches, IDs, scraping, two workers."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import msgspec

from bench.harness import machine
from bench.harness.measure import (
    MiscountError,
    Plan,
    Turn,
    check_count,
    in_turns,
    ratios,
    shown,
    spread,
    turn,
)
from bench.harness.servers import LOAD_CORE, SERVER_CORE
from bench.harness.system import Clickmill
from bench.load import wrk
from bench.sections.half_load import NO_FLUSH_SECONDS

BATCH_ITEMS = 1_000
MANY_IDS, FEW_IDS = 1_000_000, 10
SCRAPE_EVERY = 1.0
CLICKS_TOTAL = re.compile(r"^clickmill_clicks_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def _spreads(turns: list[Turn]) -> dict[str, Any]:
    return {
        "cpu_us": spread([t.cpu_us for t in turns]),
        "helping_us": spread([t.helping_us for t in turns]),
        "rate": spread([t.rate for t in turns]),
        "p99_us": spread([t.p99_us for t in turns]),
    }


def _compare(first: list[Turn], second: list[Turn]) -> dict[str, Any]:
    """Two variants; ratios are first over second, within each round."""
    return {
        "first": _spreads(first),
        "second": _spreads(second),
        "cpu_ratio": ratios(first, second, lambda t: t.cpu_us),
        "rate_ratio": ratios(first, second, lambda t: t.rate),
        "p99_ratio": ratios(first, second, lambda t: t.p99_us),
    }


class _ByTheMinute(Clickmill):
    """One that flushes at minute edges alone: its clicks are counted by its own `/metrics`."""

    def __init__(self) -> None:
        """With the longest flush interval."""
        super().__init__({"FLUSH_INTERVAL": str(NO_FLUSH_SECONDS)})

    def total(self) -> int:
        """Clicks counted by the worker: to see them in Postgres takes until the next minute."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            found = CLICKS_TOTAL.search(answer.read().decode())
        if found is None:
            raise MiscountError("/metrics has no clickmill_clicks_total")
        return int(float(found[1]))


def price(plan: Plan) -> dict[str, Any]:
    """What exactness costs: sealing, syncing, publishing each second against not doing it."""
    with Clickmill() as each_second, _ByTheMinute() as by_the_minute:
        return _in_turns(
            plan, ("flushing each second", each_second), ("no flushing", by_the_minute)
        )


def _in_turns(plan: Plan, *systems: tuple[str, Clickmill]) -> dict[str, Any]:
    """Turns of two systems under the same load."""

    def measure(system: Clickmill) -> Turn:
        return turn(system, wrk.Load(system.port, LOAD_CORE, plan.seconds))

    return _compare(*in_turns(plan, systems, measure, shown))


def batch(plan: Plan) -> dict[str, Any]:
    """`POST /clicks` with 1,000 items: clicks for each second of the worker's CPU."""
    with Clickmill() as system:
        rounds = [_batch_round(system, plan, number) for number in range(1, plan.rounds + 1)]
    return {
        "items": BATCH_ITEMS,
        "clicks_per_cpu_second": spread([per_cpu for per_cpu, _ in rounds]),
        "clicks_per_second": spread([per_second for _, per_second in rounds]),
    }


def _batch_round(system: Clickmill, plan: Plan, number: int) -> tuple[float, float]:
    load = wrk.Load(system.port, LOAD_CORE, plan.seconds, "batch", items=BATCH_ITEMS)
    wrk.run(msgspec.structs.replace(load, seconds=1.0))
    before = system.total()
    window = machine.CpuWindow(system.clicking)
    result = wrk.run(load)
    used = window.used_ns()
    clicks = result.requests * BATCH_ITEMS
    check_count(before, system.total(), clicks, load.connections * BATCH_ITEMS)
    per_cpu, per_second = clicks / (used / 1e9), clicks / result.seconds
    plan.say(f"round {number} of {plan.rounds}  {per_cpu:,.0f} clicks a second of CPU")
    return per_cpu, per_second


def many_ids(plan: Plan) -> dict[str, Any]:
    """A million IDs at random against ten, on the same system in turns."""
    with Clickmill({"MAX_BANNER_ID": str(MANY_IDS - 1)}) as system:

        def measure(ids: int) -> Turn:
            load = wrk.Load(system.port, LOAD_CORE, plan.seconds, first_id=0, last_id=ids - 1)
            return turn(system, load)

        ids = (("many IDs", MANY_IDS), ("ten IDs", FEW_IDS))
        return {"many": MANY_IDS, "few": FEW_IDS, **_compare(*in_turns(plan, ids, measure, shown))}


def scrape(plan: Plan) -> dict[str, Any]:
    """`/metrics` scraped each second against not at all."""
    took: list[float] = []
    with Clickmill() as system:
        url = f"http://127.0.0.1:{system.port}/metrics"
        load = wrk.Load(system.port, LOAD_CORE, plan.seconds)

        def measure(scraped: bool) -> Turn:
            with _scraper(url, took.append) if scraped else nullcontext():
                return turn(system, load)

        turns = in_turns(plan, (("scraped", True), ("alone", False)), measure, shown)
        idle_ms = [_scrape_once(url) for _ in range(20)]
    return {"answer_ms": spread(took), "answer_idle_ms": spread(idle_ms), **_compare(*turns)}


def _scrape_once(url: str) -> float:
    """Milliseconds that one answer takes."""
    start = time.perf_counter()
    with urllib.request.urlopen(url, timeout=5) as answer:
        answer.read()
    return (time.perf_counter() - start) * 1e3


@contextmanager
def _scraper(url: str, note: Callable[[float], None]) -> Iterator[None]:
    """Scrape a URL each second in a thread."""
    over = threading.Event()

    def scrape_on() -> None:
        while not over.wait(SCRAPE_EVERY):
            note(_scrape_once(url))

    thread = threading.Thread(target=scrape_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def workers(plan: Plan) -> dict[str, Any]:
    """Two workers, the second on the load's core, against one."""
    with Clickmill(worker_cores=(SERVER_CORE, LOAD_CORE)) as two, Clickmill() as one:
        return _in_turns(plan, ("two workers", two), ("one worker", one))

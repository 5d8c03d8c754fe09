"""10,000 workers, and what each stage costs by frames, pairs and rows.

    make bench ONLY=scale
    python -m bench.sections.scale.bench [--sources 10000] [--seconds 30] [--json FILE]

Real nats-server with its usual sync_interval, as on a separate server, Postgres with its usual
durability, one `python -m aggregator`; nothing is pinned. After each run, the clicks in Postgres
must be those that were sent, else there are no results.

    crowd   so many simulated workers, a frame and a status a second each, all over one connection;
            lag is the age of a worker's last committed frame, over all workers, sampled about once
            a second after the first three (it includes the second between two frames)
    costs   CPU of nats-server, aggregator and Postgres, and bytes of WAL, for frames of few and of
            many pairs, of few and of many banners, sent as fast as NATS takes them
    ingest  CPU of the counters, sealer and shipper of a real worker in a process without HTTP:
            sealed, synced to disk, published and acknowledged, one frame after the other
    click   CPU of a worker for each click over HTTP, at saturation (needs wrk)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import psycopg

from bench.harness.machine import CpuWindow, tree
from bench.harness.measure import MiscountError, Plan, in_turns, shown, spread, turn
from bench.harness.servers import LOAD_CORE, ServerError
from bench.harness.system import Clickmill
from bench.load import wrk
from bench.sections.aggregator.bench import empty, say, servers_for
from bench.sections.aggregator.parts import Aggregator, Servers, wait_for
from bench.sections.scale.frames import Load
from bench.sections.scale.load import Progress, crowd, worker

SOURCES: Final = 10_000
CROWD_PAIRS: Final = 10
CROWD_BANNERS: Final = 10_000
SECONDS: Final = 30.0
SIZES: Final = (1, 10, 100, 1_000)
"""Pairs of a frame."""
BANNERS: Final = (10_000, 1_000_000)
MOST_FRAMES: Final = 100_000
MOST_PAIRS: Final = 20_000_000
INGEST_FRAMES: Final = 2_000
INGEST_BANNERS: Final = 100_000
CLICK_PLAN: Final = Plan(5, 6.0, print)
LOOK_EVERY_S: Final = 0.93
"""Not a part of a second: each look finds the workers at another point between two frames."""
WARM_UP_S: Final = 3.0
"""Until then, marks are still those of the first frames."""
COMMIT_TIMEOUT_S: Final = 300.0

_WAL: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8"
_AGES: Final = "SELECT extract(epoch FROM clock_timestamp() - sealed_at)::float8 FROM source"
_MARKS: Final = "SELECT count(*), coalesce(sum(total), 0)::bigint FROM source"
_CLICKS: Final = "SELECT coalesce(sum(clicks), 0)::bigint FROM banner_minute"

Results = dict[str, Any]
Entry = Callable[[str, Path, Load, Progress], None]


class Meter:
    """What the stages use while a load runs."""

    def __init__(self, servers: Servers, running: Aggregator, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._running = running
        nats, postgres = servers.pids()
        self._nats = CpuWindow(lambda: tree(nats))
        self._postgres = CpuWindow(lambda: tree(postgres))
        self._first, self._began = self._counters(), time.monotonic()
        self._ages: list[float] = []
        self._resident = 0

    def _counters(self) -> dict[str, float]:
        return {
            "aggregator": self._running.cpu_seconds(),
            "rows": self._running.metric("clickmill_rows_written_total"),
            "wal_bytes": self._one(_WAL),
        }

    def _one(self, query: str) -> float:
        row = self._connection.execute(query.encode()).fetchone()
        return float(row[0]) if row else 0.0

    def look(self) -> None:
        """Take the age of each worker's mark, and the memory of the aggregator."""
        self._ages += [age for (age,) in self._connection.execute(_AGES).fetchall()]
        self._resident = max(self._resident, self._running.resident())

    def results(self) -> Results:
        """CPU seconds of each stage, rows, bytes of WAL, and what was looked at."""
        last = self._counters()
        found: Results = {name: last[name] - first for name, first in self._first.items()}
        found["nats"] = self._nats.used_ns() / 1e9
        found["postgres"] = self._postgres.used_ns() / 1e9
        found["seconds"] = time.monotonic() - self._began
        for q in (50, 99):
            found[f"lag_p{q}_seconds"] = float(np.percentile(self._ages or [math.nan], q))
        return found | {"aggregator_mb": self._resident / 1e6}

    def close(self) -> None:
        self._connection.close()


def check_exact(sent: int, dsn: str) -> None:
    """Every click that was sent is in Postgres, once. Raises MiscountError."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(_CLICKS).fetchone()
    if not row or row[0] != sent:
        raise MiscountError(f"{sent:,} clicks were sent, and {row and row[0]:,} are in Postgres")


@contextlib.contextmanager
def child_of(entry: Entry, *arguments: Any) -> Iterator[BaseProcess]:
    """A load's process, which is ended with the block."""
    child = multiprocessing.get_context("fork").Process(target=entry, args=arguments, daemon=True)
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def run(servers: Servers, folder: Path, entry: Entry, load: Load) -> Results:
    """A load from its first frames to its last commit: counts, and CPU seconds of each stage."""
    dsn, progress = servers.database(), Progress()
    home = folder / dsn.rpartition("/")[2].partition("?")[0]
    home.mkdir()
    running = Aggregator(servers.nats_url, dsn, home / "aggregator.log", alone=False)
    try:
        wait_for(running.ready)
        with child_of(entry, servers.nats_url, home, load, progress) as child:
            wait_committed(dsn, child, progress, load.sources)
            first, meter = progress.sent, Meter(servers, running, dsn)
            progress.go.set()
            sending = watch(meter, child, looking=load.per_second < math.inf)
            wait_committed(dsn, child, progress, load.sources)
        found = meter.results()
        meter.close()
        check_exact(progress.sent[0], dsn)
    finally:
        running.close()
        asyncio.run(empty(servers.nats_url))
    clicks, frames, cpu = (now - then for now, then in zip(progress.sent, first, strict=True))
    return {
        "pairs_per_frame": load.clicks, "banners": load.banners, "frames": frames, "pairs": clicks,
        "frames_per_second": frames / sending, "sending_seconds": sending, "ingest": cpu, **found,
    }  # fmt: skip


def wait_committed(dsn: str, child: BaseProcess, progress: Progress, sources: int) -> None:
    """Wait until all sources have a mark, and all clicks sent are committed."""

    def committed() -> bool:
        if child.exitcode:
            raise ServerError(f"the load's process ended with {child.exitcode}: see above")
        return connection.execute(_MARKS).fetchone() == (sources, progress.sent[0])

    with psycopg.connect(dsn, autocommit=True) as connection:
        wait_for(committed, COMMIT_TIMEOUT_S)


def watch(meter: Meter, child: BaseProcess, looking: bool) -> float:
    """Seconds until the load's process has sent everything."""
    began = time.monotonic()
    while child.is_alive():
        child.join(LOOK_EVERY_S)
        if looking and child.is_alive() and time.monotonic() - began > WARM_UP_S:
            meter.look()
    return time.monotonic() - began


# --- the parts of the section -----------------------------------------------------------------


def crowd_of(servers: Servers, folder: Path, given: argparse.Namespace) -> Results:
    """So many workers for a while; cores of each stage."""
    frames = int(given.sources * given.seconds)
    load = Load(given.sources, given.pairs, given.crowd_banners, frames, given.sources)
    found = run(servers, folder, crowd, load)
    seconds = found["sending_seconds"]
    kept = ("pairs_per_frame", "banners", "frames_per_second", "lag_p50_seconds",
            "lag_p99_seconds", "aggregator_mb")  # fmt: skip
    return {
        "workers": given.sources, "pairs_per_second": found["pairs"] / seconds,
        "rows_per_second": found["rows"] / seconds, **{name: found[name] for name in kept},
        **{f"{name}_cores": found[name] / seconds for name in ("nats", "aggregator", "postgres")},
    }  # fmt: skip


def cost_of(servers: Servers, folder: Path, pairs: int, banners: int, most: int) -> Results:
    """Frames of so many pairs, sent as fast as NATS takes them; CPU seconds of each stage."""
    frames = min(most, MOST_PAIRS // pairs)
    found = run(servers, folder, crowd, Load(min(SOURCES, frames), pairs, banners, frames))
    names = ("pairs_per_frame", "banners", "frames", "pairs", "rows", "frames_per_second", "nats",
             "aggregator", "postgres", "wal_bytes")  # fmt: skip
    return {name: found[name] for name in names}


def ingest_of(servers: Servers, folder: Path, pairs: int, frames: int) -> Results:
    """One worker's sealing and shipping; its CPU seconds."""
    found = run(servers, folder, worker, Load(1, pairs, INGEST_BANNERS, frames))
    return {name: found[name] for name in ("pairs_per_frame", "frames", "pairs", "ingest")}


def click(plan: Plan) -> Results:
    """CPU of a worker for a click, as in the other sections."""
    with Clickmill() as system:
        load = wrk.Load(system.port, LOAD_CORE, plan.seconds)
        turns = in_turns(plan, [("click", system)], lambda each: turn(each, load), shown)[0]
    return msgspec.to_builtins(spread([each.cpu_us for each in turns]))  # type: ignore[no-any-return]


def main() -> None:
    """Entry of `python -m bench.sections.scale.bench`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sources", type=int, default=SOURCES, help="workers of the crowd")
    parser.add_argument("--pairs", type=int, default=CROWD_PAIRS, help="of a frame of the crowd")
    parser.add_argument("--crowd-banners", type=int, default=CROWD_BANNERS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the crowd")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="pairs of a frame")
    parser.add_argument("--banners", type=int, nargs="*", default=BANNERS)
    parser.add_argument("--frames", type=int, default=MOST_FRAMES, help="most of a run of costs")
    parser.add_argument("--ingest-frames", type=int, default=INGEST_FRAMES)
    parser.add_argument("--no-click", action="store_true", help="where wrk is missing")
    given = parser.parse_args()
    results: Results = {}
    with servers_for("2m", alone=False) as (servers, folder):
        results["crowd"] = [say(crowd_of(servers, folder, given))]
        results["costs"] = [
            say(cost_of(servers, folder, pairs, banners, given.frames))
            for pairs in given.sizes
            for banners in given.banners
        ]
        results["ingest"] = [
            say(ingest_of(servers, folder, pairs, given.ingest_frames)) for pairs in given.sizes
        ]
    if not given.no_click:
        results["click_us"] = click(CLICK_PLAN)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

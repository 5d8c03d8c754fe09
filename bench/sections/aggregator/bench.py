"""The aggregator's throughput, in pairs a second and core to the commit, and its lag by sources.

    python -m bench.sections.aggregator.bench [--json FILE] [--seconds 20] [--sources 1000 10000]

All parts are the real ones: nats-server, Postgres with every commit synced, `python -m
aggregator` pinned to the first core, and a generator that publishes ready-made frames of 100
banners from the last core, where NATS and Postgres are too. No workers, no HTTP.

    pairs   a backlog of frames in the stream; from the first commit to the last:
            (banner, count) pairs for each second of the aggregator's CPU, and of the clock
    store   the same frames without NATS: decode, fold and commit in this process
    lag     N sources, one frame a second each: seconds from sealing a frame until its mark is
            committed; the highest value of any source, without the first three seconds. Each
            source also asks for its mark once a second, as workers do. Measured twice: with
            nats-server's usual sync_interval, as on a separate server, and with `always`, as
            `clickmill up` starts it: each message is then synced to disk, and the disk is the
            limit (see generator_late_seconds).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from nats.aio.msg import Msg

from aggregator.writing.message import read
from aggregator.writing.store import Store
from bench.harness.machine import pin
from bench.sections.aggregator.parts import (
    BANNERS,
    STREAM_BYTES,
    Aggregator,
    Maker,
    Publisher,
    Servers,
    last_core,
    wait_for,
)
from clickmill import bus, messages, wire
from clickmill.stream import StreamOptions, ensure_stream

BACKLOG_SOURCES: Final = 500
BACKLOG_FRAMES: Final = 60_000
STORE_BATCH: Final = 1000
DRAIN_TIMEOUT_S: Final = 300
WARM_UP_S: Final = 3
RAMP: Final = (500, 1000, 2000, 3000, 4000, 6000, 8000, 10_000)
LAG_LIMIT_S: Final = 3.0
LOOK_EVERY_S: Final = 0.25
YIELD_EVERY: Final = 64

_OLDEST: Final = "SELECT extract(epoch FROM now() - min(sealed_at))::float8, count(*) FROM source"

Results = dict[str, Any]


# --- pairs a second and core ------------------------------------------------------------------


async def fill(nats_url: str, frames: int) -> float:
    """Put a backlog into the stream; the frames a second that NATS took."""
    client = await bus.connect(nats_url, "bench")
    await ensure_stream(client.jetstream(), StreamOptions(STREAM_BYTES))
    publisher, maker = Publisher(client), Maker(BACKLOG_SOURCES)
    await publisher.start()
    began = time.monotonic()
    for n in range(frames):
        await publisher.publish(maker.frame(maker.sources[n % BACKLOG_SOURCES]))
    await publisher.all_acknowledged()
    seconds = time.monotonic() - began
    await bus.close(client)
    return frames / seconds


def pairs(servers: Servers, folder: Path, frames: int) -> Results:
    """A backlog, consumed by the real process."""
    taken = asyncio.run(fill(servers.nats_url, frames))
    running = Aggregator(servers.nats_url, servers.database(), folder / "aggregator.log")
    try:
        wait_for(lambda: running.metric("clickmill_pairs_committed_total") > 0)
        first = running.metric("clickmill_pairs_committed_total")
        cpu, began = running.cpu_seconds(), time.monotonic()
        whole = frames * BANNERS
        wait_for(
            lambda: running.metric("clickmill_pairs_committed_total") >= whole, DRAIN_TIMEOUT_S
        )
        cpu, seconds = running.cpu_seconds() - cpu, time.monotonic() - began
        done = whole - first
        return {
            "pairs_per_cpu_second": done / cpu,
            "pairs_per_second": done / seconds,
            "cpu_us_per_frame": cpu / (done / BANNERS) * 1e6,
            "frames": int(done / BANNERS),
            "nats_frames_per_second_in": taken,
        }
    finally:
        running.close()


async def store(dsn: str, frames: int) -> Results:
    """The same without NATS: bytes in memory to the commit, in this process."""
    maker, writer = Maker(BACKLOG_SOURCES), Store(dsn)
    messages = [
        Msg(None, wire.delta_subject(f.source), "", wire.encode(f))  # type: ignore[arg-type]
        for f in (maker.frame(maker.sources[n % BACKLOG_SOURCES]) for n in range(frames))
    ]
    await writer.apply([read(m, 0).arrival for m in messages[:STORE_BATCH]])
    cpu, began = time.process_time(), time.monotonic()
    for start in range(STORE_BATCH, frames, STORE_BATCH):
        applied = await writer.apply(
            [read(m, 0).arrival for m in messages[start : start + STORE_BATCH]]
        )
        assert not applied.quarantine
    cpu, seconds = time.process_time() - cpu, time.monotonic() - began
    await writer.close()
    done = (frames - STORE_BATCH) * BANNERS
    return {
        "store_pairs_per_cpu_second": done / cpu,
        "store_pairs_per_second": done / seconds,
        "store_frames_per_batch": STORE_BATCH,
    }


# --- lag by the number of sources -------------------------------------------------------------


async def generate(nats_url: str, sources: int, seconds: float, late: Any) -> None:
    """Each source seals and publishes a frame a second, spread evenly, and asks for its mark."""
    client = await bus.connect(nats_url, "bench")
    publisher, maker = Publisher(client), Maker(sources)
    await publisher.start()
    began = time.monotonic()
    for n in range(int(seconds * sources)):
        due = began + n / sources
        if due > time.monotonic() or n % YIELD_EVERY == 0:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        late.value = time.monotonic() - due
        source = maker.sources[n % sources]
        frame = maker.frame(source)
        await publisher.publish(frame)
        status = messages.SourceStatus(source, frame.seq, frame.sealed_at)
        await client.publish(wire.COMMITTED_SUBJECT, msgspec.json.encode(status), reply="bench.x")
    await bus.close(client)


def generator(nats_url: str, sources: int, seconds: float, late: Any) -> None:
    """Entry of the generator's process."""
    pin([os.getpid()], {last_core()})
    asyncio.run(generate(nats_url, sources, seconds, late))


def lag(servers: Servers, folder: Path, sources: int, seconds: float) -> Results:
    """The worst age of any source's last committed frame, less the second between its frames."""
    dsn = servers.database()
    running = Aggregator(servers.nats_url, dsn, folder / f"aggregator-{sources}.log")
    late = multiprocessing.Value("d", 0.0)
    child = multiprocessing.Process(
        target=generator, args=(servers.nats_url, sources, seconds, late), daemon=True
    )
    try:
        wait_for(running.ready)
        cpu = running.cpu_seconds()
        child.start()
        lags, behind = watch(dsn, sources, child, late, seconds)
        cpu = running.cpu_seconds() - cpu
        return {
            "sources": sources,
            "lag_seconds": max(lags),
            "lag_median_seconds": statistics.median(lags),
            "generator_late_seconds": behind,
            "aggregator_cores": cpu / seconds,
        }
    finally:
        if child.pid is not None:
            child.kill()
        running.close()
        asyncio.run(empty(servers.nats_url))


async def empty(nats_url: str) -> None:
    """Remove what a round left in the stream."""
    client = await bus.connect(nats_url, "bench")
    await client.jetstream().delete_stream(wire.STREAM)
    await bus.close(client)


def watch(
    dsn: str, sources: int, child: multiprocessing.Process, late: Any, seconds: float
) -> tuple[list[float], float]:
    """(lags, how late the generator was at worst), sampled while it works."""
    lags, behind, began = [], 0.0, time.monotonic()
    with psycopg.connect(dsn, autocommit=True) as connection:
        while child.is_alive() and time.monotonic() - began < seconds - 0.5:
            time.sleep(LOOK_EVERY_S)
            if time.monotonic() - began < WARM_UP_S:
                continue
            row = connection.execute(_OLDEST).fetchone()
            assert row is not None
            behind = max(behind, late.value)
            lags.append(max(0.0, row[0] - 1.0) if row[1] == sources else math.inf)
    return lags or [math.inf], behind


def lags_up_to(servers: Servers, folder: Path, wanted: list[int], seconds: float) -> list[Results]:
    """The wanted numbers; where one fails, the steps below it, to find the highest that holds."""
    rows = []
    for sources in wanted:
        rows.append(say(lag(servers, folder, sources, seconds)))
        if rows[-1]["lag_seconds"] >= LAG_LIMIT_S:
            below = [n for n in RAMP if n < sources and n not in wanted]
            for step in reversed(below):
                rows.append(say(lag(servers, folder, step, seconds)))
                if rows[-1]["lag_seconds"] < LAG_LIMIT_S:
                    break
    return rows


def _shown(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{name} {value:,.2f}"
    return f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"


def say(results: Results) -> Results:
    """Print a row as it is measured."""
    print("  ".join(_shown(*pair) for pair in results.items()), flush=True)
    return results


@contextlib.contextmanager
def servers_for(sync: str, alone: bool = True) -> Iterator[tuple[Servers, Path]]:
    """Fresh servers in a folder of their own; `sync` is nats-server's sync_interval."""
    with tempfile.TemporaryDirectory(prefix="clickmill-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        servers = Servers(folder, sync, alone)
        try:
            yield servers, folder
        finally:
            servers.close()


def main() -> None:
    """Entry of `python -m bench.sections.aggregator.bench`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each number of sources")
    parser.add_argument("--frames", type=int, default=BACKLOG_FRAMES, help="of the backlog")
    parser.add_argument("--sources", type=int, nargs="*", default=[1000, 10_000])
    given = parser.parse_args()
    with servers_for("2m") as (servers, folder):
        results = say(pairs(servers, folder, given.frames))
        results |= say(asyncio.run(store(servers.database(), given.frames)))
    with servers_for("2m") as (servers, folder):
        print("lag, nats-server with its usual sync_interval of 2 minutes:")
        results["lag"] = lags_up_to(servers, folder, given.sources, given.seconds)
    with servers_for("always") as (servers, folder):
        print("lag, nats-server with sync_interval always, as `clickmill up` starts it:")
        results["lag_synced"] = lags_up_to(servers, folder, given.sources, given.seconds)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

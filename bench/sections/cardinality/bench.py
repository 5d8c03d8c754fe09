"""Rows by the number of distinct banners, with one, two and three aggregators.

    make bench ONLY=cardinality
    python -m bench.sections.cardinality.bench [--banners 100000] [--aggregators 1 3] [--json FILE]

Real nats-server, Postgres with its usual durability, `python -m aggregator`; nothing is pinned, so
all share the machine's cores.

    backlog  frames of 300 sources in the stream; from when the consumers may deliver them, the
             shards being shared out, to the last commit: pairs and rows a second, WAL bytes a
             click, the share of samples in which a writer waited for a lock, the largest resident
             memory of an aggregator
    steady   two sources, so many distinct banners each second out of a number; the age of the older
             source's last committed frame, sampled four times a second (it includes the second
             between two frames), WAL bytes a click, the largest resident memory

Full pages are in the WAL once after each checkpoint: a short run has all of them or none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg

from bench.harness.servers import ServerError
from bench.sections.aggregator.bench import empty, say, servers_for
from bench.sections.aggregator.parts import (
    STREAM_BYTES,
    Aggregator,
    Publisher,
    Servers,
    wait_for,
)
from bench.sections.cardinality.frames import Draws
from clickmill import bus, wire
from clickmill.stream import StreamOptions, ensure_stream

SOURCES: Final = 300
PAIRS: Final = 36_000_000
BANNERS: Final = (100, 10_000, 100_000, 1_000_000)
AGGREGATORS: Final = (1, 2, 3)
FRAME_PAIRS: Final = 1_000
STEADY: Final = ((100_000, 50_000), (1_000_000, 16_667), (1_000_000, 100_000), (1_000_000, 300_000))
STEADY_S: Final = 30.0
WARM_UP_S: Final = 8.0
DRAIN_TIMEOUT_S: Final = 300.0
PAUSE: Final = timedelta(minutes=10)
STEADY_LOOK_S: Final = 0.25
STEADY_SOURCES: Final = 2

_WAITS: Final = """
SELECT CASE wait_event_type WHEN 'Lock' THEN wait_event END, count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'clickmill writer' AND state <> 'idle'
GROUP BY 1
"""
_WAL: Final = """
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, wal_fpi * 8192 FROM pg_stat_wal
"""
_AGE: Final = "SELECT extract(epoch FROM now() - min(sealed_at))::float8, count(*) FROM source"

Results = dict[str, Any]


class Samples:
    """What is looked at while aggregators work."""

    def __init__(self, dsn: str, running: list[Aggregator]) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._running = running
        self._waits: Counter[str | None] = Counter()
        self.resident = 0
        self._wal = self._wal_bytes()

    def _wal_bytes(self) -> tuple[int, int]:
        row = self._connection.execute(_WAL).fetchone() or (0, 0)
        return int(row[0]), int(row[1])

    def look(self) -> None:
        """Take one sample."""
        self._waits.update(dict(self._connection.execute(_WAITS).fetchall()))
        self.resident = max(self.resident, *(each.resident() for each in self._running))

    def age(self) -> tuple[float, int]:
        """(age of the oldest mark in seconds, sources that have one)."""
        row = self._connection.execute(_AGE).fetchone() or (None, 0)
        return row[0] or 0.0, row[1]

    def results(self, clicks: float) -> Results:
        """What was seen since the beginning."""
        (wal, pages), (first, first_pages) = self._wal_bytes(), self._wal
        return {
            "wal_bytes_per_click": (wal - first) / max(clicks, 1),
            "of_which_full_pages": (pages - first_pages) / max(clicks, 1),
            "lock_waits": 1 - self._waits[None] / max(self._waits.total(), 1),
            "waits": {name: count for name, count in self._waits.items() if name},
            "aggregator_mb": self.resident / 1e6,
        }

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def aggregators(
    servers: Servers, folder: Path, dsn: str, number: int
) -> Iterator[list[Aggregator]]:
    """So many, which share all cores."""
    running = [
        Aggregator(servers.nats_url, dsn, folder / f"{n}.log", alone=False) for n in range(number)
    ]
    try:
        yield running
    finally:
        for each in running:
            each.close()


def total(running: list[Aggregator], name: str) -> float:
    """A counter, over all aggregators."""
    return sum(each.metric(f"clickmill_{name}_total") for each in running)


def shared_out(running: list[Aggregator]) -> bool:
    """Whether each pulls its part of the shards."""
    shards = [each.metric("clickmill_shards_owned") for each in running]
    return sum(shards) == wire.SHARDS and max(shards) - min(shards) <= 1


async def pause_until(nats_url: str, until: datetime) -> None:
    """Let the consumers of all shards deliver nothing before this time."""
    client = await bus.connect(nats_url, "bench")
    for shard in range(wire.SHARDS):
        api = f"$JS.API.CONSUMER.PAUSE.{wire.STREAM}.{bus.consumer_name(shard)}"
        reply = await client.request(api, json.dumps({"pause_until": until.isoformat()}).encode())
        if error := json.loads(reply.data).get("error"):
            raise ServerError(f"nats-server: {error}")
    await bus.close(client)


async def fill(nats_url: str, banners: int, pairs: int) -> int:
    """Put a backlog into the stream; its pairs."""
    client = await bus.connect(nats_url, "bench")
    await ensure_stream(client.jetstream(), StreamOptions(STREAM_BYTES))
    publisher, draws, sent = Publisher(client), Draws(SOURCES, banners), 0
    await publisher.start()
    while sent < pairs:
        for source in draws.sources:
            for frame in draws.frames(source, FRAME_PAIRS):
                sent += len(frame.ids) // 4
                await publisher.publish(frame)
    await publisher.all_acknowledged()
    await bus.close(client)
    return sent


def backlog(servers: Servers, folder: Path, banners: int, number: int, pairs: int) -> Results:
    """A backlog, consumed by so many aggregators, which have shared out the shards."""
    dsn = servers.database()
    with aggregators(servers, folder, dsn, number) as running:
        wait_for(lambda: all(each.ready() for each in running) and shared_out(running))
        asyncio.run(pause_until(servers.nats_url, datetime.now(UTC) + PAUSE))
        whole = asyncio.run(fill(servers.nats_url, banners, pairs))
        if total(running, "pairs_committed"):
            raise ServerError("the consumers delivered although they were paused")
        samples, began = Samples(dsn, running), time.monotonic()
        asyncio.run(pause_until(servers.nats_url, datetime.now(UTC)))

        def done() -> bool:
            samples.look()
            return total(running, "pairs_committed") >= whole

        wait_for(done, DRAIN_TIMEOUT_S)
        seconds = time.monotonic() - began
        found = {
            "banners": banners, "aggregators": number, "pairs": whole,
            "pairs_per_second": whole / seconds,
            "rows_per_second": total(running, "rows_written") / seconds,
            **samples.results(whole),
        }  # fmt: skip
        samples.close()
    asyncio.run(empty(servers.nats_url))
    return found


async def _seal(nats_url: str, banners: int, rate: int, seconds: float, sent: Any) -> None:
    client = await bus.connect(nats_url, "bench")
    publisher, draws = Publisher(client), Draws(STEADY_SOURCES, banners)
    await publisher.start()
    began = time.monotonic()
    for second in range(int(seconds)):
        for n, source in enumerate(draws.sources):
            due = began + second + n / STEADY_SOURCES
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for frame in draws.frames(source, rate // STEADY_SOURCES):
                await publisher.publish(frame)
                sent.value += len(frame.ids) // 4
    await bus.close(client)


def generator(nats_url: str, banners: int, rate: int, seconds: float, sent: Any) -> None:
    """Entry of the generator's process."""
    asyncio.run(_seal(nats_url, banners, rate, seconds, sent))


def steady(servers: Servers, folder: Path, banners: int, rate: int, seconds: float) -> Results:
    """Two workers that send so many distinct banners a second together; one aggregator."""
    dsn, sent = servers.database(), multiprocessing.Value("d", 0.0)
    child = multiprocessing.Process(
        target=generator, args=(servers.nats_url, banners, rate, seconds, sent), daemon=True
    )
    with aggregators(servers, folder, dsn, 1) as running:
        wait_for(running[0].ready)
        child.start()
        time.sleep(WARM_UP_S)
        ages, found = watch(dsn, child, running)
        child.join()
    asyncio.run(empty(servers.nats_url))
    age = {f"age_p{q}_seconds": float(np.percentile(ages, q)) for q in (50, 99)}
    return {
        "banners": banners, "distinct_per_second": rate, "sent_per_second": sent.value / seconds,
        **age, **found,
    }  # fmt: skip


def watch(
    dsn: str, child: multiprocessing.Process, running: list[Aggregator]
) -> tuple[list[float], Results]:
    """(ages of the older source's mark, what was seen), while the generator works."""
    samples, ages = Samples(dsn, running), []
    first = total(running, "pairs_committed")
    while child.is_alive():
        time.sleep(STEADY_LOOK_S)
        samples.look()
        age, sources = samples.age()
        ages.append(age if sources == STEADY_SOURCES else float("inf"))
    found = samples.results(total(running, "pairs_committed") - first)
    samples.close()
    return ages, found


def main() -> None:
    """Entry of `python -m bench.sections.cardinality.bench`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--banners", type=int, nargs="*", default=BANNERS)
    parser.add_argument("--aggregators", type=int, nargs="*", default=AGGREGATORS)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of the backlog")
    parser.add_argument("--seconds", type=float, default=STEADY_S, help="of each steady run")
    parser.add_argument("--rates", nargs="*", metavar="BANNERS:RATE", help="of the steady runs",
                        default=[f"{banners}:{rate}" for banners, rate in STEADY])  # fmt: skip
    given = parser.parse_args()
    results: Results = {"backlog": [], "steady": []}
    with servers_for("2m", alone=False) as (servers, folder):
        for banners in given.banners:
            for number in given.aggregators:
                row = say(backlog(servers, folder, banners, number, given.pairs))
                results["backlog"].append(row)
        for text in given.rates:
            drawn, rate = map(int, text.split(":"))
            results["steady"].append(say(steady(servers, folder, drawn, rate, given.seconds)))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""Loads of the section `scale`: many simulated workers, or one worker's real sealing and shipping.

Each load is a process of its own. It sends a first frame of each source, waits until it is told to
go on, and sends the rest: what the first frame of a source costs is not measured.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import uvloop

from bench.harness.servers import ServerError
from bench.sections.aggregator.parts import STREAM_BYTES, Publisher
from bench.sections.scale.frames import Frames, Load
from clickmill import bus, messages, wire
from clickmill.stream import StreamOptions, ensure_stream
from ingest.durable.source import Source
from ingest.metrics import Slot
from ingest.shipping.limits import Limits
from ingest.shipping.nats_link import NatsLink
from ingest.shipping.payload import MaxPayload
from ingest.shipping.sealer import Sealer
from ingest.shipping.shipper import Shipper

GO_TIMEOUT_S: Final = 120.0
YIELD_EVERY: Final = 64
LOOK_EVERY_S: Final = 0.0005
SPOOL_BYTES: Final = 1 << 30
KEEP_S: Final = 900.0
RESEND_S: Final = 60.0


class Progress:
    """What a load's process reports to the one that measures."""

    def __init__(self) -> None:
        self.go = multiprocessing.Event()
        self._clicks: Any = RawValue("q", 0)
        self._frames: Any = RawValue("q", 0)
        self._cpu: Any = RawValue("d", 0.0)

    def add(self, clicks: int, frames: int = 1, cpu: float = 0.0) -> None:
        """Count what was sent, and the CPU seconds that it took the worker."""
        self._clicks.value += clicks
        self._frames.value += frames
        self._cpu.value += cpu

    @property
    def sent(self) -> tuple[int, int, float]:
        """(clicks, frames, CPU seconds), so far."""
        return self._clicks.value, self._frames.value, self._cpu.value

    async def told_to_go(self) -> None:
        """Wait for `go`. Raises ServerError where it does not come."""
        if not await asyncio.to_thread(self.go.wait, GO_TIMEOUT_S):
            raise ServerError("the first frames were not committed in time")


# --- many simulated workers -------------------------------------------------------------------


class _Crowd:
    """Simulated workers: each frame goes with a status, as a worker sends one a second."""

    def __init__(self, client: Any, load: Load, progress: Progress) -> None:
        self._client, self._load, self._progress = client, load, progress
        self._frames = Frames(load)
        self._publisher = Publisher(client)

    async def run(self) -> None:
        """The first frame of each source, and then the load."""
        await ensure_stream(self._client.jetstream(), StreamOptions(STREAM_BYTES))
        await self._publisher.start()
        for _ in range(self._load.sources):
            await self._send()
        await self._progress.told_to_go()
        await self._rest()
        await self._publisher.all_acknowledged()

    async def _rest(self) -> None:
        began = time.monotonic()
        for n in range(self._load.frames):
            due = began + n / self._load.per_second
            if due > time.monotonic() or n % YIELD_EVERY == 0:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._send()

    async def _send(self) -> None:
        frame = self._frames.next()
        await self._publisher.publish(frame)
        status = messages.SourceStatus(frame.source, frame.seq, frame.sealed_at)
        data = msgspec.json.encode(status)
        await self._client.publish(wire.COMMITTED_SUBJECT, data, reply="bench.x")
        self._progress.add(len(frame.ids) // 4)


async def _crowd(nats_url: str, load: Load, progress: Progress) -> None:
    client = await bus.connect(nats_url, "bench")
    await _Crowd(client, load, progress).run()
    await bus.close(client)


def crowd(nats_url: str, folder: Path, load: Load, progress: Progress) -> None:
    """Entry of the process of simulated workers."""
    uvloop.run(_crowd(nats_url, load, progress))


# --- one real worker, without HTTP ------------------------------------------------------------


class _Worker:
    """The counters, sealer and shipper of an ingest worker; a frame goes out, then the next."""

    def __init__(self, root: Path, nats_url: str, load: Load) -> None:
        stream, slot = StreamOptions(STREAM_BYTES), Slot(root / "meters")
        limits = Limits(1.0, SPOOL_BYTES, KEEP_S, RESEND_S, stream, "bench")
        self.source = Source.create(root, load.banners, SPOOL_BYTES, None)
        self.link = NatsLink(nats_url, "bench", MaxPayload(root / "max_payload"), stream)
        self.shipper = Shipper(self.source, limits.outbox(mark=0), slot, stream, "bench")
        self._sealer = Sealer(self.source, self.shipper.outbox, self.shipper.disk, slot)
        self._chance, self._load = np.random.default_rng(1), load

    async def frame(self) -> tuple[int, int, float]:
        """(clicks, frames, CPU seconds) of counting a second's clicks, sealing and publishing; the
        CPU is without the counting."""
        counters, before = self._sealer.counters, self.source.sealed_seq
        _, clicks, banners, *_ = self._load
        ids = self._chance.choice(banners, clicks, replace=False, shuffle=False)
        for banner in ids.tolist():
            counters.hit(banner)
        began = time.process_time()
        if not await self._sealer.seal():
            raise ServerError(self._sealer.trouble)
        self.shipper.wake()
        while self.shipper.outbox.acknowledged < self.source.sealed_seq:  # noqa: ASYNC110  (no event)
            await asyncio.sleep(LOOK_EVERY_S)
        cpu = time.process_time() - began
        return len(ids), self.source.sealed_seq - before, cpu


async def _worker(nats_url: str, folder: Path, load: Load, progress: Progress) -> None:
    worker = _Worker(folder, nats_url, load)
    tasks = [asyncio.create_task(each) for each in
             (worker.link.run(), worker.link.ship(worker.shipper))]  # fmt: skip
    progress.add(*await worker.frame())
    await progress.told_to_go()
    for _ in range(load.frames):
        progress.add(*await worker.frame())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def worker(nats_url: str, folder: Path, load: Load, progress: Progress) -> None:
    """Entry of the process of one real worker."""
    uvloop.run(_worker(nats_url, folder, load, progress))

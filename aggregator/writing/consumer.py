"""Pull → decode → batch → commit → acknowledge, in that order and no other.

The consumer owns what was delivered and not yet committed. It gathers a batch, hands it to the
store, which returns only after the commit, and only then acknowledges each message and
broadcasts the marks. A frame whose turn has not come is retained (see `reorder`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec
import nats.errors
from nats.aio.msg import Msg

from aggregator.writing.batch_metrics import record
from aggregator.writing.completeness import Progress
from aggregator.writing.fold import MAX_BATCH_FRAMES, Arrival, Verdict, source_of
from aggregator.writing.message import Delivery, read
from aggregator.writing.metrics import Metrics
from aggregator.writing.newer import NewerSources
from aggregator.writing.pull import PULL_BYTES, PULL_MESSAGES, Puller
from aggregator.writing.reorder import ReorderBuffer
from aggregator.writing.store import Applied, Store
from clickmill import bus, messages, wire
from clickmill.connection import Connection
from clickmill.failpoints import failpoint
from clickmill.stream import StreamOptions

# How long a batch waits for more frames after its first. Workers flush once a second: a few
# hundredths are not noticed, and save a commit for each worker.
LINGER_S: Final = 0.03
BACKLOG_FRAMES: Final = 500
# Frames below a sender's first available seq count as lost after this long; by then JetStream has
# delivered again, several times, whatever it still had.
LOST_AFTER_S: Final = 3 * bus.ACK_WAIT_S
# About 170,000 pairs: should they all be of different banners, still a few seconds of upserts.
MAX_BATCH_BYTES: Final = 2 * 1024 * 1024
SEND_ERRORS: Final = (nats.errors.Error, OSError)

log = logging.getLogger("clickmill.consumer")


class _Load:
    """Frames of one shard that are not in a batch yet."""

    def __init__(self) -> None:
        self.frames = self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether no more may be asked for."""
        return self.frames >= PULL_MESSAGES or self.bytes >= PULL_BYTES


class Consumer:
    """Carries deltas from the assigned shards into the store."""

    def __init__(
        self, connection: Connection, store: Store, progress: Progress, metrics: Metrics,
        stream: StreamOptions,
    ) -> None:  # fmt: skip
        self._connection, self._store = connection, store
        self._progress, self._metrics = progress, metrics
        self._puller = Puller(connection, self._receive, stream)
        self._waiting: deque[Delivery] = deque()
        self._load = [_Load() for _ in range(wire.SHARDS)]
        self._reordered = ReorderBuffer()
        self.shards: set[int] = set()
        """The shards that are pulled here."""
        self._newer = NewerSources()
        self._idle = asyncio.Event()
        self._idle.set()
        self._arrived = asyncio.Event()
        self._closing: deque[messages.SourceStatus] = deque(maxlen=MAX_BATCH_FRAMES)

    async def start(self) -> None:
        """Subscribe; nothing is pulled before `assign`."""
        await self._puller.start()

    def assign(self, shard: int) -> None:
        """Begin with a shard."""
        self.shards.add(shard)
        self._reordered.assign(shard)
        self._puller.assign(shard)

    async def revoke(self, shard: int) -> None:
        """Give a shard up; what is here already is still committed."""
        await self._puller.revoke(shard)
        self._reordered.revoke(shard)
        self.shards.discard(shard)
        self._metrics.sources_waiting.set(self._reordered.sources)

    async def stop(self) -> None:
        """Stop pulling, and return once all that is here is committed and acknowledged."""
        await self._puller.revoke_all()
        await self._idle.wait()

    @property
    def trouble(self) -> dict[int, str]:
        """Which of the own shards can't be pulled at present, and why."""
        return self._puller.trouble

    @property
    def newer(self) -> int:
        """How many sources wait for an aggregator of a newer release."""
        return self._newer.count()

    @property
    def buffered(self) -> int:
        """Frames in this process that are not committed."""
        return len(self._waiting) + self._reordered.frames

    @property
    def pending(self) -> int:
        """Messages of the own shards that the stream still had at the last delivery."""
        return sum(self._puller.pending.values())

    def close_source(self, status: messages.SourceStatus) -> None:
        """Have a source marked closed, in its turn between two batches."""
        self._closing.append(status)
        self._arrived.set()

    async def run(self) -> None:
        """Batch after batch, until cancelled."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(LINGER_S)
            self._arrived.clear()
            while self._waiting:
                await self._one_batch()
                if len(self._waiting) < BACKLOG_FRAMES:
                    break  # a trickle: let it gather again
            if self._waiting:
                self._arrived.set()
            else:
                self._idle.set()
            await self._close_sources()

    # --- in -------------------------------------------------------------------------------------

    def _receive(self, message: Msg, shard: int) -> None:
        try:
            delivery = read(message, shard)
        except wire.NewerFrameError as error:
            self._newer.saw(message.subject, error)
            return
        self._waiting.append(delivery)
        load = self._load[shard]
        load.frames += 1
        load.bytes += len(message.data)
        if load.full:
            self._puller.hold_back(shard, full=True)
        self._idle.clear()
        self._arrived.set()

    def _gather(self) -> list[Delivery]:
        """The next batch: what came in, and what is retained of the same sources."""
        batch: list[Delivery] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH_FRAMES // 2 and size < MAX_BATCH_BYTES:
            delivery = self._waiting.popleft()
            load = self._load[delivery.shard]
            load.frames -= 1
            load.bytes -= len(delivery.arrival.raw)
            size += len(delivery.arrival.raw)
            batch.append(delivery)
        for shard, load in enumerate(self._load):
            if not load.full:
                self._puller.hold_back(shard, full=False)
        retained = self._reordered.pop({delivery.arrival.source for delivery in batch})
        room = MAX_BATCH_FRAMES - len(batch)
        for delivery in retained[room:]:
            self._reordered.retain(delivery, time.monotonic())
        return batch + retained[:room]

    def _arrivals(self, batch: list[Delivery]) -> list[Arrival]:
        """A floor counts only after a gap has lasted: what the sender has no more may still be
        on its way to us, delivered again."""
        now = time.monotonic()
        return [
            arrival
            if arrival.floor == 1
            or self._reordered.waiting_for(arrival.source, now) >= LOST_AFTER_S
            else arrival._replace(floor=1)
            for arrival, *_ in batch
        ]

    # --- out ------------------------------------------------------------------------------------

    async def _one_batch(self) -> None:
        batch = self._gather()
        applied = await self._store.apply(self._arrivals(batch))
        self._progress.committed(applied.marks)
        record(self._metrics, batch, applied)
        late = [d for d, v in zip(batch, applied.verdicts, strict=True) if v is Verdict.GAP]
        done = [d for d, v in zip(batch, applied.verdicts, strict=True) if v is not Verdict.GAP]
        shed = self._retain(late)
        self._reordered.gap_closed(delivery.arrival.source for delivery in done)
        failpoint("aggregator.acknowledge")
        await self._acknowledge(done + shed)
        failpoint("aggregator.broadcast")
        await self._broadcast(done, applied)

    def _retain(self, late: list[Delivery]) -> list[Delivery]:
        """Retain frames until their turn; return those that are shed for want of room."""
        now = time.monotonic()
        overflow = [shed for delivery in late for shed in self._reordered.retain(delivery, now)]
        if overflow:
            log.warning("%d frames behind gaps left to the workers' spools", len(overflow))
            self._metrics.shed.inc(len(overflow))
        self._metrics.sources_waiting.set(self._reordered.sources)
        return overflow

    async def _acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Take committed messages off the stream; what fails comes again, as a duplicate."""
        try:
            for delivery in deliveries:
                await self._connection.publish(delivery.reply)
        except SEND_ERRORS as error:
            log.debug("acknowledging: %s", error)

    async def _broadcast(self, deliveries: list[Delivery], applied: Applied) -> None:
        try:
            done = {source_of(delivery.arrival) for delivery in deliveries}
            for source, mark in applied.marks.items():
                if source in done:
                    payload = msgspec.json.encode(messages.Committed(mark.last_seq, mark.total))
                    await self._connection.publish(wire.committed_subject(source), payload)
        except SEND_ERRORS as error:
            log.debug("broadcasting: %s", error)

    async def _close_sources(self) -> None:
        while self._closing:
            status = self._closing.popleft()
            try:
                closed = await self._store.close_source(status.source, status.seq)
                if closed is not None:
                    payload = msgspec.json.encode(closed)
                    await self._connection.publish(wire.committed_subject(status.source), payload)
            except Exception as error:  # the worker asks again
                log.debug("closing source %s: %s", status.source, error)
                return

"""Pull → decode → batch → commit → acknowledge, in that order and no other.

The consumer owns what was delivered and not yet committed. It gathers a batch, for as long as
`pace` says, hands it to the store, which returns only after the commit, and only then acknowledges
each message and broadcasts the marks. A frame whose turn has not come is retained (see `reorder`).
"""

from __future__ import annotations

import asyncio
import contextlib
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
from aggregator.writing.inbox import Inbox
from aggregator.writing.message import Delivery, read
from aggregator.writing.metrics import Metrics
from aggregator.writing.newer import NewerSources
from aggregator.writing.pace import LINGER_S, Pace
from aggregator.writing.pull import Puller, shard_in
from aggregator.writing.reorder import ReorderBuffer
from aggregator.writing.store import Applied, Store
from clickmill import bus, messages, wire
from clickmill.connection import Connection
from clickmill.failpoints import failpoint
from clickmill.stream import StreamOptions

# Frames below a sender's first available seq count as lost after this long; by then JetStream has
# delivered again, several times, whatever it still had.
LOST_AFTER_S: Final = 3 * bus.ACK_WAIT_S
# JetStream delivers again what is neither acknowledged nor in progress for ACK_WAIT_S, and at once
# what is refused.
IN_PROGRESS: Final = b"+WPI"
REFUSED: Final = b"-NAK"
IN_PROGRESS_EVERY_S: Final = bus.ACK_WAIT_S / 3
SEND_ERRORS: Final = (nats.errors.Error, OSError)

log = logging.getLogger("clickmill.consumer")


class Consumer:
    """Carries deltas from the assigned shards into the store."""

    def __init__(
        self, connection: Connection, store: Store, progress: Progress, metrics: Metrics,
        stream: StreamOptions, longest_s: float,
    ) -> None:  # fmt: skip
        """`longest_s`: the most seconds from the beginning of a commit to that of the next."""
        self._connection, self._store = connection, store
        self._progress, self._metrics = progress, metrics
        self._puller = Puller(connection, self._receive, stream)
        self._pace = Pace(longest_s)
        self._waiting = Inbox()
        self._held_back: set[int] = set()
        self._writing: list[Delivery] = []
        self._reordered = ReorderBuffer()
        self.shards: set[int] = set()
        """The shards that are pulled here."""
        self._newer = NewerSources()
        self._idle = asyncio.Event()
        self._idle.set()
        self._arrived = asyncio.Event()
        self._urgent = asyncio.Event()
        """What is here is to be committed without waiting for more."""
        self._closing: deque[messages.SourceStatus] = deque(maxlen=MAX_BATCH_FRAMES)

    async def start(self) -> None:
        """Subscribe; nothing is pulled before `assign`."""
        await self._puller.start()
        await self._connection.subscribe(f"{wire.DIRECT_PREFIX}.>", self._on_direct)

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
        self._urgent.set()
        self._metrics.sources_waiting.set(self._reordered.sources)

    async def lose(self, shards: set[int]) -> None:
        """Give up shards whose leases are gone: their next aggregator is to have at once what is
        here. Postgres may still come back for it: then it counts once, as every frame does."""
        await asyncio.gather(*(self.revoke(shard) for shard in shards))
        held = [d for d in (*self._writing, *self._waiting) if d.shard in shards]
        await self._send_all(held, REFUSED, "refusing")

    async def stop(self) -> None:
        """Stop pulling, and return once all that is here is committed and acknowledged."""
        await self._puller.revoke_all()
        self._urgent.set()
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
        self._urgent.set()

    async def run(self) -> None:
        """Batch after batch, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_in_progress())
            tasks.create_task(self._write())

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            await self._linger()
            self._arrived.clear()
            while self._waiting:
                await self._one_batch()
                if not self._waiting.full and self._pace.wait(time.monotonic()) > 0:
                    break
            if self._waiting:
                self._arrived.set()
            else:
                self._idle.set()
            await self._close_sources()

    async def _linger(self) -> None:
        """Let frames gather until the next commit is due, or enough are here."""
        await asyncio.sleep(LINGER_S)
        left = self._pace.wait(time.monotonic())
        if left > 0 and not self._waiting.full:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._urgent.wait()
        self._urgent.clear()

    async def _keep_in_progress(self) -> None:
        """Tell JetStream that what has been here for a while is being worked on.

        Not what came by a shard that was revoked: its next aggregator is to have it.
        """
        while True:
            await asyncio.sleep(IN_PROGRESS_EVERY_S)
            before = time.monotonic() - IN_PROGRESS_EVERY_S
            held = [d for d in (*self._writing, *self._waiting) if d.received < before]
            ours = [delivery for delivery in held if delivery.shard in self.shards]
            await self._send_all(ours, IN_PROGRESS, "reporting progress")

    # --- in -------------------------------------------------------------------------------------

    def _receive(self, message: Msg, shard: int) -> None:
        try:
            delivery = read(message, shard)
        except wire.NewerFrameError as error:
            self._newer.saw(message.subject, error)
            return
        self._waiting.put(delivery)
        self._hold_back()
        frame = delivery.arrival.frame
        if self._waiting.full or (frame is not None and frame.closed):
            self._urgent.set()  # a worker that has closed its source waits for the commit
        self._idle.clear()
        self._arrived.set()

    async def _on_direct(self, message: Msg) -> None:
        """A frame that came past the stream. Where there is no room, it is sent again."""
        shard = shard_in(message.subject)
        if self._puller.is_pulling(shard) and not self._waiting.full:
            self._metrics.direct.inc()
            self._receive(message, shard)

    def _hold_back(self) -> None:
        """Ask for no more of the shards of which enough waits."""
        full = self._waiting.full_shards()
        for shard in full ^ self._held_back:
            self._puller.hold_back(shard, full=shard in full)
        self._held_back = set(full)

    def _gather(self) -> list[Delivery]:
        """The next batch: what came in, and what is retained of the same sources."""
        batch = self._waiting.take()
        self._hold_back()
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
        began = time.monotonic()
        batch = self._writing = self._gather()
        applied = await self._store.apply(self._arrivals(batch))
        self._pace.committed(began, time.monotonic(), applied.rows)
        self._metrics.interval.set(self._pace.interval)
        self._progress.committed(applied.marks)
        record(self._metrics, batch, applied)
        late = [d for d, v in zip(batch, applied.verdicts, strict=True) if v is Verdict.GAP]
        done = [d for d, v in zip(batch, applied.verdicts, strict=True) if v is not Verdict.GAP]
        shed = self._retain(late)
        self._reordered.gap_closed(delivery.arrival.source for delivery in done)
        failpoint("aggregator.acknowledge")
        await self._acknowledge(done + shed)
        self._writing = []
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
        await self._send_all(deliveries, b"", "acknowledging")

    async def _send_all(self, deliveries: Iterable[Delivery], answer: bytes, what: str) -> None:
        """Answer JetStream for each of these; what it does not get is delivered again later."""
        try:
            for delivery in deliveries:
                if delivery.reply:
                    await self._connection.publish(delivery.reply, answer)
        except SEND_ERRORS as error:
            log.debug("%s: %s", what, error)

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

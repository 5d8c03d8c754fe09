"""One source's way to Postgres: publish in order, hear what is committed, trim.

Why one object for each source: a worker delivers its own and every one that it has adopted, each
at its own pace, by the same few steps. The rules are `outbox`'s; this is their connection, clock
and disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import time
from typing import Final

import msgspec
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import NoStreamResponseError

from clickmill import bus, wire
from clickmill.connection import Connection
from clickmill.failpoints import failpoint
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source
from ingest.metrics import Slot
from ingest.shipping.stream_repair import StuckStream

PUBLISH_TIMEOUT_S: Final = 5.0
STATUS_TIMEOUT_S: Final = 1.0
STATUS_EVERY_S: Final = 1.0
SETTLED_STATUS_EVERY_S: Final = 10.0
BACKOFF_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
READ_TRIES: Final = 20
"""Tries at a frame that the disk refuses to read, over half a minute, until it counts as lost."""
TROUBLE_AFTER_S: Final = 10.0
"""How long no frame must have been taken until readiness tells: a restart takes less."""
LOG_EVERY_S: Final = 10.0

log = logging.getLogger("clickmill.delivery")

_encode: Final = msgspec.json.Encoder().encode
_decode_committed: Final = msgspec.json.Decoder(wire.Committed).decode


class Delivery:
    """Brings the frames of one source to JetStream and forgets them when Postgres has them."""

    def __init__(self, source: Source, outbox: Outbox, slot: Slot, stream_max_bytes: int) -> None:
        self.source, self.outbox = source, outbox
        self.disk = asyncio.Lock()
        self._slot, self._stream_max_bytes = slot, stream_max_bytes
        self._wake = asyncio.Event()
        self._nothing_due = asyncio.Event()
        self._closing = False
        self._unread = 0
        self._stuck = StuckStream()
        self._failing_since: float | None = None
        self._log_after = 0.0
        self.trouble = ""
        """Why NATS takes no frame of this source, and what to do about it; "" while it does."""
        self.too_large = False
        """Whether that is because the next frame is larger than the server's max_payload."""

    def wake(self) -> None:
        """There is something new to send."""
        self._wake.set()

    async def all_sent(self) -> None:
        """Wait until nothing is due to be sent, or can't be for want of a connection."""
        self._nothing_due.clear()
        self.wake()
        await self._nothing_due.wait()

    async def run(self, connection: Connection) -> None:
        """Deliver until the source needs nothing any more (an adopted one), or until cancelled."""
        subject = wire.committed_subject(self.source.id)
        subscription = await connection.subscribe(subject, self._on_committed)
        tasks = [
            asyncio.create_task(self._send_for_ever(connection)),
            asyncio.create_task(self._report_until_done(connection)),
        ]
        try:
            # Sending never ends by itself: where it does it has failed, and its error is told.
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await connection.unsubscribe(subscription)

    # --- sending ------------------------------------------------------------------------------

    async def _send_for_ever(self, connection: Connection) -> None:
        failures = 0
        while True:
            due = self.outbox.next_to_publish() if connection.is_connected else None
            if due is None:
                self._well()
                self._nothing_due.set()
                await self._sleep(STATUS_EVERY_S)
            elif await self._publish(connection, *due):
                failures = 0
            else:
                pause = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
                failures += 1
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # jitter

    async def _sleep(self, seconds: float) -> None:
        """Until woken, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _publish(self, connection: Connection, seq: int, floor: int) -> bool:
        """One try at one frame; whether it needs none any more."""
        try:
            data = self.source.spool.read(seq)
            self._unread = 0
        except (KeyError, FileNotFoundError, wire.FrameError) as error:
            self._lose(seq, error)
            return True
        except OSError as error:
            return self._cannot_read(seq, error)
        if not await self._fits(connection, seq, len(data)):
            return False
        headers = {wire.MSG_ID_HEADER: wire.message_id(self.source.id, seq, self.outbox.resends)}
        if floor:
            headers[wire.FLOOR_HEADER] = str(floor)
        failpoint("ingest.publish")
        subject, began = wire.delta_subject(self.source.id), time.monotonic()
        try:
            jetstream = connection.jetstream(PUBLISH_TIMEOUT_S)
            await jetstream.publish(subject, data, stream=wire.STREAM, headers=headers)
        except Exception as error:  # whatever it is: the frame is still in the spool
            await self._failed(connection, error, connection.was_refused(subject, began))
            return False
        self._stuck.took()
        self._well()
        self.outbox.acknowledge(seq)
        failpoint("ingest.acknowledged")
        return True

    def _well(self) -> None:
        self._failing_since, self.trouble, self.too_large = None, "", False

    def _in_trouble(self, why: str) -> None:
        if why != self.trouble:
            log.error("%s", why)
        self.trouble = why

    async def _fits(self, connection: Connection, seq: int, size: int) -> bool:
        """Whether the server takes a message of this size. A frame never changes: where it does
        not, an operator has to raise the limit."""
        needed = size + wire.HEADERS_BYTES
        self.too_large = needed > connection.max_payload
        if self.too_large:
            self._in_trouble(
                f"frame {seq} of {self.source.id} has {size} bytes and NATS takes messages of "
                f"{connection.max_payload}: set max_payload of the NATS server to {needed} or more"
            )
            await connection.renew()
        return not self.too_large

    async def _failed(self, connection: Connection, error: Exception, refused: bool) -> None:
        self._slot.add("clickmill_publish_failures")
        self._complain("a frame was not published (%s); trying again", error)
        self._note_trouble(error, refused)
        with contextlib.suppress(Exception):
            if isinstance(error, NoStreamResponseError | NoRespondersError):
                await bus.ensure_stream(connection.jetstream(), self._stream_max_bytes)
            elif refused:
                self._stuck.took()  # it is us that it refuses: the stream may be well
            elif isinstance(error, NatsTimeoutError):
                await self._look_whether_stuck(connection)

    def _note_trouble(self, error: Exception, refused: bool) -> None:
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if refused:
            self._in_trouble(
                f"this worker may not publish to {wire.delta_subject(self.source.id)}: allow "
                f"{wire.DELTAS_PREFIX}.> in the permissions of its NATS user"
            )
        elif now - self._failing_since >= TROUBLE_AFTER_S:
            self._in_trouble(f"NATS takes no frames ({bus.words(error)}): they wait in the spool")

    async def _look_whether_stuck(self, connection: Connection) -> None:
        if await self._stuck.timed_out(connection.jetstream(), time.monotonic()):
            log.error("the stream took nothing for long (a full disk?): made again; frames that "
                      "went with it are sent again")  # fmt: skip

    def _cannot_read(self, seq: int, error: OSError) -> bool:
        """A process with too many open files will read it later; a disk that says so for long
        has lost it. Whether the frame needs no further try."""
        self._complain("a frame can't be read (%s); trying again", error)
        self._unread += 1
        if error.errno != errno.EIO or self._unread < READ_TRIES:
            return False
        self._unread = 0
        self._lose(seq, error)
        return True

    def _lose(self, seq: int, error: Exception) -> None:
        """A frame that was readable is not any more: say so, and go on behind the hole."""
        log.error("%s: frame %d can't be read (%s)", self.source.directory, seq, error)
        self._slot.add("clickmill_spool_damages")
        self.source.spool.note_loss(seq, str(error))
        self.outbox.lost(seq)

    # --- hearing ------------------------------------------------------------------------------

    async def _on_committed(self, message: Msg) -> None:
        self._hear(message.data)

    def _hear(self, data: bytes) -> None:
        try:
            committed = _decode_committed(data)
        except msgspec.DecodeError as error:
            self._complain("a mark can't be read (%s): is the aggregator of this version?", error)
            return
        self.outbox.committed(committed.seq, time.monotonic())
        self.wake()

    async def _report_until_done(self, connection: Connection) -> None:
        while True:
            heard = connection.is_connected and await self._report(connection)
            await self._trim()
            if heard and self._is_done():
                return
            busy = self.outbox.outstanding or self.source.counters is not None
            await asyncio.sleep(STATUS_EVERY_S if busy or not heard else SETTLED_STATUS_EVERY_S)

    async def _report(self, connection: Connection) -> bool:
        """Tell the aggregators how far this source is, and hear its mark; whether one answered."""
        try:
            reply = await connection.request(
                wire.COMMITTED_SUBJECT, _encode(self._status()), STATUS_TIMEOUT_S
            )
        except Exception:  # no aggregator, no connection: the next report is a second away
            return False
        self._hear(reply.data)
        if self.outbox.check_progress(time.monotonic()):
            self._slot.add("clickmill_resends")
            log.warning(
                "%s: Postgres stands at seq %s while NATS took more: sent again from there",
                self.source.id, self.outbox.mark,
            )  # fmt: skip
            self.wake()
        return True

    def _status(self) -> wire.SourceStatus:
        counters, source = self.source.counters, self.source
        as_of = time.time_ns() if counters is None else counters.idle_as_of()
        closed = self._closing or counters is None
        return wire.SourceStatus(source.id, source.sealed_seq, as_of, closed, source.created_at)

    async def close(self, connection: Connection) -> None:
        """Say that this source is closed, if all of its clicks are sealed."""
        counters = self.source.counters
        self._closing = counters is None or counters.idle_as_of() > 0
        await self._report(connection)

    async def _trim(self) -> None:
        through = self.outbox.trim(time.monotonic())
        if not through:
            return
        try:
            async with self.disk:
                self.source.spool.trim(through)
        except OSError as error:  # the next trim removes it too
            self._complain("a segment of the spool can't be removed (%s)", error)

    def _is_done(self) -> bool:
        return self.source.counters is None and not self.outbox.held

    def _complain(self, text: str, error: Exception) -> None:
        if time.monotonic() >= self._log_after:
            self._log_after = time.monotonic() + LOG_EVERY_S
            log.warning(text, error or type(error).__name__)

"""Brings one source to Postgres: publish in order, learn what is committed, trim.

Why one object for each source: a worker ships its own and every one that it has adopted, each at
its own pace, by the same few steps. The rules are in `outbox`; this is their connection, clock and
disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from typing import Final

import msgspec
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import NoStreamResponseError

from clickmill import bus, messages, wire
from clickmill.connection import Connection
from clickmill.failpoints import failpoint
from clickmill.retry import Backoff, Throttle, first_line
from clickmill.stream import ReplicasError, StreamOptions, ensure_stream
from ingest.durable.counters_file import boot_id
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source
from ingest.metrics import Slot
from ingest.shipping.direct import Direct
from ingest.shipping.stream_repair import StuckStream

PUBLISH_TIMEOUT_S: Final = 2.0
STATUS_TIMEOUT_S: Final = 1.0
STATUS_EVERY_S: Final = 1.0
IDLE_STATUS_EVERY_S: Final = 10.0
READ_TRIES: Final = 20
"""Tries at a frame that the disk refuses to read, over half a minute, until it counts as lost."""
TROUBLE_AFTER_S: Final = 10.0
"""How long no frame must have been taken until readiness reports it: a restart takes less."""

log = logging.getLogger("clickmill.shipper")

_encode: Final = msgspec.json.Encoder().encode
_decode_committed: Final = msgspec.json.Decoder(messages.Committed).decode


class Shipper:
    """Brings the frames of one source to JetStream and forgets them when Postgres has them."""

    def __init__(
        self, source: Source, outbox: Outbox, slot: Slot, stream: StreamOptions, node: str = ""
    ) -> None:
        self.source, self.outbox = source, outbox
        self.disk = asyncio.Lock()
        self._slot, self._stream = slot, stream
        self._node, self._machine = node, boot_id()
        self._wake = asyncio.Event()
        self._closing = self._closed = False
        self._unread = 0
        self._stuck, self._direct = StuckStream(), Direct(source, outbox)
        self._failing_since: float | None = None
        self._warnings = Throttle()
        self.trouble = ""
        """Why NATS takes no frame of this source, and what to do about it; "" while it does."""
        self.too_large = False
        """Whether that is because the next frame is larger than the server's max_payload."""
        self.is_closed = False
        """Whether `close` has done its work."""

    def wake(self) -> None:
        """There is something new to send."""
        self._wake.set()

    async def run(self, connection: Connection) -> None:
        """Ship until the source needs nothing any more (an adopted one), or until cancelled."""
        subject = wire.committed_subject(self.source.id)
        subscription = await connection.subscribe(subject, self._on_committed)
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send_forever(connection))
                directly = group.create_task(self._direct.run(connection))
                await self._report_until_done(connection)
                sending.cancel()
                directly.cancel()
        finally:
            await connection.unsubscribe(subscription)

    # --- sending ------------------------------------------------------------------------------

    async def _send_forever(self, connection: Connection) -> None:
        backoff = Backoff()
        while True:
            due = self.outbox.next_to_publish() if connection.is_connected else None
            if due is None:
                self._well()
                await self._sleep(STATUS_EVERY_S)
            elif await self._publish(connection, *due):
                backoff.succeeded()
            else:
                await asyncio.sleep(backoff.pause())

    async def _sleep(self, seconds: float) -> None:
        """Until woken, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _publish(self, connection: Connection, seq: int, first_available: int) -> bool:
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
        if first_available:
            headers[wire.FLOOR_HEADER] = str(first_available)
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
        self._direct.needed.clear()

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
                await self._make_stream(connection)
            elif refused:
                self._stuck.took()  # it is us that it refuses: the stream may be well
            elif isinstance(error, NatsTimeoutError):
                await self._look_whether_stuck(connection)

    async def _make_stream(self, connection: Connection) -> None:
        try:
            await ensure_stream(connection.jetstream(), self._stream)
        except ReplicasError as error:
            self._in_trouble(str(error))

    def _note_trouble(self, error: Exception, refused: bool) -> None:
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if refused:
            self._in_trouble(
                f"this worker may not publish to {wire.delta_subject(self.source.id)}: allow "
                f"{wire.DELTAS_PREFIX}.> in the permissions of its NATS user"
            )
            return
        self._direct.needed.set()
        if now - self._failing_since >= TROUBLE_AFTER_S:
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
        """A frame that was readable is not any more: say so, and go on behind it."""
        log.error("%s: frame %d can't be read (%s)", self.source.directory, seq, error)
        self._slot.add("clickmill_spool_damages")
        self.source.spool.note_loss(seq, str(error))
        self.outbox.lost(seq)

    # --- what is committed --------------------------------------------------------------------

    async def _on_committed(self, message: Msg) -> None:
        self._apply_mark(message.data)

    def _apply_mark(self, data: bytes) -> None:
        try:
            committed = _decode_committed(data)
        except msgspec.DecodeError as error:
            self._complain("a mark can't be read (%s): is the aggregator of this version?", error)
            return
        self._closed |= committed.closed
        self.outbox.committed(committed.seq, time.monotonic())
        self.wake()

    async def _report_until_done(self, connection: Connection) -> None:
        while True:
            answered = await self._report(connection)
            await self._trim()
            if answered and self._is_done():
                return
            busy = self.outbox.outstanding or not self.source.is_sealed
            await asyncio.sleep(STATUS_EVERY_S if busy or not answered else IDLE_STATUS_EVERY_S)

    async def _report(self, connection: Connection) -> bool:
        """Send this source's heartbeat to the aggregators; whether one answered with its mark."""
        try:
            reply = await connection.request(
                wire.COMMITTED_SUBJECT, _encode(self._status()), STATUS_TIMEOUT_S
            )
        except Exception:  # no aggregator, no connection: the next report is a second away
            return False
        self._apply_mark(reply.data)
        if self.outbox.check_progress(time.monotonic()):
            self._slot.add("clickmill_resends")
            log.warning(
                "%s: Postgres has frames up to seq %s while NATS took more: sent again from there",
                self.source.id, self.outbox.mark,
            )  # fmt: skip
            self.wake()
        return True

    def _status(self) -> messages.SourceStatus:
        source, as_of = self.source, self.source.idle_as_of()
        closed = self._closing or source.is_sealed
        return messages.SourceStatus(
            source.id, source.sealed_seq, as_of, closed, source.created_at, self._node,
            self._machine,
        )  # fmt: skip

    async def close(self, connection: Connection) -> bool:
        """Report this source as closed, if all of its clicks are sealed; whether it is now closed
        in Postgres, with every frame committed."""
        self._closing = self.source.is_sealed or self.source.idle_as_of() > 0
        self.wake()
        answered = await self._report(connection)
        # A source that never sealed a frame has no row that could be closed.
        self.is_closed = answered and self._closing and self._committed_all()
        return self.is_closed

    def _committed_all(self) -> bool:
        last = self.source.sealed_seq
        return last == 0 or (self._closed and (self.outbox.mark or 0) >= last)

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
        return self.source.is_sealed and not self.outbox.held

    def _complain(self, text: str, error: Exception) -> None:
        if self._warnings.allows(time.monotonic()):
            log.warning(text, first_line(error))

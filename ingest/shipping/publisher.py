"""The loop of a worker behind its clicks: seal, publish, trim, adopt, once each flush interval.

Why one place: it owns the connection to NATS and the life of every source of this process. What
is decided in it is only when; the rules are in `outbox`, the files in `source`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from clickmill import bus, wire
from clickmill.connection import Connection
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source, adopt
from ingest.durable.spool import SpoolError
from ingest.http.redirects import Targets, decode_targets
from ingest.http.responses import Answer
from ingest.metrics import Slot
from ingest.shipping.payload import MaxPayload
from ingest.shipping.sealer import Sealer
from ingest.shipping.shipper import Delivery

ADOPT_EVERY_S: Final = 5.0
TARGETS_EVERY_S: Final = 30.0
TARGETS_RETRY_S: Final = 1.0
MAX_OUTSTANDING: Final = 10
"""Frames on their way until sealing slows down to once a minute."""
REQUEST_TIMEOUT_S: Final = 5.0
MAX_FIRST_RESEND: Final = 10**9
MAX_TROUBLES: Final = 3
"""Sources whose trouble readiness tells: there may be hundreds with the same."""

log = logging.getLogger("clickmill.publisher")


class Limits(NamedTuple):
    """What the settings say: seconds and bytes."""

    flush_interval: float
    spool_max_bytes: int
    spool_keep_seconds: float
    resend_after_seconds: float
    nats_max_bytes: int
    max_pending_stats: int


class NoAnswerError(Exception):
    """No aggregator answers; clicks go on being counted."""


class Publisher:
    """Delivers this process's source and those that it adopts. One event loop, one thread."""

    def __init__(
        self, url: str, source: Source, root: Path, limits: Limits, slot: Slot, targets: Targets
    ) -> None:
        self._root, self._limits, self._slot = root, limits, slot
        self._targets = targets
        self._connection = Connection(url, f"clickmill-ingest-{source.id}")
        self._max_payload = MaxPayload(root / "max_payload")
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_stats = asyncio.Semaphore(limits.max_pending_stats)
        self._adopted: dict[asyncio.Task[None], Delivery] = {}
        self.own = Delivery(source, self._outbox(mark=0), slot, limits.nats_max_bytes)
        self.sealer = Sealer(source, self.own.outbox, self.own.disk, slot)

    def _outbox(self, mark: int | None) -> Outbox:
        limits = self._limits
        return Outbox(limits.spool_keep_seconds, limits.resend_after_seconds, mark)

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin sealing, adopting and connecting, each in a task of its own."""
        self._limit_frames()
        self._spawn(self._seal_for_ever())
        self._spawn(self._adopt_for_ever())
        self._spawn(self._connection.run())
        self._spawn(self._deliver())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._adopted.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a part of the worker broke; it ends, to be replaced", exc_info=error)
            asyncio.get_running_loop().call_soon(_die, error)

    async def stop(self, timeout: float) -> None:
        """Seal and publish what is left, for at most `timeout` seconds; the spool has the rest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                if await self.sealer.seal() and self._connection.is_connected:
                    await self.own.all_sent()
                    await self.own.close(self._connection)
        self._targets.save()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Our own lock is not let go of: a connection may still be counting, until we are gone.

    def problems(self) -> list[str]:
        """What is wrong, a sentence each; empty while all is well."""
        found = []
        if not self._connection.is_connected:
            why = self._connection.reason
            found.append(f"NATS can't be reached ({why}): clicks are counted and kept in the spool")
        if self.sealer.trouble:
            found.append(self.sealer.trouble)
        return found + [d.trouble for d in self._deliveries() if d.trouble][:MAX_TROUBLES]

    # --- sealing --------------------------------------------------------------------------------

    async def _seal_for_ever(self) -> None:
        interval = self._limits.flush_interval
        due = time.monotonic() + interval
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + interval, time.monotonic())
            self._limit_frames()
            await self.sealer.seal(edges_only=self._nobody_takes_frames())
            self.own.wake()
            self._gauge()
            self._targets.save()

    def _limit_frames(self) -> None:
        if self._connection.is_connected:
            self._max_payload.seen(self._connection.max_payload)
        self.sealer.counters.max_pairs = self._max_payload.pairs

    def _nobody_takes_frames(self) -> bool:
        connected = self._connection.is_connected
        return not connected or self.own.outbox.outstanding > MAX_OUTSTANDING

    def _deliveries(self) -> list[Delivery]:
        return [self.own, *self._adopted.values()]

    def _gauge(self) -> None:
        deliveries, slot = self._deliveries(), self._slot
        slot.set("clickmill_spool_bytes", sum(d.source.spool.size for d in deliveries))
        slot.set("clickmill_spool_frames", sum(d.outbox.outstanding for d in deliveries))
        slot.set("clickmill_spool_max_bytes", self._limits.spool_max_bytes * len(deliveries))
        slot.set("clickmill_frames_too_large", sum(d.too_large for d in deliveries))
        short = self.own.outbox.keep_short(time.monotonic())
        slot.set("clickmill_spool_keep_short_seconds", math.ceil(short))
        slot.set("clickmill_unsealed_clicks", self.sealer.counters.pending)
        slot.set("clickmill_workers_connected", self._connection.is_connected)
        slot.sample_process()

    # --- the connection -------------------------------------------------------------------------

    async def _deliver(self) -> None:
        connection = self._connection
        await connection.connected()
        self._limit_frames()
        try:
            await bus.ensure_stream(connection.jetstream(), self._limits.nats_max_bytes)
        except Exception as error:  # publishing tries again; clicks are counted meanwhile
            log.warning(
                "the stream can't be made yet (%r): see that NATS has JetStream and room for "
                "CLICKMILL_NATS_MAX_BYTES", error,
            )  # fmt: skip
        self._spawn(self.own.run(connection))
        await connection.subscribe(wire.BANNERS_CHANGED_SUBJECT, self._on_target)
        self._spawn(self._fetch_targets())

    async def stats(self, request: wire.StatsRequest) -> Answer:
        """The answer to a statistics request, as the aggregator gives it.

        Raises NoAnswerError where none answers within REQUEST_TIMEOUT_S, or where more than
        the allowed number are waiting already.
        """
        if self._pending_stats.locked():
            raise NoAnswerError
        async with self._pending_stats:
            try:
                reply = await self._connection.request(
                    wire.STATS_SUBJECT, msgspec.json.encode(request), REQUEST_TIMEOUT_S
                )
                headers = reply.headers or {}
                kind = headers.get(wire.CONTENT_TYPE_HEADER, "application/json")
                also = [(n.lower(), headers[n]) for n in wire.PASSED_ON_HEADERS if n in headers]
                status = int(headers[wire.STATUS_HEADER])
                return Answer(status, reply.data, [("content-type", kind), *also])
            except Exception as error:
                raise NoAnswerError from error

    # --- adopting -------------------------------------------------------------------------------

    async def _adopt_for_ever(self) -> None:
        while True:
            for delivery in list(self._adopted.values()):
                await self._seal_rest(delivery)
            # In a thread: a long spool takes longer to read than a heartbeat may be late.
            found = adopt(self._root, self._limits.spool_max_bytes)
            try:
                while (source := await asyncio.to_thread(next, found, None)) is not None:
                    await self._take_over(source)
            except OSError as error:
                log.error("%s can't be searched for what to adopt: %s", self._root, error)
            await asyncio.sleep(ADOPT_EVERY_S)

    async def _take_over(self, source: Source) -> None:
        outbox = self._outbox(mark=None)
        # Message IDs that nobody has used: what the dead worker has sent again under -r1, -r2
        # may be lost by now, and would be swallowed as known for two minutes.
        outbox.resends = random.randrange(1, MAX_FIRST_RESEND)
        for seq in source.spool.seqs():
            outbox.sealed(seq, time.monotonic())
        self._slot.add("clickmill_sources_adopted")
        self._slot.add("clickmill_spool_damages", len(source.spool.damages))
        delivery = Delivery(source, outbox, self._slot, self._limits.nats_max_bytes)
        await self._seal_rest(delivery)
        log.info("adopted %s with %d frames", source.id, source.spool.frames)
        task = self._spawn(self._deliver_and_remove(delivery))
        self._adopted[task] = delivery

    async def _seal_rest(self, delivery: Delivery) -> None:
        """Seal what a dead worker's epochs hold, if that is still to be done. Where the disk is
        full it waits, while the frames go out that the spool has: they make the room."""
        source, before = delivery.source, delivery.source.sealed_seq
        try:
            async with delivery.disk:
                await asyncio.to_thread(source.seal_rest)
        except (SpoolError, OSError) as error:
            log.error("%s: not all of it can be sealed yet: %s", source.directory, error)
        for seq in source.spool.seqs():
            if seq > before:
                delivery.outbox.sealed(seq, time.monotonic())
        delivery.wake()

    async def _deliver_and_remove(self, delivery: Delivery) -> None:
        try:
            await self._connection.connected()
            await delivery.run(self._connection)
            delivery.source.remove()
        except OSError as error:
            log.error("%s is done with and can't be removed: %s", delivery.source.directory, error)
        finally:
            delivery.source.release()

    # --- redirect targets -----------------------------------------------------------------------

    async def _on_target(self, message: Msg) -> None:
        self._targets.change(message.data)

    async def _fetch_targets(self) -> None:
        """The whole register now and then: broadcasts tell of changes, but may be missed."""
        while True:
            try:
                changes = self._targets.changes
                targets = await _all_targets(self._connection)
                if changes == self._targets.changes:
                    self._targets.replace(targets)
                    await asyncio.sleep(TARGETS_EVERY_S)
                else:  # it may be older than what we heard meanwhile: ask again
                    await asyncio.sleep(TARGETS_RETRY_S)
            except Exception as error:  # no aggregator yet: what the file holds goes on serving
                log.debug("the register of banners can't be fetched: %r", error)
                await asyncio.sleep(TARGETS_RETRY_S)


async def _all_targets(connection: Connection) -> dict[int, str]:
    """The whole register's targets, page by page. Raises NatsError, OSError, MsgspecError."""
    targets: dict[int, str] = {}
    after = b"-1"
    while after:
        reply = await connection.request(wire.BANNERS_SUBJECT, after, REQUEST_TIMEOUT_S)
        targets |= decode_targets(reply.data)
        after = (reply.headers or {}).get(wire.MORE_HEADER, "").encode()
    return targets


def _die(error: BaseException) -> None:
    raise SystemExit(1) from error

"""Batches with an Idempotency-Key: each becomes a frame, on disk and synced before it is answered.

Why a source of their own: a frame of counters holds whatever was counted meanwhile, and so could
not be left out where one batch of it turns out to be counted already. This source has a spool and
no counters, is made when the first such batch comes, and is shipped, adopted, closed and trimmed
like any other. Batches that wait are written together, with one sync.

Whether a key is new is decided in Postgres, in the transaction that counts. What is known here
before that saves frames, and finds most of the wrong bodies: the last keys of this worker, and
those that an aggregator knows, if one answers soon.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from clickmill import messages, wire
from clickmill.batches import KeyedBatch
from clickmill.contract.problem import Problem, too_many, unavailable
from clickmill.failpoints import failpoint
from ingest.durable.source import Source
from ingest.durable.spool import SpoolError
from ingest.metrics import Slot
from ingest.shipping.appender import Appender
from ingest.shipping.limits import Limits
from ingest.shipping.nats_link import NatsLink
from ingest.shipping.shipper import Shipper

MAX_WAITING: Final = 256
"""Batches that are not on disk yet: at most 41 MB."""
MAX_TOGETHER: Final = 64
"""Batches that are written with one sync."""
MAX_RECENT: Final = 10_000
ASK_TIMEOUT_S: Final = 0.25
NOT_ASKED_S: Final = 5.0
"""How long no aggregator is asked after one did not answer."""

_decode_reply: Final = msgspec.json.Decoder(messages.KeysReply).decode


class _Entry(NamedTuple):
    """A batch, and its outcome: `stored` fails with a Problem where nothing was counted."""

    batch: KeyedBatch
    stored: asyncio.Future[None]


class _Recent(NamedTuple):
    """A key that this worker knows, without its batch."""

    digest: UUID
    stored: asyncio.Future[None]


class KeyedBatches:
    """Those of one worker. `shippers` has the one of their source, once there is one."""

    def __init__(self, root: Path, link: NatsLink, limits: Limits, slot: Slot) -> None:
        self._root, self._link, self._limits, self._slot = root, link, limits, slot
        self._waiting: deque[_Entry] = deque()
        self._recent: OrderedDict[UUID, _Recent] = OrderedDict()
        self._arrived, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._appender: Appender | None = None
        self._not_asked_until = 0.0
        self.shippers: list[Shipper] = []

    async def count(self, batch: KeyedBatch) -> None:
        """Returns once the batch is sure to be counted, once. Raises Problem 413, 422, 429 or 503:
        then nothing of it was counted."""
        recent = self._recent.get(batch.key) or self._accept(batch)
        if recent.digest != batch.digest:
            raise _other_body()
        await asyncio.shield(recent.stored)

    def _accept(self, batch: KeyedBatch) -> _Recent:
        if batch.rows > (most := self._link.max_rows()):
            raise Problem(
                413, "batch_too_large",
                f"NATS takes {most} items with an Idempotency-Key at most: send several batches, "
                "or raise max_payload of the NATS server; nothing was counted",
            )  # fmt: skip
        if len(self._waiting) >= MAX_WAITING:
            sentence = "the disk is slow: send the batch again; nothing was counted"
            raise too_many("too_many_batches", sentence)
        entry = _Entry(batch, asyncio.get_running_loop().create_future())
        recent = self._recent[batch.key] = _Recent(batch.digest, entry.stored)
        self._waiting.append(entry)
        self._idle.clear()
        self._arrived.set()
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return recent

    async def run(self) -> None:
        """Write what waits, and ship it; until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    await self._write(group)
                self._idle.set()

    async def finish(self) -> None:
        """Returns once all that was accepted is on disk; nothing may be accepted any more."""
        await self._idle.wait()
        for shipper in self.shippers:
            shipper.source.accepting = False

    # --- to the disk --------------------------------------------------------------------------

    async def _write(self, group: asyncio.TaskGroup) -> None:
        together = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_TOGETHER))]
        fresh = await self._not_counted_yet(together)
        if not fresh:
            return
        try:
            await self._store([entry.batch for entry in fresh], group)
        except (SpoolError, OSError) as error:
            for entry in fresh:
                self._refuse(entry, _not_stored(error))
            return
        failpoint("batches.stored")
        for entry in fresh:
            entry.stored.set_result(None)

    async def _store(self, fresh: list[KeyedBatch], group: asyncio.TaskGroup) -> None:
        if self._appender is None:
            self._appender = await self._make_source(group)
        (shipper,) = self.shippers
        source, frames = shipper.source, []
        seq, total, now = source.sealed_seq, source.spool.last_total, time.time_ns()
        for batch in fresh:
            seq, total = seq + 1, total + batch.clicks
            frames.append(batch.frame(source.id, seq, now, total))
        await self._appender.append(frames)
        self._slot.add("clickmill_clicks", sum(batch.clicks for batch in fresh))
        self._slot.add("clickmill_keyed_batches", len(fresh))
        shipper.wake()

    async def _make_source(self, group: asyncio.TaskGroup) -> Appender:
        failpoint("batches.make_source")
        limits, make = self._limits, Source.create_for_batches
        source = await asyncio.to_thread(make, self._root, limits.spool_max_bytes)
        outbox = limits.outbox(mark=0)
        shipper = Shipper(source, outbox, self._slot, limits.stream, limits.node_name)
        self.shippers.append(shipper)
        group.create_task(self._link.ship(shipper))
        return Appender(source, outbox, shipper.disk, self._slot)

    def _refuse(self, entry: _Entry, problem: Problem) -> None:
        self._recent.pop(entry.batch.key, None)
        entry.stored.set_exception(problem)
        entry.stored.exception()  # seen: the client may be gone

    # --- what is counted already --------------------------------------------------------------

    async def _not_counted_yet(self, together: list[_Entry]) -> list[_Entry]:
        """Those whose key no aggregator knows; the others are answered."""
        digests = await self._ask([entry.batch.key for entry in together])
        fresh = []
        for entry, digest in zip(together, digests, strict=True):
            if digest is None:
                fresh.append(entry)
            elif digest == entry.batch.digest:
                entry.stored.set_result(None)
            else:
                self._refuse(entry, _other_body())
        return fresh

    async def _ask(self, keys: list[UUID]) -> list[UUID | None]:
        unknown: list[UUID | None] = [None] * len(keys)
        connection = self._link.connection
        if not connection.is_connected or time.monotonic() < self._not_asked_until:
            return unknown
        request = msgspec.json.encode(messages.KeysRequest(keys))
        try:
            reply = await connection.request(wire.KEYS_SUBJECT, request, ASK_TIMEOUT_S)
            digests = _decode_reply(reply.data).digests
        except Exception:  # no aggregator, no connection: Postgres decides later
            self._not_asked_until = time.monotonic() + NOT_ASKED_S
            return unknown
        return digests if len(digests) == len(keys) else unknown


def _other_body() -> Problem:
    return Problem(
        422, "idempotency_key_reused",
        "this Idempotency-Key was sent with another body: send new clicks with a new key; nothing "
        "of this body was counted",
    )  # fmt: skip


def _not_stored(error: Exception) -> Problem:
    return unavailable(
        "not_stored",
        f"the batch can't be written to disk ({error}): send it again with the same key; nothing "
        "was counted",
    )

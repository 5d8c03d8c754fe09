"""Asks JetStream for the messages of this aggregator's shards, one pull request after the other.

Why not the client's `fetch`: it stalls after an interruption, and returns nothing forever once
its consumer was deleted. A raw request with a short life and a heartbeat can't: whatever goes
wrong, the next one goes out a second later, and finds out whether the consumer is still there.

One subscription takes all replies. The statuses of a request come to its own subject
(`<inbox>.<shard>.<number>`), so one that is late can't be taken for that of the next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec
import nats.errors
from nats.aio.msg import Msg

from clickmill import bus, wire
from clickmill.connection import Connection
from clickmill.stream import StreamOptions, ensure_stream

PULL_MESSAGES: Final = 1024
PULL_BYTES: Final = 2 * 1024 * 1024
EXPIRES_S: Final = 1.0
HEARTBEAT_S: Final = 0.5
GRACE_S: Final = 0.5
RETRY_S: Final = 0.25
REVOKE_TIMEOUT_S: Final = 2.0
REPAIR_TIMEOUT_S: Final = 2.0
"""For one request. A cluster that has lost its leader does not answer until it elects another."""

_HEARTBEAT: Final = "100"
_ORDINARY_ENDS: Final = frozenset({"404", "408"})
_STATUS: Final = "Status"
_NS: Final = 1_000_000_000

_REQUEST: Final = msgspec.json.encode(
    {
        "batch": PULL_MESSAGES,
        "max_bytes": PULL_BYTES,
        "expires": int(EXPIRES_S * _NS),
        "idle_heartbeat": int(HEARTBEAT_S * _NS),
    }
)

log = logging.getLogger("clickmill.pull")


class _Shard:
    """The pull of one shard: at most one request under way."""

    def __init__(self) -> None:
        self.number = 0
        self.left = 0
        self.seen_at = 0.0
        self.ended = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.trouble = "it has just begun"
        """Why stream and consumer must be looked after, as before the first request; "" if not."""
        self.stopping = False
        self.task: asyncio.Task[None] | None = None

    def end(self, trouble: str = "") -> None:
        self.trouble = self.trouble or trouble
        self.ended.set()


class Puller:
    """Pulls any number of shards and hands each message to `receive`, with its shard."""

    def __init__(
        self, connection: Connection, receive: Callable[[Msg, int], None], stream: StreamOptions
    ) -> None:
        """`stream`: what a stream is like that has to be made again."""
        self._connection, self._receive, self._stream = connection, receive, stream
        self._inbox = connection.new_inbox()
        self._shards: dict[int, _Shard] = {}
        self.pending: dict[int, int] = {}
        """Messages of each shard that the stream still had at the last delivery."""
        self._stream_checked = -RETRY_S
        self._stream_lock = asyncio.Lock()

    async def start(self) -> None:
        """Subscribe to the replies."""
        await self._connection.subscribe(f"{self._inbox}.>", self._on_message)

    def assign(self, shard: int) -> None:
        """Begin pulling a shard."""
        state = self._shards[shard] = _Shard()
        self._begin(shard, state)

    def _begin(self, shard: int, state: _Shard) -> None:
        state.task = asyncio.get_running_loop().create_task(self._pull(shard, state))
        state.task.add_done_callback(lambda task: self._ended(shard, state, task))

    def _ended(self, shard: int, state: _Shard, task: asyncio.Task[None]) -> None:
        """A pull ends when its shard is revoked. One that ends by itself begins again, or its shard
        would stay unread while this process has the lease."""
        if state.stopping:
            return
        error = None if task.cancelled() else task.exception()
        log.error("the pull of shard %d broke; it begins again", shard, exc_info=error)
        state.trouble = f"its pull broke: {error!r}"
        asyncio.get_running_loop().call_later(RETRY_S, self._begin, shard, state)

    async def revoke(self, shard: int) -> None:
        """Stop pulling a shard; returns once no message of it is under way to this process."""
        state = self._shards.get(shard)
        if state is None or state.task is None:
            return
        state.stopping = True
        state.room.set()
        await asyncio.wait([state.task], timeout=REVOKE_TIMEOUT_S)
        state.task.cancel()
        self._shards.pop(shard, None)
        self.pending.pop(shard, None)

    async def revoke_all(self) -> None:
        """Stop pulling altogether."""
        await asyncio.gather(*(self.revoke(shard) for shard in list(self._shards)))

    def is_pulling(self, shard: int) -> bool:
        """Whether this shard is pulled here."""
        return shard in self._shards

    @property
    def trouble(self) -> dict[int, str]:
        """The shards that have no working pull, or none yet, and why."""
        return {shard: state.trouble for shard, state in self._shards.items() if state.trouble}

    def hold_back(self, shard: int, full: bool) -> None:
        """While `full`, no further request goes out for this shard."""
        state = self._shards.get(shard)
        if state is not None and not state.stopping:
            if full:
                state.room.clear()
            else:
                state.room.set()

    # --- one shard ------------------------------------------------------------------------------

    async def _pull(self, shard: int, state: _Shard) -> None:
        while not state.stopping:
            try:
                await state.room.wait()
                if state.trouble:
                    await self._repair(shard)
                    state.trouble = ""
                if not state.stopping:
                    await self._request(shard, state)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.debug("shard %d: %s", shard, error)
                state.trouble = bus.words(error)
            if state.trouble:
                await asyncio.sleep(RETRY_S)

    async def _request(self, shard: int, state: _Shard) -> None:
        state.number += 1
        state.left = PULL_MESSAGES
        state.ended.clear()
        state.seen_at = time.monotonic()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{wire.STREAM}.{bus.consumer_name(shard)}"
        reply = f"{self._inbox}.{shard}.{state.number}"
        await self._connection.publish(subject, _REQUEST, reply)
        while not state.ended.is_set():
            patience = state.seen_at + EXPIRES_S + GRACE_S - time.monotonic()
            if patience <= 0:
                state.trouble = "a request for messages was not answered"
                return
            try:
                async with asyncio.timeout(patience):
                    await state.ended.wait()
            except TimeoutError:
                continue

    async def _repair(self, shard: int) -> None:
        """Make stream and consumer where they are missing. Raises where NATS does not answer."""
        async with self._stream_lock:
            if time.monotonic() - self._stream_checked > RETRY_S:
                await ensure_stream(self._connection.jetstream(REPAIR_TIMEOUT_S), self._stream)
                self._stream_checked = time.monotonic()
        await bus.ensure_consumer(self._connection.jetstream(REPAIR_TIMEOUT_S), shard)

    # --- what comes in --------------------------------------------------------------------------

    async def _on_message(self, message: Msg) -> None:
        status = message.headers.get(_STATUS) if message.headers and not message.data else None
        if status is not None and message.subject.startswith(self._inbox):
            self._on_status(message, status)
            return
        shard = shard_in(message.subject)
        state = self._shards.get(shard)
        if state is not None:
            self.pending[shard] = int(message.reply.rpartition(".")[2])
            state.seen_at = time.monotonic()
            state.left -= 1
            if state.left <= 0:
                state.end()
        self._receive(message, max(shard, 0))

    def _on_status(self, message: Msg, status: str) -> None:
        shard, _, number = message.subject[len(self._inbox) + 1 :].partition(".")
        state = self._shards.get(int(shard))
        if state is None or int(number) != state.number:
            return
        state.seen_at = time.monotonic()
        if status == _HEARTBEAT:
            return
        why = (message.headers or {}).get("Description", "")
        ordinary = status in _ORDINARY_ENDS or "MaxBytes" in why
        state.end("" if ordinary else why or f"status {status}")


def shard_in(subject: str) -> int:
    """The shard in clickmill.deltas.<shard>.<source> or clickmill.direct.<shard>.<source>; -1 where
    there is none."""
    part = "".join(subject.split(".")[2:3])
    return int(part) if part.isascii() and part.isdigit() and len(part) < 4 else -1

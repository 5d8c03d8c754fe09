"""Notices a stream that answers questions and takes no message any more, and makes it again.

Why: once its disk was full, nats-server refuses every message of that stream until it is started
again, even when there is room (seen with 2.15: publishing times out forever). NATS is transport
alone: what goes with the stream is sent again from the spools. A cluster without a quorum does
not answer the question either, and is left alone. So must a stream be that refuses one client
alone: the caller makes sure first that it may publish at all.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import BadRequestError

from clickmill import wire
from clickmill.retry import Backoff

STUCK_AFTER_S: Final = 15.0
"""How long no sender's message must have been taken: far above a leader change (4 to 9 s)."""
STUCK_TIMEOUTS: Final = 3
"""How many of this sender's messages must have timed out meanwhile. With few clicks there are few:
what the stream does not take is soon committed past it (see `direct`), and not sent again."""
MAKE_TRIES: Final = 6

log = logging.getLogger("clickmill.stuck")


class StuckStream:
    """One sender's observations. Time comes in as monotonic seconds."""

    def __init__(self) -> None:
        self._seen: tuple[int, float] | None = None
        self._timeouts = 0

    def took(self) -> None:
        """A message was taken: all is well."""
        self._seen = None

    async def timed_out(self, jetstream: JetStreamContext, now: float) -> bool:
        """A message was not taken; whether the stream was made again because of it.

        Raises nats errors where the server does not answer.
        """
        info = await jetstream.stream_info(wire.STREAM)
        last = info.state.last_seq
        if self._seen is None or self._seen[0] != last:
            self._seen, self._timeouts = (last, now), 0
        self._timeouts += 1
        if now - self._seen[1] >= STUCK_AFTER_S and self._timeouts >= STUCK_TIMEOUTS:
            self._seen = None
            await jetstream.delete_stream(wire.STREAM)
            await _make_again(jetstream, info.config)
            return True
        return False


async def _make_again(jetstream: JetStreamContext, config: StreamConfig) -> None:
    """As it was: its replicas, its place and its size may be an operator's choice, and are
    known here alone. Raises nats errors where the server refuses for seconds."""
    backoff = Backoff(0.1)
    for _ in range(MAKE_TRIES):
        try:
            await _make(jetstream, config)
        except NatsError as error:
            log.warning("the stream can't be made again yet: %s", error)
            await asyncio.sleep(backoff.pause())
        else:
            return
    await _make(jetstream, config)


async def _make(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.add_stream(config)
    except BadRequestError:  # another process was first, and made it as it makes one
        await jetstream.update_stream(config)

"""Notices a stream that answers questions and takes no message any more, and makes it anew.

Why: once its disk was full, nats-server refuses every message of that stream until it is started
again, even when there is room (seen with 2.15: publishing times out for ever). NATS is transport
alone: what goes with the stream is sent again from the spools. A cluster without a quorum does
not answer the question either, and is left alone.
"""

from __future__ import annotations

from typing import Final

from nats.js import JetStreamContext

from clickmill import bus, wire

STUCK_AFTER_S: Final = 15.0
"""How long nobody's message must have been taken: far above the change of a leader (4 to 7 s)."""


class StuckStream:
    """One sender's observations. Time comes in as monotonic seconds."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._seen: tuple[int, float] | None = None

    def took(self) -> None:
        """A message was taken: all is well."""
        self._seen = None

    async def timed_out(self, jetstream: JetStreamContext, now: float) -> bool:
        """A message was not taken; whether the stream was made anew because of it.

        Raises nats errors where the server does not answer.
        """
        last = (await jetstream.stream_info(wire.STREAM)).state.last_seq
        if self._seen is None or self._seen[0] != last:
            self._seen = (last, now)
        elif now - self._seen[1] >= STUCK_AFTER_S:
            self._seen = None
            await jetstream.delete_stream(wire.STREAM)
            await bus.ensure_stream(jetstream, self._max_bytes)
            return True
        return False

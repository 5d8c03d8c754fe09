"""Detects an embedded server that hangs. It sends no heartbeats, so it is probed.

There are two signs. If the kernel reports the server or a child of it as stopped, a long wait is
useless. If the server answers no probe, the machine may be busy or the disk slow; killing the
server would make that worse, so the limit is long. Both count checks and probes instead of reading
a clock, so that a supervisor that was itself suspended kills no server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from stack.supervise.process import children_of, is_stopped

Probe = Callable[[], Awaitable[bool]]
"""Sends a request to a server; whether it answers correctly within ANSWER_SECONDS."""

READY_EVERY_SECONDS: Final = 0.02
LOOK_EVERY_SECONDS: Final = 0.5
STOPPED_SECONDS: Final = 5.0
PROBE_EVERY_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 5.0
UNANSWERED_SECONDS: Final = 60.0

STOPPED_LOOKS: Final = round(STOPPED_SECONDS / LOOK_EVERY_SECONDS)
# The new server has the rest of 15 s to start.
assert STOPPED_SECONDS + 2 * LOOK_EVERY_SECONDS < 8
assert UNANSWERED_SECONDS > 5 * (ANSWER_SECONDS + PROBE_EVERY_SECONDS)


async def wait_ready(probe: Probe) -> None:
    """Returns once the probe succeeds."""
    while not await probe():  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(READY_EVERY_SECONDS)


async def wait_stopped(pid: int) -> str:
    """Returns the reason once the server or a child of it was stopped for too long."""
    looks = 0
    while looks <= STOPPED_LOOKS:
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        looks = looks + 1 if any(map(is_stopped, [pid, *children_of(pid)])) else 0
    return f"was stopped by a signal for {STOPPED_SECONDS:g} s"


async def wait_unanswered(probe: Probe) -> str:
    """Returns the reason once no probe was answered for too long."""
    patience = Patience()
    while not patience.is_over:
        began = time.monotonic()
        answered = await probe()
        await asyncio.sleep(PROBE_EVERY_SECONDS)
        patience.probed(answered, time.monotonic() - began)
    return f"answered no probe for {UNANSWERED_SECONDS:g} s"


class Patience:
    """Adds up the seconds without an answered probe. Pure: the seconds are arguments."""

    def __init__(self) -> None:
        self._silent = 0.0

    def probed(self, answered: bool, seconds: float) -> None:
        """Duration of a probe and its pause; any excess is the supervisor's own suspension."""
        took = min(seconds, ANSWER_SECONDS + PROBE_EVERY_SECONDS)
        self._silent = 0.0 if answered else self._silent + took

    @property
    def is_over(self) -> bool:
        """Whether the server must be restarted."""
        return self._silent >= UNANSWERED_SECONDS

"""Whether an embedded server hangs. It knows nothing of us, so it is asked, and looked at.

Two signs. The kernel says that the server or a child of it was stopped: nothing can come of
waiting long. It answers no probe: that may be a busy machine or a slow disk, where killing the
server would make things worse, so there the patience is long. Neither needs a clock: what is
counted is looks and probes, so that a supervisor that was asleep itself kills nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from stack.supervise.process import children_of, is_stopped

Probe = Callable[[], Awaitable[bool]]
"""Asks a server something, within ANSWER_SECONDS; whether it answers as it should."""

READY_EVERY_SECONDS: Final = 0.02
LOOK_EVERY_SECONDS: Final = 0.5
STOPPED_SECONDS: Final = 5.0
PROBE_EVERY_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 5.0
UNANSWERED_SECONDS: Final = 60.0

STOPPED_LOOKS: Final = round(STOPPED_SECONDS / LOOK_EVERY_SECONDS)
# The new server then has the rest of 15 s to be there.
assert STOPPED_SECONDS + 2 * LOOK_EVERY_SECONDS < 8
assert UNANSWERED_SECONDS > 5 * (ANSWER_SECONDS + PROBE_EVERY_SECONDS)


async def wait_ready(probe: Probe) -> None:
    """Returns once the probe succeeds."""
    while not await probe():  # noqa: ASYNC110  # the server tells nobody
        await asyncio.sleep(READY_EVERY_SECONDS)


async def wait_stopped(pid: int) -> str:
    """Returns why the server is taken to hang, once it or a child of it was stopped for long."""
    looks = 0
    while looks <= STOPPED_LOOKS:
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        looks = looks + 1 if any(map(is_stopped, [pid, *children_of(pid)])) else 0
    return f"was stopped by a signal for {STOPPED_SECONDS:g} s"


async def wait_unanswered(probe: Probe) -> str:
    """Returns why the server is taken to hang, once no probe was answered for long."""
    patience = Patience()
    while not patience.is_over:
        began = time.monotonic()
        answered = await probe()
        await asyncio.sleep(PROBE_EVERY_SECONDS)
        patience.probed(answered, time.monotonic() - began)
    return f"gave no answer for {UNANSWERED_SECONDS:g} s"


class Patience:
    """Adds up the seconds for which every probe was in vain. Pure: they come as arguments."""

    def __init__(self) -> None:
        self._silent = 0.0

    def probed(self, answered: bool, seconds: float) -> None:
        """A probe and the pause after it took so long; more than they may was our own sleep."""
        took = min(seconds, ANSWER_SECONDS + PROBE_EVERY_SECONDS)
        self._silent = 0.0 if answered else self._silent + took

    @property
    def is_over(self) -> bool:
        """Whether the server is to be replaced."""
        return self._silent >= UNANSWERED_SECONDS

"""Ending tasks: cancel them, and wait until they have ended.

Why not one `cancel()`: on Python 3.11 `asyncio.wait_for` loses a cancellation that arrives together
with the result it waits for (https://github.com/python/cpython/issues/86296), and nats-py waits
with it everywhere. The task then goes on as if nothing had happened, and its end never comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Final

AGAIN_S: Final = 0.5
"""Seconds that a cancelled task has to end before it is cancelled once more."""

log = logging.getLogger("clickmill.tasks")


async def end(tasks: Collection[asyncio.Task[Any]], again_s: float = AGAIN_S) -> None:
    """Cancel `tasks` until all of them have ended. What they raised stays in them."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=again_s)
        for task in running:
            log.warning("%s lost its cancellation: cancelling it again", task.get_coro())
